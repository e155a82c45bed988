"""Many problems at once whose rows are many: a price per row and a level per spread, not a row per pair of groups.

The method is that of `newton`: at nu the program over statistics (`prices`) gives a target, and each problem moves
towards its own as far as its dual rises. Problems share no row and no cell, so that one program is that of all of them,
and its equations fall apart into theirs. Every problem has its own length of the step; the sweeps are common.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.passes import Passes, Point
from fairlayer.solve.accuracy import accuracy_of, gauged
from fairlayer.solve.newton import ROUNDING, floored
from fairlayer.solve.prices import PriceProgram
from fairlayer.solve.slabs import SlabSystem
from fairlayer.solve.table import RowTable

__all__ = ["ManyPriced", "ProblemRows", "solve_many_rows", "solve_priced"]

_MOST_STEPS = 40
_MOST_TRIALS = 30


@dataclass(frozen=True)
class ManyPriced:
    """What was found.

    Args:
        table: the rows, with a level for each spread of each problem.
        high: price of each row's upper limit, >= 0, in units of `scale * value` for a member of a spread.
        low: price of each row's lower limit, >= 0; those of a spread add up to the same as its high ones.
        converged: which problems were solved to their accuracy, (b,).
        point: predictions and statistics at the prices.
        sweeps: the number of sweeps over the samples of all problems.
    """

    table: RowTable
    high: FloatArray
    low: FloatArray
    converged: BoolArray
    point: Point
    sweeps: int


def solve_many_rows(passes: Passes, slabs: SlabSystem, cell_owner: IntArray, count: int) -> ManyPriced:
    """Solve all problems, as far as the method goes.

    Args:
        passes: the samples of all problems; K is diagonal.
        slabs: what must hold; the members of a spread are tied to those of their own problem.
        cell_owner: the problem of each cell, (cells,); -1 for none.
        count: number of problems, b.
    """
    point = passes.at(None)
    rows = ProblemRows.of(RowTable.of(gauged(passes, slabs, point, accuracy_of(passes))), cell_owner, count)
    return solve_priced(passes, rows, point)


def solve_priced(passes: Passes, rows: ProblemRows, point: Point) -> ManyPriced:
    """Solve all problems whose rows are gathered already, from the point at price zero."""
    count = rows.count
    program = PriceProgram(rows.table, rows.owner)
    none = np.zeros(len(rows.owner))
    dual = _Duals(none, none, np.zeros(len(point.statistics)), np.zeros(count), np.zeros(count))
    last, sweeps = np.full(count, np.inf), 1
    done, stuck = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    for step in range(_MOST_STEPS):
        error = rows.error(dual, point.statistics)
        done = done | ~stuck & ((error <= 1.0) | ((last <= error) & (error <= ROUNDING)))
        last = error
        if bool((done | stuck).all()):
            break
        metric = floored(passes, point, step)
        found = program.solve(point.statistics + metric * dual.nu, metric)
        if found is None:
            break
        settled = np.ones(count, dtype=bool)  # problems of no row are
        settled[: len(found.settled)] = found.settled
        stuck = stuck | ~(done | settled)
        target = rows.dual(np.maximum(found.price, 0.0) / rows.scale, np.maximum(-found.price, 0.0))
        share, fails, point, used = _searched(passes, rows, dual, target, point, done | stuck)
        dual, stuck, sweeps = rows.towards(dual, target, share), stuck | fails, sweeps + used
    kept = np.append(done, False)[rows.owner]
    return ManyPriced(rows.table, np.where(kept, dual.high, 0.0), np.where(kept, dual.low, 0.0), done, point, sweeps)


class _Duals(NamedTuple):
    """A dual feasible point of every problem: nu, sigma and the weights are linear in the prices."""

    high: FloatArray  # of each row
    low: FloatArray
    nu: FloatArray  # of each cell
    sigma: FloatArray  # of each problem
    weight: FloatArray  # sum of prices times accuracies, of each problem


@dataclass(frozen=True)
class ProblemRows:
    """The rows of all problems.

    Args:
        table: the rows, with a level for each spread of each problem.
        owner: problem of each row.
        cell_owner: problem of each cell, `count` for none.
        count: number of problems.
    """

    table: RowTable
    owner: IntArray
    cell_owner: IntArray
    count: int

    @staticmethod
    def of(table: RowTable, cell_owner: IntArray, count: int) -> ProblemRows:
        """Give each problem a spread of its own of every spread in a table."""
        owner = np.zeros(len(table.level), dtype=np.int64)
        owner[table.matrix.rows] = cell_owner[table.matrix.columns]  # all cells of a row are of one problem
        level, tied = table.level.copy(), table.tied
        spread, level[tied] = np.unique(table.level[tied] * count + owner[tied], return_inverse=True)
        own = replace(table, level=level, scale=table.scale[spread // count], width=table.width[spread // count])
        return ProblemRows(own, owner, np.where(cell_owner < 0, count, cell_owner), count)

    @cached_property
    def scale(self) -> FloatArray:
        """Scale of each row's spread; 1 without one."""
        return np.append(self.table.scale, 1.0)[self.table.level]

    @cached_property
    def limits(self) -> tuple[FloatArray, FloatArray]:
        """What a price of each row's upper limit, and of its lower one, adds to sigma."""
        table = self.table
        width = np.append(table.width, 0.0)[table.level]
        high = np.where(table.tied, width - self.scale * table.offset, table.upper)
        low = np.where(table.tied, table.offset, -table.lower)
        return np.where(np.isfinite(high), high, 0.0), np.where(np.isfinite(low), low, 0.0)

    def dual(self, high: FloatArray, low: FloatArray) -> _Duals:
        """Return the dual point at prices."""
        of_high, of_low = self.limits
        nu = (high * self.scale - low) @ self.table.matrix
        accuracy = (high + np.where(self.table.tied, 0.0, low)) * self.table.atol  # a pair is one row
        return _Duals(high, low, nu, self.add(high * of_high + low * of_low), self.add(accuracy))

    def towards(self, here: _Duals, there: _Duals, share: FloatArray) -> _Duals:
        """Return the point on the way from one to the other, by a share for each problem."""
        of_row, of_cell = share[self.owner], np.append(share, 0.0)[self.cell_owner]
        parts = (of_row, of_row, of_cell, share, share)
        moved = (
            np.where(part == 1.0, last, first + part * (last - first))
            for first, last, part in zip(here, there, parts, strict=True)
        )
        return _Duals(*moved)

    def error(self, dual: _Duals, statistics: FloatArray) -> FloatArray:
        """Return the largest violation of each problem, or the mean slack of its priced rows; in accuracies."""
        slack = np.abs(dual.sigma - self.over_cells(dual.nu * statistics))
        slack = np.divide(slack, dual.weight, out=np.zeros(self.count), where=dual.weight > 0)
        return np.maximum(self._violation(statistics), slack)

    def _violation(self, statistics: FloatArray) -> FloatArray:
        table, found = self.table, np.zeros(self.count)
        value = table.matrix @ statistics + table.offset
        own, tied, level = ~table.tied, table.tied, table.level[table.tied]
        off = np.maximum(value - table.upper, table.lower - value) / table.atol
        np.maximum.at(found, self.owner[own], off[own])
        most, least = np.full(len(table.scale), -np.inf), np.full(len(table.scale), np.inf)
        accuracy, owner = np.ones(len(table.scale)), np.zeros(len(table.scale), dtype=np.int64)
        np.maximum.at(most, level, value[tied])
        np.minimum.at(least, level, value[tied])
        accuracy[level], owner[level] = table.atol[tied], self.owner[tied]
        np.maximum.at(found, owner, (table.scale * most - least - table.width) / accuracy)
        return found

    def add(self, values: FloatArray) -> FloatArray:
        """Return the sum over the rows of each problem."""
        return np.bincount(self.owner, values, self.count).astype(np.float64, copy=False)

    def over_cells(self, values: FloatArray) -> FloatArray:
        """Return the sum over the cells of each problem."""
        return np.bincount(self.cell_owner, values, self.count + 1)[:-1].astype(np.float64, copy=False)

    def largest_pull(self, passes: Passes, nu: FloatArray) -> FloatArray:
        """Return the largest pull on any sample of each problem."""
        found = np.zeros(self.count + 1)
        np.maximum.at(found, self.cell_owner, np.abs(nu / passes.cells.counts))
        return found[:-1]


def _searched(  # noqa: PLR0917 - where the search stands
    passes: Passes, rows: ProblemRows, dual: _Duals, target: _Duals, point: Point, rest: BoolArray
) -> tuple[FloatArray, BoolArray, Point, int]:
    """Return the share of its step of each problem, which of them find none, the point there, and the sweeps.

    The search of `newton` for one problem: the Illinois variant of the secant method on the directional derivative of
    the dual, which falls along the step. Problems that `rest` stay where they are.
    """
    moving = np.append(~rest, False)[rows.cell_owner]
    d_nu, d_sigma = np.where(moving, target.nu - dual.nu, 0.0), np.where(rest, 0.0, target.sigma - dual.sigma)

    def derivative(at: Point) -> FloatArray:
        return rows.over_cells(d_nu * at.statistics) - d_sigma

    def reached(share: FloatArray) -> Point:
        return passes.at(dual.nu + np.append(share, 0.0)[rows.cell_owner] * d_nu)

    first = derivative(point)
    left, right = np.zeros(rows.count), _longest_shares(passes, rows, dual.nu, d_nu)
    share, used = right, 1
    candidate = reached(share)
    slope = derivative(candidate)
    settled = rest | (slope >= -(target.weight + dual.weight))
    fails = ~settled & (first <= 0.0)
    at_left, at_right = first, slope
    settled = settled | fails
    while not settled.all() and used < _MOST_TRIALS:
        part = np.divide(at_left, at_left - at_right, out=np.full(rows.count, 0.5), where=~settled)
        secant = left + (right - left) * part
        edge = 1e-3 * (right - left)
        share = np.where(settled, share, np.clip(secant, left + edge, right - edge))
        share, used = np.where(fails, 0.0, share), used + 1
        candidate = reached(share)
        slope = derivative(candidate)
        settled = settled | (np.abs(slope) <= 0.1 * first) | (right - left < 1e-15)
        rises, falls = ~settled & (slope > 0), ~settled & (slope <= 0)
        left, right = np.where(rises, share, left), np.where(falls, share, right)
        at_left, at_right = (
            np.where(rises, slope, np.where(falls, 0.5 * at_left, at_left)),
            np.where(falls, slope, np.where(rises, 0.5 * at_right, at_right)),
        )
    if fails.any():
        share = np.where(fails, 0.0, share)
        candidate, used = reached(share), used + 1
    return np.where(rest, 0.0, share), fails, candidate, used


def _longest_shares(passes: Passes, rows: ProblemRows, nu: FloatArray, d_nu: FloatArray) -> FloatArray:
    """Return how much of its step each problem may take at first: a curved geometry limits how a pull changes."""
    most = passes.geometry.longest_step
    change = rows.largest_pull(passes, d_nu)
    if np.isinf(most):
        return np.ones(rows.count)
    allowed = np.where(change <= most, change, most + rows.largest_pull(passes, nu))
    return np.minimum(1.0, np.divide(allowed, change, out=np.ones(rows.count), where=change > 0))
