"""A stand-in for a batch whose scores lie far out: a problem almost the same, in which a sweep costs next to nothing.

Where scores lie far from each other, slopes in one place say nothing about the next, and a search takes many sweeps to
find the few samples that a solution rests on. So it is made on a stand-in first, and on the batch from where that ends.

In the Euclidean and the entropic geometry the stand-in is the sorted batch. A search along smooth curves finds the
place (see `smooth`), and the exact method settles there, both by sums that are read off (see `sorted`). A sorted batch
of log-odds in heaps has less samples, where it is too small to be condensed: those that lie close together are one,
of all their weights. Likelihood scores have curves that are looked at (see `along`).

What counts as passes over the batch: one to sort it, one more to condense it where that is done, and what is looked at
of its samples in the stand-in, n of them for one pass. Sums that are read off look at none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fairlayer._rows import compress
from fairlayer._typing import FloatArray, IntArray
from fairlayer.errors import SolverError
from fairlayer.passes import Cells, NumpyPasses, Passes, Point
from fairlayer.solve.accuracy import accuracy_of, gauged
from fairlayer.solve.along import solve_along_curves
from fairlayer.solve.counted import count
from fairlayer.solve.curves import SmoothCurves
from fairlayer.solve.interior import polished, solve_interior
from fairlayer.solve.newton import close_enough, descend
from fairlayer.solve.quadratic import ClashingFaces
from fairlayer.solve.slabs import SlabSystem
from fairlayer.solve.smooth import SmoothSearch
from fairlayer.solve.solution import Solution
from fairlayer.solve.sorted import SortedBatch, sortable, worth_condensing

__all__ = ["solve_by_stand_in"]

_WIDTH = 0.25  # log-odds within which samples become one
_HEAPED, _FEW = 32, 3  # samples for each cell, and for one that is left, from which a sorted batch has fewer
_LOOSER = 30.0  # than the accuracy of the batch
_STEPS, _MOST_LOOKS = 20, 40  # of the exact method in the sorted batch
_FINE, _FINEST = 25, 33  # how many steps of a search from nothing the first one is worth: on the batch, and sorted
_LEAST_FLOOR = 1e-13  # of K in the sorted batch


def solve_by_stand_in(passes: Passes, slabs: SlabSystem, start: Point) -> Solution | None:
    """Return the projection from where that of a stand-in lies; None where there is none, or that is not near.

    Args:
        passes: the batch.
        slabs: a feasible system with its accuracy.
        start: the point at nu = 0.
    """
    if not sortable(passes):
        return None
    by = solve_along_curves if passes.geometry.name == "likelihood" else _by_curves
    return by(passes, slabs, start) or solve_interior(passes, slabs, start)


def _by_curves(passes: Passes, slabs: SlabSystem, start: Point) -> Solution | None:
    batch = _sorted(passes)
    search = SmoothSearch(SmoothCurves(batch), slabs)
    count(passes, batch.sweeps)
    near = search.near()
    if near is None:
        return None
    near = _settled(passes, batch, slabs, near)
    count(passes, batch.visited / passes.n)
    return polished(passes, slabs, start, near, _FINE, close_enough)


def _sorted(passes: Passes) -> SortedBatch:
    """Return the sorted batch; where whole heaps would be visited that cannot be condensed, with fewer samples."""
    if passes.geometry.smooth and not worth_condensing(passes) and passes.n >= _HEAPED * len(passes.cells.counts):
        thin = _thinned(passes)
        count(passes, 1)
        if _FEW * thin.n <= passes.n:
            return SortedBatch(thin)
    return SortedBatch(passes)


def _settled(passes: Passes, batch: SortedBatch, slabs: SlabSystem, near: Solution) -> Solution:
    """Return the solution of the sorted batch from what is near it."""
    here: Any = _SortedPasses(passes, batch)
    start = here.at(None)
    loose = gauged(here, slabs, start, _LOOSER * accuracy_of(passes))
    try:
        return descend(here, loose, start, _STEPS, near, _FINEST, _MOST_LOOKS, patient=False)
    except (SolverError, ClashingFaces, np.linalg.LinAlgError):
        return near


class _SortedPasses:
    """Passes over a sorted batch: samples that a bound holds are counted, not visited.

    Args:
        base: the batch.
        batch: the same, sorted.
    """

    least_floor = _LEAST_FLOOR

    def __init__(self, base: Passes, batch: SortedBatch) -> None:
        self.base, self.batch = base, batch

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
    """Return a batch of log-odds with samples of a cell that lie close together as one."""
    x, cells = passes.scores, passes.cells
    assert cells.codes is not None
    one = _heaps(x, cells.codes, _WIDTH)
    whole = np.bincount(one, cells.weights).astype(np.float64, copy=False)
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
