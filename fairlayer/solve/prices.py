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
from typing import NamedTuple

import numpy as np

from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.solve.parts import Cross, Entries, Places, gram, ranks_of, square_of, sums
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
        settled: which parts are solved, (parts,); of the others price and level are 0.
    """

    price: FloatArray
    level: FloatArray
    solved: tuple[int, ...]
    settled: BoolArray


class PriceProgram:
    """The programs over one table of rows, each started from the prices of the one before.

    Args:
        table: the rows.
        part: the part of each row, where rows of different parts share neither a statistic nor a level, so that their
            equations are solved part by part; None for one part.
    """

    def __init__(self, table: RowTable, part: IntArray | None = None) -> None:
        self.table = table
        self.part = np.zeros(len(table.level), dtype=np.int64) if part is None else part
        self.slope = np.where(table.tied, 1.0, 0.0)
        self.price = np.zeros(len(table.level))
        self.scale = np.append(table.scale, 1.0)[table.level]
        self.width = np.append(table.width, 0.0)[table.level]
        self.warm = np.zeros(int(self.part.max(initial=0)) + 1, dtype=bool)
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

    @cached_property
    def one(self) -> IntArray:
        """The rows apart."""
        return np.flatnonzero(self.apart)

    @cached_property
    def rest(self) -> IntArray:
        """The other rows."""
        return np.flatnonzero(~self.apart)

    @cached_property
    def places(self) -> Places:
        """Where the other rows and the levels stand within their parts."""
        return Places.of(self.part[self.rest], self.table, self.part)

    @cached_property
    def sparse(self) -> bool:
        """Whether a sparse factorisation serves better than elimination."""
        return mostly_zero(self.table.matrix, self.places.rows)

    @cached_property
    def entries(self) -> tuple[Cross, Entries]:
        """What adds up to S between the rows apart and the others, and among the others."""
        others = self.table.matrix.take_rows(self.rest)
        cross = Cross.of(self.table.matrix.take_rows(self.one), others, self.places)
        return cross, square_of(others, self.places)

    def solve(self, centre: FloatArray, metric: FloatArray) -> Priced | None:
        """Return the prices at a centre (s,) and a metric K (s,), diagonal; None where those of no part settle."""
        try:
            found = _Run(self, centre, metric).run()
            return found if found.settled.any() else None
        except (RuntimeError, np.linalg.LinAlgError):  # equations that are singular to rounding
            return None


def _cuts(table: RowTable) -> IntArray:
    blocks = int(table.block.max(initial=-1)) + 1
    return np.cumsum(np.bincount(table.block[table.matrix.rows], minlength=blocks))[:-1]


class _Ties(NamedTuple):
    """Which rows in force take part in which levels, and by how much."""

    row: IntArray
    level: IntArray
    entry: FloatArray

    def those(self, which: BoolArray) -> _Ties:
        """Return some of them."""
        return _Ties(self.row[which], self.level[which], self.entry[which])


class _Run:
    """One program."""

    def __init__(self, program: PriceProgram, centre: FloatArray, metric: FloatArray) -> None:
        self.program, self.metric = program, metric
        self.matrix = program.table.matrix
        self.free = self.matrix @ centre
        self.curvature = self._curvature()
        self.solved: list[int] = []
        self.one, self.rest, self.places = program.one, program.rest, program.places
        self.sparse = program.sparse
        if not self.sparse:
            cross, square = program.entries
            self.cross, parts, rows = cross, self.places.parts, self.places.rows
            self.square = square.at(metric, parts * rows * rows).reshape(parts, rows, rows)
            self.between = cross.entries.at(metric, len(cross.one))
            self.products = self.between[cross.first] * self.between[cross.second]
        self.factors: SparseSystem | None = None

    def _curvature(self) -> FloatArray:
        matrix = self.matrix
        found = sums(matrix.rows, matrix.data**2 * self.metric[matrix.columns], len(matrix))
        return np.where(found > 0, found, 1.0)

    def _answer(self, price: FloatArray) -> FloatArray:
        """Return S q."""
        pull = price @ self.matrix
        return np.asarray(self.matrix @ (self.metric * pull))

    def run(self) -> Priced:
        """Solve each part for itself, all of them together."""
        program, part, parts = self.program, self.program.part, self.places.parts
        q = program.price
        c = self._first_levels(q)
        price, level = np.zeros_like(q), np.zeros_like(c)
        done, self.over = np.zeros(parts, dtype=bool), np.zeros(parts, dtype=bool)
        stiffness, last = np.where(program.warm, _STIFFEST, _SOFTEST), np.full(parts, np.inf)
        for _ in range(_OUTER):
            self.stiff = stiffness[part] / self.curvature
            self.loose = self._looseness(stiffness)
            self.price, self.level = q, c
            q, c, settled = self._inner(q, c)
            missed = np.zeros(parts)
            np.maximum.at(missed, part, self._missed(q, c) / program.table.atol)
            stalled = (missed > 0.5 * last) & (missed <= _ROUNDING)
            now = ~self.over & settled & ((missed <= 0.3) | stalled) & self._balanced(q)
            price, level = np.where(now[part], q, price), np.where(now[self.places.level_part], c, level)
            done, self.over = done | now, self.over | now | ~settled
            if self.over.all():
                break
            stiffer = (stiffness < _STIFFEST) | (missed > 0.1 * last)
            stiffness, last = np.where(stiffer, np.minimum(10.0 * stiffness, _HARDEST), stiffness), missed
        program.price, program.warm = np.where(done[part], price, program.price), program.warm | done
        return Priced(price, level, tuple(self.solved), done)

    def _first_levels(self, q: FloatArray) -> FloatArray:
        """Half-way between where the lowest and the highest member of each spread would have it."""
        table = self.program.table
        if not len(table.scale):
            return np.zeros(0)
        value = (self.free - self._answer(q) + table.offset)[table.tied]
        low, high = np.full(len(table.scale), np.inf), np.full(len(table.scale), -np.inf)
        np.minimum.at(low, table.level[table.tied], value)
        np.maximum.at(high, table.level[table.tied], value)
        return np.asarray(0.5 * (low + table.scale * high - table.width))

    def _looseness(self, stiffness: FloatArray) -> FloatArray:
        table = self.program.table
        least = np.full(len(table.scale), np.inf)
        np.minimum.at(least, table.level[table.tied], 1.0 / self.curvature[table.tied])
        return 0.1 * least / stiffness[self.places.level_part]

    def _balanced(self, q: FloatArray) -> BoolArray:
        """Return for each part whether the prices of each of its spreads cancel."""
        parts = q / self._factor(q)
        most, off = np.zeros(self.places.parts), np.zeros(self.places.parts)
        np.maximum.at(most, self.places.level_part, self._sums(np.abs(parts)))
        np.maximum.at(off, self.places.level_part, np.abs(self._sums(parts)))
        return off <= 1e-12 * most

    def _factor(self, q: FloatArray) -> FloatArray:
        """Return how much of its level each row in force takes: scale at its upper limit, 1 at its lower one."""
        return np.where(q > 0, self.program.scale, 1.0)

    def _sums(self, values: FloatArray) -> FloatArray:
        table = self.program.table
        rows = table.tied
        return sums(table.level[rows], values[rows], len(table.scale))

    def _forces(self, value: FloatArray, c: FloatArray) -> FloatArray:
        """Return P: the price that each row asks at a value and at levels."""
        lower, upper = self.program.table.ends(c)
        e = value + self.price / self.stiff
        return np.asarray(self.stiff * (e - np.minimum(np.maximum(e, lower), upper)))

    def _inner(self, q: FloatArray, c: FloatArray) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Move until every part has found which of its rows are in force; return which have."""
        part, of_level = self.program.part, self.places.level_part
        answer = self._answer(q)
        sign = np.sign(self._forces(self.free - answer, c))
        for _ in range(_INNER):
            after_q, after_c = self._newton(sign)
            change, level_change = after_q - q, after_c - c
            share = self._shares(q, c, answer, change, level_change, self._answer(change))
            q = np.where(share[part] == 1.0, after_q, q + share[part] * change)
            c = np.where(share[of_level] == 1.0, after_c, c + share[of_level] * level_change)
            answer = self._answer(q)
            force = self._forces(self.free - answer, c)
            # Of the rows in force q is the force to more digits: that is a large multiple of a small difference.
            noise = 4e-16 * self.stiff * np.maximum(1.0, np.abs(self.free))
            fresh = np.where(np.abs(force) > noise, np.sign(force), 0.0)
            after = np.where(sign == 0, fresh, np.where((q * sign > 0) | self.program.fixed, sign, 0.0))
            still = np.abs(force - q) <= noise + 1e-12 * np.abs(q)
            settled = (share == 1.0) & (self._all(after == sign) | self._all(still))
            if (settled | self.over).all():
                break
            whole = np.where(settled[part], sign, after)
            sign = np.where(share[part] == 1.0, whole, np.sign(force))
        return *self._refined(sign, q, c), settled

    def _all(self, rows: BoolArray) -> BoolArray:
        """Return for each part whether something is true of all its rows."""
        return np.asarray(np.bincount(self.program.part, ~rows, self.places.parts) == 0)

    def _missed(self, q: FloatArray, c: FloatArray) -> FloatArray:
        """Return how far each row is outside its limits, or from the one that its price belongs to."""
        lower, upper = self.program.table.ends(c)
        value = self.free - self._answer(q)
        off = np.maximum(lower - value, value - upper)
        off = np.where(q > 0, np.abs(value - upper), off)
        return np.asarray(np.where(q < 0, np.abs(value - lower), off))

    def _shares(  # noqa: PLR0917 - a line through (q, c)
        self,
        q: FloatArray,
        c: FloatArray,
        answer: FloatArray,
        change: FloatArray,
        level_change: FloatArray,
        answer_change: FloatArray,
    ) -> FloatArray:
        """Where along the step of each part the objective stops falling; its derivative rises."""
        part, of_level, parts = self.program.part, self.places.level_part, self.places.parts

        def slope(share: FloatArray) -> FloatArray:
            level, of_row = c + share[of_level] * level_change, share[part]
            force = self._forces(self.free - answer - of_row * answer_change, level)
            pulled = self._sums(force / self._factor(force))
            levels = level_change * (self.loose * (level - self.level) - pulled)
            return sums(part, answer_change * (q + of_row * change - force), parts) + sums(of_level, levels, parts)

        low, high = np.zeros(parts), np.ones(parts)
        at_low, at_high = slope(low), slope(high)
        first, share = np.abs(at_low), high.copy()
        found = (at_low >= 0) | (at_high <= 0.2 * first)
        for _ in range(_TRIALS):
            if found.all():
                break
            secant = low + (high - low) * np.divide(at_low, at_low - at_high, out=np.full(parts, 0.5), where=~found)
            edge = 0.05 * (high - low)
            share = np.where(found, share, np.clip(secant, low + edge, high - edge))
            here = slope(share)
            found = found | (np.abs(here) <= 0.1 * first)
            rising = here >= 0
            low, at_low = np.where(rising, low, share), np.where(rising, at_low, here)
            high, at_high = np.where(rising, share, high), np.where(rising, here, at_high)
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
        pulled = sums(levels[levels >= 0], (slope * q[active])[levels >= 0], len(c))
        left_level = -self.loose * self.level - (pulled - self.loose * c)
        more, more_level = self._solved(active, slope, levels, left, left_level)
        found = q.copy()
        found[active] += more
        # A price of the wrong sign is rounding here, or else the row would not be in force.
        return np.where((found * sign > 0) | self.program.fixed, found, 0.0), c + more_level

    def _eliminated(
        self, active: IntArray, slope: FloatArray, levels: IntArray, right: FloatArray, r_level: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        table, count, places = self.program.table, len(self.level), self.places
        place = np.full(len(table.level), -1)
        place[active] = np.arange(len(active))
        kept, used = np.flatnonzero(place[self.rest] >= 0), place[self.one] >= 0
        rest, one = place[self.rest[kept]], place[self.one[used]]
        # A level that only rows apart read has a diagonal of its own once those rows are gone.
        of_rest = np.zeros(count + 1, dtype=bool)
        of_rest[levels[rest]] = True
        mine = ~of_rest[:count]
        own = self.curvature[active] + 1.0 / self.stiff[active]
        weight = np.zeros(len(self.one))
        weight[used] = 1.0 / own[one]
        slopes, at = np.zeros(len(self.one)), np.full(len(self.one), count)
        slopes[used], at[used] = slope[one], np.where(levels[one] >= 0, levels[one], count)
        rights = np.zeros(len(self.one))
        rights[used] = right[one]
        # eliminate the rows apart: with D their diagonal, A - B D^-1 B'
        square, level_rest, h_rest = self._without_apart(weight, slopes, at, rights)
        tied = np.flatnonzero(levels[rest] >= 0)
        level_rest[kept[tied], places.level[levels[rest][tied]]] += slope[rest][tied]
        h_rest = right[rest] - h_rest[kept]
        level_diagonal = -self.loose - sums(at, slopes**2 * weight, count + 1)[:count]
        h_level = r_level - sums(at, slopes * rights * weight, count + 1)[:count]
        # eliminate the levels that have a diagonal of their own; what is left falls apart into the parts
        row, local = np.nonzero(level_rest[kept, :-1])
        entry, level = level_rest[kept[row], local], places.levels[places.part[kept[row]], local]
        inner, part, column = mine[level], places.part[kept], ranks_of(places.part[kept])
        ties = _Ties(row, level, entry)
        square = self._kept(square, kept, column, ties.those(inner), level_diagonal)
        square[part, column, column] += 1.0 / self.stiff[active[rest]]
        h_rest = h_rest - sums(row[inner], (entry * (h_level / level_diagonal)[level])[inner], len(kept))
        of_kept, c = self._bordered(square, part, column, h_rest, ties.those(~inner), ~mine, level_diagonal, h_level)
        met_level = sums(level, entry * of_kept[row], count)
        c[mine] = (h_level - met_level)[mine] / level_diagonal[mine]
        q, of_all = np.zeros(len(active)), np.zeros(len(self.rest))
        q[rest], of_all[kept] = of_kept, of_kept
        met = sums(self.cross.one, self.between * of_all[self.cross.rest], len(self.one))
        q[one] = ((rights - met - slopes * np.append(c, 0.0)[at]) * weight)[used]
        return q, c

    def _kept(
        self, square: FloatArray, kept: IntArray, column: IntArray, ties: _Ties, diagonal: FloatArray
    ) -> FloatArray:
        """Return the rows in force of S (parts, k, k), without the levels that some tie to; 1 where there is none."""
        places, part = self.places, self.places.part[kept]
        k = int(column.max(initial=-1)) + 1
        which = np.zeros((places.parts, k), dtype=np.int64)
        there = np.zeros((places.parts, k), dtype=bool)
        which[part, column], there[part, column] = places.row[kept], True
        found = np.zeros((places.parts, k, k))
        if k:
            among = np.arange(places.parts)[:, None, None]
            found = square[among, which[:, :, None], which[:, None, :]]
        found = found - gram(part[ties.row], column[ties.row], ties.level, ties.entry, diagonal, found)
        return np.where(there[:, :, None] & there[:, None, :], found, np.eye(k))

    def _bordered(  # noqa: PLR0917 - a system and its right-hand side
        self,
        square: FloatArray,
        part: IntArray,
        column: IntArray,
        h_rest: FloatArray,
        ties: _Ties,
        outer: BoolArray,
        diagonal: FloatArray,
        h_level: FloatArray,
    ) -> tuple[FloatArray, FloatArray]:
        """Solve for the rows in force and the outer levels of each part; return both, the other levels as 0."""
        places, k = self.places, square.shape[1]
        levels = np.flatnonzero(outer)
        level_part, line = places.level_part[levels], np.zeros(len(outer), dtype=np.int64)
        line[levels] = k + ranks_of(level_part)
        size = max(k, int(line[levels].max(initial=-1)) + 1)
        system, h = np.tile(np.eye(size), (places.parts, 1, 1)), np.zeros((places.parts, size))
        system[:, :k, :k] = square
        at = part[ties.row], column[ties.row], line[ties.level]
        system[at] = system[at[0], at[2], at[1]] = ties.entry
        system[level_part, line[levels], line[levels]] = diagonal[levels]
        h[part, column], h[level_part, line[levels]] = h_rest, h_level[levels]
        self.solved.append(size)
        found = h.copy()
        if size:
            found[:] = np.linalg.solve(system, h[:, :, None])[:, :, 0]
        c = np.zeros(len(outer))
        c[levels] = found[level_part, line[levels]]
        return found[part, column], c

    def _without_apart(
        self, weight: FloatArray, slopes: FloatArray, at: IntArray, rights: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return what is left of S, of the levels and of the right-hand side once the rows apart are eliminated."""
        rows, width = len(self.rest), self.places.width + 1  # the last place is that of no level
        cross = self.cross
        taken = sums(cross.place, self.products * weight[cross.one[cross.first]], self.square.size)
        scaled = self.between * weight[cross.one]
        place = cross.rest * width + np.append(self.places.level, width - 1)[at[cross.one]]
        levels = -sums(place, scaled * slopes[cross.one], rows * width).reshape(rows, width)
        levels[:, -1] = 0.0
        right = sums(cross.rest, scaled * rights[cross.one], rows)
        return self.square - taken.reshape(self.square.shape), levels, right
