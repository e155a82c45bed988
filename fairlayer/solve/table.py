"""All rows of a slab system in one table: limits of their own, and a level for those that a spread ties together.

A spread `scale * v_i - v_j <= width` over all pairs says that there is one number c, its level, with

    c <= v_j   and   scale * v_i <= c + width        for every member.

So thousands of pairs are two limits per row and one unknown per spread. Source: the epigraph form of a maximum; Boyd,
Vandenberghe (2004), section 4.1.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fairlayer._rows import SparseRows, entries_of
from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.solve.slabs import Faces, RowSlabs, SlabSystem

__all__ = ["RowPairs", "RowTable", "faces_of_prices", "pairs_of_prices"]


@dataclass(frozen=True)
class RowTable:
    """The rows of all blocks, one after the other.

    Args:
        matrix: (rows, statistics), by its entries.
        block: block of each row.
        member: its place in the block.
        level: the spread that it is a member of, -1 for a row with limits of its own.
        offset: what is added to a member's value.
        lower: own lower limits, -inf for members.
        upper: own upper limits, +inf for members.
        scale: the scale of each spread.
        width: the width of each spread.
        atol: accuracy of each row.
    """

    matrix: SparseRows
    block: IntArray
    member: IntArray
    level: IntArray
    offset: FloatArray
    lower: FloatArray
    upper: FloatArray
    scale: FloatArray
    width: FloatArray
    atol: FloatArray

    @staticmethod
    def of(slabs: SlabSystem) -> RowTable:
        """Gather the rows of a system."""
        return RowTable.of_copies([slabs])

    @staticmethod
    def of_copies(systems: Sequence[SlabSystem], accuracies: FloatArray | None = None) -> RowTable:
        """Gather the rows of several systems that are alike but for their limits, each over statistics of its own.

        Args:
            systems: the systems.
            accuracies: those of the rows of a single system, where all have the same; None: those of each system.
        """
        blocks, copies = systems[0].blocks, len(systems)
        sizes = [len(block.matrix) for block in blocks]
        spread = [not isinstance(block, RowSlabs) for block in blocks]
        levels = np.where(spread, np.cumsum(spread) - 1, -1).astype(np.int64)
        level = np.repeat(levels, sizes)
        offset, lower, upper, atol, scale, width = _numbers(systems, accuracies)
        return RowTable(
            _repeated(entries_of([block.matrix for block in blocks]), copies),
            _shifted(np.repeat(np.arange(len(sizes)), sizes), len(sizes), copies),
            _shifted(np.concatenate([np.zeros(0, np.int64), *(np.arange(size) for size in sizes)]), 0, copies),
            np.where(_shifted(level, 0, copies) < 0, -1, _shifted(level, sum(spread), copies)),
            offset,
            lower,
            upper,
            scale,
            width,
            atol,
        )

    @cached_property
    def tied(self) -> BoolArray:
        """Which rows belong to a spread."""
        return self.level >= 0

    def ends(self, c: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the limits of each row at given levels."""
        lower, upper = self.lower.copy(), self.upper.copy()
        own = self.level[self.tied]
        lower[self.tied] = c[own] - self.offset[self.tied]
        upper[self.tied] = (c[own] + self.width[own]) / self.scale[own] - self.offset[self.tied]
        return lower, upper


def _numbers(systems: Sequence[SlabSystem], accuracies: FloatArray | None) -> tuple[FloatArray, ...]:
    """Return offset, lower, upper and accuracy of each row, and scale and width of each spread, system by system."""
    copies = len(systems)
    rows: list[list[FloatArray]] = [[np.zeros((copies, 0))] for _ in range(4)]
    spreads: list[list[FloatArray]] = [[np.zeros((copies, 0))] for _ in range(2)]
    for alike in zip(*(slabs.blocks for slabs in systems), strict=True):
        for whole, part in zip(rows, _numbers_of_rows(alike, known=accuracies is not None), strict=True):
            whole.append(part)
        if not isinstance(alike[0], RowSlabs):
            spreads[0].append(np.array([[block.scale] for block in alike]))
            spreads[1].append(np.array([[block.width] for block in alike]))
    offset, lower, upper, atol, scale, width = (np.concatenate(parts, axis=1).ravel() for parts in (*rows, *spreads))
    return offset, lower, upper, atol if accuracies is None else _shifted(accuracies, 0, copies), scale, width


def _numbers_of_rows(alike: Sequence[Any], *, known: bool) -> tuple[FloatArray, ...]:
    """Return offset, lower, upper and accuracy of the rows of a block in several systems, (systems, rows) each.

    `known`: the accuracy is not asked for.
    """
    first, shape = alike[0], (len(alike), len(alike[0].matrix))
    if isinstance(first, RowSlabs):
        lower, upper = (np.array([each[side] for each in alike]) for side in (1, 2))
        atol = np.ones(shape) if known or first.atol is None else np.array([each.atol for each in alike])
        return np.zeros(shape), lower, upper, atol
    offset = np.zeros(shape) if first.offset is None else np.array([each.offset for each in alike])
    atol = np.ones(shape) if known else np.repeat(np.array([[each.atol] for each in alike]), shape[1], axis=1)
    return offset, np.full(shape, -np.inf), np.full(shape, np.inf), atol


def _repeated(matrix: SparseRows, copies: int) -> SparseRows:
    """Return copies of a matrix, one below the other, each over columns of its own."""
    if copies == 1:
        return matrix
    rows, columns = matrix.shape
    return SparseRows(
        _shifted(matrix.rows, rows, copies),
        _shifted(matrix.columns, columns, copies),
        _shifted(matrix.data, 0, copies),
        (copies * rows, copies * columns),
    )


def _shifted(values: Any, step: int, copies: int) -> Any:
    """Return copies of numbers, one after the other, each `step` above the one before it."""
    return (values + step * np.arange(copies)[:, None]).ravel()


class RowPairs(NamedTuple):
    """Faces with their multipliers, as arrays: of a spread the high and the low member, else the row and its side.

    Args:
        block: the block of each face.
        first: member of the block.
        second: for a spread the lower member; for other rows 1 for the upper limit, -1 for the lower one.
        amount: the multiplier, >= 0; 0 only for pairs that tie what holds of a spread together.
    """

    block: IntArray
    first: IntArray
    second: IntArray
    amount: FloatArray


def pairs_of_prices(table: RowTable, high: FloatArray, low: FloatArray) -> RowPairs:
    """Return the faces and multipliers that put given prices on the rows.

    Args:
        table: the rows.
        high: price of each row's upper limit, >= 0, in units of `scale * value` for a member of a spread.
        low: price of each row's lower limit, >= 0; those of a spread add up to the same as its high ones.
    """
    above, below = (np.flatnonzero((price > 0) & ~table.tied) for price in (high, low))
    top, bottom, amount = _sent(table, high, low)
    sides = np.repeat([1, -1], [len(above), len(below)])
    return RowPairs(
        np.concatenate([table.block[above], table.block[below], table.block[top]]),
        np.concatenate([table.member[above], table.member[below], table.member[top]]),
        np.concatenate([sides, table.member[bottom]]),
        np.concatenate([high[above], low[below], amount]),
    )


def faces_of_prices(slabs: SlabSystem, table: RowTable, high: FloatArray, low: FloatArray) -> tuple[Faces, FloatArray]:
    """Return the same as faces of the system."""
    found = pairs_of_prices(table, high, low)
    some = found.amount > 0
    return Faces(slabs, np.stack(found[:3], axis=1)[some]), found.amount[some]


def _sent(table: RowTable, high: FloatArray, low: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Send what the high members of each spread bear to its low ones, first to first: (from, to, amount).

    Both sides of a spread are laid along the line from 0 to 1 by their shares; what lies over each other is sent. Where
    two members end at once, a pair of amount 0 goes on to the next, so that the pairs of a spread always hang together.
    """
    count = len(table.scale)
    whole = np.bincount(table.level[table.tied], high[table.tied], count)
    rows, ends, is_top = [], [], []
    least = 1e-13 * np.append(whole, np.inf)[table.level]
    bears = [table.tied & (price > least) for price in (high, low)]
    # A spread that rounding has left without one of its sides sends nothing.
    both = np.append(np.logical_and(*(np.bincount(table.level[side], minlength=count) > 0 for side in bears)), False)
    for price, bearing in zip((high, low), bears, strict=True):
        side = np.flatnonzero(bearing & both[table.level])
        side = side[np.argsort(table.level[side], kind="stable")]
        rows.append(side)
        ends.append(_shares(table.level[side], price[side]))
        is_top.append(np.full(len(side), price is high))
    tops, bottoms = rows
    top_or_not, end = np.concatenate(is_top), np.concatenate(ends)
    level = table.level[np.concatenate(rows)]
    order = np.lexsort((end, level))
    level, end, top_or_not = level[order], end[order], top_or_not[order]
    before = np.append(0.0, end[:-1]) * (level == np.append(-1, level[:-1]))
    amount = (end - before) * whole[level]
    amount = np.where(amount > 1e-13 * whole[level], amount, 0.0)
    kept = level == np.append(level[1:], -1)  # the line of a spread ends twice, once for each side
    from_top = np.cumsum(top_or_not) - top_or_not
    from_bottom = np.cumsum(~top_or_not) - ~top_or_not
    return tops[from_top[kept]], bottoms[from_bottom[kept]], amount[kept]


def _shares(level: IntArray, price: FloatArray) -> FloatArray:
    """Return where each member ends on the line from 0 to 1 of its spread; the levels are sorted."""
    if not len(level):
        return price
    starts = np.flatnonzero(np.append(True, level[1:] != level[:-1]))
    lengths = np.diff(np.append(starts, len(level)))
    running = np.cumsum(price)
    base = np.repeat(running[starts] - price[starts], lengths)
    total = np.repeat(np.add.reduceat(price, starts), lengths)
    shares = (running - base) / total
    shares[starts + lengths - 1] = 1.0
    return np.asarray(np.minimum(shares, 1.0))
