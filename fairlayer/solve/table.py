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
from fairlayer.solve.limits import SystemsAtLimits
from fairlayer.solve.slabs import Faces, RowSlabs, SlabSystem

__all__ = ["RowPairs", "RowTable", "accuracies_of", "faces_of_prices", "pairs_of_prices"]


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
        return RowTable.of_copies(SystemsAtLimits.of([slabs]), accuracies_of(slabs))

    @staticmethod
    def of_copies(systems: SystemsAtLimits, accuracies: FloatArray) -> RowTable:
        """Gather the rows of a system at several limits, each over statistics of its own.

        Args:
            systems: the systems.
            accuracies: those of the rows at each limit, (rows,) where all have the same, or (limits, rows).
        """
        blocks, copies, limits = systems.like.blocks, len(systems), systems.limits
        sizes = [len(block.matrix) for block in blocks]
        spread = [not isinstance(block, RowSlabs) for block in blocks]
        levels = np.where(spread, np.cumsum(spread) - 1, -1).astype(np.int64)
        level, member = np.repeat(levels, sizes), np.concatenate([np.arange(0), *(np.arange(size) for size in sizes)])
        none = np.zeros((copies, 0))
        offset = [np.zeros(each.lower.shape) if each.offset is None else each.offset for each in limits]
        return RowTable(
            _repeated(entries_of([block.matrix for block in blocks]), copies),
            _shifted(np.repeat(np.arange(len(sizes)), sizes), len(sizes), copies),
            np.concatenate([member] * copies),
            np.where(np.concatenate([level] * copies) < 0, -1, _shifted(level, sum(spread), copies)),
            _joined([none, *offset]),
            _joined([none, *(each.lower for each in limits)]),
            _joined([none, *(each.upper for each in limits)]),
            _joined([none, *(each.scale[:, None] for each in limits if each.scale is not None)]),
            _joined([none, *(each.width[:, None] for each in limits if each.width is not None)]),
            np.concatenate([accuracies] * copies) if accuracies.ndim == 1 else accuracies.ravel(),
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


def accuracies_of(slabs: SlabSystem) -> FloatArray:
    """Return the accuracy of each row of a system, 1 where none was set."""
    each = [1.0 if block.atol is None else block.atol for block in slabs.blocks]
    sizes = [len(block.matrix) for block in slabs.blocks]
    whole = [np.full(size, atol) for size, atol in zip(sizes, each, strict=True)]
    return np.concatenate([np.zeros(0), *whole])


def _joined(parts: Sequence[FloatArray]) -> FloatArray:
    """Return the numbers of all blocks at each limit, (limits, numbers) each, one limit after the other."""
    return np.concatenate(parts, axis=1).ravel()


def _repeated(matrix: SparseRows, copies: int) -> SparseRows:
    """Return copies of a matrix, one below the other, each over columns of its own."""
    if copies == 1:
        return matrix
    rows, columns = matrix.shape
    return SparseRows(
        _shifted(matrix.rows, rows, copies),
        _shifted(matrix.columns, columns, copies),
        np.concatenate([matrix.data] * copies),
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
