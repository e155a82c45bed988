"""Class logits of several hundred: almost every row is a corner of the simplex, and limits are met by the tails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl

RULES: dict[str, Any] = {
    "parity": lambda t: fl.DemographicParity("a", t),
    "opportunity": lambda t: fl.EqualOpportunity("a", t),
    "strata": lambda t: fl.ConditionalParity("a", given="s", tolerance=t),
}


def _batch(seed: int, n: int, classes: int, groups: int, scale: float) -> tuple[torch.Tensor, dict[str, Any]]:
    random = np.random.default_rng(seed)
    logits = torch.tensor(random.normal(size=(n, classes)) * scale)
    a = np.arange(n) % groups
    s = (np.arange(n) // groups) % 2
    return logits, {"sensitive_features": {"a": a, "s": s}, "y": random.integers(0, 2, n)}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("n", "classes", "groups", "scale"), [(30, 5, 4, 800.0), (30, 5, 3, 400.0), (24, 6, 3, 600.0), (60, 3, 4, 800.0)]
)
@pytest.mark.parametrize("tolerance", [0.0, 0.01, 0.05])
def test_logits_of_several_hundred(  # noqa: PLR0917 - parameters
    rule: str, n: int, classes: int, groups: int, scale: float, tolerance: float
) -> None:
    logits, arguments = _batch(n + classes, n, classes, groups, scale)
    constraint = RULES[rule](tolerance)
    found = fl.project(logits, constraint, bounds="simplex", geometry="entropic", from_logits=True, **arguments)
    assert found.certificate.holds
    np.testing.assert_allclose(found.value.sum(dim=1).numpy(), 1.0, atol=1e-12)
