"""Curves of the likelihood geometry, in which every probability is moved inwards.

In this geometry a barrier at the ends of (0, 1) is the geometry itself, of other scores: with 1 - 2 u = 1 / (1 + 2 w)

    d(y, z) - w log(y (1 - y)) = (1 + 2 w) d(y, z') + constant,     z' = (1 - 2 u) z + u

so that a sample answers a pull q as z' answers (1 - 2 u) q. At a large width u every sample lies well inside, and says
where to go; at u = 0 it answers as it does. In between, a score of nearly 0 answers along a bend of the width sqrt(u)
about q = -1, that of nearly 1 about q = 1. These curves are not read off: a look visits its samples. So the scores of
a cell that lie close together become the two points of Gauss's quadrature, which have the same first three moments,
and the search looks at those.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fairlayer._rows import compress
from fairlayer._typing import FloatArray, IntArray
from fairlayer.geometry import Geometry
from fairlayer.passes import Passes
from fairlayer.solve.curves import CurvesAt

__all__ = ["InwardCurves", "Scores", "samples_of", "thinned"]

_WIDEST = 0.3  # 1/2 is where nothing is left of the scores
_RATIO = 10.0  # of the width to the product of slack and price
_FASTEST = 1e-4  # to how much of the width a step may lead
_FAR = 0.1  # how much of the domain limits may be missed by for the width to fall
_MOST_STEPS, _PATIENCE = 40, 3
_EVEN = 4.0  # log-odds up to which intervals are of width 1; beyond, they widen


class Scores(NamedTuple):
    """Probabilities in cells.

    Args:
        x: (m,), in (0, 1).
        weights: how many samples each stands for, (m,).
        cell: the cell of each.
    """

    x: FloatArray
    weights: FloatArray
    cell: IntArray


class InwardCurves:
    """The mean of each cell at any pull, of scores that are moved inwards.

    Args:
        scores: what is looked at.
        counts: samples per cell.
        geometry: the likelihood geometry.
    """

    wide, own, widest = 1.0, 1.0, _WIDEST
    ratio, fastest, far = _RATIO, _FASTEST, _FAR
    most_steps, patience = _MOST_STEPS, _PATIENCE

    def __init__(self, scores: Scores, counts: FloatArray, geometry: Geometry) -> None:
        self.scores, self.counts, self.geometry, self.visited = scores, counts, geometry, 0

    def at(self, nu: FloatArray, width: float) -> CurvesAt:
        """Return the curves at a dual point, moved inwards by u = `width`.

        With F = y - z' + (1 - 2 u) q y (1 - y) = 0 and r = dF/dy, dy/du = (1 - 2 z + 2 q y (1 - y)) / r.
        """
        x, weights, cell = self.scores
        self.visited += len(x)
        kept = 1.0 - 2.0 * width
        moved, pull = kept * x + width, (nu / self.counts)[cell]
        value = self.geometry.step(moved, kept * pull, None, None)[0]
        slope = self.geometry.weigh(value, moved, None, weights)  # y (1 - y) / r
        turn = width * ((1.0 - 2.0 * x) * self.geometry.follow(value, moved, None, weights) + 2.0 * pull * slope)
        mean, slope, turn = (np.bincount(cell, each, len(self.counts)) for each in (weights * value, slope, turn))
        return CurvesAt(mean / self.counts, kept * slope / (self.counts * self.counts), turn / self.counts)


def thinned(passes: Passes) -> Scores:
    """Return two points for the scores of a cell in each interval of log-odds, with their first three moments.

    With the variance v and the skewness g these are m + sqrt(v) (g / 2 -+ sqrt(1 + g^2 / 4)), and the probability of
    the upper one is (1 - (g / 2) / sqrt(1 + g^2 / 4)) / 2.
    """
    x, weights, codes = samples_of(passes)
    odds = np.log(x) - np.log1p(-x)
    size = np.abs(odds)
    place = np.where(size <= _EVEN, size, _EVEN * (1.0 + np.log(np.maximum(size, _EVEN) / _EVEN)))
    place = np.floor(np.copysign(place, odds)).astype(np.int64)
    place -= place.min(initial=0)
    wide = int(place.max(initial=0)) + 1
    which, one = compress(codes.astype(np.int64) * wide + place, len(passes.cells.counts) * wide)
    whole = np.bincount(one, weights, len(which)).astype(np.float64, copy=False)
    mean = np.bincount(one, weights * x, len(which)) / whole
    off = x - mean[one]
    moment = weights * off * off
    variance = np.bincount(one, moment, len(which)) / whole
    deviation = np.sqrt(variance)
    third = np.bincount(one, moment * off, len(which)) / whole
    lean = 0.5 * np.divide(third, variance * deviation, out=np.zeros_like(mean), where=deviation > 1e-12 * mean)
    root = np.sqrt(1.0 + lean * lean)
    share = 0.5 * (1.0 - lean / root)
    cell = which // wide
    low, high = mean + deviation * (lean - root), mean + deviation * (lean + root)
    single = deviation <= 1e-12 * mean
    low, share = np.where(single, mean, low), np.where(single, 0.0, share)
    kept = share > 0
    return Scores(
        np.append(low, high[kept]),
        np.append(whole * (1.0 - share), (whole * share)[kept]),
        np.append(cell, cell[kept]),
    )


def samples_of(passes: Passes) -> Scores:
    """Return the samples that are in a cell, and of a positive weight."""
    x, cells = passes.scores, passes.cells
    assert cells.codes is not None
    weights = np.ones(len(x)) if cells.weights is None else cells.weights
    here = (weights > 0) & (cells.codes < len(cells.counts))
    found = Scores(x, weights, cells.codes)
    return found if here.all() else Scores._make(each[here] for each in found)
