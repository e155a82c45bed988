"""Ranges that share no sample: one unknown per range, whatever the number of groups.

Where each statistic is read by one row at most, a row answers to its own price p alone, v(p), falling. At the level c
of its spread a row ends up at the nearest point of its limits to where it starts (see `table`), and the level is where
the prices of a spread cancel:

    sum over rows at the upper limit of p / scale  +  sum over rows at the lower limit of p  =  0

which rises with c. Each pass measures all rows at their own prices. From value and slope there the level follows in
closed form (a piecewise linear equation), and with it the next prices. What has been measured of a row brackets every
later price of it. Where that does not settle in a few passes, a level is held until its rows have reached it, and is
then bracketed itself, so that the method always ends.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fairlayer._rows import SparseRows
from fairlayer._typing import BoolArray, FloatArray
from fairlayer.passes import Passes, Point
from fairlayer.solve.levels import level_of
from fairlayer.solve.slabs import SlabSystem
from fairlayer.solve.solution import Solution
from fairlayer.solve.table import faces_of_prices
from fairlayer.solve.units import Units, reach_of_units

__all__ = ["PricedRows", "price_ranges", "solve_ranges"]

_TOGETHER = 7  # passes in which levels and prices move at once
_MOST_PASSES = 60


def solve_ranges(
    passes: Passes, slabs: SlabSystem, units: Units, start: Point, wide: FloatArray, *, patient: bool = True
) -> Solution | None:
    """Return the projection onto slabs whose rows share no statistic; None where numbers cannot settle it.

    Args:
        passes: the batch; K must be diagonal.
        slabs: a feasible system with its accuracy.
        units: its rows.
        start: the point at price zero.
        wide: K where every sample is free to move.
        patient: whether to go on where levels and prices do not settle in a few passes.
    """
    found = price_ranges(passes, units, start, wide, patient=patient)
    if found is None:
        return None
    faces, multipliers = faces_of_prices(slabs, units.table, found.high, found.low)
    return Solution.at(found.point, found.nu, faces, multipliers, passes=found.passes)


def price_ranges(
    passes: Passes, units: Units, start: Point, wide: FloatArray, *, patient: bool = True
) -> PricedRows | None:
    """Return the same as prices of rows."""
    return _PriceSearch(passes, units, start, wide).run(patient=patient)


class PricedRows(NamedTuple):
    """A solution by the prices of its rows.

    Args:
        high: price of each row's upper limit, >= 0, in units of `scale * value` for a member of a spread.
        low: price of each row's lower limit, >= 0; those of a spread add up to the same as its high ones.
        nu: the dual point, (s,).
        point: the batch there.
        passes: sweeps over the batch that it took.
    """

    high: FloatArray
    low: FloatArray
    nu: FloatArray
    point: Point
    passes: int


class _PriceSearch:
    """The state of the search: prices and what was measured at them, brackets of the levels."""

    def __init__(self, passes: Passes, units: Units, start: Point, wide: FloatArray) -> None:
        self.passes, self.units, self.point = passes, units, start
        square = SparseRows(units.matrix.rows, units.matrix.columns, units.matrix.data**2, units.matrix.shape)
        self.square, self.wide = square, square @ wide
        counts = passes.cells.counts
        pull = np.zeros(len(units.level))
        np.maximum.at(pull, units.matrix.rows, np.abs(units.matrix.data) / counts[units.matrix.columns])
        self.unit_pull = pull
        self.price = np.zeros(len(units.level))
        self.value = units.matrix @ start.statistics
        self.prices, self.values = [self.price], [self.value]
        self.count = 1
        self.domain = units.domain(reach_of_units(passes, units))
        self.c_low, self.c_high = (end.copy() for end in self.domain)
        self.at_low: FloatArray | None = None  # prices of the units at the ends of the brackets
        self.at_high: FloatArray | None = None
        self.c = np.zeros(len(units.scale))

    def run(self, *, patient: bool) -> PricedRows | None:
        """Search; where it must not be patient, only as long as levels and prices move together."""
        held = False
        for step in range(_MOST_PASSES):
            slope = self._slope()
            slope = np.where(slope > 0, slope, self.wide * max(0.05 * 0.5**step, 1e-9))
            centre = self.value + slope * self.price
            if not held:
                near = self.c if step else None
                self.c, price = level_of(self.units, centre, slope, self.domain, near)
            else:
                lower, upper = self.units.ends(self.c)
                price = (centre - np.clip(centre, lower, upper)) / slope
            price = self._bracketed(price)
            self._measure(price)
            if self._settled():
                return self._solution()
            if step + 1 >= _TOGETHER:
                if not patient:
                    return None
                held = True
                found = self._solution() if self._rebalanced() else self._hold(slope)
                if found is not None:
                    return found
        return None

    def _slope(self) -> FloatArray:
        return np.asarray(self.square @ self.point.curvature)

    def _rebalanced(self) -> bool:
        """Give what a spread lacks to a unit that no price moves just now, and say whether that was all.

        Where a unit is flat at the level that its spread needs, its price is whatever cancels the others.
        """
        units = self.units
        flat = units.inside & (self._slope() <= 0.0)
        if not flat.any():
            return False
        lower, upper = units.ends(self.c)
        self._snap(flat, lower, upper)
        lower, upper = units.ends(self.c)
        late = np.zeros(len(self.c), dtype=bool)
        late[units.level[units.inside & (self._missed() > 1.0)]] = True
        balance, size = units.balance(self.price, self.c)
        wrong = ~late & (np.abs(balance) > 1e-12 * size)
        lacking = np.append(balance, 0.0)[units.level]  # > 0: prices must fall
        at_high, at_low = np.abs(self.value - upper) <= units.atol, np.abs(self.value - lower) <= units.atol
        falls = (lacking > 0) & (at_low | (at_high & (self.price >= lacking * units.scales)))
        rises = (lacking < 0) & (at_high | (at_low & (self.price <= lacking)))
        able = np.flatnonzero(flat & np.append(wrong, False)[units.level] & (falls | rises))
        if not len(able):
            return False
        _, first = np.unique(units.level[able], return_index=True)
        chosen = able[first]
        kept = self.price, self.value, self.point
        price = self.price.copy()
        scale = np.where(at_high[chosen], units.scales[chosen], 1.0)
        price[chosen] -= lacking[chosen] * scale
        self._measure(price)
        if self._settled():
            return True
        if (self._missed()[chosen] > 1.0).any():
            self.price, self.value, self.point = kept
        return False

    def _snap(self, flat: BoolArray, lower: FloatArray, upper: FloatArray) -> None:
        """Put a level where a flat unit stands that all but meets it."""
        units = self.units
        for off, sign in ((self.value - upper, 1.0), (lower - self.value, -1.0)):
            near = np.flatnonzero(flat & (np.abs(off) > units.atol) & (np.abs(off) < 1e-5) & (sign * self.price > 0))
            for u in near[np.unique(units.level[near], return_index=True)[1]].tolist():
                r, stands = units.level[u], self.value[u] + units.offset[u]
                self.c[r] = units.scale[r] * stands - units.width[r] if sign > 0 else stands

    def _measure(self, price: FloatArray) -> None:
        self.price = price
        self.point = self.passes.at(price @ self.units.matrix)
        self.value = self.units.matrix @ self.point.statistics
        self.prices.append(price)
        self.values.append(self.value)
        self.count += 1

    def _bracketed(self, price: FloatArray) -> FloatArray:
        """Keep each price between those that are known to be too small and too large for the unit's target."""
        lower, upper = self.units.ends(self.c)
        target = np.minimum(np.maximum(self.values[0], lower), upper)
        least, most = np.full(len(price), -np.inf), np.full(len(price), np.inf)
        at_least, at_most = np.full(len(price), np.nan), np.full(len(price), np.nan)
        for p, v in zip(self.prices, self.values, strict=True):
            short, far = v > target + self.units.atol, v < target - self.units.atol
            nearer = short & (p > least)
            least, at_least = np.where(nearer, p, least), np.where(nearer, v, at_least)
            nearer = far & (p < most)
            most, at_most = np.where(nearer, p, most), np.where(nearer, v, at_most)
        outside = (price <= least) | (price >= most)
        both = np.isfinite(least) & np.isfinite(most)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.clip((at_least - target) / (at_least - at_most), 0.1, 0.9)
            between = least + share * (most - least)
        step = np.maximum(np.abs(price - self.price), np.abs(self.price))
        open_end = np.where(np.isfinite(least), least + np.maximum(step, 1e-300), most - np.maximum(step, 1e-300))
        price = np.where(outside, np.where(both, between, open_end), price)
        if np.isfinite(self.passes.geometry.longest_step):
            most_at_once = self.passes.geometry.longest_step / self.unit_pull + np.abs(self.price)
            price = self.price + np.clip(price - self.price, -most_at_once, most_at_once)
        return price

    def _missed(self) -> FloatArray:
        """Return by how many accuracies each unit misses where its price says that it should be."""
        lower, upper = self.units.ends(self.c)
        off = np.maximum(lower - self.value, self.value - upper)
        off = np.where(self.price > 0, np.abs(self.value - upper), off)
        off = np.where(self.price < 0, np.abs(self.value - lower), off)
        return np.asarray(off / self.units.atol)

    def _settled(self) -> bool:
        balance, size = self.units.balance(self.price, self.c)
        at_end = (self.c <= self.domain[0]) | (self.c >= self.domain[1])
        return bool((self._missed() <= 1.0).all() and ((np.abs(balance) <= 1e-12 * size) | at_end).all())

    def _hold(self, slope: FloatArray) -> PricedRows | None:
        """Move the levels whose units have arrived; return the solution where a level jumps between two prices."""
        units, c = self.units, self.c
        late = np.zeros(len(c), dtype=bool)
        late[units.level[units.inside & (self._missed() > 1.0)]] = True
        balance, size = units.balance(self.price, c)
        above, below = units.shares(self.price, c)
        rise = units.add((above > 0) / (slope * units.scales**2) + (below > 0) / slope)
        arrived = ~late & (np.abs(balance) > 1e-12 * size)
        up, down = arrived & (balance > 0), arrived & (balance < 0)
        if self.at_low is None or self.at_high is None:
            self.at_low, self.at_high = np.full(len(self.price), np.nan), np.full(len(self.price), np.nan)
        for which, end, kept in ((up, self.c_low, self.at_low), (down, self.c_high, self.at_high)):
            end[which] = c[which]
            mine = units.inside & which[np.maximum(units.level, 0)] if len(c) else units.inside
            kept[mine] = self.price[mine]
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = c + balance / rise
            middle = 0.5 * (self.c_low + self.c_high)
        middle = np.where(np.isfinite(middle), middle, c)  # no bracket yet, and no bounds
        within = (newton > self.c_low) & (newton < self.c_high)
        newton = np.where(within, newton, middle)
        for r in np.flatnonzero(arrived & ~within).tolist():
            newton[r] = self._kink_near(r, float(middle[r]))
        tight = self.c_high - self.c_low <= 1e-15 * np.maximum(np.abs(c), 1.0)
        if (tight & arrived).any() and (~late).all() and (tight | ~arrived).all():
            return self._between()
        self.c = np.where(arrived & ~tight, newton, c)
        return None

    def _kink_near(self, r: int, middle: float) -> float:
        """Return the level at which a unit's own limit takes over from its spread's; the balance jumps there."""
        units = self.units
        members = np.flatnonzero(units.level == r)
        at_low = units.lower[members] + units.offset[members]
        at_high = units.scale[r] * (units.upper[members] + units.offset[members]) - units.width[r]
        kinks = np.concatenate([at_low, at_high])
        kinks = kinks[(kinks > self.c_low[r]) & (kinks < self.c_high[r])]
        return float(kinks[np.abs(kinks - middle).argmin()]) if len(kinks) else middle

    def _between(self) -> PricedRows | None:
        """Return a level at which a unit is flat: its price is any of a range; take the one that cancels the rest."""
        assert self.at_low is not None
        assert self.at_high is not None
        units = self.units
        open_levels = ~np.isnan(np.bincount(units.level[units.inside], (self.at_low + self.at_high)[units.inside]))
        first, _ = units.balance(np.nan_to_num(self.at_low), self.c)
        last, _ = units.balance(np.nan_to_num(self.at_high), self.c)
        share = np.where(open_levels & (first != last), first / np.where(first != last, first - last, 1.0), 0.0)
        mixed = units.inside & open_levels[np.maximum(units.level, 0)]
        part = share[np.maximum(units.level, 0)]
        price = np.where(mixed, (1.0 - part) * self.at_low + part * self.at_high, self.price)
        self._measure(price)
        return self._solution() if (self._missed() <= 10.0).all() else None

    def _solution(self) -> PricedRows | None:
        """Return the solution; None where the prices of its rows do not add up to those of units (the KKT check)."""
        units, table, price = self.units, self.units.table, self.price
        above, below = self._levelled(*self._balanced())
        high, low = np.zeros(len(table.level)), np.zeros(len(table.level))
        rest = price - above * units.scales + below  # what the units' own limits bear
        rest = np.where(np.abs(rest) <= 1e-13 * np.abs(price), 0.0, rest)
        tied = np.flatnonzero(table.tied)
        high[tied], low[tied] = above[units.unit[tied]], below[units.unit[tied]]
        own = np.flatnonzero(~table.tied)
        for rows, amount, limits, bound in (
            (own, np.maximum(rest, 0.0), table.upper, units.upper),
            (own, np.maximum(-rest, 0.0), -table.lower, -units.lower),
        ):
            at = rows[limits[rows] == bound[units.unit[rows]]]
            _, once = np.unique(units.unit[at], return_index=True)
            (high if bound is units.upper else low)[at[once]] = amount[units.unit[at[once]]]
        borne = high * np.append(table.scale, 1.0)[table.level] - low
        missing = np.abs(np.bincount(units.unit, borne, len(price)) - price)
        if (missing > 1e-10 * max(1e-300, float(np.abs(price).max(initial=0.0)))).any():
            return None
        return PricedRows(high, low, price @ units.matrix, self.point, self.count)

    def _balanced(self) -> tuple[FloatArray, FloatArray]:
        """Return the parts of the prices that the spreads bear, chosen so that they cancel where they can."""
        units = self.units
        above, above_most, below, below_most = units.most_and_least(self.price, self.c)
        for bears, most, other in ((above, above_most, below), (below, below_most, above)):
            missing, room = units.add(other - bears), units.add(most - bears)
            part = np.clip(np.divide(missing, room, out=np.zeros_like(room), where=room > 0), 0.0, 1.0)
            np.add(bears, (most - bears) * np.append(part, 0.0)[units.level], out=bears)
        return above, below

    def _levelled(self, above: FloatArray, below: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Where a level stands at the end of its domain, put what is left on the unit that holds it there."""
        units = self.units
        left = units.add(above - below)
        for r in np.flatnonzero(np.abs(left) > 1e-11 * units.add(above + below)).tolist():
            members, scale = np.flatnonzero(units.level == r), float(units.scale[r])
            own = (
                units.width[r] / (scale - 1.0) if scale != 1.0 else np.nan
            )  # scale * v - v <= width, of each by itself
            if abs(self.c[r] - own) <= 1e-12 * max(1.0, abs(own)):
                above[members[0]] += left[r] / (scale - 1.0)
                below[members[0]] += scale * left[r] / (scale - 1.0)
                continue
            low, high = units.tied_ends(self.c)
            if left[r] > 0:  # a greater level is wanted: some unit's lower limit is as high as it may be
                holder = members[int((units.upper[members] - low[members]).argmin())]
                below[holder] += left[r]
            else:
                holder = members[int((high[members] - units.lower[members]).argmin())]
                above[holder] -= left[r]
        return above, below
