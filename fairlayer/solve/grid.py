"""One batch at many limits: the same rows again and again, each time between other numbers.

The batch is condensed once, where it can be, and every sweep goes over that. Where no two rows share a statistic, all
limits together are one problem of ranges: copies of the batch, one below the other, whose levels and prices move in the
same passes. Otherwise, and where limits clash, each limit is a problem of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairlayer._rows import SparseRows, as_sparse
from fairlayer._typing import FloatArray
from fairlayer.passes import CondensedPasses, Passes, Point
from fairlayer.solve.accuracy import accuracy_of, gauged
from fairlayer.solve.feasibility import surely_feasible
from fairlayer.solve.newton import accurate_enough
from fairlayer.solve.quadratic import ClashingFaces
from fairlayer.solve.ranges import solve_ranges
from fairlayer.solve.slabs import Faces, RowSlabs, SlabSystem
from fairlayer.solve.solution import Solution
from fairlayer.solve.solving import solve
from fairlayer.solve.table import RowTable
from fairlayer.solve.units import Units

__all__ = ["GridSolution", "prices_by_block", "solve_grid"]


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
    points: Sequence[Point | None]


def solve_grid(passes: Passes, systems: Sequence[SlabSystem], *, relax: bool = False) -> GridSolution:
    """Project the scores of a batch onto each of several systems that are alike but for their limits.

    Args:
        passes: the batch.
        systems: what must hold at each limit.
        relax: whether limits that nothing meets are widened.
    """
    if not isinstance(passes, CondensedPasses):
        return _one_by_one(passes, systems, relax=relax)
    found = _together(passes, systems)
    return _one_by_one(passes, systems, relax=relax) if found is None else found


def _one_by_one(passes: Passes, systems: Sequence[SlabSystem], *, relax: bool) -> GridSolution:
    shape = len(systems), passes.cells.size
    nu, statistics = np.full(shape, np.nan), np.full(shape, np.nan)
    prices = np.full((len(systems), max(len(slabs.blocks) for slabs in systems)), np.nan)
    points: list[Point | None] = [None] * len(systems)
    for row, slabs in enumerate(systems):
        try:
            solution = solve(passes, slabs, relax=relax).solution
        except ClashingFaces:
            continue
        nu[row], statistics[row], points[row] = solution.nu, solution.statistics, solution.point
        prices[row] = prices_by_block(solution, prices.shape[1])
    return GridSolution(nu, statistics, prices, points)


def prices_by_block(solution: Solution, blocks: int) -> FloatArray:
    """Return what the multipliers of each of some blocks add up to, in the user's unit."""
    prices = np.zeros(blocks)
    for face, multiplier in zip(solution.faces, solution.multipliers.tolist(), strict=True):
        prices[face.key[0]] += multiplier / face.scale
    return prices


def _together(passes: CondensedPasses, systems: Sequence[SlabSystem]) -> GridSolution | None:
    """Solve all limits as one problem of ranges; None where they are none, or clash."""
    blocks = len(systems[0].blocks)
    if not blocks or not all(_alike(systems[0], each) for each in systems[1:]):
        return None
    copies = passes.copied(len(systems))
    entries = [as_sparse(block.matrix) for block in systems[0].blocks]
    slabs = SlabSystem([
        block._replace(matrix=_shifted(matrix, copy, len(systems)))
        for copy, system in enumerate(systems)
        for block, matrix in zip(system.blocks, entries, strict=True)
    ])
    start = copies.at(None)
    slabs = gauged(copies, slabs, start, accuracy_of(copies))
    units = Units.of(RowTable.of(slabs))
    if units is None or not (surely_feasible(copies, slabs, start.statistics) or units.fit(copies)):
        return None
    solution = solve_ranges(copies, slabs, units, start, copies.widest_metric())
    if solution is None or not accurate_enough(copies, slabs, solution):
        return None
    shape = len(systems), -1
    prices = _prices_of_many(slabs, solution).reshape(shape)
    nu, statistics = solution.nu.reshape(shape), solution.statistics.reshape(shape)
    return GridSolution(nu, statistics, prices, [None] * len(systems))


def _alike(first: SlabSystem, other: SlabSystem) -> bool:
    """Return whether two systems read the same rows of the statistics."""
    return len(first.blocks) == len(other.blocks) and all(
        type(a) is type(b) and (a.matrix is b.matrix or np.array_equal(a.matrix, b.matrix))
        for a, b in zip(first.blocks, other.blocks, strict=True)
    )


def _shifted(matrix: SparseRows, copy: int, copies: int) -> SparseRows:
    """Return a matrix over the statistics as one over those of all copies."""
    rows, size = matrix.shape
    return SparseRows(matrix.rows, matrix.columns + copy * size, matrix.data, (rows, copies * size))


def _prices_of_many(slabs: SlabSystem, solution: Solution) -> FloatArray:
    """Return the same for all blocks of a large system, whose faces are not written out."""
    assert isinstance(solution.faces, Faces)
    keys, prices = solution.faces.keys, solution.multipliers.copy()
    for block, each in enumerate(slabs.blocks):
        if isinstance(each, RowSlabs) and each.scale is not None:
            here = keys[:, 0] == block
            prices[here] /= each.scale[keys[here, 1]]
    return np.bincount(keys[:, 0], prices, len(slabs.blocks)).astype(np.float64, copy=False)
