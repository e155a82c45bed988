"""The interior-point method by itself: it ends where the exact method ends, however far apart the scores lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fairlayer.geometry import EntropicSimplex, geometry_of
from fairlayer.passes import Cells, NumpyPasses
from fairlayer.passes.simplex import SimplexPasses
from fairlayer.solve import RowSlabs, SlabSystem, SpreadSlabs
from fairlayer.solve.accuracy import accuracy_of, gauged
from fairlayer.solve.counted import CountedPasses
from fairlayer.solve.interior import InteriorSearch, solve_interior
from fairlayer.solve.newton import optimality_error, solve_newton


def _passes(geometry: str, far: float, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    n, groups = 120, 4
    codes = np.append(np.arange(groups), rng.integers(0, groups, n - groups))
    cells = Cells(codes, np.bincount(codes).astype(float), None, True, None)
    x = far * rng.normal(size=n)
    z = 1.0 / (1.0 + np.exp(-np.clip(x, -30.0, 30.0))) if geometry == "likelihood" else x
    return NumpyPasses(z, cells, 0.0, 1.0, geometry_of(geometry))


def _slabs(size: int) -> SlabSystem:
    floor = RowSlabs(np.eye(size)[:1], np.array([0.4]), np.array([np.inf]))
    return SlabSystem([SpreadSlabs(np.eye(size), None, 1.0, 0.02), floor])


@pytest.mark.parametrize("geometry", ["euclidean", "entropic", "likelihood"])
@pytest.mark.parametrize("far", [1.0, 100.0])
@pytest.mark.parametrize("seed", range(3))
def test_it_ends_at_the_projection(geometry: str, far: float, seed: int) -> None:
    passes = _passes(geometry, far, seed)
    start = passes.at(None)
    slabs = gauged(passes, _slabs(4), start, accuracy_of(passes))
    found = solve_interior(passes, slabs, start)
    assert found is not None
    assert optimality_error(found, slabs) <= 50.0
    assert (found.multipliers >= 0).all()
    if far == 1.0:
        np.testing.assert_allclose(found.value, solve_newton(passes, slabs, start).value, atol=1e-9)


def test_steps_count_whether_or_not_they_get_there() -> None:
    passes = CountedPasses(_passes("entropic", 100.0, 0))
    start = passes.at(None)
    slabs = gauged(passes, _slabs(4), start, accuracy_of(passes))
    solve_interior(passes, slabs, start)
    search = InteriorSearch(passes, slabs)
    search.near(1e-5)
    assert 5 <= search.steps <= 15
    assert passes.count > 3 * search.steps


def test_distance_costs_no_steps() -> None:
    steps = []
    for far in (10.0, 1000.0):
        passes = _passes("entropic", far, 0)
        search = InteriorSearch(passes, gauged(passes, _slabs(4), passes.at(None), accuracy_of(passes)))
        assert search.near(1e-5) is not None
        steps.append(search.steps)
    assert steps[1] <= steps[0] + 5


def test_rows_of_a_simplex_answer_by_their_metric() -> None:
    rng = np.random.default_rng(0)
    codes = np.arange(12) % 3
    cells = Cells(codes, np.bincount(codes).astype(float), None, True, None, classes=4)
    passes = SimplexPasses(rng.normal(size=(12, 4)), cells, EntropicSimplex(), "cpu")  # type: ignore[arg-type]
    point = passes.at(None)
    np.testing.assert_allclose(passes.metric_of(point.value), point.curvature, atol=1e-15)
