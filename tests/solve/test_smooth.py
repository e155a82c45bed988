"""The search along smooth curves: what the curves are, where it ends, and that it visits no sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fairlayer.geometry import geometry_of
from fairlayer.passes import Cells, NumpyPasses
from fairlayer.solve import SlabSystem, SpreadSlabs
from fairlayer.solve.accuracy import accuracy_of, gauged
from fairlayer.solve.counted import CountedPasses
from fairlayer.solve.curves import SmoothCurves
from fairlayer.solve.interior import solve_interior
from fairlayer.solve.smooth import SmoothSearch
from fairlayer.solve.sorted import SortedBatch
from fairlayer.solve.standin import solve_by_stand_in

GEOMETRIES = ["euclidean", "entropic"]


def _passes(geometry: str, seed: int, *, n: int = 60, far: float = 100.0) -> NumpyPasses:
    rng = np.random.default_rng(seed)
    codes = np.append(np.arange(5), rng.integers(0, 5, n - 5))  # the last code: in no cell
    weights = rng.integers(1, 4, n).astype(float)
    counts = np.bincount(codes, weights, 5)[:4]
    x = rng.normal(size=n) * far + 0.5 * far * rng.normal(size=5)[codes]
    low, high = (-1.0, 3.0) if geometry == "euclidean" else (0.0, 1.0)
    return NumpyPasses(x, Cells(codes, counts, None, False, weights), low, high, geometry_of(geometry))


def _slabs(width: float = 0.02) -> SlabSystem:
    return SlabSystem([SpreadSlabs(np.eye(4), None, 1.0, width)])


def _plainly(passes: NumpyPasses, curves: SmoothCurves, nu: np.ndarray, width: float) -> np.ndarray:
    """Return the means of samples that answer by ramps, one by one."""
    codes, counts, weights = passes.cells.codes, passes.cells.counts, passes.cells.weights
    assert codes is not None
    assert weights is not None
    low, high = float(passes.lower), float(passes.upper)
    middle = 0.5 * (low + high) if passes.geometry.name == "euclidean" else 0.0
    own = high - low if passes.geometry.name == "euclidean" else 4.0
    t = passes.scores - middle - np.append(nu / counts, 0.0)[codes]
    y, left, share, ramp = np.zeros(len(t)), 1.0, min(1.0, width / own), max(width, own)
    for j in range(1, len(curves.doubled)):
        part = share * 0.5 ** (j + 1)
        left -= part
        y += part * np.clip(0.5 + t / (ramp * 2.0**j), 0.0, 1.0)
    y += left * np.clip(0.5 + t / ramp, 0.0, 1.0)
    return np.bincount(codes, weights * (low + (high - low) * y), 5)[:4] / counts


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("width", [300.0, 40.0, 1.0, 0.01])
def test_curves_are_those_of_ramps_one_by_one(geometry: str, width: float) -> None:
    passes = _passes(geometry, 0)
    curves = SmoothCurves(SortedBatch(passes))
    for seed in range(5):
        nu = np.random.default_rng(seed).normal(size=4) * 100.0 * passes.cells.counts
        found = curves.at(nu, width)
        np.testing.assert_allclose(found.mean, _plainly(passes, curves, nu, width), atol=1e-12)
        for k in range(4):
            step = np.where(np.arange(4) == k, 1e-6 * passes.cells.counts, 0.0)
            slope = (curves.at(nu - step, width).mean - curves.at(nu + step, width).mean)[k] / (2.0 * step[k])
            assert found.slope[k] == pytest.approx(slope, rel=1e-5, abs=1e-9)
        turn = (curves.at(nu, width * (1 + 1e-6)).mean - curves.at(nu, width * (1 - 1e-6)).mean) / 2e-6
        np.testing.assert_allclose(found.turn, turn, atol=1e-7)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("far", [3.0, 100.0, 10_000.0])
def test_it_ends_near_the_solution_and_visits_no_sample(geometry: str, far: float) -> None:
    for seed in range(5):
        passes = _passes(geometry, seed, far=far)
        start = passes.at(None)
        slabs = gauged(passes, _slabs(), start, accuracy_of(passes))
        batch = SortedBatch(passes)
        search = SmoothSearch(SmoothCurves(batch), slabs)
        near = search.near()
        assert near is not None
        assert search.steps <= 40
        assert batch.visited == 0
        exact = solve_interior(passes, slabs, start)
        assert exact is not None
        np.testing.assert_allclose(search.look.mean, exact.statistics, atol=0.1)
        assert near.nu @ exact.nu > 0.9 * np.linalg.norm(near.nu) * np.linalg.norm(exact.nu)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_sorting_and_what_is_looked_at_count(geometry: str) -> None:
    passes: Any = CountedPasses(_passes(geometry, 1))
    start = passes.base.at(None)
    slabs = gauged(passes, _slabs(), start, accuracy_of(passes))
    sweeps = 0
    at = passes.at

    def watched(nu: Any) -> Any:
        nonlocal sweeps
        sweeps += 1
        return at(nu)

    passes.at = watched
    found = solve_by_stand_in(passes, slabs, start)
    assert found is not None
    looked_at = passes.count - sweeps
    assert looked_at == 1 if geometry == "euclidean" else looked_at > 1  # the sort, and samples within 40 log-odds
    assert passes.count <= 12


def test_many_samples_are_condensed_and_heaps_thinned() -> None:
    from fairlayer.solve.standin import _sorted

    condensed = _sorted(_passes("entropic", 2, n=5000, far=5.0))
    assert condensed.sweeps == 2
    assert len(condensed.ordered) < 2000
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(100), 50)
    x = rng.normal(size=5000) + rng.uniform(-500, 500, 100)[codes]
    cells = Cells(codes, np.full(100, 50.0), None, True)
    thinned = _sorted(NumpyPasses(x, cells, 0.0, 1.0, geometry_of("entropic")))
    assert len(thinned.ordered) <= 5000 / 3
    assert thinned.weights[-1] == pytest.approx(5000.0)
