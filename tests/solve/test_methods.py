"""The methods of solve/ by themselves: plain arrays in, plain arrays out, against closed forms and SciPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import minimize

from fairlayer.errors import SolverError
from fairlayer.geometry import geometry_of
from fairlayer.passes import Cells, NumpyPasses, Point
from fairlayer.solve import ClashingFaces, Face, RowSlabs, SlabSystem, SpreadSlabs, solve
from fairlayer.solve.accuracy import accuracy_of, gauged
from fairlayer.solve.newton import _Dual, _search, descend, optimality_error
from fairlayer.solve.quadratic import solve_quadratic
from fairlayer.solve.scalar import solve_scalar

GEOMETRIES = ("euclidean", "entropic", "likelihood")


def passes_of(z: np.ndarray, codes: np.ndarray, geometry: str = "euclidean", dense: np.ndarray | None = None):
    counts = np.bincount(codes).astype(float)
    x = np.log(z / (1.0 - z)) if geometry == "entropic" else z
    ends = (1e-9, 1.0 - 1e-9) if geometry != "euclidean" else (0.0, 1.0)
    return NumpyPasses(x, Cells(codes, counts, dense, covering=True), *ends, geometry_of(geometry))


class Counting(NumpyPasses):
    """Passes that count their sweeps."""

    sweeps = 0

    def at(self, nu: np.ndarray | None) -> Point:
        self.sweeps += 1
        return super().at(nu)


# ---- the quadratic program over statistics


@pytest.mark.parametrize("seed", range(30))
def test_the_quadratic_program_equals_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    s, rows = int(rng.integers(2, 6)), int(rng.integers(1, 5))
    metric, centre = rng.uniform(0.2, 2.0, s), rng.normal(size=s)
    matrix, upper = rng.normal(size=(rows, s)), rng.uniform(0.0, 1.0, rows)  # the origin is inside
    blocks = [RowSlabs(matrix, np.full(rows, -np.inf), upper), SpreadSlabs(np.eye(s), None, 1.0, 0.5)]
    found = solve_quadratic(centre, metric, SlabSystem(blocks), atol=1e-12)
    pairs = np.array([np.eye(s)[i] - np.eye(s)[j] for i in range(s) for j in range(s) if i != j])
    left, right = np.vstack([matrix, pairs]), np.append(upper, np.full(len(pairs), 0.5))
    wanted = minimize(
        lambda m: 0.5 * ((m - centre) ** 2 / metric).sum(),
        np.zeros(s),
        jac=lambda m: (m - centre) / metric,
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda m: right - left @ m, "jac": lambda m: -left},
        options={"ftol": 1e-15, "maxiter": 500},
    )
    np.testing.assert_allclose(found.point, wanted.x, atol=1e-7)
    assert (found.multipliers >= 0).all()
    normals = np.array([face.normal for face in found.faces]).reshape(len(found.faces), s)
    np.testing.assert_allclose(found.point, centre - metric * (found.multipliers @ normals), atol=1e-10)


def test_the_quadratic_program_names_a_clash() -> None:
    slabs = SlabSystem(
        [RowSlabs(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0.6, -np.inf]), np.array([np.inf, 0.4]))]
    )
    with pytest.raises(ClashingFaces) as clash:
        solve_quadratic(np.zeros(2), np.ones(2), slabs, atol=1e-12)
    assert {face.key for face in clash.value.faces} == {(0, 0, -1), (0, 1, 1)}


# ---- one slab


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("seed", range(10))
def test_one_slab_meets_its_limit_by_one_multiplier(geometry: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = np.arange(40) % 2
    passes = passes_of(np.clip(rng.beta(0.4, 0.9, 40) + 0.3 * codes, 1e-6, 1 - 1e-6), codes, geometry)
    start = passes.at(None)
    slabs = gauged(passes, SlabSystem([SpreadSlabs(np.eye(2), None, 1.0, 0.01)]), start, accuracy_of(passes))
    single = slabs.single()
    assert single is not None
    solution = solve_scalar(passes, single, start)
    assert abs(solution.statistics[0] - solution.statistics[1]) == pytest.approx(0.01, abs=1e-11)
    [multiplier] = solution.multipliers
    assert multiplier > 0
    again = passes.at(multiplier * solution.faces[0].normal)
    np.testing.assert_allclose(again.value, solution.value, atol=1e-14)
    assert solution.passes <= 15


def test_one_slab_that_is_met_costs_nothing() -> None:
    passes = passes_of(np.full(4, 0.5), np.arange(4) % 2)
    start = passes.at(None)
    solution = solve_scalar(passes, SpreadSlabs(np.eye(2), None, 1.0, 0.1).single(), start)  # type: ignore[arg-type]
    assert solution.passes == 1
    assert not solution.faces


def test_one_slab_out_of_reach_is_an_error() -> None:
    passes = passes_of(np.full(4, 0.5), np.arange(4) % 2)
    slab = RowSlabs(np.array([[1.0, 0.0]]), np.array([2.0]), np.array([np.inf])).accurate_to(1e-13, np.ones(2)).single()
    with pytest.raises(SolverError, match="one slab was asked"):
        solve_scalar(passes, slab, passes.at(None))  # type: ignore[arg-type]


# ---- many slabs


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("seed", range(10))
def test_newton_meets_the_optimality_conditions(geometry: str, seed: int) -> None:
    """At the end: slabs hold, multipliers are >= 0, their faces are tight, and the value answers their pull."""
    rng = np.random.default_rng(seed)
    n, k = 60, int(rng.integers(3, 7))
    codes = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    passes = passes_of(np.clip(rng.beta(0.5, 0.8, n), 1e-6, 1 - 1e-6), codes, geometry)
    blocks = [SpreadSlabs(np.eye(k), None, 1.0, 0.02), RowSlabs(np.eye(k)[:1], np.array([0.45]), np.array([np.inf]))]
    solved = solve(passes, SlabSystem(blocks))
    s, solution = solved.solution.statistics, solved.solution
    assert s.max() - s.min() <= 0.02 + 1e-11
    assert s[0] >= 0.45 - 1e-11
    assert (solution.multipliers >= 0).all()
    for face in solution.faces:
        assert float(face.normal @ s) == pytest.approx(face.limit, abs=1e-10)
    nu = sum(m * f.normal for m, f in zip(solution.multipliers, solution.faces, strict=True))
    np.testing.assert_allclose(passes.at(np.asarray(nu)).value, solution.value, atol=1e-10)


def test_the_line_search_is_needed_and_safe() -> None:
    """Scores far outside the bounds: a full Newton step overshoots, and a plain secant creeps along flat pieces.

    Without the search the method ends far from the solution; with a search that may return an end of its bracket it
    needs many more sweeps than these.
    """
    rng = np.random.default_rng(3)
    codes = np.arange(30) % 3
    z = 40.0 * rng.normal(size=30)
    counts = np.bincount(codes).astype(float)
    passes = Counting(z, Cells(codes, counts, None, covering=True), 0.0, 1.0)
    slabs = SlabSystem(
        [SpreadSlabs(np.eye(3), None, 1.0, 0.01), RowSlabs(np.eye(3)[:1], np.array([0.9]), np.array([np.inf]))]
    )
    start = passes.at(None)
    accurate = gauged(passes, slabs, start, accuracy_of(passes))
    solution = descend(passes, accurate, start)
    assert optimality_error(solution, accurate) <= 50.0
    assert passes.sweeps == solution.passes, "every sweep is counted"
    assert passes.sweeps <= 120


class Curve:
    """Passes with one statistic, a given function of its multiplier."""

    geometry = geometry_of("euclidean")

    def __init__(self, statistic: Callable[[float], float]) -> None:
        self.statistic = statistic

    def at(self, nu: np.ndarray) -> Point:
        t, near = float(nu[0]), 1e-9
        steepness = (self.statistic(t - near) - self.statistic(t + near)) / (2.0 * near)
        return Point(None, None, np.array([self.statistic(t)]), np.array([steepness]))


@pytest.mark.parametrize(
    ("statistic", "most"),
    [
        (lambda t: 1.0 - 1001.0 * t**20, 20),  # flat, then steep: a plain secant creeps along the flat part
        (lambda t: 1.0 - (t / 1e-6) ** 3, 10),  # so steep that the secant returns the end of the bracket itself
        (lambda t: 1.0 - 2.0 * t, 2),
    ],
)
def test_the_search_along_a_step_ends_near_its_root(statistic: Callable[[float], float], most: int) -> None:
    origin = _Dual(np.zeros(1), 0.0, (), np.zeros(0))
    face = Face((0, 0, 1), np.ones(1), 0.0, atol=1e-13)
    target = _Dual(np.ones(1), 0.0, (face,), np.ones(1))
    passes = Curve(statistic)
    share, point, used = _search(passes, origin, target, passes.at(np.zeros(1)))  # type: ignore[arg-type]
    assert point is not None
    assert abs(statistic(share)) <= 0.1
    assert used <= most


def test_the_search_takes_the_whole_step_where_the_dual_still_rises() -> None:
    origin = _Dual(np.zeros(1), 0.0, (), np.zeros(0))
    target = _Dual(np.ones(1), 0.0, (Face((0, 0, 1), np.ones(1), 0.0, atol=1e-13),), np.ones(1))
    passes = Curve(lambda t: 2.0 - t)
    share, _, used = _search(passes, origin, target, passes.at(np.zeros(1)))  # type: ignore[arg-type]
    assert (share, used) == (1.0, 1)


# ---- accuracy


def test_each_row_is_as_accurate_as_its_own_numbers_allow() -> None:
    big = SpreadSlabs(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), None, 1.0, 0.1)
    small = RowSlabs(np.array([[0.0, 0.0, 1.0]]), np.array([0.0]), np.array([0.5]))
    rough, fine = SlabSystem([big, small]).accurate_to(1e-13, np.array([1e12, 1.0, 0.3])).blocks
    assert rough.atol == pytest.approx(0.1)
    assert fine.atol == pytest.approx([1e-13])  # type: ignore[comparison-overlap]


def test_a_limit_far_away_does_not_loosen_its_row_unless_it_must_be_reached() -> None:
    passes = passes_of(np.full(4, 0.5), np.arange(4) % 2)
    start = passes.at(None)
    loose = RowSlabs(np.eye(2), np.full(2, -np.inf), np.array([1e12, 0.2]))
    [block] = gauged(passes, SlabSystem([loose]), start, 1e-13).blocks
    np.testing.assert_allclose(block.atol, 1e-13)  # type: ignore[arg-type]
    free = NumpyPasses(np.full(4, 0.5), passes.cells, None, None)
    far = RowSlabs(np.eye(2)[:1], np.array([1e12]), np.array([np.inf]))
    [block] = gauged(free, SlabSystem([far]), free.at(None), 1e-13).blocks
    np.testing.assert_allclose(block.atol, 0.1)  # type: ignore[arg-type]
