"""The quadratic program over statistics with many rows: a price per row and a level per spread, not a face per pair.

    minimise 1/2 (m - centre)' K^-1 (m - centre)   subject to   lower(c) <= M m <= upper(c)

with the limits of the members of a spread moving with its level c (see `table`). The method of multipliers around
prices p and levels c: with e = M m + p / s, each step minimises

    1/2 q' S q + r/2 |c - c0|^2 + sum_i s_i / 2 (distance of e_i from its limits)^2

(m = centre - K M' q, S = M K M')

by Newton's method, after which p = s * (e - nearest point of its limits). It needs no
independent rows, so that nested and repeated attributes are no special case, and ends exactly: what a step changes in
p / s is what the rows still miss. Of the rows in force the largest set that shares no statistic is eliminated by its
diagonal; what is left is solved densely. Source: Rockafellar (1976), "Augmented Lagrangians and
applications of the proximal point algorithm in convex programming"; Li, Sun, Toh (2018) for Newton's method inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.solve.sparse import SparseSystem, mostly_zero
from fairlayer.solve.table import RowTable

__all__ = ["PriceProgram", "Priced"]

_OUTER, _INNER, _TRIALS = 30, 60, 40
_SOFTEST, _STIFFEST, _HARDEST = 1e2, 1e4, 1e10  # s_i S_ii, from step to step
_ROUNDING = 1e3  # accuracies that are left to Newton's method on the samples, where no step reduces them


@dataclass(frozen=True)
class Priced:
    """The prices of a solved program.

    Args:
        price: the price of each row of the table, > 0 at its upper limit.
        level: the level of each spread.
        solved: dimensions of the dense systems that were solved.
    """

    price: FloatArray
    level: FloatArray
    solved: tuple[int, ...]


class PriceProgram:
    """The programs over one table of rows, each started from the prices of the one before."""

    def __init__(self, table: RowTable) -> None:
        self.table = table
        self.slope = np.where(table.tied, 1.0, 0.0)
        self.price = np.zeros(len(table.level))
        self.scale = np.append(table.scale, 1.0)[table.level]
        self.width = np.append(table.width, 0.0)[table.level]
        self.warm = False
        tied_up = (self.width <= 0) & (self.scale == 1.0)
        self.fixed = np.where(table.tied, tied_up, table.lower == table.upper)  # rows without slack, of either sign

    @cached_property
    def apart(self) -> BoolArray:
        """Rows of which no two read the same statistic: of the sets of blocks that allow it, the one with most rows."""
        table = self.table
        entries = np.split(np.argsort(table.block[table.matrix.rows], kind="stable"), _cuts(table))
        sizes = np.bincount(table.block)
        taken: list[BoolArray] = []
        members: list[list[int]] = []
        for block in np.argsort(-sizes, kind="stable").tolist():
            columns = table.matrix.columns[entries[block]]
            if len(np.unique(columns)) < len(columns):
                continue
            at = next((i for i, seen in enumerate(taken) if not seen[columns].any()), len(taken))
            if at == len(taken):
                taken.append(np.zeros(table.matrix.shape[1], dtype=bool))
                members.append([])
            taken[at][columns] = True
            members[at].append(block)
        best = max(members, key=lambda blocks: sizes[blocks].sum(), default=[])
        return np.isin(table.block, best)

    def solve(self, centre: FloatArray, metric: FloatArray) -> Priced | None:
        """Return the prices at a centre (s,) and a metric (s,) or (s, s); None where they do not settle."""
        try:
            return _Run(self, centre, metric).run()
        except (RuntimeError, np.linalg.LinAlgError):  # equations that are singular to rounding
            return None


def _cuts(table: RowTable) -> IntArray:
    blocks = int(table.block.max(initial=-1)) + 1
    return np.cumsum(np.bincount(table.block[table.matrix.rows], minlength=blocks))[:-1]


class _Run:
    """One program."""

    def __init__(self, program: PriceProgram, centre: FloatArray, metric: FloatArray) -> None:
        self.program, self.metric = program, metric
        self.matrix = program.table.matrix
        self.free = self.matrix @ centre
        self.curvature = self._curvature()
        self.solved: list[int] = []
        apart = program.apart if metric.ndim == 1 else np.zeros(len(self.matrix), dtype=bool)
        self.one, self.rest = np.flatnonzero(apart), np.flatnonzero(~apart)
        self.sparse = metric.ndim == 1 and mostly_zero(self.matrix, len(self.rest))
        self.cross = self._cross() if metric.ndim == 1 and not self.sparse else None
        self.square = np.zeros((0, 0)) if self.sparse else self._square()
        self.factors: SparseSystem | None = None

    def _curvature(self) -> FloatArray:
        matrix = self.matrix
        if self.metric.ndim == 1:
            entries = matrix.data**2 * self.metric[matrix.columns]
            found = _sum(matrix.rows, entries, len(matrix))
        else:
            found = np.array([row @ self.metric @ row for row in np.asarray(matrix)])
        return np.where(found > 0, found, 1.0)

    def _answer(self, price: FloatArray) -> FloatArray:
        """Return S q."""
        pull = price @ self.matrix
        return np.asarray(self.matrix @ (self.metric * pull if self.metric.ndim == 1 else self.metric @ pull))

    def run(self) -> Priced | None:
        program, table = self.program, self.program.table
        q = program.price
        c = self._first_levels(q)
        stiffness, last = _STIFFEST if program.warm else _SOFTEST, np.inf
        for _ in range(_OUTER):
            self.stiff = stiffness / self.curvature
            self.loose = self._looseness(stiffness)
            self.price, self.level = q, c
            found = self._inner(q, c)
            if found is None:
                return None
            q, c = found
            missed = float((self._missed(q, c) / table.atol).max(initial=0.0))
            stalled = missed > 0.5 * last and missed <= _ROUNDING
            if (missed <= 0.3 or stalled) and self._balanced(q):
                program.price, program.warm = q, True
                return Priced(q, c, tuple(self.solved))
            if stiffness < _STIFFEST or missed > 0.1 * last:
                stiffness = min(10.0 * stiffness, _HARDEST)
            last = missed
        return None

    def _first_levels(self, q: FloatArray) -> FloatArray:
        """Return the level half-way between where the lowest and the highest member of each spread would have it."""
        table = self.program.table
        if not len(table.scale):
            return np.zeros(0)
        value = (self.free - self._answer(q) + table.offset)[table.tied]
        low, high = np.full(len(table.scale), np.inf), np.full(len(table.scale), -np.inf)
        np.minimum.at(low, table.level[table.tied], value)
        np.maximum.at(high, table.level[table.tied], value)
        return np.asarray(0.5 * (low + table.scale * high - table.width))

    def _looseness(self, stiffness: float) -> FloatArray:
        table = self.program.table
        least = np.full(len(table.scale), np.inf)
        np.minimum.at(least, table.level[table.tied], 1.0 / self.curvature[table.tied])
        return 0.1 * least / stiffness

    def _balanced(self, q: FloatArray) -> bool:
        parts = q / self._factor(q)
        sizes = self._sums(np.abs(parts))
        return bool((np.abs(self._sums(parts)) <= 1e-12 * sizes.max(initial=0.0)).all())

    def _factor(self, q: FloatArray) -> FloatArray:
        """Return how much of its level each row in force takes: scale at its upper limit, 1 at its lower one."""
        return np.where(q > 0, self.program.scale, 1.0)

    def _sums(self, values: FloatArray) -> FloatArray:
        table = self.program.table
        rows = table.tied
        return _sum(table.level[rows], values[rows], len(table.scale))

    def _forces(self, value: FloatArray, c: FloatArray) -> FloatArray:
        """Return P: the price that each row asks at a value and at levels."""
        lower, upper = self.program.table.ends(c)
        e = value + self.price / self.stiff
        return np.asarray(self.stiff * (e - np.minimum(np.maximum(e, lower), upper)))

    def _inner(self, q: FloatArray, c: FloatArray) -> tuple[FloatArray, FloatArray] | None:
        answer = self._answer(q)
        sign = np.sign(self._forces(self.free - answer, c))
        for _ in range(_INNER):
            after_q, after_c = self._newton(sign)
            change, level_change = after_q - q, after_c - c
            answer_change = self._answer(change)
            share = self._share(q, c, answer, change, level_change, answer_change)
            q, c = q + share * change, c + share * level_change
            if share == 1.0:
                q, c, answer = after_q, after_c, self._answer(after_q)
            else:
                answer = answer + share * answer_change
            force = self._forces(self.free - answer, c)
            if share < 1.0:
                sign = np.sign(force)
                continue
            # Of the rows in force q is the force to more digits: that is a large multiple of a small difference.
            noise = 4e-16 * self.stiff * np.maximum(1.0, np.abs(self.free))
            fresh = np.where(np.abs(force) > noise, np.sign(force), 0.0)
            after = np.where(sign == 0, fresh, np.where((q * sign > 0) | self.program.fixed, sign, 0.0))
            still = np.abs(force - q) <= noise + 1e-12 * np.abs(q)
            if (after == sign).all() or still.all():
                return self._refined(sign, q, c)
            sign = after
        return None

    def _missed(self, q: FloatArray, c: FloatArray) -> FloatArray:
        """Return how far each row is outside its limits, or from the one that its price belongs to."""
        lower, upper = self.program.table.ends(c)
        value = self.free - self._answer(q)
        off = np.maximum(lower - value, value - upper)
        off = np.where(q > 0, np.abs(value - upper), off)
        return np.asarray(np.where(q < 0, np.abs(value - lower), off))

    def _share(  # noqa: PLR0917 - a line through (q, c)
        self,
        q: FloatArray,
        c: FloatArray,
        answer: FloatArray,
        change: FloatArray,
        level_change: FloatArray,
        answer_change: FloatArray,
    ) -> float:
        """Where along the step the objective stops falling; its derivative rises."""

        def slope(share: float) -> float:
            level = c + share * level_change
            force = self._forces(self.free - answer - share * answer_change, level)
            pulled = self._sums(force / self._factor(force))
            return float(answer_change @ (q + share * change - force)) + float(
                level_change @ (self.loose * (level - self.level) - pulled)
            )

        at_zero, at_one = slope(0.0), slope(1.0)
        if at_zero >= 0 or at_one <= 0.2 * abs(at_zero):
            return 1.0
        low, high, at_low, at_high = 0.0, 1.0, at_zero, at_one
        for _ in range(_TRIALS):
            share = low + (high - low) * at_low / (at_low - at_high)
            share = min(max(share, low + 0.05 * (high - low)), high - 0.05 * (high - low))
            here = slope(share)
            if abs(here) <= 0.1 * abs(at_zero):
                return share
            if here < 0:
                low, at_low = share, here
            else:
                high, at_high = share, here
        return share

    def _newton(self, sign: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Solve for the rows in force:  (S + 1/s) q + a c = h,   a' q - r c = -r c0."""
        program, table = self.program, self.program.table
        active = np.flatnonzero(sign)
        top = sign[active] > 0
        scale, tied = program.scale[active], table.tied[active]
        slope = np.where(tied, np.where(top, 1.0 / scale, 1.0), 0.0)
        moved = (np.where(top, program.width[active] / scale, 0.0)) - table.offset[active]
        fixed = np.where(tied, moved, np.where(top, table.upper[active], table.lower[active]))
        right = self.free[active] - fixed + self.price[active] / self.stiff[active]
        q = np.zeros(len(sign))
        levels = table.level[active]
        self.last = active, slope, levels, right
        if self.sparse:
            soft = 1.0 / self.stiff[active]
            self.factors = SparseSystem(self.matrix, self.metric, active, soft, slope, levels, self.loose)
            self.solved.append(0)
        q[active], c = self._solved(active, slope, levels, right, -self.loose * self.level)
        return q, c

    def _solved(
        self, active: IntArray, slope: FloatArray, levels: IntArray, right: FloatArray, r_level: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        if self.factors is not None:
            return self.factors.solve(right, r_level)
        return self._eliminated(active, slope, levels, right, r_level)

    def _refined(self, sign: FloatArray, q: FloatArray, c: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Solve once more for what the last solution of the system leaves over."""
        active, slope, levels, right = self.last
        shifted = slope * np.append(c, 0.0)[levels]
        left = right - (self._answer(q)[active] + q[active] / self.stiff[active] + shifted)
        pulled = _sum(levels[levels >= 0], (slope * q[active])[levels >= 0], len(c))
        left_level = -self.loose * self.level - (pulled - self.loose * c)
        more, more_level = self._solved(active, slope, levels, left, left_level)
        found = q.copy()
        found[active] += more
        # A price of the wrong sign is rounding here, or else the row would not be in force.
        return np.where((found * sign > 0) | self.program.fixed, found, 0.0), c + more_level

    def _eliminated(
        self, active: IntArray, slope: FloatArray, levels: IntArray, right: FloatArray, r_level: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        table, count = self.program.table, len(self.level)
        place = np.full(len(table.level), -1)
        place[active] = np.arange(len(active))
        kept, used = place[self.rest] >= 0, place[self.one] >= 0
        rest, one = place[self.rest[kept]], place[self.one[used]]
        # The levels of rows that stand apart have a diagonal of their own once those rows are gone.
        of_one, of_rest = np.zeros(count + 1, dtype=bool), np.zeros(count + 1, dtype=bool)
        of_one[levels[one]], of_rest[levels[rest]] = True, True
        mine = (of_one & ~of_rest)[:count]
        inner, outer = np.flatnonzero(mine), np.flatnonzero(~mine)
        own = self.curvature[active] + 1.0 / self.stiff[active]
        weight = np.zeros(len(self.one))
        weight[used] = 1.0 / own[one]
        slopes, at = np.zeros(len(self.one)), np.full(len(self.one), count)
        slopes[used], at[used] = slope[one], np.where(levels[one] >= 0, levels[one], count)
        rights = np.zeros(len(self.one))
        rights[used] = right[one]
        k, size = len(rest), len(rest) + len(outer)
        # eliminate the rows apart: with D their diagonal, A - B D^-1 B'
        square, level_rest, h_rest = self._without_apart(weight, slopes, at, rights, count)
        square, level_rest = square[np.ix_(kept, kept)], level_rest[kept]
        square[np.diag_indices(k)] += 1.0 / self.stiff[active[rest]]
        tied = levels[rest] >= 0
        level_rest[np.flatnonzero(tied), levels[rest][tied]] += slope[rest][tied]
        level_rest = level_rest[:, :count]
        h_rest = right[rest] - h_rest[kept]
        level_diagonal = -self.loose - _sum(at, slopes**2 * weight, count + 1)[:count]
        h_level = r_level - _sum(at, slopes * rights * weight, count + 1)[:count]
        # eliminate the levels that have a diagonal of their own
        of_outer = level_rest[:, outer]
        row, level = np.nonzero(level_rest)
        row, level = row[mine[level]], level[mine[level]]
        entry = level_rest[row, level]
        system, h = np.empty((size, size)), np.empty(size)
        system[:k, :k] = square - _gram(row, level, entry, level_diagonal, k)
        system[:k, k:] = of_outer
        system[k:, :k] = of_outer.T
        system[k:, k:] = np.diag(level_diagonal[outer])
        h[:k] = h_rest - _sum(row, entry * (h_level / level_diagonal)[level], k)
        h[k:] = h_level[outer]
        self.solved.append(size)
        found = np.linalg.solve(system, h) if size else h
        c = np.zeros(count + 1)
        c[outer] = found[k:]
        met_level = _sum(level, entry * found[:k][row], count)
        c[inner] = (h_level - met_level)[inner] / level_diagonal[inner]
        q, of_all = np.zeros(len(active)), np.zeros(len(self.rest))
        q[rest], of_all[kept] = found[:k], found[:k]
        met = np.zeros(len(self.one)) if self.cross is None else self.cross.met(of_all, len(self.one))
        q[one] = ((rights - met - slopes * c[at]) * weight)[used]
        return q, c[:count]

    def _without_apart(
        self, weight: FloatArray, slopes: FloatArray, at: IntArray, rights: FloatArray, count: int
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return what is left of S, of the levels and of the right-hand side once the rows apart are eliminated."""
        size = len(self.rest)
        if self.cross is None:
            return self.square, np.zeros((size, count + 1)), np.zeros(size)
        cross = self.cross
        taken = _sum(cross.first * size + cross.second, cross.products * weight[cross.pair], size * size)
        scaled = cross.data * weight[cross.one]
        place = cross.rest * (count + 1) + at[cross.one]
        levels = -_sum(place, scaled * slopes[cross.one], size * (count + 1)).reshape(size, count + 1)
        levels[:, count] = 0.0
        right = _sum(cross.rest, scaled * rights[cross.one], size)
        return self.square - taken.reshape(size, size), levels, right

    def _cross(self) -> _Cross:
        """Return S between the rows apart and the others, by its entries."""
        matrix = self.matrix
        apart, rows = matrix.take_rows(self.one), matrix.take_rows(self.rest)
        reader, weight = np.full(matrix.shape[1], -1), np.zeros(matrix.shape[1])
        reader[apart.columns], weight[apart.columns] = apart.rows, apart.data
        read = reader[rows.columns]
        both = read >= 0
        columns = rows.columns[both]
        entries = rows.data[both] * self.metric[columns] * weight[columns]
        return _Cross.of(read[both], rows.rows[both], entries, len(self.rest))

    def _square(self) -> FloatArray:
        """Return S among the rows that are not apart."""
        rows = self.matrix.take_rows(self.rest)
        if self.metric.ndim == 2:
            full = np.asarray(rows)
            return np.asarray(full @ self.metric @ full.T)
        size = len(rows)
        pair, first, second = _pairs_of(rows.columns)
        entries = self.metric[rows.columns[pair]] * rows.data[first] * rows.data[second]
        return _sum(rows.rows[first] * size + rows.rows[second], entries, size * size).reshape(size, size)


@dataclass(frozen=True)
class _Cross:
    """Entries between two sets of rows, and all pairs of entries of the same row of the first set."""

    one: IntArray
    rest: IntArray
    data: FloatArray
    pair: IntArray  # row of the first set that both entries of a pair belong to
    first: IntArray
    second: IntArray
    products: FloatArray

    @staticmethod
    def of(one: IntArray, rest: IntArray, data: FloatArray, size: int) -> _Cross:
        place, inverse = np.unique(one * size + rest, return_inverse=True)
        one, rest = place // max(size, 1), place % max(size, 1)
        data = _sum(inverse, data, len(place))
        _, first, second = _pairs_of(one)
        return _Cross(one, rest, data, one[first], rest[first], rest[second], data[first] * data[second])

    def met(self, of_rest: FloatArray, size: int) -> FloatArray:
        """Return what prices of the other rows do to the rows of the first set."""
        return _sum(self.one, self.data * of_rest[self.rest], size)


def _sum(place: IntArray, values: FloatArray, size: int) -> FloatArray:
    """Return the sum of the values of each place; floats, also where there are none."""
    return np.bincount(place, values, size).astype(np.float64, copy=False)


def _gram(row: IntArray, level: IntArray, entry: FloatArray, diagonal: FloatArray, size: int) -> FloatArray:
    """A D^-1 A' of a matrix with few entries, or of a full one."""
    counts = np.bincount(level, minlength=len(diagonal))
    if 4 * int((counts**2).sum()) > size * len(row):
        full = np.zeros((size, len(diagonal)))
        full[row, level] = entry
        return np.asarray((full / diagonal) @ full.T)
    _, first, second = _pairs_of(level)
    product = entry[first] * entry[second] / diagonal[level[first]]
    return _sum(row[first] * size + row[second], product, size * size).reshape(size, size)


def _pairs_of(key: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return all ordered pairs (with themselves) of places that have the same key: place, place, place."""
    order = np.argsort(key, kind="stable")
    counts = np.bincount(key) if len(key) else np.zeros(0, np.int64)
    mine = counts[key[order]]
    start = (np.cumsum(counts) - counts)[key[order]]
    first = np.repeat(np.arange(len(order)), mine)
    begin = np.cumsum(mine) - mine
    second = np.arange(len(first)) - begin[first] + start[first]
    return order[first], order[first], order[second]
