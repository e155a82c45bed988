"""One batch at many limits: the same rows again and again, each time between other numbers.

The batch is condensed once, where it can be, and every sweep goes over that. All limits together are then one problem:
copies of the batch, one below the other, that share every pass. What finds their prices depends on the rows of one of
them: few rows have a multiplier per pair (see `many`); rows of which no two share a statistic are ranges, each with a
level (see `ranges`); other rows have a price each, from one program over the statistics of all (see `many_rows`). What
is left is a problem of its own: limits that may clash, and those that do not end within their accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.passes import CondensedPasses, Passes, Point
from fairlayer.solve.accuracy import accuracy_of, gauged
from fairlayer.solve.feasibility import surely_feasible
from fairlayer.solve.limits import SystemsAtLimits
from fairlayer.solve.many import ManyRows, solve_many
from fairlayer.solve.many_rows import ProblemRows, solve_priced
from fairlayer.solve.newton import ROUNDING
from fairlayer.solve.quadratic import ClashingFaces
from fairlayer.solve.ranges import price_ranges
from fairlayer.solve.slabs import RowSlabs, SlabSystem
from fairlayer.solve.solution import Solution
from fairlayer.solve.solving import solve
from fairlayer.solve.table import RowTable, accuracies_of
from fairlayer.solve.units import Units

__all__ = ["GridSolution", "prices_by_block", "solve_grid"]

_FEW_PAIRS = 12  # rows of one problem, with every pair of a spread as two, up to which pairs are quicker than ranges
_SOME_PAIRS = 24  # the same where rows share statistics
_MOST_ENTRIES = 250_000  # rows times statistics of all problems, beyond which one by one is quicker
_STEPS = 12  # of the method for pairs: what needs more is left to a safer one


@dataclass(frozen=True)
class GridSolution:
    """The solutions at several limits; rows follow the limits, and are NaN where nothing meets one.

    Args:
        nu: the dual points, (limits, statistics).
        statistics: the statistics of the predictions there, (limits, statistics).
        prices: what the multipliers of each block add up to, in the user's unit, (limits, blocks).
        points: the predictions at each limit; None where they were not asked for, or nothing meets the limit.
    """

    nu: FloatArray
    statistics: FloatArray
    prices: FloatArray
    points: list[Point | None]

    @staticmethod
    def blank(limits: int, statistics: int, blocks: int) -> GridSolution:
        """Return one that holds no solution yet."""
        nu, values = (np.full((limits, statistics), np.nan) for _ in range(2))
        return GridSolution(nu, values, np.full((limits, blocks), np.nan), [None] * limits)


def solve_grid(passes: Passes, systems: SystemsAtLimits | Sequence[SlabSystem], *, relax: bool = False) -> GridSolution:
    """Project the scores of a batch onto each of several systems, those that are alike together.

    Args:
        passes: the batch.
        systems: what must hold at each limit.
        relax: whether limits that nothing meets are widened.
    """
    alike = systems if isinstance(systems, SystemsAtLimits) else None
    blocks = max(len(slabs.blocks) for slabs in systems) if alike is None else len(alike.like.blocks)
    found = GridSolution.blank(len(systems), passes.cells.size, blocks)
    solved = np.zeros(len(systems), dtype=bool)
    if isinstance(passes, CondensedPasses) and alike is not None and blocks:
        solved = _together(passes, alike, found)
    for row in np.flatnonzero(~solved).tolist():
        try:
            solution = solve(passes, systems[row], relax=relax).solution
        except ClashingFaces:
            continue
        found.nu[row], found.statistics[row], found.points[row] = solution.nu, solution.statistics, solution.point
        found.prices[row] = prices_by_block(solution, found.prices.shape[1])
    return found


def prices_by_block(solution: Solution, blocks: int) -> FloatArray:
    """Return what the multipliers of each of some blocks add up to, in the user's unit."""
    prices = np.zeros(blocks)
    for face, multiplier in zip(solution.faces, solution.multipliers.tolist(), strict=True):
        prices[face.key[0]] += multiplier / face.scale
    return prices


def _together(passes: CondensedPasses, systems: SystemsAtLimits, found: GridSolution) -> BoolArray:
    """Write down what solving all limits as one problem finds, and return at which of them that was exact."""
    grid = _Grid(passes, systems)
    fitting = grid.fitting()
    if not fitting.any():
        return fitting
    which = np.flatnonzero(fitting)
    if len(which) < len(systems):
        grid = _Grid(passes, systems.take(which))
    solved = grid.solve()
    if solved is None:
        return np.zeros(len(systems), dtype=bool)
    exact = solved.error <= ROUNDING  # of NaN, no
    rows = which[exact]
    found.nu[rows], found.statistics[rows], found.prices[rows] = (
        each.reshape(len(which), -1)[exact] for each in (solved.nu, solved.statistics, solved.prices)
    )
    everywhere = np.zeros(len(systems), dtype=bool)
    everywhere[rows] = True
    return everywhere


@dataclass(frozen=True)
class _Solved:
    """The solutions at all limits of a grid, one after the other, and by how many accuracies each is missed."""

    nu: FloatArray
    statistics: FloatArray
    prices: FloatArray
    error: FloatArray


class _Grid:
    """Systems that are alike but for their limits, over copies of one batch."""

    def __init__(self, passes: CondensedPasses, systems: SystemsAtLimits) -> None:
        self.base, self.systems, self.count = passes, systems, len(systems)
        self.passes = passes.copied(self.count)
        self.start = passes.at(None)
        self.gauged = self._gauged()
        atol = [accuracies_of(each) for each in self.gauged]
        self.table = RowTable.of_copies(systems, atol[0] if self.alike else np.array(atol))
        # Without offsets and scales, something meets every limit.
        self.steady = systems.like.holds_for_constants and bool((self.table.scale == 1.0).all())
        sizes = [(len(each.matrix), isinstance(each, RowSlabs)) for each in systems.like.blocks]
        self.pairs = sum(2 * size if own else size * (size - 1) for size, own in sizes)
        self.units = None if self.pairs <= _FEW_PAIRS and self.steady else Units.of(self.table)

    @property
    def alike(self) -> bool:
        """Whether the accuracy of the rows does not depend on the limit, as that of differences does not."""
        return not any(isinstance(block, RowSlabs) for block in self.systems.like.blocks)

    def _gauged(self) -> list[SlabSystem]:
        """Return the systems with the accuracy of their rows; where that is the same for all, the first one."""
        base = accuracy_of(self.base)
        asked = [self.systems.like] if self.alike else self.systems
        return [gauged(self.base, each, self.start, base) for each in asked]

    def fitting(self) -> BoolArray:
        """Return at which limits something surely fits the bounds."""
        if self.steady:
            return np.ones(self.count, dtype=bool)
        if self.units is not None:
            of_units, of_levels = (each.reshape(self.count, -1) for each in self.units.room(self.passes))
            return np.asarray(of_units.all(axis=1) & of_levels.all(axis=1))
        systems = self.systems if self.alike else self.gauged
        return np.array([surely_feasible(self.base, each, self.start.statistics) for each in systems])

    def solve(self) -> _Solved | None:
        """Solve all limits; None where no method is for them."""
        cells = self.passes.cells.size
        owner = np.repeat(np.arange(self.count), len(self.table.level) // self.count)
        rows = ProblemRows(self.table, owner, np.repeat(np.arange(self.count), cells // self.count), self.count)
        if self.pairs <= _FEW_PAIRS or (self.pairs <= _SOME_PAIRS and self.units is None):
            high, low, point = self._by_pairs()
        elif self.units is not None:
            start, wide = self.passes.at(None), self.passes.widest_metric()
            ranges = price_ranges(self.passes, self.units, start, wide)
            if ranges is None:
                return None
            high, low, point = ranges.high, ranges.low, ranges.point
        elif len(self.table.level) * cells // self.count <= _MOST_ENTRIES:
            priced = solve_priced(self.passes, rows, self.passes.at(None))
            high, low, point = priced.high, priced.low, priced.point
        else:
            return None
        high, low = _netted(rows, high, low)
        dual = rows.dual(high, low)
        error = rows.error(dual, point.statistics)
        error = np.where(np.isfinite(rows.over_cells(dual.nu + point.statistics)), error, np.inf)
        return _Solved(dual.nu, point.statistics, self._by_block(high, low), error)

    def _by_pairs(self) -> tuple[FloatArray, FloatArray, Point]:
        """Solve with a multiplier for each pair of a spread; return the prices of rows, and the batch there."""
        pairs, count, cells = _Pairs.of(self.table, self.count), self.count, self.base.cells
        place = np.arange(count * cells.size).reshape(count, cells.size)
        rows = ManyRows(pairs.matrix, pairs.limit, place, count * cells.size)
        found = solve_many(self.passes, rows, np.broadcast_to(1.0 / cells.counts, place.shape), _STEPS)
        high, low = pairs.prices(np.where(found.converged[:, None], found.multipliers, np.nan))
        return high, low, found.point

    def _by_block(self, high: FloatArray, low: FloatArray) -> FloatArray:
        """Return what the multipliers of each block add up to at each limit, in the user's unit."""
        blocks = self.systems.like.blocks
        own = [
            each.scale if isinstance(each, RowSlabs) and each.scale is not None else np.ones(len(each.matrix))
            for each in blocks
        ]
        amount = np.where(self.table.tied, high, (high + low) / np.tile(np.concatenate(own), self.count))
        return np.bincount(self.table.block, amount, self.count * len(blocks)).astype(np.float64, copy=False)


@dataclass(frozen=True)
class _Pairs:
    """The rows of one problem with every ordered pair of a spread, and both sides of every other row.

    Args:
        matrix: (problems, pairs, statistics).
        limit: (problems, pairs).
        first: the row at its upper limit, of those of one problem; -1 where there is none, (pairs,).
        second: the row at its lower limit, likewise.
    """

    matrix: FloatArray
    limit: FloatArray
    first: IntArray
    second: IntArray

    @staticmethod
    def of(table: RowTable, count: int) -> _Pairs:
        """Lay out the rows of copies of one system."""
        rows, spreads = len(table.level) // count, len(table.scale) // count
        level, columns = table.level[:rows], table.matrix.shape[1] // count
        once = slice(0, len(table.matrix.data) // count)
        matrix = np.zeros((rows + 1, columns))  # the last: of no row
        np.add.at(matrix, (table.matrix.rows[once], table.matrix.columns[once]), table.matrix.data[once])
        own = np.flatnonzero(level < 0)
        tied = [np.flatnonzero(level == spread) for spread in range(spreads)]
        both = [np.nonzero(~np.eye(len(members), dtype=bool)) for members in tied]
        none = np.full(len(own), -1)
        first = np.concatenate([own, none, *(at[i] for at, (i, _) in zip(tied, both, strict=True))])
        second = np.concatenate([none, own, *(at[j] for at, (_, j) in zip(tied, both, strict=True))])
        of_level, of_row = level[first], slice(2 * len(own), None)  # the pairs of spreads follow all other rows
        scale, limit = np.ones((count, len(first))), np.zeros((count, len(first)))
        scale[:, of_row] = table.scale.reshape(count, -1)[:, of_level[of_row]]
        offset = table.offset.reshape(count, -1)
        limit[:, of_row] = table.width.reshape(count, -1)[:, of_level[of_row]]
        limit[:, of_row] += offset[:, second[of_row]] - scale[:, of_row] * offset[:, first[of_row]]
        limit[:, : len(own)] = table.upper.reshape(count, -1)[:, own]
        limit[:, len(own) : 2 * len(own)] = -table.lower.reshape(count, -1)[:, own]
        return _Pairs(scale[:, :, None] * matrix[first] - matrix[second], limit, first, second)

    def prices(self, multipliers: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the prices of the rows at their upper and at their lower limits."""
        count, rows = len(multipliers), int(max(self.first.max(), self.second.max())) + 1
        found = np.zeros((2, count, rows + 1))
        for side, at in enumerate((self.first, self.second)):
            np.add.at(found[side].T, at, multipliers.T)
        return found[0, :, :-1].ravel(), found[1, :, :-1].ravel()


def _netted(rows: ProblemRows, high: FloatArray, low: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return equal prices in which no member of a spread without slack is both a high and a low."""
    table = rows.table
    width = np.append(table.width, np.inf)[table.level]
    net, tied = high - low, (width <= 0.0) & (rows.scale == 1.0)
    return np.where(tied, np.maximum(net, 0.0), high), np.where(tied, np.maximum(-net, 0.0), low)
