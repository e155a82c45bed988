"""A program: project problems of the law suite in this process, and write what came out, and how it was computed.

python -m tests.projection.law_values FILE
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from typing import Any

import numpy as np
import torch

import fairlayer as fl
from fairlayer.fused import loaded
from fairlayer.passes import compiled
from tests.core.cases import BOX, ENTROPIC, LIKELIHOOD, LINE, random_case, solo_case
from tests.core.problems import SOLO_KINDS, constraint

SEEDS = 6
BOXES_OF_LAYERS: list[dict[str, Any]] = [
    {"bounds": (0.0, 1.0)},
    {"bounds": None},
    {"geometry": "entropic"},
    {"geometry": "likelihood"},
    {"geometry": "entropic", "from_logits": True},
]


def cases() -> list[Any]:
    """Problems of each kind of rule, and mixtures of them, in each geometry of the box."""
    found = []
    for domain in (LINE, BOX, ENTROPIC, LIKELIHOOD):
        found += [random_case(seed, domain) for seed in range(SEEDS)]
        found += [solo_case(kind, 1, domain) for kind in SOLO_KINDS]
    return found


def value_and_gradient(case: Any) -> np.ndarray:
    """Project a case, and differentiate a loss of it."""
    scores = torch.tensor(case.given(), requires_grad=True)
    rules = [constraint(rule) for rule in case.rules]
    options = {"geometry": case.domain.geometry, "from_logits": case.from_logits}
    given = case.views[0].arguments()
    if case.domain.geometry != "euclidean":
        given.pop("bounds")
    value = fl.project(scores, rules, **given, **options).value
    (value * torch.linspace(-1, 2, len(value), dtype=torch.float64)).sum().backward()
    assert scores.grad is not None
    return np.concatenate([value.detach().numpy(), scores.grad.numpy()])


def by_layers() -> list[np.ndarray]:
    """One parity between two groups, which layers solve in a way of its own, often enough that all is loaded."""
    found = []
    for options in BOXES_OF_LAYERS:
        layer = fl.FairProjection([fl.DemographicParity("g", tolerance=0.01)], **options)
        layer.fit_categories({"g": [0, 1]})
        for seed in range(10):
            random = np.random.default_rng(seed)
            codes = torch.tensor(np.append([0, 1], random.integers(0, 2, 58)))
            z = np.clip(random.beta(2, 3, 60) + 0.1 * codes.numpy(), 0.01, 0.99)
            given = torch.tensor(np.log(z / (1 - z)) if options.get("from_logits") else z, requires_grad=True)
            value = layer(given, sensitive_features={"g": codes})
            (value * torch.linspace(-1, 2, 60, dtype=torch.float64)).sum().backward()
            assert given.grad is not None
            found.append(np.concatenate([value.detach().numpy(), given.grad.numpy()]))
    return found


def main() -> None:
    """Write values to the file, and print how they were made."""
    compiled._FROM = 2  # samples: all problems go by the compiled sweeps, where there are any
    scores, features = torch.rand(3_000, dtype=torch.float64), {"g": torch.arange(3_000) % 3}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        start = time.process_time()
        first = fl.project(scores, fl.DemographicParity("g", 0.0), sensitive_features=features)
        seconds = time.process_time() - start
        assert first.certificate.holds
        values = by_layers() + [value_and_gradient(case) for case in cases()]
    np.savez(sys.argv[1], *values)
    print(
        json.dumps({"seconds": seconds, "loaded": loaded() is not None, "told": [str(each.message) for each in told]})
    )


if __name__ == "__main__":
    main()
