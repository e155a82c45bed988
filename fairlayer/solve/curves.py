"""Curves along which a pull takes the mean of each cell, smoothed, from a sorted batch.

A pull q takes the mean of a cell along m(q) = mean of y(x_i - q), which is flat where no sample is near. Here a sample
answers by ramps, each twice as wide as the one before and of half its weight, so that no curve is flat anywhere:

    y(t) = sum_j a_j ramp(t / w_j),     w_j = w 2^j,     a_j as 2^-j        (ramp(u) = 1/2 + u, within 0 and 1)

Far out that falls as w / |t|, as under a barrier -w log(y (1 - y)) (see `interior`). Sums of ramps are read off sums so
far of the sorted scores, so that a look at any pull costs a bisection for each cell and ramp, and visits no sample:

    sum of ramp((x - q) / w) = (sum of x - q between) / w + 1/2 (weight between) + (weight above)

In the Euclidean geometry the first ramp is the answer itself once w is the width of the box. In the entropic one it is
as steep as the sigmoid at w = 4 log-odds, which is near enough for the exact method to take over.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.solve.sorted import SortedBatch

__all__ = ["Curves", "CurvesAt", "SmoothCurves"]

_RATIO = 128.0  # of the width to the product of slack and price
_FALL = 0.1  # to how much of the width a step may lead
_MOST_STEPS = 80
_SIGMOID = 4.0  # log-odds: the width of the ramp that is as steep as a sigmoid


class CurvesAt(NamedTuple):
    """The curves at a dual point.

    Args:
        mean: the mean of each cell.
        slope: K, (s,) where it is diagonal, else (s, s).
        turn: the change of each mean per relative change of the width.
    """

    mean: FloatArray
    slope: FloatArray
    turn: FloatArray

    def give(self, nu: FloatArray) -> FloatArray:
        """Return K nu."""
        return self.slope * nu if self.slope.ndim == 1 else self.slope @ nu


class Curves(Protocol):
    """What a search asks of the curves along which cells answer."""

    counts: FloatArray  # samples per statistic
    wide: float  # the width of the domain
    widest: float  # the width of the smoothing at the start
    own: float  # that of the geometry, down to which curves widen, and below which smoothing fades
    ratio: float  # of the width to the product of slack and price
    fastest: float  # to how much of the width a step may lead
    far: float  # how much of the domain limits may be missed by for the width to fall
    most_steps: int
    patience: int  # how many steps in a row may lead nowhere

    def at(self, nu: FloatArray, width: float) -> CurvesAt:
        """Return the curves at a dual point and a width."""


class SmoothCurves:
    """The mean of each cell at any pull, of samples that answer by ramps.

    Args:
        batch: the samples, of the Euclidean or the entropic geometry.
    """

    def __init__(self, batch: SortedBatch) -> None:
        self.counts, flat = batch.cells.counts, batch.geometry.name == "euclidean"
        self.low: float = batch.lower if flat else 0.0
        self.wide: float = batch.upper - batch.lower if flat else 1.0
        self.own = self.wide if flat else _SIGMOID  # the width at which ramps are as steep as the geometry
        self.first, self.last = batch.first, batch.last
        x, each = batch.ordered[: self.last[-1]], batch.each[: self.last[-1]]
        x = x - (self.low + 0.5 * self.wide if flat else 0.0)  # from where a ramp is half-way up
        self.ratio, self.fastest, self.far = _RATIO, _FALL, np.inf
        self.most_steps = self.patience = _MOST_STEPS
        self.least = float(x.min(initial=0.0))
        self.span = max(float(x.max(initial=0.0)) - self.least, self.own)
        self.widest = 2.0 * self.span
        # One sorted array for all cells: the number of the cell, and where within (0, 1/2) a sample lies.
        self.cell = np.arange(len(self.counts))
        self.places = np.repeat(self.cell, self.last - self.first) + 0.5 * (x - self.least) / self.span
        self.weights, self.sums = batch.weights, np.append(0.0, np.cumsum(each * x))
        self.whole = self.weights[self.last] - self.weights[self.first]
        self.doubled = 2.0 ** np.arange(2 + max(0, int(np.ceil(np.log2(4.0 * self.span / self.own)))))
        self.shares = 0.5 / self.doubled
        self.shares[0] = 1.0 - self.shares[1:].sum()

    def at(self, nu: FloatArray, width: float) -> CurvesAt:
        """Return the curves at a dual point.

        Args:
            nu: the dual point.
            width: of the first ramp. Below the geometry's own width that stays, and the weight of wider ramps falls.
        """
        pull, narrow = nu / self.counts, width <= self.own
        widths, shares = max(width, self.own) * self.doubled, self.shares
        if narrow:
            shares = (width / self.own) * shares
            shares[0] = 1.0 - shares[1:].sum()
        half = 0.5 * widths[:, None]
        ends = 0.5 * (np.stack([pull - half, pull + half]) - self.least) / self.span
        at = np.searchsorted(self.places, np.clip(ends, -0.2, 0.7) + self.cell)
        weights, sums = self.weights[at], self.sums[at]
        free = weights[1] - weights[0]
        inside = (sums[1] - sums[0] - pull * free) / widths[:, None]
        ramps = inside + 0.5 * free + self.weights[self.last] - weights[1]
        turn = shares[1:] @ (ramps[1:] - ramps[0]) if narrow else -(shares @ inside)
        return CurvesAt(
            (self.low * self.whole + self.wide * (shares @ ramps)) / self.counts,
            self.wide * ((shares / widths) @ free) / (self.counts * self.counts),
            self.wide * turn / self.counts,
        )
