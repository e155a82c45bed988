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


# A tolerance of 0 within strata of a few rows can end in the error below.
CASES = [(rule, tolerance) for rule in RULES for tolerance in (0.0, 0.01, 0.05) if (rule, tolerance) != ("strata", 0.0)]


@pytest.mark.parametrize(("rule", "tolerance"), CASES)
@pytest.mark.parametrize(
    ("n", "classes", "groups", "scale"), [(30, 5, 4, 800.0), (30, 5, 3, 400.0), (24, 6, 3, 600.0), (60, 3, 4, 800.0)]
)
def test_logits_of_several_hundred(  # noqa: PLR0917 - parameters
    rule: str, n: int, classes: int, groups: int, scale: float, tolerance: float
) -> None:
    logits, arguments = _batch(n + classes, n, classes, groups, scale)
    constraint = RULES[rule](tolerance)
    found = fl.project(logits, constraint, bounds="simplex", geometry="entropic", from_logits=True, **arguments)
    assert found.certificate.holds
    np.testing.assert_allclose(found.value.sum(dim=1).numpy(), 1.0, atol=1e-12)


def test_an_error_speaks_of_the_log_odds_where_they_are_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, arguments = _batch(35, 30, 5, 4, 800.0)
    monkeypatch.setattr("fairlayer.solve.elastic._MOST_STEPS", 1)
    options: dict[str, Any] = {"bounds": "simplex", "geometry": "entropic", "from_logits": True, **arguments}
    with pytest.raises(fl.errors.SolverError, match=r"log-odds are beyond 50, .* temperature"):
        fl.project(logits, RULES["strata"](0.0), **options)
    found = fl.project(logits / 20.0, RULES["strata"](0.0), **options)
    assert found.certificate.holds
