"""A stand-in for a batch whose scores lie far out: a problem almost the same, in which a sweep costs next to nothing.

Where scores lie far from each other, slopes in one place say nothing about the next, and a search takes many sweeps to
find the few samples that a solution rests on. So it is made on a stand-in first, and on the batch from where that ends.
In the Euclidean geometry the stand-in is a sorted batch, whose sums are read off (see `sorted`). In a curved one it has
less samples, too: those whose log-odds lie close together are one, of all their weights, which changes little that is
not of second order in the width.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fairlayer._rows import compress
from fairlayer._typing import FloatArray, IntArray
from fairlayer.errors import SolverError
from fairlayer.passes import Cells, NumpyPasses, Passes, Point
from fairlayer.solve.accuracy import accuracy_of, gauged
from fairlayer.solve.cooling import coolable, solve_cooling
from fairlayer.solve.counted import CountedPasses
from fairlayer.solve.newton import accurate_enough, descend, optimality_error
from fairlayer.solve.quadratic import ClashingFaces
from fairlayer.solve.slabs import SlabSystem
from fairlayer.solve.solution import Solution
from fairlayer.solve.sorted import SortedBatch, sortable

__all__ = ["solve_by_stand_in"]

_WIDTHS = (0.25, 0.5, 1.0, 2.0)  # log-odds: the first at which few are left, or the last
_SHARE = 10  # samples for one that is left, where that can be
_LOOSER = 1e3  # than the accuracy of the batch
_STEPS = 60
_FINE = 10  # how many steps of a search from nothing the first one on the batch is worth
_MOST_PASSES = 16
_MET = 2e-11  # prediction units: what is further off than rounding is left to other methods


def solve_by_stand_in(passes: Passes, slabs: SlabSystem, start: Point) -> Solution | None:
    """Return the projection from where that of a stand-in lies; None where there is none, or that is not near.

    Args:
        passes: the batch.
        slabs: a feasible system with its accuracy.
        start: the point at nu = 0.
    """
    if not sortable(passes):
        return None
    near, swept = _of_stand_in(passes, slabs)
    if isinstance(passes, CountedPasses):
        passes.count += 1 + swept
    if near is None:
        return None
    try:
        found = descend(passes, slabs, start, _STEPS, near, _FINE, _MOST_PASSES)
    except (SolverError, ClashingFaces, np.linalg.LinAlgError):
        return None
    met = slabs.violation(found.statistics) <= _MET
    return found if met and accurate_enough(passes, slabs, found) else None


def _of_stand_in(passes: Passes, slabs: SlabSystem) -> tuple[Solution | None, int]:
    """Return the solution of a stand-in, and how many sweeps over the batch its sweeps are worth."""
    base = _SortedPasses(passes if passes.geometry.name == "euclidean" else _thinned(passes))
    here: Any = CountedPasses(base)
    start = here.at(None)
    loose = gauged(here, slabs, start, _LOOSER * accuracy_of(passes))
    try:
        found: Solution | None = descend(here, loose, start, _STEPS)
    except (SolverError, ClashingFaces, np.linalg.LinAlgError):
        found = None
    visited = base.batch.visited
    if (found is None or optimality_error(found, loose) > 1.0) and coolable(here):
        before = here.count
        found = solve_cooling(here, loose) or found
        visited += (here.count - before) * here.n
    return found, math.ceil(visited / passes.n)


class _SortedPasses:
    """Passes over a sorted batch: samples that a bound holds, or that lie as far as that, are counted, not visited.

    Args:
        base: the batch.
    """

    def __init__(self, base: Passes) -> None:
        self.base, self.batch = base, SortedBatch(base)

    def at(self, nu: FloatArray | None) -> Point:
        """See `Passes.at`; no predictions are known."""
        counts = self.batch.cells.counts
        means, free = self.batch.at(np.zeros(len(counts)) if nu is None else nu, slopes=True)
        return Point(None, None, means, free / (counts * counts))

    def magnitudes(self, point: Point) -> FloatArray:
        """See `Passes.magnitudes`: as if every sample were free."""
        return np.full(len(point.statistics), max(abs(self.base.lower), abs(self.base.upper), self.base.size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)


def _thinned(passes: Passes) -> NumpyPasses:
    """Return the batch with samples of a cell that lie close together as one."""
    x, cells = passes.scores, passes.cells
    assert cells.codes is not None
    odds = x if passes.geometry.name == "entropic" else np.log(x) - np.log1p(-x)
    for width in _WIDTHS:
        one = _heaps(odds, cells.codes, width)
        whole = np.bincount(one, cells.weights).astype(np.float64, copy=False)
        if _SHARE * len(whole) <= len(x):
            break
    weights = 1.0 if cells.weights is None else cells.weights
    codes = np.empty(len(whole), dtype=cells.codes.dtype)
    codes[one] = cells.codes
    scores = np.bincount(one, weights * x) / np.where(whole > 0, whole, 1.0)
    thin = Cells(codes, cells.counts, None, cells.covering, whole)
    return NumpyPasses(scores, thin, passes.lower, passes.upper, passes.geometry)


def _heaps(odds: FloatArray, codes: IntArray, width: float) -> IntArray:
    """Number the samples of each cell by the interval of some width that they lie in; only those that occur count."""
    place = np.floor((odds - odds.min(initial=np.inf)) / width).astype(np.int64)
    size = int(place.max(initial=0)) + 1
    return compress(codes * size + place, (int(codes.max(initial=0)) + 1) * size)[1]
