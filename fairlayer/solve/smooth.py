"""A search along smooth curves of the cells, which touches no sample: how far apart the scores lie costs it little.

A pull q takes the mean of a cell along a curve, m(q) = mean of y(x_i - q), which far from the samples is flat. A search
along the dual (see `newton`) does not see past a flat piece. Here a sample answers by ramps that are wider than its
own, and by a few that are wider still, so that every sample says where to go:

    y(t) = sum_j a_j ramp(t / w_j),     w_j = w 2^j,     a_j as 2^-j        (ramp(u) = 1/2 + u within 0 and 1)

Far out that falls as w / |t|, as a barrier -w log(y (1 - y)) would have it (see `interior`), but sums of ramps are read
off sums so far of the sorted scores:

    sum ramp((x - q) / w) = (sum of x - q between) / w + 1/2 (weight between) + (weight above)

So a look at any pull costs a bisection per cell and ramp. The width w falls from the whole range of the scores to the
geometry's own, and from there on the weight of the wider ramps falls. Limits of rows keep slacks and prices with a
product mu as w. Each step is Newton's for a smaller w: with S = M K M' and dm/dw from the same sums,

    S dp + ... = M (dm/dw) dw + what the rows miss.

Where the curves bend too much beside what the step was worked out for, it is shortened. Source: Chen, Harker (1997), "A
continuation method for monotone variational inequalities"; Nesterov (2005), "Smooth minimization of non-smooth
functions".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.passes import Passes
from fairlayer.solve.interior_step import RowEquations
from fairlayer.solve.sides import Side, first_levels, priced_solution
from fairlayer.solve.slabs import SlabSystem
from fairlayer.solve.solution import Solution
from fairlayer.solve.sorted import SortedBatch
from fairlayer.solve.table import RowTable

__all__ = ["SmoothSearch"]

_MOST_STEPS, _MOST_TRIALS = 80, 8
_FALL = 0.2  # of the width in a step
_BENT = 1.0  # how much of a step's gain the bending of the curves may take
_LEAST_SHARE = 1e-3  # of a step, below which it is taken as it is
_SHORT = 0.99  # of the way to the first slack or price that would be used up
_MET = 1e-6  # what the limits may be missed by there
_ROOM = 0.1  # the slack of each limit at the start, of the width of the domain
_RATIO = 8.0  # of the width to mu
_SIGMOID = 4.0  # log-odds: the width of the ramp that is as steep as a sigmoid


class _Look(NamedTuple):
    """The curves at some pulls.

    Args:
        mean: the mean of each cell.
        slope: K, the fall of each mean per unit of its statistic's price.
        turn: the change of each mean per relative change of the width.
    """

    mean: FloatArray
    slope: FloatArray
    turn: FloatArray


class SmoothSearch:
    """Prices and levels, slacks of the rows, and the width of the ramps.

    Args:
        passes: a batch that is `sortable`, Euclidean or entropic.
        slabs: a feasible system.
    """

    def __init__(self, passes: Passes, slabs: SlabSystem) -> None:
        self.slabs, self.table, self.steps, self.exact = slabs, RowTable.of(slabs), 0, False
        self.equations = RowEquations(self.table)
        self.curves = _Curves(passes)
        self.width, wide = self.curves.widest, self.curves.wide
        nothing = np.zeros(len(self.table.level))
        start = self.table.matrix @ self.curves.at(nothing @ self.table.matrix, self.width).mean
        self.c = first_levels(self.table, start)
        lower, upper = self.table.ends(self.c)
        either = ~self.equations.equal
        low = Side.of(start - lower, _ROOM * wide, either & np.isfinite(lower))
        high = Side.of(upper - start, _ROOM * wide, either & np.isfinite(upper))
        self.low, self.high = low.priced(self.mu / low.slack), high.priced(self.mu / high.slack)
        self.tied = nothing  # prices of the rows without slack
        self.look = self._looked(self.price, self.width)

    @property
    def mu(self) -> float:
        """The product of slack and price."""
        return self.width * self.curves.wide / _RATIO

    @property
    def price(self) -> FloatArray:
        """The price of each row, > 0 at its upper limit."""
        return np.asarray(self.high.price - self.low.price + self.tied)

    def near(self, end: float, met: float, *, exact: bool) -> Solution | None:
        """Return where the projection lies once the wider ramps weigh `end`; None where it does not come so far."""
        with np.errstate(all="ignore"):  # what overflows ends the search
            try:
                if exact != self.exact:
                    self.exact = exact
                    self.look = self._looked(self.price, self.width)
                return self._prices() if self._run(end, met) else None
            except np.linalg.LinAlgError:
                return None

    def _run(self, end: float, met: float) -> bool:
        while self.steps < _MOST_STEPS:
            lower, upper = self.table.ends(self.c)
            value = self.table.matrix @ self.look.mean
            self.missed_low = np.where(self.low.there, value - lower - self.low.slack, 0.0)
            self.missed_high = np.where(self.high.there, upper - value - self.high.slack, 0.0)
            self.missed_tie = np.where(self.equations.equal, upper - value, 0.0)
            each = self.missed_low, self.missed_high, self.missed_tie
            missed = max(float(np.abs(one).max(initial=0.0)) for one in each)
            if not np.isfinite(missed + self.width):
                return False
            if self.width <= end * self.curves.own and missed <= met * self.curves.wide:
                return True
            self._step()
            self.steps += 1
        return False

    def _step(self) -> None:
        """Take a step of Newton's method towards a smaller width, as far as the curves bear it."""
        table, low, high = self.table, self.low, self.high
        fall = _FALL if self.width <= self.curves.own else max(_FALL, self.curves.own / self.width)
        mu = fall * self.mu
        given = table.matrix @ (self.look.turn * (fall - 1.0))
        sides = low, high, low.asked(mu, self.missed_low), high.asked(mu, self.missed_high)
        found = self.equations.solve(self.look.slope, given, sides, self.tied, self.missed_tie)
        answer = table.matrix @ (self.look.slope * (found.price @ table.matrix))
        value, level = given - answer, np.append(found.level, 0.0)[table.level]
        lower = low.change(mu, self.missed_low + value - level)
        upper = high.change(mu, self.missed_high + level / self.equations.scale - value)
        share = min(1.0, _SHORT * min(low.longest(lower), high.longest(upper)))
        share, self.width, self.look = self._as_far(share, found.price, value, float(found.price @ answer), fall)
        self.low, self.high = low.moved(share, lower), high.moved(share, upper)
        self.tied = self.tied + share * np.where(self.equations.equal, found.price, 0.0)
        self.c = self.c + share * found.level

    def _as_far(
        self, share: float, price: FloatArray, value: FloatArray, gain: float, fall: float
    ) -> tuple[float, float, _Look]:
        """Return the share of a step of which the curves take away no more than was to be gained, and a look there."""
        start, now = self.table.matrix @ self.look.mean, self.price
        for _ in range(_MOST_TRIALS):
            left = 1.0 - share * (1.0 - fall)
            width = self.width * left
            if abs(width / self.curves.own - 1.0) < 1e-9:
                width = self.curves.own
            look = self._looked(now + share * price, width)
            bent = abs(float(price @ (self.table.matrix @ look.mean - start - share * value)))
            allowed = _BENT * share * gain
            if bent <= allowed or share < _LEAST_SHARE:
                break
            share *= min(max(allowed / bent, 0.2), 0.6)
        return share, width, look

    def _looked(self, price: FloatArray, width: float) -> _Look:
        return self.curves.at(price @ self.table.matrix, width, exact=self.exact)

    def _prices(self) -> Solution:
        wide = self.curves.wide
        high, low = self.high.binding(wide), self.low.binding(wide)
        high, low = high + np.maximum(self.tied, 0.0), low + np.maximum(-self.tied, 0.0)
        return priced_solution(self.slabs, self.table, high, low, self.steps)


class _Curves:
    """The mean of each cell at any pull, of samples that answer by ramps.

    Args:
        passes: the batch.
    """

    def __init__(self, passes: Passes) -> None:
        self.counts = passes.cells.counts
        self.batch = SortedBatch(passes)
        self.first, self.last = self.batch.first, self.batch.last
        x, flat = self.batch.ordered[: self.last[-1]], passes.geometry.name == "euclidean"
        self.low, self.wide = (passes.lower, passes.upper - passes.lower) if flat else (0.0, 1.0)
        self.own = self.wide if flat else _SIGMOID
        x = x - (self.low + 0.5 * self.wide if flat else 0.0)  # from where a ramp is half-way up
        self.least = float(x.min(initial=0.0))
        self.span = max(float(x.max(initial=0.0)) - self.least, self.own)
        self.widest = 2.0 * self.span
        # One sorted array for all cells: the place of a sample within (0, 1/2), after the number of its cell.
        self.cell = np.arange(len(self.counts))
        self.places = 0.5 * (x - self.least) / self.span + np.repeat(self.cell, self.last - self.first)
        self.weights = self.batch.weights
        self.sums = np.append(0.0, np.cumsum(self.batch.each[: len(x)] * x))
        self.exact = None if flat else self.batch.at
        self.whole = self.weights[self.last] - self.weights[self.first]
        self.doubled = 2.0 ** np.arange(2 + max(0, int(np.ceil(np.log2(4.0 * self.span / self.own)))))
        self.shares = 0.5 / self.doubled
        self.shares[0] = 1.0 - self.shares[1:].sum()

    def at(self, nu: FloatArray, width: float, *, exact: bool = False) -> _Look:
        """Return the curves at a dual point. Below the geometry's own width only the weight of wider ramps falls."""
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
        slopes = free / widths[:, None]
        if narrow and exact and self.exact is not None:
            mean, free = self.exact(nu, slopes=True)
            ramps[0], slopes[0] = mean * self.counts, free
        turn = shares[1:] @ (ramps[1:] - ramps[0]) if narrow else -(shares @ inside)
        mean, slope = shares @ ramps, shares @ slopes
        return _Look(
            (self.low * self.whole + self.wide * mean) / self.counts,
            self.wide * slope / (self.counts * self.counts),
            self.wide * turn / self.counts,
        )
