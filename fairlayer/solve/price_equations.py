"""The equations of one step of Newton's method in prices and levels, for the rows in force.

    (S + 1/s) q + a c = h          a' q - r c = -r c0          S = M K M'

The rows apart are eliminated by their diagonal, then the levels that have a diagonal of their own; what is left falls
apart into parts, and is solved densely (see `price_rows`), unless a sparse factorisation of everything serves better.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.passes.class_metric import ClassMetric
from fairlayer.solve.class_systems import ClassEquations, FactoredSystem, class_system
from fairlayer.solve.parts import gram, ranks_of, sums
from fairlayer.solve.price_rows import PriceRows
from fairlayer.solve.sparse import SparseSystem, square_of_rows

__all__ = ["PriceEquations"]


class _Ties(NamedTuple):
    """Which rows in force take part in which levels, and by how much."""

    row: IntArray
    level: IntArray
    entry: FloatArray

    def those(self, which: BoolArray) -> _Ties:
        """Return some of them."""
        return _Ties(self.row[which], self.level[which], self.entry[which])


class PriceEquations:
    """What the steps of one program share, and where its method of multipliers stands.

    Args:
        rows: the rows.
        centre: where the statistics are at no price, (s,).
        metric: K, (s,) where it is diagonal, else of blocks.
    """

    def __init__(self, rows: PriceRows, centre: FloatArray, metric: FloatArray | ClassMetric) -> None:
        self.rows, self.metric = rows, metric
        self.matrix = rows.table.matrix
        self.free = self.matrix @ centre
        self.curvature = self._curvature()
        self.solved: list[int] = []
        self.places = rows.places
        self.factors: FactoredSystem | None = None
        if not isinstance(metric, ClassMetric) and not rows.sparse:
            self.one, self.rest = rows.one, rows.rest
            cross, square = rows.entries
            self.cross, parts, size = cross, self.places.parts, self.places.rows
            self.square = square.at(metric, parts * size * size).reshape(parts, size, size)
            self.between = cross.entries.at(metric, len(cross.one))
            self.products = self.between[cross.first] * self.between[cross.second]

    def around(self, stiffness: FloatArray, q: FloatArray, c: FloatArray) -> None:
        """Go on around prices and levels, with a stiffness s_i S_ii of each part."""
        table = self.rows.table
        least = np.full(len(table.scale), np.inf)
        np.minimum.at(least, table.level[table.tied], 1.0 / self.curvature[table.tied])
        self.loose = 0.1 * least / stiffness[self.places.level_part]
        self.stiff = stiffness[self.rows.part] / self.curvature
        self.price, self.level = q, c

    def _curvature(self) -> FloatArray:
        matrix = self.matrix
        if isinstance(self.metric, ClassMetric):
            found = self.rows.of_classes.diagonal(self.metric)
        else:
            found = sums(matrix.rows, matrix.data**2 * self.metric[matrix.columns], len(matrix))
        return np.where(found > 0, found, 1.0)

    def answer(self, price: FloatArray) -> FloatArray:
        """Return S q."""
        pull = price @ self.matrix
        moved = self.metric @ pull if isinstance(self.metric, ClassMetric) else self.metric * pull
        return np.asarray(self.matrix @ moved)

    def newton(self, sign: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Solve for the rows in force:  (S + 1/s) q + a c = h,   a' q - r c = -r c0."""
        rows, table = self.rows, self.rows.table
        active = np.flatnonzero(sign)
        top = sign[active] > 0
        scale, tied = rows.scale[active], table.tied[active]
        slope = np.where(tied, np.where(top, 1.0 / scale, 1.0), 0.0)
        moved = (np.where(top, rows.width[active] / scale, 0.0)) - table.offset[active]
        fixed = np.where(tied, moved, np.where(top, table.upper[active], table.lower[active]))
        right = self.free[active] - fixed + self.price[active] / self.stiff[active]
        q = np.zeros(len(sign))
        levels = table.level[active]
        self.last = active, slope, levels, right
        self.factors = self._factors(active, slope, levels)
        q[active], c = self._solved(active, slope, levels, right, -self.loose * self.level)
        return self._again(q, c) if isinstance(self.metric, ClassMetric) else (q, c)

    def _factors(self, active: IntArray, slope: FloatArray, levels: IntArray) -> FactoredSystem | None:
        """Return the factors of all equations together; None where they are eliminated one after the other."""
        soft = 1.0 / self.stiff[active]
        if isinstance(self.metric, ClassMetric):
            self.solved.append(0)
            return class_system(
                ClassEquations(self.rows.of_classes, self.metric, active, soft, slope, levels, self.loose)
            )
        if not self.rows.sparse:
            return None
        self.solved.append(0)
        square = square_of_rows(self.matrix, self.metric, active)
        return SparseSystem(square, soft, slope, levels, self.loose)

    def _solved(
        self, active: IntArray, slope: FloatArray, levels: IntArray, right: FloatArray, r_level: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        if self.factors is not None:
            return self.factors.solve(right, r_level)
        return self._eliminated(active, slope, levels, right, r_level)

    def _again(self, q: FloatArray, c: FloatArray) -> tuple[FloatArray, FloatArray]:
        active, slope, levels, right = self.last
        shifted = slope * np.append(c, 0.0)[levels]
        left = right - (self.answer(q)[active] + q[active] / self.stiff[active] + shifted)
        pulled = sums(levels[levels >= 0], (slope * q[active])[levels >= 0], len(c))
        left_level = -self.loose * self.level - (pulled - self.loose * c)
        more, more_level = self._solved(active, slope, levels, left, left_level)
        found = q.copy()
        found[active] += more
        return found, c + more_level

    def refined(self, sign: FloatArray, q: FloatArray, c: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Solve once more for what the last solution of the system leaves over."""
        found, level = self._again(q, c)
        # A price of the wrong sign is rounding here, or else the row would not be in force.
        return np.where((found * sign > 0) | self.rows.fixed, found, 0.0), level

    def _eliminated(
        self, active: IntArray, slope: FloatArray, levels: IntArray, right: FloatArray, r_level: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        table, count, places = self.rows.table, len(self.level), self.places
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
