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

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fairlayer._rows import SparseRows
from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.passes import Passes, Point
from fairlayer.solve.accuracy import accuracy_of, gauged
from fairlayer.solve.counted import CountedPasses
from fairlayer.solve.slabs import SlabSystem
from fairlayer.solve.solution import Solution
from fairlayer.solve.sorted import SortedBatch, lies_far_outside, sortable
from fairlayer.solve.table import RowTable, faces_of_prices

__all__ = ["Units", "level_of", "solve_ranges"]

_TOGETHER = 7  # passes in which levels and prices move at once
_MOST_PASSES, _MOST_SEARCHES = 60, 300  # over the batch, and over the sorted one


@dataclass(frozen=True)
class Units:
    """The distinct rows of a table, each of which reads statistics of its own.

    Args:
        table: the rows.
        unit: unit of each row.
        matrix: (units, statistics).
        level: spread of each unit, -1 for none.
        offset: added to its value within the spread.
        lower: own lower limit.
        upper: own upper limit.
        atol: accuracy.
        scale: of each spread.
        width: of each spread.
    """

    table: RowTable
    unit: IntArray
    matrix: SparseRows
    level: IntArray
    offset: FloatArray
    lower: FloatArray
    upper: FloatArray
    atol: FloatArray
    scale: FloatArray
    width: FloatArray

    @staticmethod
    def of(table: RowTable) -> Units | None:
        """Return the units, or None where rows share statistics without being the same."""
        matrix, r = table.matrix, len(table.matrix)
        lengths = np.diff(matrix.starts)
        if not len(matrix.data) or (lengths == 0).any():
            return None
        first = np.full(matrix.shape[1], r)
        np.minimum.at(first, matrix.columns, matrix.rows)
        same = first[matrix.columns[matrix.starts[:-1]]]  # the first row that reads what this one reads
        if (first[matrix.columns] != same[matrix.rows]).any() or (lengths[same] != lengths).any():
            return None
        twin = matrix.starts[same][matrix.rows] + np.arange(len(matrix.data)) - matrix.starts[matrix.rows]
        if (matrix.columns[twin] != matrix.columns).any() or (matrix.data[twin] != matrix.data).any():
            return None
        distinct, unit = np.unique(same, return_inverse=True)
        level, offset = np.full(len(distinct), -1), np.zeros(len(distinct))
        if (np.bincount(unit, table.tied) > 1).any():
            return None  # two spreads over the same rows
        level[unit[table.tied]] = table.level[table.tied]
        offset[unit[table.tied]] = table.offset[table.tied]
        lower, upper = np.full(len(distinct), -np.inf), np.full(len(distinct), np.inf)
        atol = np.full(len(distinct), np.inf)
        np.maximum.at(lower, unit, table.lower)
        np.minimum.at(upper, unit, table.upper)
        np.minimum.at(atol, unit, table.atol)
        return Units(
            table, unit, matrix.take_rows(distinct), level, offset, lower, upper, atol, table.scale, table.width
        )

    @property
    def inside(self) -> BoolArray:
        """Which units belong to a spread."""
        return self.level >= 0

    def ends(self, c: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the limits of each unit at given levels, those of its spread and its own together."""
        low, high = self.tied_ends(c)
        lower = np.maximum(low, self.lower)
        return lower, np.maximum(np.minimum(high, self.upper), lower)

    def tied_ends(self, c: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the limits that the spreads alone set."""
        low, high, own = np.full(len(self.level), -np.inf), np.full(len(self.level), np.inf), self.level[self.inside]
        low[self.inside] = c[own] - self.offset[self.inside]
        high[self.inside] = (c[own] + self.width[own]) / self.scale[own] - self.offset[self.inside]
        return low, high

    def add(self, values: FloatArray) -> FloatArray:
        """Return sums of the units of each spread."""
        return np.bincount(self.level[self.inside], values[self.inside], len(self.scale)).astype(np.float64, copy=False)

    def domain(self, reach: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, FloatArray]:
        """Return the range of each level within which every unit has somewhere to be.

        Args:
            reach: least and largest value that each unit can take.
        """
        c_low, c_high = self.level_domain(np.maximum(self.lower, reach[0]), np.minimum(self.upper, reach[1]))
        return c_low, np.maximum(c_high, c_low)

    def level_domain(self, least: FloatArray, most: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the range of each level for units between given values; empty where the first is the larger."""
        c_low, c_high = np.full(len(self.scale), -np.inf), np.full(len(self.scale), np.inf)
        narrow = self.scale < 1.0
        c_low[narrow] = -self.width[narrow] / (1.0 - self.scale[narrow])
        wide = self.scale > 1.0
        c_high[wide] = self.width[wide] / (self.scale[wide] - 1.0)
        own, at = self.level[self.inside], self.inside
        np.minimum.at(c_high, own, most[at] + self.offset[at])
        np.maximum.at(c_low, own, (least[at] + self.offset[at]) * self.scale[own] - self.width[own])
        return c_low, c_high

    def fit(self, passes: Passes) -> bool:
        """Whether the limits leave every unit somewhere to be, with a margin for rounding; False says nothing."""
        least, most = _reach(passes, self)
        if not _common(passes.lower) or not _common(passes.upper):
            return False
        low, high = np.maximum(self.lower, least), np.minimum(self.upper, most)
        c_low, c_high = self.level_domain(low, high)
        size = np.abs(np.where(np.isfinite(c_low), c_low, 0.0))  # a level may be free downwards
        return bool((low <= high - 4.0 * self.atol).all() and (c_low + 1e-12 * np.maximum(1.0, size) <= c_high).all())

    @cached_property
    def scales(self) -> FloatArray:
        """Scale of each unit's spread."""
        return np.append(self.scale, 1.0)[self.level]

    def shares(self, price: FloatArray, c: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the part of each price that the spread has to bear, at upper and lower limits, both >= 0."""
        low, high = self.tied_ends(c)
        above = np.where(self.inside & (price > 0) & (high <= self.upper), price / self.scales, 0.0)
        below = np.where(self.inside & (price < 0) & (low >= self.lower), -price, 0.0)
        return above, below

    def most_and_least(self, price: FloatArray, c: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return the least and the largest such parts: above, above, below, below.

        Where a limit of the unit's own is that of its spread, each may bear any part of the price.
        """
        low, high = self.tied_ends(c)
        near = 2.0 * self.atol
        above, below = np.maximum(price, 0.0) / self.scales, np.maximum(-price, 0.0)
        with np.errstate(invalid="ignore"):
            least = self.inside & (high < self.upper - near), self.inside & (low > self.lower + near)
            most = self.inside & (high <= self.upper + near), self.inside & (low >= self.lower - near)
        zero = np.zeros_like(price)
        return (
            np.where(least[0], above, zero),
            np.where(most[0], above, zero),
            np.where(least[1], below, zero),
            np.where(most[1], below, zero),
        )

    def balance(self, price: FloatArray, c: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return what each spread's prices add up to at least, in absolute value, and what their sizes add up to."""
        above, above_most, below, below_most = self.most_and_least(price, c)
        lowest, highest = self.add(above - below_most), self.add(above_most - below)
        return np.minimum(np.maximum(0.0, lowest), highest), self.add(above_most + below_most)


def level_of(
    units: Units, centre: FloatArray, metric: FloatArray, domain: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Return the levels and prices of units that answer a price in proportion: value = centre - metric * price.

    Newton's method on a piecewise linear, rising function of each level, within a bracket.
    """

    def priced(c: FloatArray) -> FloatArray:
        lower, upper = units.ends(c)
        return np.asarray((centre - np.minimum(np.maximum(centre, lower), upper)) / metric)

    if not len(units.scale):
        return np.zeros(0), priced(np.zeros(0))
    at = units.inside
    own = units.level[at]
    low, high = np.full(len(units.scale), np.inf), np.full(len(units.scale), -np.inf)
    np.minimum.at(low, own, centre[at] + units.offset[at])
    np.maximum.at(high, own, units.scale[own] * (centre[at] + units.offset[at]) - units.width[own])
    low, high = np.minimum(low, high), np.maximum(low, high)
    low, high = np.clip(low, *domain), np.clip(high, *domain)
    c = 0.5 * (low + high)
    for _ in range(200):
        above, below = units.shares(priced(c), c)
        # At a greater level upper prices fall by 1 / (metric scale^2) each, lower ones rise by 1 / metric.
        force = units.add(below - above)
        slope = units.add((above > 0) / (metric * units.scales**2) + (below > 0) / metric)
        high, low = np.where(force >= 0, c, high), np.where(force <= 0, c, low)
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = c - force / slope
        inside = (newton >= low) & (newton <= high) & (slope > 0)
        after = np.where(inside, newton, 0.5 * (low + high))
        if (after == c).all() or (high - low <= 4e-16 * np.maximum(np.abs(low), np.abs(high))).all():
            break
        c = after
    return c, priced(c)


def solve_ranges(passes: Passes, slabs: SlabSystem, units: Units, start: Point, wide: FloatArray) -> Solution | None:
    """Return the projection onto slabs whose rows share no statistic; None where numbers cannot settle it.

    Args:
        passes: the batch; K must be diagonal.
        slabs: a feasible system with its accuracy.
        units: its rows.
        start: the point at price zero.
        wide: K where every sample is free to move.
    """
    search = _Search(passes, slabs, units, start, wide)
    if lies_far_outside(passes):
        search.jump()
    return search.run()


class _Search:
    """The state of the search: prices and what was measured at them, brackets of the levels."""

    def __init__(
        self, passes: Passes | SortedBatch, slabs: SlabSystem, units: Units, start: Point, wide: FloatArray
    ) -> None:
        self.passes, self.slabs, self.units, self.point = passes, slabs, units, start
        square = SparseRows(units.matrix.rows, units.matrix.columns, units.matrix.data**2, units.matrix.shape)
        self.square, self.wide, self.wide_of_cells = square, square @ wide, wide
        self.jumped, self.done = isinstance(passes, SortedBatch), False
        counts = passes.cells.counts
        pull = np.zeros(len(units.level))
        np.maximum.at(pull, units.matrix.rows, np.abs(units.matrix.data) / counts[units.matrix.columns])
        self.unit_pull = pull
        self.price = np.zeros(len(units.level))
        self.value = units.matrix @ start.statistics
        self.prices, self.values = [self.price], [self.value]
        self.count = 1
        self.domain = units.domain(_reach(passes, units))
        self.c_low, self.c_high = (end.copy() for end in self.domain)
        self.at_low: FloatArray | None = None  # prices of the units at the ends of the brackets
        self.at_high: FloatArray | None = None
        self.c = np.zeros(len(units.scale))

    def jump(self) -> bool:
        """Look for the solution in the sorted batch, and measure what it finds; the sort counts as a pass."""
        passes = self.passes
        if isinstance(passes, SortedBatch) or self.jumped or not sortable(passes):
            return False
        self.jumped = True
        batch = SortedBatch(passes)
        rough = 1e-12 * (1.0 + passes.size)  # what the sums of the sorted scores round to
        units = replace(self.units, atol=np.maximum(self.units.atol, rough))
        inner = _Search(batch, self.slabs, units, batch.at(None), self.wide_of_cells)
        inner.run(only_place=True)
        if isinstance(passes, CountedPasses):
            passes.count += 1
        self.count += 1
        self.c = np.clip(inner.c, *self.domain)
        self._measure(inner.price)
        self._gauge(passes)
        return True

    def _gauge(self, passes: Passes) -> None:
        """Read anew how accurately each unit can be met, where prices are as large as the scores that they move."""
        nu = self.price @ self.units.matrix
        table = RowTable.of(gauged(passes, self.slabs, self.point, accuracy_of(passes), nu))
        atol = np.full(len(self.price), np.inf)
        np.minimum.at(atol, self.units.unit, table.atol)
        self.units = replace(self.units, atol=atol)

    def run(self, *, only_place: bool = False) -> Solution | None:  # noqa: PLR0911 - each way to be done
        """Search; `only_place`: stop where it is found, without its faces."""
        held, began = False, 0
        if self.count > 1 and self._settled():
            return self._solution()
        for step in range(_MOST_SEARCHES if isinstance(self.passes, SortedBatch) else _MOST_PASSES):
            slope = self._slope()
            slope = np.where(slope > 0, slope, self.wide * max(0.05 * 0.5**step, 1e-9))
            centre = self.value + slope * self.price
            if not held:
                self.c, price = level_of(self.units, centre, slope, self.domain)
            else:
                lower, upper = self.units.ends(self.c)
                price = (centre - np.clip(centre, lower, upper)) / slope
            price = self._bracketed(price)
            self._measure(price)
            if self._settled():
                return None if only_place else self._solution()
            if step + 1 >= began + _TOGETHER:
                if not held and self.jump():
                    began = step + 1
                    if self._settled():
                        return self._solution()
                    continue
                held = True
                if self._rebalanced():
                    return None if only_place else self._solution()
                found = self._hold(slope, only_place=only_place)
                if only_place and self.done:
                    return None
                if found is not None:
                    return found
        return None

    def _slope(self) -> FloatArray:
        return np.asarray(self.square @ self.passes.metric(self.point))

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
        """By how many accuracies each unit misses where its price says that it should be."""
        lower, upper = self.units.ends(self.c)
        off = np.maximum(lower - self.value, self.value - upper)
        off = np.where(self.price > 0, np.abs(self.value - upper), off)
        off = np.where(self.price < 0, np.abs(self.value - lower), off)
        return np.asarray(off / self.units.atol)

    def _settled(self) -> bool:
        balance, size = self.units.balance(self.price, self.c)
        at_end = (self.c <= self.domain[0]) | (self.c >= self.domain[1])
        return bool((self._missed() <= 1.0).all() and ((np.abs(balance) <= 1e-12 * size) | at_end).all())

    def _hold(self, slope: FloatArray, *, only_place: bool) -> Solution | None:
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
        within = (newton > self.c_low) & (newton < self.c_high)
        newton = np.where(within, newton, middle)
        for r in np.flatnonzero(arrived & ~within).tolist():
            newton[r] = self._kink_near(r, float(middle[r]))
        tight = self.c_high - self.c_low <= 1e-15 * np.maximum(np.abs(c), 1.0)
        if (tight & arrived).any() and (~late).all() and (tight | ~arrived).all():
            return self._between(only_place=only_place)
        self.c = np.where(arrived & ~tight, newton, c)
        return None

    def _kink_near(self, r: int, middle: float) -> float:
        """The level at which a unit's own limit takes over from its spread's; the balance jumps there."""
        units = self.units
        members = np.flatnonzero(units.level == r)
        at_low = units.lower[members] + units.offset[members]
        at_high = units.scale[r] * (units.upper[members] + units.offset[members]) - units.width[r]
        kinks = np.concatenate([at_low, at_high])
        kinks = kinks[(kinks > self.c_low[r]) & (kinks < self.c_high[r])]
        return float(kinks[np.abs(kinks - middle).argmin()]) if len(kinks) else middle

    def _between(self, *, only_place: bool) -> Solution | None:
        """A level at which a unit is flat: its price is any between two, and the one that cancels the others is it."""
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
        self.done = bool((self._missed() <= 10.0).all())
        return self._solution() if self.done and not only_place else None

    def _solution(self) -> Solution | None:
        """The solution with its faces; None where those do not add up to the prices (the full KKT check)."""
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
        faces, multipliers = faces_of_prices(self.slabs, table, high, low)
        return Solution.at(self.point, price @ units.matrix, faces, multipliers, passes=self.count)

    def _balanced(self) -> tuple[FloatArray, FloatArray]:
        """The parts of the prices that the spreads bear, chosen so that they cancel where they can."""
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


def _common(bound: object) -> bool:
    return bound is None or isinstance(bound, float)


def _reach(passes: Passes | SortedBatch, units: Units) -> tuple[FloatArray, FloatArray]:
    """Return the least and the largest value of each unit over the domain; all reals where bounds differ by sample."""
    lower, upper = passes.lower, passes.upper
    low = -np.inf if lower is None or not isinstance(lower, float) else lower
    high = np.inf if upper is None or not isinstance(upper, float) else upper
    positive, negative = np.maximum(units.matrix.data, 0.0), np.minimum(units.matrix.data, 0.0)
    size = len(units.level)

    def end(first: float, second: float) -> FloatArray:
        with np.errstate(invalid="ignore"):
            each = np.where(positive > 0, positive * first, 0.0) + np.where(negative < 0, negative * second, 0.0)
        return np.bincount(units.matrix.rows, each, size).astype(np.float64, copy=False)

    return end(low, high), end(high, low)
