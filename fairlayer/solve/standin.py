"""A stand-in for a batch whose scores lie far out: a problem almost the same, in which a sweep costs next to nothing.

Where scores lie far from each other, slopes in one place say nothing about the next, and a search takes many sweeps to
find the few samples that a solution rests on. So it is made on a stand-in first, and on the batch from where that ends.
The stand-in has less samples: those of a cell that lie close together are one, of all their weights, which changes
little that is not of second order in the width. It is solved by an interior-point method (see `interior`), which minds
no distance. In the Euclidean geometry a sorted batch, whose sums are read off (see `sorted`), serves as well.
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
from fairlayer.solve.counted import CountedPasses
from fairlayer.solve.interior import SWEEPS, InteriorSearch, _polished, solve_interior
from fairlayer.solve.newton import MANY_ROWS, accurate_enough, descend
from fairlayer.solve.quadratic import ClashingFaces
from fairlayer.solve.slabs import SlabSystem
from fairlayer.solve.smooth import SmoothSearch
from fairlayer.solve.solution import Solution
from fairlayer.solve.sorted import SortedBatch, sortable

__all__ = ["solve_by_stand_in"]

_WIDTHS = (0.25, 0.5, 1.0, 2.0)  # log-odds: the first at which few are left, or the last
_SHARE = 10  # samples for one that is left, where that can be
_WORTH = 0.5  # of the samples: a stand-in with more of them is not worth it
_BOX = 10.0  # log-odds that a box is taken as
_END = 1e-5  # how far the search on the stand-in goes (see `interior`)
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
    near: Solution | None
    if passes.geometry.name == "likelihood":
        thin = _thinned(passes)
        if thin.n > _WORTH * passes.n:
            return solve_interior(passes, slabs, start)
        search = InteriorSearch(thin, slabs)
        near = search.near(_END)
        _count(passes, 1 + math.ceil(SWEEPS * search.steps * thin.n / passes.n))
    else:
        return _by_curves(passes, slabs, start) or solve_interior(passes, slabs, start)
    found = None if near is None else _from(near, passes, slabs, start)
    return found or solve_interior(passes, slabs, start)


import os
ENDS = eval(os.environ.get("ENDS", "((1e-2,1e-3,False), (1e-5,1e-6,True), (1e-8,1e-8,True), (1e-11,1e-10,True))"))
MORE = eval(os.environ.get("MORE", "(20,40)"))
SORTED = int(os.environ.get("SORTED", "1"))

def _by_curves(passes, slabs, start):
    search = SmoothSearch(passes, slabs)
    batch = search.curves.batch
    _count(passes, 1 + (len(batch.ordered) < passes.n))
    for end, met, exact in ENDS:
        near = search.near(end, met, exact=exact)
        if near is None:
            _count(passes, math.ceil(batch.visited / passes.n))
            return None
        if SORTED:
            near = _in_sorted_batch(passes, slabs, near, batch)
        _count(passes, math.ceil(batch.visited / passes.n))
        batch.visited = 0
        found = _polished(passes, slabs, start, near, accurate_enough)
        if found is not None:
            return found
    return None


def _count(passes: Passes, sweeps: int) -> None:
    if isinstance(passes, CountedPasses):
        passes.count += sweeps


def _from(near: Solution, passes: Passes, slabs: SlabSystem, start: Point) -> Solution | None:
    try:
        found = descend(passes, slabs, start, _STEPS, near, _FINE, _MOST_PASSES)
    except (SolverError, ClashingFaces, np.linalg.LinAlgError):
        return None
    met = slabs.violation(found.statistics) <= _MET
    return found if met and accurate_enough(passes, slabs, found) else None


def _in_sorted_batch(passes: Passes, slabs: SlabSystem, near: Solution, batch: SortedBatch) -> Solution:
    """Return the solution of the sorted batch, whose sums are read off: only the sort counts."""
    here: Any = _SortedPasses(passes, batch)
    start = here.at(None)
    loose = gauged(here, slabs, start, _LOOSER * accuracy_of(passes))
    try:
        return descend(here, loose, start, MORE[0], near, _FINE, MORE[1])
    except (SolverError, ClashingFaces, np.linalg.LinAlgError):
        return near


class _SortedPasses:
    """Passes over a sorted batch: samples that a bound holds are counted, not visited.

    Args:
        base: the batch.
    """

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
    """Return the batch with samples of a cell that lie close together as one."""
    x, cells = passes.scores, passes.cells
    assert cells.codes is not None
    if passes.geometry.name == "likelihood":
        odds = np.log(x) - np.log1p(-x)
    else:  # a step from 0 to 1 is as wide as some log-odds
        odds = x if passes.geometry.name == "entropic" else _BOX * x / (passes.upper - passes.lower)
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
