"""Each geometry by itself: its step by brute-force minimisation, its derivatives by differences, torch beside NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize
from scipy.special import expit, softmax

import fairlayer as fl
from fairlayer.geometry import (
    Entropic,
    EntropicSimplex,
    Euclidean,
    EuclideanSimplex,
    Geometry,
    Likelihood,
    geometry_of,
)
from fairlayer.geometry.probabilities import at_the_ends, inner_margin, moved_inside

NUMBERS = [(Euclidean(), None, None), (Euclidean(), -0.3, 0.8), (Entropic(), 0.0, 1.0), (Likelihood(), 0.0, 1.0)]
ROWS = [(EuclideanSimplex(), None, None), (EntropicSimplex(), None, None)]
ALL = pytest.mark.parametrize(("rule", "lower", "upper"), NUMBERS + ROWS, ids=repr)


def _draw(rule: Geometry, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    shape = (20, 4) if rule.on_simplex else (60,)
    x = 1.5 * random.normal(size=shape)
    x = expit(x) if isinstance(rule, Likelihood) else x
    return x, 10.0 ** random.uniform(-2, 1, size=shape[0])[:, *[None] * (len(shape) - 1)] * random.normal(size=shape)


def _d(rule: Geometry, y: np.ndarray, x: np.ndarray) -> float:
    """The divergence of one sample, from its formula."""
    if rule.name == "euclidean":
        return float(0.5 * ((y - x) ** 2).sum())
    pairs = [(y, softmax(x))] if rule.on_simplex else [(y, expit(x)), (1 - y, expit(-x))]
    if rule.name == "likelihood":
        pairs = [(x, y), (1 - x, 1 - y)]
    return float(sum((np.asarray(a) * np.log(np.asarray(a) / b)).sum() for a, b in pairs))


def _slope(rule: Geometry, y: float, x: float, q: float) -> float:
    """The derivative by y of d(y, x) + q y of a number."""
    if rule.name == "euclidean":
        return y - x + q
    return (np.log(y / (1 - y)) - x if rule.name == "entropic" else (y - x) / (y * (1 - y))) + q


def _root(rule: Geometry, x: float, q: float, low: float, high: float) -> float:
    return float(brentq(lambda y: _slope(rule, y, x, q), low, high))


@pytest.mark.parametrize(("rule", "lower", "upper"), NUMBERS, ids=repr)
def test_the_step_of_a_number_is_the_minimiser(rule: Geometry, lower: Any, upper: Any) -> None:
    x, q = _draw(rule)
    found, _ = rule.step(x, q, lower, upper)
    edge = 0.0 if rule.name == "euclidean" else 1e-15
    low, high = (-100.0 if lower is None else lower + edge), (100.0 if upper is None else upper - edge)
    for i in range(len(x)):
        ends = _slope(rule, low, x[i], q[i]), _slope(rule, high, x[i], q[i])
        best = low if ends[0] > 0 else high if ends[1] < 0 else _root(rule, x[i], q[i], low, high)
        assert found[i] == pytest.approx(best, abs=2e-12)


@pytest.mark.parametrize(("rule", "lower", "upper"), ROWS, ids=repr)
def test_the_step_of_a_row_is_the_minimiser(rule: Geometry, lower: Any, upper: Any) -> None:
    x, q = _draw(rule)
    found, _ = rule.step(x, q, lower, upper)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-15)
    assert (found >= 0).all()
    random = np.random.default_rng(1)
    for i in range(len(x)):
        here = _d(rule, np.clip(found[i], 1e-300, None), x[i]) + q[i] @ found[i]
        for other in random.dirichlet(np.full(4, 0.5), size=100):
            for share in (1.0, 1e-2, 1e-4):
                y = np.clip((1 - share) * found[i] + share * other, 1e-300, None)
                assert _d(rule, y, x[i]) + q[i] @ y >= here - 1e-12 * max(1.0, abs(here))


def test_the_simplex_projection_equals_a_minimiser() -> None:
    x, _ = _draw(EuclideanSimplex())
    sums = {"type": "eq", "fun": lambda y: y.sum() - 1.0}
    for row, found in zip(x, EuclideanSimplex().step(x, None, None, None)[0], strict=True):
        start = np.full(4, 0.25)
        best = minimize(lambda y: ((y - row) ** 2).sum(), start, bounds=[(0, 1)] * 4, constraints=sums, tol=1e-14)  # noqa: B023
        np.testing.assert_allclose(found, best.x, atol=1e-6)


@ALL
def test_weigh_is_minus_the_derivative_by_the_pull(rule: Geometry, lower: Any, upper: Any) -> None:
    x, q = _draw(rule, 3)
    v = np.random.default_rng(4).normal(size=x.shape)
    value, free = rule.step(x, q, lower, upper)
    h = 1e-6
    moved = rule.step(x, q + h * v, lower, upper)[0] - rule.step(x, q - h * v, lower, upper)[0]
    np.testing.assert_allclose(rule.weigh(value, x, free, v), -moved / (2 * h), atol=2e-8)


@ALL
def test_follow_is_the_derivative_by_the_score(rule: Geometry, lower: Any, upper: Any) -> None:
    x, q = _draw(rule, 5)
    x = np.clip(x, 0.02, 0.98) if isinstance(rule, Likelihood) else x
    v = np.random.default_rng(6).normal(size=x.shape)
    value, free = rule.step(x, q, lower, upper)
    h = 1e-7
    moved = rule.step(x + h * v, q, lower, upper)[0] - rule.step(x - h * v, q, lower, upper)[0]
    np.testing.assert_allclose(rule.follow(value, x, free, v), moved / (2 * h), atol=5e-8)


@ALL
def test_divergence_is_the_distance_less_the_least_there_is(rule: Geometry, lower: Any, upper: Any) -> None:
    x, q = _draw(rule, 7)
    value, _ = rule.step(x, q, lower, upper)
    nearest, _ = rule.step(x, None, lower, upper)
    inside = np.clip(value, 1e-300, None) if rule.on_simplex else value
    bounds = (0.0, 1.0) if rule.on_simplex else (lower, upper)
    found = rule.divergence(value, x, *bounds)
    whole = np.array([_d(rule, y, z) for y, z in zip(inside, x, strict=True)])
    least = np.array([_d(rule, y, z) for y, z in zip(nearest, x, strict=True)])
    np.testing.assert_allclose(found, whole - least, atol=1e-9)
    np.testing.assert_allclose(rule.divergence(nearest, x, *bounds), 0.0, atol=1e-12)
    if rule.name == "euclidean":
        np.testing.assert_allclose(rule.divergence(value, x, None, None), whole, atol=1e-12)


@ALL
def test_torch_is_numpy(rule: Geometry, lower: Any, upper: Any) -> None:
    x, q = _draw(rule, 8)
    tx, tq = torch.from_numpy(x), torch.from_numpy(q)
    value, free = rule.step(x, q, lower, upper)
    tvalue, tfree = rule.step(tx, tq, lower, upper)
    same = {"rtol": 1e-13, "atol": 1e-15}
    np.testing.assert_allclose(tvalue.numpy(), value, **same)
    assert (free is None) == (tfree is None)
    if free is not None:
        np.testing.assert_array_equal(tfree.numpy(), free)
    v = np.random.default_rng(9).normal(size=x.shape)
    for method in (rule.weigh, rule.follow):
        there = method(tvalue, tx, tfree, torch.from_numpy(v)).numpy()
        np.testing.assert_allclose(there, method(value, x, free, v), rtol=1e-12, atol=1e-15)
    there = rule.divergence(tvalue, tx, lower, upper).numpy()
    np.testing.assert_allclose(there, rule.divergence(value, x, lower, upper), rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(rule.magnitude(tvalue, tx, tfree).numpy(), rule.magnitude(value, x, free), **same)


# --- the ends


def test_likelihood_where_nothing_is_left_to_divide() -> None:
    """At z = 0 and q < -1 the first form of the root is 0 / 0; the root is there, 1 + 1/q, and it is continuous."""
    z = np.array([0.0, 1e-300, 1e-16, 1e-8])
    for q in (-1.0, -1.5, -4.0, -1e6):
        y, _ = Likelihood().step(z, np.full(4, q), 0.0, 1.0)
        assert np.isfinite(y).all()
        assert ((y >= 0) & (y <= 1)).all()
        np.testing.assert_allclose(y, max(0.0, 1 + 1 / q), atol=2e-4)
    y, _ = Likelihood().step(np.array([0.0, 0.0]), np.array([-0.5, 3.0]), 0.0, 1.0)
    np.testing.assert_array_equal(y, 0.0)
    mirrored, _ = Likelihood().step(1 - z, np.full(4, 4.0), 0.0, 1.0)
    np.testing.assert_allclose(mirrored, 0.25, atol=2e-4)


def test_likelihood_without_cancellation() -> None:
    """y(z, q) against the root in 50 digits, for pulls of any size and sign and scores near the ends."""
    import decimal

    decimal.getcontext().prec = 60
    dec = decimal.Decimal
    for z in (1e-15, 1e-6, 0.3, 0.5, 1 - 1e-6, 1 - 1e-12):
        for q in (-1e8, -30.0, -1.0, -1e-9, 0.0, 1e-9, 0.7, 1e8):
            found = float(Likelihood().step(np.array([z]), np.array([q]), 0.0, 1.0)[0][0])
            total = 1 + dec(q)
            root = (total * total - 4 * dec(q) * dec(z)).sqrt()
            exact = dec(z) if q == 0 else (total - root) / (2 * dec(q))
            assert found == pytest.approx(float(exact), rel=1e-9, abs=1e-16), (z, q)


@pytest.mark.parametrize("x", [-800.0, -50.0, 50.0, 800.0])
def test_extreme_logits(x: float) -> None:
    rule = Entropic()
    for q in (-900.0, -1.0, 0.0, 1.0, 900.0):
        for array in (np.array([x]), torch.tensor([x], dtype=torch.float64)):
            pull = q * (array * 0 + 1)
            y, _ = rule.step(array, pull, 0.0, 1.0)
            assert float(y[0]) == pytest.approx(float(expit(x - q)), rel=1e-13)
            assert np.isfinite(float(rule.divergence(y, array, 0.0, 1.0)[0]))
            assert np.isfinite(float(rule.least(array, pull, 0.0, 1.0)[0]))


def test_inside_is_never_an_end() -> None:
    for dtype in (torch.float32, torch.float64):
        for rule in (Entropic(), Likelihood()):
            kept = rule.inside(torch.tensor([0.0, 1.0, 0.5], dtype=dtype))
            assert kept.dtype == dtype
            assert float(kept.min()) > 0.0
            assert float(kept.max()) < 1.0
            assert float(kept[2]) == 0.5
        assert float(EntropicSimplex().inside(torch.tensor([[0.0, 1.0]], dtype=dtype)).min()) > 0.0


def test_probabilities_are_moved_inside() -> None:
    given = torch.tensor([0.0, 1e-20, 0.5, 1.0], dtype=torch.float64)
    eps = float(torch.finfo(torch.float64).eps)
    assert moved_inside(given, 0.0).tolist() == [eps, eps, 0.5, 1 - eps]
    assert moved_inside(given, 0.1).tolist() == [0.1, 0.1, 0.5, 0.9]
    assert at_the_ends(given, 0.0) == 3
    assert at_the_ends(given, 0.1) == 3
    assert inner_margin(torch.float16, 0.0) == float(torch.finfo(torch.float32).eps)
    with pytest.raises(fl.errors.InvalidBoundsError, match="leaves nothing"):
        inner_margin(torch.float64, 0.5)


def test_names() -> None:
    assert isinstance(geometry_of("entropic", on_simplex=True), EntropicSimplex)
    with pytest.raises(fl.errors.ParameterError, match='"simplex", but is'):
        geometry_of("likelihood", on_simplex=True)
    with pytest.raises(fl.errors.ParameterError, match="lives on the simplex"):
        geometry_of(EntropicSimplex())


@pytest.mark.filterwarnings("error")
def test_a_prediction_that_has_been_rounded_to_an_end_lies_as_far_as_numbers_tell() -> None:
    x, value = np.array([0.25, 0.25, 1.0 - 2.0**-53]), np.array([1.0, 0.0, 1.0])
    found = geometry_of("likelihood").divergence(value, x, None, None)
    assert found[0] == pytest.approx(0.75 * np.log(0.75 * 2.0**53) + 0.25 * np.log(0.25))
    assert np.isfinite(found).all()
    again = geometry_of("likelihood").divergence(torch.tensor(value), torch.tensor(x), None, None)
    np.testing.assert_allclose(found, again.numpy(), rtol=1e-12)
