"""A sorted batch: the statistics at any pull from a few samples per cell, for scores that lie far outside the bounds.

A sample whose coordinate x is far from the pull q answers with a bound: exactly in the Euclidean geometry, up to
exp(-40) in the entropic one. With the coordinates of each cell in order, those samples are counted, not visited:

    sum y(x, q) = lower * (samples below) + (sum of y over the samples between) + upper * (samples above)

In the Euclidean geometry the sum between is that of x - q, from sums so far. In the likelihood geometry no sample is
far from any pull, but scores that round to the ends of (0, 1) are equal, and equal scores are visited once. Sums over
far scores round like those scores, so that this only finds the place; the passes themselves have the last word.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.passes import CondensedBatch, Passes, sorted_by_cell

__all__ = ["SortedBatch", "lies_far_outside", "sortable", "worth_condensing"]

_FAR = 30.0  # widths of the box
_REACH = 40.0  # log-odds from which a probability is 0 or 1 up to rounding
_WORTH = 200  # samples for each cell, from which a batch is condensed
_KNOWN = frozenset({"euclidean", "entropic", "likelihood"})


def sortable(passes: Passes) -> bool:
    """Return whether a batch can be sorted: one process, hard cells, the same two bounds for all, on the host."""
    ends = isinstance(passes.lower, float) and isinstance(passes.upper, float)
    plain = passes.geometry.name in _KNOWN and not passes.geometry.on_simplex
    here = isinstance(passes.scores, np.ndarray) and passes.parts == 1
    return bool(plain and ends and here and passes.cells.dense is None)


def lies_far_outside(passes: Passes) -> bool:
    """Return whether the scores of a batch that can be sorted go far beyond its bounds."""
    if not sortable(passes) or passes.geometry.bounded:
        return False
    return bool(passes.size > _FAR * (passes.upper - passes.lower) + max(abs(passes.lower), abs(passes.upper)))


def worth_condensing(passes: Passes) -> bool:
    """Return whether a batch of probabilities is large enough beside its cells to be condensed."""
    large = passes.n >= _WORTH * len(passes.cells.counts)
    return bool(passes.geometry.bounded and large and CondensedBatch.serves(passes))


class SortedBatch:
    """The means of all cells at any pull, from a sorted copy of the scores.

    In the geometries of probabilities a large batch is condensed as well (see `passes.condensed`). `visited` counts
    what was looked at, beside the samples that were counted, and `sweeps` the passes that sorting and condensing took.

    Args:
        passes: a batch that is `sortable`.
    """

    def __init__(self, passes: Passes) -> None:
        self.cells, self.geometry, self.visited = passes.cells, passes.geometry, 0
        self.lower, self.upper = passes.lower, passes.upper
        k = len(self.cells.counts)
        condensed = worth_condensing(passes)
        self.sweeps = 2 if condensed else 1
        samples = CondensedBatch(passes).nodes if condensed else sorted_by_cell(passes.scores, self.cells)
        self.ordered, codes = samples.scores, np.repeat(np.arange(k + 1), np.diff(samples.starts))
        weights = np.ones(len(codes)) if samples.weights is None else samples.weights
        if self.geometry.name == "likelihood":
            new = np.append(True, (np.diff(self.ordered) != 0) | (np.diff(codes) != 0))
            self.ordered, codes = self.ordered[new], codes[new]
            weights = np.add.reduceat(weights, np.flatnonzero(new))
        self.each = weights
        ends = np.searchsorted(codes, np.arange(k + 1))
        self.first, self.last = ends[:-1], ends[1:]
        self.weights = np.append(0.0, np.cumsum(weights))
        self.sums = np.append(0.0, np.cumsum(weights * self.ordered))

    def at(self, nu: FloatArray, *, slopes: bool = False) -> tuple[FloatArray, FloatArray]:
        """Return the mean of each cell at a dual point, and with `slopes` the sum of W, else zeros."""
        t = nu / self.cells.counts
        if self.geometry.name == "likelihood":
            total, free = self._between(t, self.first, self.last, slopes=slopes)
            return total / self.cells.counts, free
        euclidean = self.geometry.name == "euclidean"
        low, high = (self.lower, self.upper) if euclidean else (-_REACH, _REACH)
        below, above = self._place(low + t), self._place(high + t)
        total = self.lower * (self.weights[below] - self.weights[self.first]) if euclidean else np.zeros(len(t))
        total = total + (self.upper if euclidean else 1.0) * (self.weights[self.last] - self.weights[above])
        if euclidean:
            free = self.weights[above] - self.weights[below]
            total = total + self.sums[above] - self.sums[below] - t * free
        else:
            inner, free = self._between(t, below, above, slopes=slopes)
            total = total + inner
        return total / self.cells.counts, free

    def _between(
        self, t: FloatArray, first: IntArray, last: IntArray, *, slopes: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Return the sums of y, and of W, over the samples of each cell from `first` to before `last`."""
        lengths = last - first
        cell = np.repeat(np.arange(len(t)), lengths)
        self.visited += len(cell)
        at = np.arange(len(cell)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + first[cell]
        x, each = self.ordered[at], self.each[at]
        value: Any = self.geometry.step(x, t[cell], None, None)[0]
        total = np.bincount(cell, value * each, len(t)).astype(np.float64, copy=False)
        if not slopes:
            return total, np.zeros(len(t))
        return total, np.bincount(cell, self.geometry.weigh(value, x, None, each), len(t)).astype(
            np.float64, copy=False
        )

    def _place(self, threshold: FloatArray) -> IntArray:
        """Return in each cell the place of the first score above its threshold, by bisection."""
        low, high = self.first.copy(), self.last.copy()
        while (low < high).any():
            middle = (low + high) // 2
            inside = low < high
            up = inside & (self.ordered[np.minimum(middle, len(self.ordered) - 1)] <= threshold)
            low, high = np.where(up, middle + 1, low), np.where(inside & ~up, middle, high)
        return low
