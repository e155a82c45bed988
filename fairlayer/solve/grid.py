"""One batch at many limits: the same rows again and again, each time between other numbers.

The batch is condensed once, where it can be, and every sweep goes over that. Where no two rows share a statistic, all
limits together are one problem of ranges: copies of the batch, one below the other, whose levels and prices move in the
same passes. Otherwise, and where limits clash, each limit is a problem of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.passes import CondensedPasses, Passes, Point
from fairlayer.solve.accuracy import accuracy_of, gauged
from fairlayer.solve.newton import ROUNDING
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
    if not systems[0].blocks or not all(_alike(systems[0], each) for each in systems[1:]):
        return None
    copies = passes.copied(len(systems))
    table = RowTable.of_copies(_all_gauged(passes, systems))
    units = Units.of(table)
    if units is None or not (units.fit(copies) or all(each.holds_for_constants for each in systems)):
        return None
    slabs = SlabSystem([block for system in systems for block in system.blocks])
    found = solve_ranges(copies, slabs, units, copies.at(None), copies.widest_metric())
    if found is None or _error(table, slabs, found, len(systems)) > ROUNDING:
        return None
    shape = len(systems), -1
    prices = _prices_of_many(slabs, found).reshape(shape)
    return GridSolution(found.nu.reshape(shape), found.statistics.reshape(shape), prices, [None] * len(systems))


def _all_gauged(passes: Passes, systems: Sequence[SlabSystem]) -> list[SlabSystem]:
    """Return the systems with the accuracy of their rows, which for differences does not depend on the limit."""
    start, base = passes.at(None), accuracy_of(passes)
    first = gauged(passes, systems[0], start, base)
    if any(isinstance(block, RowSlabs) for block in first.blocks):
        return [first, *(gauged(passes, each, start, base) for each in systems[1:])]
    accuracies: list[Any] = [block.atol for block in first.blocks]
    return [
        SlabSystem([block._replace(atol=atol) for block, atol in zip(each.blocks, accuracies, strict=True)])
        for each in systems
    ]


def _error(table: RowTable, slabs: SlabSystem, found: Solution, copies: int) -> float:
    """Return by how many accuracies any limit, or any price, of copies of a system is missed.

    A price is missed by the slack of its limit: sum_j lambda_j limit_j - nu' s, per unit of sum_j lambda_j atol_j.
    """
    if not (np.isfinite(found.nu).all() and np.isfinite(found.statistics).all()):
        return np.inf
    value, levels = table.matrix @ found.statistics + table.offset, len(table.scale)
    high, low, atol = np.full(levels, -np.inf), np.full(levels, np.inf), np.ones(levels)
    own, of = table.tied, table.level[table.tied]
    np.maximum.at(high, of, value[own])
    np.minimum.at(low, of, value[own])
    atol[of] = table.atol[own]
    missed = np.maximum(value - table.upper, table.lower - value) / table.atol
    across = (table.scale * high - low - table.width) / atol
    faces, amount = found.faces, found.multipliers
    assert isinstance(faces, Faces)
    copy = faces.keys[:, 0] // (len(slabs.blocks) // copies)
    limits, weights = np.bincount(copy, amount * faces.limits, copies), np.zeros(copies)
    first = np.searchsorted(table.block, faces.keys[:, 0])
    np.add.at(weights, copy, amount * table.atol[first + faces.keys[:, 1]])
    slack = np.abs(limits - (found.nu * found.statistics).reshape(copies, -1).sum(axis=1))
    slack = slack[weights > 0] / weights[weights > 0]
    return float(max(missed.max(initial=0.0), across.max(initial=0.0), slack.max(initial=0.0)))


def _alike(first: SlabSystem, other: SlabSystem) -> bool:
    """Return whether two systems read the same rows of the statistics."""
    return len(first.blocks) == len(other.blocks) and all(
        type(a) is type(b) and (a.matrix is b.matrix or np.array_equal(a.matrix, b.matrix))
        for a, b in zip(first.blocks, other.blocks, strict=True)
    )


def _prices_of_many(slabs: SlabSystem, solution: Solution) -> FloatArray:
    """Return the same for all blocks of a large system, whose faces are not written out."""
    assert isinstance(solution.faces, Faces)
    keys, prices = solution.faces.keys, solution.multipliers.copy()
    for block, each in enumerate(slabs.blocks):
        if isinstance(each, RowSlabs) and each.scale is not None:
            here = keys[:, 0] == block
            prices[here] /= each.scale[keys[here, 1]]
    return np.bincount(keys[:, 0], prices, len(slabs.blocks)).astype(np.float64, copy=False)
