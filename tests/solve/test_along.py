"""Curves that a search looks at: what they are, and how few looks lead to the projection."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer.geometry import EntropicSimplex, EuclideanSimplex, Likelihood
from fairlayer.passes import Cells, NumpyPasses
from fairlayer.passes.simplex import SimplexPasses
from fairlayer.solve import SlabSystem, SpreadSlabs
from fairlayer.solve.accuracy import accuracy_of, gauged
from fairlayer.solve.along import solve_along_curves, solve_rows_along_curves
from fairlayer.solve.barrier import BarrierCurves
from fairlayer.solve.counted import CountedPasses
from fairlayer.solve.interior import solve_interior
from fairlayer.solve.inward import InwardCurves, samples_of, thinned

ROWS = [EntropicSimplex(), EuclideanSimplex()]


def _probabilities(seed: int, n: int = 60, far: float = 20.0) -> NumpyPasses:
    rng = np.random.default_rng(seed)
    codes = np.append(np.arange(5), rng.integers(0, 5, n - 5))  # the last code: in no cell
    weights = rng.integers(1, 4, n).astype(float)
    counts = np.bincount(codes, weights, 5)[:4]
    z = 1.0 / (1.0 + np.exp(-np.clip(far * rng.normal(size=n) + rng.normal(size=5)[codes], -36.0, 36.0)))
    return NumpyPasses(z, Cells(codes, counts, None, False, weights), 0.0, 1.0, Likelihood())


def _rows(geometry: Any, seed: int, n: int = 60, far: float = 50.0) -> Any:
    rng = np.random.default_rng(seed)
    codes = np.append(np.arange(4), rng.integers(0, 4, n - 4))  # the last code: in no cell
    cells = Cells(codes, np.bincount(codes).astype(float)[:3], None, False, None, classes=4)
    return SimplexPasses(far * rng.normal(size=(n, 4)), cells, geometry, torch.device("cpu"))


def _check_slopes(curves: Any, nu: np.ndarray, width: float) -> None:
    """Compare slope and turn with differences."""
    found = curves.at(nu, width)
    slope = found.slope if found.slope.ndim == 2 else np.diag(found.slope)
    for k in range(len(nu)):
        step = np.where(np.arange(len(nu)) == k, 1e-6 * curves.counts, 0.0)
        change = (curves.at(nu - step, width).mean - curves.at(nu + step, width).mean) / (2.0 * step[k])
        np.testing.assert_allclose(slope[:, k], change, rtol=1e-5, atol=1e-9)
    turn = (curves.at(nu, width * (1 + 1e-6)).mean - curves.at(nu, width * (1 - 1e-6)).mean) / 2e-6
    np.testing.assert_allclose(found.turn, turn, atol=1e-8)


@pytest.mark.parametrize("width", [0.3, 0.01, 1e-4])
def test_scores_moved_inwards_answer_as_under_a_barrier(width: float) -> None:
    passes = _probabilities(0)
    curves = InwardCurves(samples_of(passes), passes.cells.counts, passes.geometry)
    nu = np.random.default_rng(1).normal(size=4) * passes.cells.counts
    z, weights, cell = samples_of(passes)
    pull, barrier = (nu / passes.cells.counts)[cell], width / (1.0 - 2.0 * width)
    low, high = np.zeros(len(z)), np.ones(len(z))
    for _ in range(80):  # bisection on the slope of d(y, z) + q y - w log(y (1 - y))
        y = 0.5 * (low + high)
        rising = (y - z + barrier * (2.0 * y - 1.0)) / (y * (1.0 - y)) + pull > 0
        low, high = np.where(rising, low, y), np.where(rising, y, high)
    means = np.bincount(cell, weights * y, 4) / passes.cells.counts
    np.testing.assert_allclose(curves.at(nu, width).mean, means, atol=1e-12)
    _check_slopes(curves, nu, width)


def test_thinned_scores_keep_three_moments_and_are_few() -> None:
    passes = _probabilities(0, n=20_000)
    every, few = samples_of(passes), thinned(passes)
    assert len(few.x) < 20_000 / 50
    assert ((few.x > 0) & (few.x < 1) & (few.weights > 0)).all()
    for power in range(4):
        whole = np.bincount(every.cell, every.weights * every.x**power, 4)
        np.testing.assert_allclose(np.bincount(few.cell, few.weights * few.x**power, 4), whole, rtol=1e-12)
    nu = np.random.default_rng(1).normal(size=4) * passes.cells.counts
    near, exact = (InwardCurves(scores, passes.cells.counts, passes.geometry).at(nu, 1e-5) for scores in (few, every))
    np.testing.assert_allclose(near.mean, exact.mean, atol=1e-4)


@pytest.mark.parametrize("geometry", ROWS)
@pytest.mark.parametrize("width", [100.0, 1.0, 1e-3, 1e-9])
def test_rows_answer_as_under_a_barrier(geometry: Any, width: float) -> None:
    passes = _rows(geometry, 0, far=50.0 if width > 0.1 else 2.0)
    curves = BarrierCurves(passes)
    nu = np.random.default_rng(1).normal(size=12) * np.tile(passes.cells.counts, 4)
    u = passes.scores - passes.pull(nu)
    y = curves._answer(u, width)
    np.testing.assert_allclose(y.sum(axis=1), 1.0, atol=1e-14)
    s = (y if geometry.name == "euclidean" else np.log(y)) - width / y - u  # - lambda, for all classes of a row
    seen = y > 1e-6 if width < 0.1 else y > 0
    spread = np.where(seen, s, -np.inf).max(axis=1) - np.where(seen, s, np.inf).min(axis=1)
    assert float((spread / (1.0 + np.abs(u).max(axis=1))).max()) < 1e-9
    if width > 1e-6:
        _check_slopes(curves, nu, width)


def _solved(passes: Any, slabs: SlabSystem, solve: Any) -> None:
    counted: Any = CountedPasses(passes)
    start = passes.at(None)
    slabs = gauged(passes, slabs, start, accuracy_of(passes))
    found, wanted = solve(counted, slabs, start), solve_interior(passes, slabs, start)
    assert found is not None
    assert wanted is not None
    np.testing.assert_allclose(found.value, wanted.value, atol=1e-9)
    assert counted.count <= 26


@pytest.mark.parametrize("far", [2.0, 20.0, 300.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_search_ends_where_the_interior_point_method_does(far: float, seed: int) -> None:
    _solved(_probabilities(seed, far=far), SlabSystem([SpreadSlabs(np.eye(4), None, 1.0, 0.02)]), solve_along_curves)


@pytest.mark.parametrize("geometry", ROWS)
@pytest.mark.parametrize("seed", range(3))
def test_rows_end_there_too(geometry: Any, seed: int) -> None:
    spreads = [SpreadSlabs(np.eye(12)[3 * c : 3 * c + 3], None, 1.0, 0.02) for c in range(4)]
    _solved(_rows(geometry, seed), SlabSystem(spreads), solve_rows_along_curves)


@pytest.mark.parametrize("seed", range(6))
def test_many_likelihoods_near_the_ends_take_a_handful_of_passes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, groups = 20_000, 5
    a = rng.integers(0, groups, n)
    z = torch.tensor(rng.normal(size=n) * 30.0 + 10.0 * (a - 2))
    rules = [fl.DemographicParity("a", 0.01), fl.MinimumRate("a", 0.4)]
    options: dict[str, Any] = {"bounds": (0.0, 1.0), "geometry": "likelihood", "from_logits": True}
    found = fl.project(z, rules, sensitive_features={"a": a}, **options)
    assert found.certificate.holds
    assert found.passes <= 8


def test_what_far_rows_have_moved_rounds_like_the_move() -> None:
    """It was the difference of two sums of squares of the scores, which hid a gap of 1e-9 and more."""
    x = np.random.default_rng(0).normal(size=(500, 4)) * 1e5
    corner = EuclideanSimplex().step(x, None, None, None)[0]
    value = 0.75 * corner + 0.25 / 4.0
    found = EuclideanSimplex().divergence(value, x, 0.0, 1.0)
    far, change = np.longdouble(corner - x), np.longdouble(value - corner)
    np.testing.assert_allclose(found, np.float64(((far + 0.5 * change) * change).sum(axis=1)), rtol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rows_whose_dtype_rounds_all_alike_are_certified(dtype: torch.dtype) -> None:
    """Thirds round to one side in every row, so that no row sums to 1."""
    z, a = torch.full((6000, 3), 1.0 / 3.0, dtype=dtype), np.arange(6000) % 3
    rules = fl.DemographicParity("a", 0.0)
    found = fl.project(z, rules, sensitive_features={"a": a}, bounds="simplex", geometry="entropic")
    assert found.certificate.holds
