"""A sorted batch: the statistics at any pull from two places per cell, for scores that lie far outside the bounds.

In the Euclidean geometry a cell's mean is piecewise linear in its shift t, with a kink where a sample meets a bound.
Far outside the bounds the kinks lie far apart, and the slope at one place says nothing about the next. Newton's method
then needs as many passes as a bisection. With the scores of each cell in order and their sums so far,

    sum clip(z - t) = lower * (samples below) + (sum of z - t between) + upper * (samples above)

takes two searches instead of a pass over the samples. Sums over far scores round like those scores, so that this only
finds the place; the passes themselves have the last word.
"""

from __future__ import annotations

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.passes import Passes, Point

__all__ = ["SortedBatch", "lies_far_outside", "sortable"]

_FAR = 30.0  # widths of the box


def sortable(passes: Passes) -> bool:
    """Whether a batch can be sorted: one process, hard cells, the same two bounds for all, on the host."""
    ends = isinstance(passes.lower, float) and isinstance(passes.upper, float)
    plain = passes.geometry.name == "euclidean" and not passes.geometry.on_simplex
    here = isinstance(passes.scores, np.ndarray) or getattr(passes.scores, "device", None) is not None
    host = isinstance(passes.scores, np.ndarray) or (here and passes.scores.device.type == "cpu")
    return plain and ends and host and passes.parts == 1 and passes.cells.dense is None


def lies_far_outside(passes: Passes) -> bool:
    """Whether the scores of a batch that can be sorted go far beyond its bounds."""
    return sortable(passes) and passes.size > _FAR * (passes.upper - passes.lower) + max(
        abs(passes.lower), abs(passes.upper)
    )


class SortedBatch:
    """What a search needs of passes, from a sorted copy of the scores.

    Args:
        passes: a batch that is `sortable`.
    """

    def __init__(self, passes: Passes) -> None:
        cells = passes.cells
        self.cells, self.geometry, self.scores = cells, passes.geometry, passes.scores
        self.lower, self.upper = passes.lower, passes.upper
        k = len(cells.counts)
        scores = np.asarray(passes.scores)
        assert cells.codes is not None
        order = np.lexsort((scores, cells.codes))
        self.ordered = scores[order]
        weights = np.ones(len(order)) if cells.weights is None else cells.weights[order]
        ends = np.searchsorted(cells.codes[order], np.arange(k + 1))
        self.first, self.last = ends[:-1], ends[1:]
        self.weights = np.append(0.0, np.cumsum(weights))
        self.sums = np.append(0.0, np.cumsum(weights * self.ordered))

    def at(self, nu: FloatArray | None) -> Point:
        """Return the statistics at a dual point, and K; there is no value."""
        t = np.zeros(len(self.first)) if nu is None else nu / self.cells.counts
        below, above = self._place(self.lower + t), self._place(self.upper + t)
        between = self.weights[above] - self.weights[below]
        total = self.lower * (self.weights[below] - self.weights[self.first])
        total += self.upper * (self.weights[self.last] - self.weights[above])
        total += self.sums[above] - self.sums[below] - t * between
        return Point(None, None, total / self.cells.counts, between / self.cells.counts**2)

    def _place(self, threshold: FloatArray) -> IntArray:
        """Return in each cell the place of the first score above its threshold, by bisection."""
        low, high = self.first.copy(), self.last.copy()
        while (low < high).any():
            middle = (low + high) // 2
            inside = low < high
            up = inside & (self.ordered[np.minimum(middle, len(self.ordered) - 1)] <= threshold)
            low, high = np.where(up, middle + 1, low), np.where(inside & ~up, middle, high)
        return low
