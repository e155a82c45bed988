"""A search along smooth curves of the cells, which touches no sample: how far apart the scores lie costs it little.

A search along the dual (see `newton`) does not see past a place where nothing answers. Here each cell answers along a
curve that is smoothed by a width w (see `curves`), so that every sample says where to go. w falls from the whole range
of the scores to the geometry's own width, and from there on what is left of the smoothing falls. Limits of rows keep
slacks and prices, whose product falls with w. Each step is Newton's for a smaller w: with S = M K M',

    S dp + ... = M (dm/dw) dw + what the rows miss

and where the curves bend too much beside that, it is shortened. Sources: Chen, Harker (1997), "Smooth approximations to
nonlinear complementarity problems"; Nesterov (2005), "Smooth minimization of non-smooth functions".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.solve.curves import Curves, CurvesAt
from fairlayer.solve.interior_step import RowEquations
from fairlayer.solve.sides import Side, first_levels, priced_solution
from fairlayer.solve.slabs import SlabSystem
from fairlayer.solve.solution import Solution
from fairlayer.solve.table import RowTable

__all__ = ["SmoothSearch"]

_MOST_TRIALS = 8
_FALL = 0.1  # of the width in a step, the first one or after one that was shortened
_FASTER = 1.5  # the power of that fall after a step that was not
_FULL = 0.9  # the share of a step that counts as whole
_LONGER = 30.0  # than the share before
_BENT = 1.0  # how much of a step's gain the bending of the curves may take
_ROUNDING = 1e-15  # of a mean, of the width of the domain: it does not count as bending
_CREEPS = 1e-2  # a share of a step by which the search creeps
_LEAST_SHARE = 1e-3  # of a step, below which it is taken as it is
_SHORT = 0.99  # of the way to the first slack or price that would be used up
_FULL_UP_TO = 4096  # entries of rows that are faster as an array
_ROOM = 0.1  # the slack of each limit at the start, of the width of the domain
_END = 1e-3  # the width at which the search ends, of the geometry's own
_MET = 1e-3  # what the limits may be missed by there, of the width of the domain


class SmoothSearch:
    """Prices and levels, slacks of the rows, and the width of the smoothing.

    Args:
        curves: how the cells answer.
        slabs: a feasible system.
    """

    def __init__(self, curves: Curves, slabs: SlabSystem) -> None:
        self.slabs, self.table = slabs, RowTable.of(slabs)
        self.equations, self.curves = RowEquations(self.table), curves
        whole = self.table.matrix
        self.matrix: Any = np.asarray(whole) if whole.shape[0] * whole.shape[1] <= _FULL_UP_TO else whole
        self.steps, self.width, self.fall, self.share = 0, self.curves.widest, _FALL, 1.0
        nothing, wide = np.zeros(len(self.table.level)), self.curves.wide
        pull = np.zeros(len(nothing))  # of a unit of each row's price
        np.maximum.at(pull, whole.rows, np.abs(whole.data) / self.curves.counts[whole.columns])
        self.size = 1.0 / np.where(pull > 0, pull, 1.0)
        start = self.matrix @ self._looked(nothing, self.width).mean
        self.c = first_levels(self.table, start)
        lower, upper = self.table.ends(self.c)
        either = ~self.equations.equal
        low = Side.of(start - lower, _ROOM * wide, either & np.isfinite(lower))
        high = Side.of(upper - start, _ROOM * wide, either & np.isfinite(upper))
        self.low, self.high = low.priced(self.mu / low.slack), high.priced(self.mu / high.slack)
        self.tied = nothing  # prices of the rows without slack
        self.look = self._looked(self.price, self.width)

    @property
    def mu(self) -> FloatArray:
        """The product of slack and price of each row: as the samples of which it speaks are many."""
        return np.asarray(self.size * (self.width * self.curves.wide / self.curves.ratio))

    @property
    def price(self) -> FloatArray:
        """The price of each row, > 0 at its upper limit."""
        return np.asarray(self.high.price - self.low.price + self.tied)

    def near(self, end: float | None = None, met: float = _MET) -> Solution | None:
        """Return where the projection lies; None where the search does not come so far.

        Args:
            end: the width at which it ends; None: a thousandth of the geometry's own.
            met: what the limits may be missed by there, of the width of the domain.
        """
        end = _END * self.curves.own if end is None else end
        with np.errstate(all="ignore"):  # what overflows ends the search
            try:
                return self._prices() if self._run(end, met * self.curves.wide) else None
            except np.linalg.LinAlgError:
                return None

    def over(self, curves: Curves) -> None:
        """Go on along other curves."""
        self.curves = curves
        self.look = self._looked(self.price, self.width)

    def _run(self, end: float, met: float) -> bool:
        creeping = 0
        while self.steps < self.curves.most_steps and creeping < self.curves.patience:
            lower, upper = self.table.ends(self.c)
            value = self.matrix @ self.look.mean
            self.missed_low = np.where(self.low.there, value - lower - self.low.slack, 0.0)
            self.missed_high = np.where(self.high.there, upper - value - self.high.slack, 0.0)
            self.missed_tie = np.where(self.equations.equal, upper - value, 0.0)
            each = self.missed_low, self.missed_high, self.missed_tie
            missed = max(float(np.abs(one).max(initial=0.0)) for one in each)
            if not np.isfinite(missed + self.width):
                return False
            if self.width <= end and missed <= met:
                return True
            self._step(off=missed > self.curves.far * self.curves.wide)
            self.steps, creeping = self.steps + 1, creeping + 1 if self.share < _CREEPS else 0
        return False

    def _step(self, *, off: bool) -> None:
        """Take a step of Newton's method towards a smaller width, as far as the curves bear it.

        Args:
            off: whether the limits are missed by so much that the width must not fall before they are met.
        """
        table, low, high = self.table, self.low, self.high
        fall = self.fall if self.width <= self.curves.own else max(_FALL, self.curves.own / self.width)
        fall = 1.0 if off else fall
        mu = fall * self.mu
        given = self.matrix @ (self.look.turn * (fall - 1.0))
        sides = low, high, low.asked(mu, self.missed_low), high.asked(mu, self.missed_high)
        found = self.equations.solve(self.look.slope, given, sides, self.tied, self.missed_tie)
        answer = self.matrix @ self.look.give(found.price @ self.matrix)
        value, level = given - answer, np.append(found.level, 0.0)[table.level]
        lower = low.change(mu, self.missed_low + value - level)
        upper = high.change(mu, self.missed_high + level / self.equations.scale - value)
        longest = min(1.0, _LONGER * self.share, _SHORT * min(low.longest(lower), high.longest(upper)))
        gain = float(found.price @ answer)
        share, self.width, self.look = self._as_far(longest, fall, found.price, value, gain)
        whole = share > _FULL and not off
        self.share, self.fall = share, max(self.fall**_FASTER, self.curves.fastest) if whole else _FALL
        self.low, self.high = low.moved(share, lower), high.moved(share, upper)
        self.tied = self.tied + share * np.where(self.equations.equal, found.price, 0.0)
        self.c = self.c + share * found.level

    def _as_far(
        self, share: float, fall: float, price: FloatArray, value: FloatArray, gain: float
    ) -> tuple[float, float, CurvesAt]:
        """Return the share of a step of whose gain the bending of the curves takes little, the width, and a look."""
        start, now, own = self.matrix @ self.look.mean, self.price, self.curves.own
        rounding = _ROUNDING * self.curves.wide * float(np.abs(price).sum())
        for _ in range(_MOST_TRIALS):
            width = self.width * (1.0 - share * (1.0 - fall))
            width = own if abs(width - own) < 1e-9 * own else width
            look = self._looked(now + share * price, width)
            bent = abs(float(price @ (self.matrix @ look.mean - start - share * value)))
            allowed = _BENT * share * gain + rounding
            if bent <= allowed or share < _LEAST_SHARE:
                break
            share *= min(max(allowed / bent, 0.2), 0.6)
        return share, width, look

    def _looked(self, price: FloatArray, width: float) -> CurvesAt:
        return self.curves.at(price @ self.matrix, width)

    def _prices(self) -> Solution:
        high, low = self.high.binding(self.curves.wide), self.low.binding(self.curves.wide)
        high, low = high + np.maximum(self.tied, 0.0), low + np.maximum(-self.tied, 0.0)
        return priced_solution(self.slabs, self.table, high, low, self.steps)
