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

import numpy as np

from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.passes.class_metric import ClassLayout, ClassMetric
from fairlayer.solve.parts import sums
from fairlayer.solve.price_equations import PriceEquations
from fairlayer.solve.price_rows import PriceRows
from fairlayer.solve.table import RowTable

__all__ = ["PriceProgram", "Priced"]

_OUTER, _INNER, _TRIALS = 30, 60, 40
_SOFTEST, _STIFFEST, _HARDEST = 1e2, 1e4, 1e10  # s_i S_ii, from step to step
_NEARLY = 1e6  # accuracies that prices of classes may miss: faces instead would be added one by one
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
        part: the part of each row (see `PriceRows`).
        layout: of the statistics (see `PriceRows`).
    """

    def __init__(self, table: RowTable, part: IntArray | None = None, layout: ClassLayout | None = None) -> None:
        self.table, self.rows = table, PriceRows(table, part, layout)
        self.price = np.zeros(len(table.level))
        self.warm = np.zeros(int(self.rows.part.max(initial=0)) + 1, dtype=bool)

    def solve(self, centre: FloatArray, metric: FloatArray | ClassMetric) -> Priced | None:
        """Return the prices at a centre (s,) and a metric K, diagonal (s,) or of blocks; None where none settle."""
        found = self._tried(centre, metric)
        if found is None and self.warm.any():  # too stiff a start may lead astray
            self.warm[:] = False
            found = self._tried(centre, metric)
        return found

    def _tried(self, centre: FloatArray, metric: FloatArray | ClassMetric) -> Priced | None:
        try:
            found = _Run(self, centre, metric).run()
            return found if found.settled.any() else None
        except (RuntimeError, np.linalg.LinAlgError):  # equations that are singular to rounding
            return None


class _Run:
    """One program."""

    def __init__(self, program: PriceProgram, centre: FloatArray, metric: FloatArray | ClassMetric) -> None:
        self.program, self.rows = program, program.rows
        self.places = self.rows.places
        self.equations = PriceEquations(self.rows, centre, metric)
        self.free = self.equations.free

    def run(self) -> Priced:
        """Solve each part for itself, all of them together."""
        program, part, parts = self.program, self.rows.part, self.places.parts
        q = program.price
        c = self._first_levels(q)
        price, level, best = np.zeros_like(q), np.zeros_like(c), np.full(parts, np.inf)
        done, self.over = np.zeros(parts, dtype=bool), np.zeros(parts, dtype=bool)
        stiffness, last = np.where(program.warm, _STIFFEST, _SOFTEST), np.full(parts, np.inf)
        for _ in range(_OUTER):
            self.equations.around(stiffness, q, c)
            q, c, settled = self._inner(q, c)
            missed = np.zeros(parts)
            np.maximum.at(missed, part, self._missed(q, c) / self.rows.table.atol)
            sound = ~self.over & settled & self._balanced(q)
            better = sound & (missed < best)
            price, level = np.where(better[part], q, price), np.where(better[self.places.level_part], c, level)
            best = np.where(better, missed, best)
            stalled = (missed > 0.5 * last) & (missed <= _ROUNDING)
            now = sound & ((missed <= 0.3) | stalled)
            done, self.over = done | now, self.over | now | ~settled
            if self.over.all():
                break
            stiffer = (stiffness < _STIFFEST) | (missed > 0.1 * last)
            stiffness, last = np.where(stiffer, np.minimum(10.0 * stiffness, _HARDEST), stiffness), missed
        # Where the stiffest steps are lost in rounding, an earlier one serves.
        done = done | (best <= (_NEARLY if program.rows.layout is not None else _ROUNDING))
        price, level = np.where(done[part], price, 0.0), np.where(done[self.places.level_part], level, 0.0)
        program.price, program.warm = np.where(done[part], price, program.price), program.warm | done
        return Priced(price, level, tuple(self.equations.solved), done)

    def _first_levels(self, q: FloatArray) -> FloatArray:
        """Half-way between where the lowest and the highest member of each spread would have it."""
        table = self.rows.table
        if not len(table.scale):
            return np.zeros(0)
        value = (self.free - self.equations.answer(q) + table.offset)[table.tied]
        low, high = np.full(len(table.scale), np.inf), np.full(len(table.scale), -np.inf)
        np.minimum.at(low, table.level[table.tied], value)
        np.maximum.at(high, table.level[table.tied], value)
        return np.asarray(0.5 * (low + table.scale * high - table.width))

    def _balanced(self, q: FloatArray) -> BoolArray:
        """Return for each part whether the prices of each of its spreads cancel."""
        parts = q / self.rows.factor(q)
        most, off = np.zeros(self.places.parts), np.zeros(self.places.parts)
        np.maximum.at(most, self.places.level_part, self.rows.added(np.abs(parts)))
        np.maximum.at(off, self.places.level_part, np.abs(self.rows.added(parts)))
        return off <= 1e-12 * most

    def _forces(self, value: FloatArray, c: FloatArray) -> FloatArray:
        """Return P: the price that each row asks at a value and at levels."""
        lower, upper = self.rows.table.ends(c)
        e = value + self.equations.price / self.equations.stiff
        return np.asarray(self.equations.stiff * (e - np.minimum(np.maximum(e, lower), upper)))

    def _inner(self, q: FloatArray, c: FloatArray) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Move until every part has found which of its rows are in force; return which have."""
        part, of_level = self.rows.part, self.places.level_part
        answer = self.equations.answer(q)
        sign = np.sign(self._forces(self.free - answer, c))
        for _ in range(_INNER):
            after_q, after_c = self.equations.newton(sign)
            change, level_change = after_q - q, after_c - c
            share = self._shares(q, c, answer, change, level_change, self.equations.answer(change))
            q = np.where(share[part] == 1.0, after_q, q + share[part] * change)
            c = np.where(share[of_level] == 1.0, after_c, c + share[of_level] * level_change)
            answer = self.equations.answer(q)
            force = self._forces(self.free - answer, c)
            # Of the rows in force q is the force to more digits: that is a large multiple of a small difference.
            noise = 4e-16 * self.equations.stiff * np.maximum(1.0, np.abs(self.free))
            fresh = np.where(np.abs(force) > noise, np.sign(force), 0.0)
            after = np.where(sign == 0, fresh, np.where((q * sign > 0) | self.rows.fixed, sign, 0.0))
            still = np.abs(force - q) <= noise + 1e-12 * np.abs(q)
            settled = (share == 1.0) & (self._all(after == sign) | self._all(still))
            if (settled | self.over).all():
                break
            whole = np.where(settled[part], sign, after)
            sign = np.where(share[part] == 1.0, whole, np.sign(force))
        return *self.equations.refined(sign, q, c), settled

    def _all(self, rows: BoolArray) -> BoolArray:
        """Return for each part whether something is true of all its rows."""
        return np.asarray(np.bincount(self.rows.part, ~rows, self.places.parts) == 0)

    def _missed(self, q: FloatArray, c: FloatArray) -> FloatArray:
        """Return how far each row is outside its limits, or from the one that its price belongs to."""
        lower, upper = self.rows.table.ends(c)
        value = self.free - self.equations.answer(q)
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
        part, of_level, parts = self.rows.part, self.places.level_part, self.places.parts

        def slope(share: FloatArray) -> FloatArray:
            level, of_row = c + share[of_level] * level_change, share[part]
            force = self._forces(self.free - answer - of_row * answer_change, level)
            pulled = self.rows.added(force / self.rows.factor(force))
            levels = level_change * (self.equations.loose * (level - self.equations.level) - pulled)
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
