"""Rows of weight 0: their predictions are differentiable functions of all scores, and limits of small weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl

OPTIONS: dict[str, dict[str, Any]] = {
    "euclidean": {"bounds": (0.0, 1.0)},
    "entropic": {"geometry": "entropic"},
    "likelihood": {"geometry": "likelihood"},
    "euclidean, simplex": {"bounds": "simplex"},
    "entropic, simplex": {"bounds": "simplex", "geometry": "entropic"},
}
RULES: dict[str, Any] = {
    "nested": lambda t: [fl.DemographicParity("a", t), fl.DemographicParity(("a", "b"), t)],
    "crossed": lambda t: [fl.DemographicParity("a", t), fl.DemographicParity("b", t)],
    "repeated": lambda t: [fl.DemographicParity("a", t)] * 2 + [fl.DemographicParity(("a", "b"), t)],
    "odds and parities": lambda t: [fl.EqualizedOdds("a", t), *(fl.DemographicParity(name, t) for name in "ab")],
    "dense": lambda t: [fl.CovarianceBound("v", t), fl.CovarianceBound("twice", 2 * t), fl.DemographicParity("a", t)],
}  # fmt: skip
EVERYWHERE = pytest.mark.parametrize("geometry", OPTIONS)


def _batch(geometry: str, seed: int) -> tuple[torch.Tensor, dict[str, Any], np.ndarray]:
    """A batch with a cell in which nothing counts, and single rows of weight 0."""
    random = np.random.default_rng(seed)
    n = 24
    a, b = random.integers(0, 2, n), random.integers(0, 3, n)
    a[:6], b[:6] = np.arange(6) % 2, np.arange(6) // 2
    weights = random.integers(1, 4, n).astype(float)
    weights[(a == 1) & (b == 2)] = 0.0
    weights[random.random(n) < 0.1] = 0.0
    v = random.normal(size=n)
    twice = 2.0 * v + (weights == 0) * random.normal(size=n)  # the same rule for all that count
    simplex = "simplex" in geometry
    scores = random.dirichlet(np.full(3, 2.0), n) if simplex else random.uniform(0.1, 0.9, n)
    features = {"a": a, "b": b, "v": v, "twice": twice}
    y = random.integers(0, 3 if simplex else 2, n)
    return torch.tensor(scores), {"sensitive_features": features, "y": y, **OPTIONS[geometry]}, weights


@EVERYWHERE
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("tolerance", [0.0, 0.02])
def test_the_gradient_of_a_row_of_weight_zero(geometry: str, rules: str, tolerance: float) -> None:
    for seed in range(3):
        scores, arguments, weights = _batch(geometry, seed)
        constraints = RULES[rules](tolerance)

        def value_at(at: torch.Tensor, arguments: Any = arguments, weights: Any = weights) -> torch.Tensor:
            return fl.project(at, constraints, sample_weight=weights, **arguments).value  # noqa: B023

        random = np.random.default_rng(seed)
        upstream = torch.tensor(random.normal(size=scores.shape) * (weights == 0).reshape(-1, *[1] * (scores.ndim - 1)))
        change = torch.tensor(random.normal(size=scores.shape))
        change = change - change.mean(-1, keepdim=True) if scores.ndim == 2 else change
        at = scores.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((value_at(at) * upstream).sum(), at)
        h = 1e-6
        ends = [(value_at(scores + s * h * change) * upstream).sum() for s in (1.0, -1.0)]
        slope, along = float(ends[0] - ends[1]) / (2 * h), float((gradient * change).sum())
        assert along == pytest.approx(slope, abs=1e-5 * max(1.0, abs(slope))), (seed, rules)
        _, tangent = torch.func.jvp(value_at, (scores,), (change,))
        assert float((tangent * upstream).sum()) == pytest.approx(slope, abs=1e-5 * max(1.0, abs(slope)))


@EVERYWHERE
def test_rows_that_count_are_where_they_were_and_met(geometry: str) -> None:
    scores, arguments, weights = _batch(geometry, 0)
    counted = weights > 0
    features = {name: column[counted] for name, column in arguments["sensitive_features"].items()}
    fewer = {**arguments, "sensitive_features": features, "y": arguments["y"][counted]}
    for rules in RULES.values():
        whole = fl.project(scores, rules(0.0), sample_weight=weights, **arguments)
        alone = fl.project(scores[torch.tensor(counted)], rules(0.0), sample_weight=weights[counted], **fewer)
        assert (whole.value[torch.tensor(counted)] - alone.value).abs().max() < 1e-10
        assert whole.certificate.holds


@EVERYWHERE
def test_it_is_the_limit_of_small_weights(geometry: str) -> None:
    """Value and gradient, where the prices are those of the statements alone and every group counts."""
    scores, arguments, weights = _batch(geometry, 1)
    constraints = RULES["crossed"](0.02)
    upstream = torch.tensor(np.random.default_rng(0).normal(size=scores.shape))
    found = []
    for least in (0.0, 1e-7):
        at = scores.clone().requires_grad_()
        result = fl.project(at, constraints, sample_weight=np.maximum(weights, least), **arguments)
        (gradient,) = torch.autograd.grad((result.value * upstream).sum(), at)
        found.append((result.value.detach(), gradient))
    (value, gradient), (near, near_gradient) = found
    assert (value - near).abs().max() < 1e-5
    assert (gradient - near_gradient).abs().max() < 1e-4 * max(1.0, float(gradient.abs().max()))


def test_scores_of_weight_zero_reach_nothing_but_their_own_prediction() -> None:
    scores, arguments, weights = _batch("entropic", 2)
    at = scores.clone().requires_grad_()
    value = fl.project(at, RULES["nested"](0.0), sample_weight=weights, **arguments).value
    upstream = torch.tensor((weights > 0).astype(float))
    (gradient,) = torch.autograd.grad((value * upstream).sum(), at)
    assert (gradient[torch.tensor(weights == 0)] == 0).all()


@pytest.mark.parametrize("geometry", ["euclidean", "entropic", "likelihood"])
def test_several_problems_at_once_move_them_as_one_does(geometry: str) -> None:
    """Of two groups only label 1 counts, so that their two limits are one, and the price of each of them is open."""
    random = np.random.default_rng(4)
    scores, group, y = (
        torch.tensor(random.uniform(0.2, 0.8, (20, 5))),
        np.array([0, 0, 1, 1, 2]),
        np.array([0, 1, 0, 1, 1]),
    )
    weights = random.integers(1, 4, (20, 5)) * [0, 1, 1, 1, 1]
    constraints = [fl.DemographicParity("g", 0.01), fl.EqualOpportunity("g", 0.01)]
    known, options = {"sensitive_features": {"g": group}}, OPTIONS[geometry]
    found = fl.project_many(scores, constraints, y=np.tile(y, (20, 1)), sample_weight=weights, **known, **options)
    for row in range(20):
        one = fl.project(scores[row], constraints, y=y, sample_weight=weights[row], **known, **options)
        assert torch.allclose(found.value[row], one.value, atol=1e-9), row
