"""All rows of a slab system in one table: limits of their own, and a level for those that a spread ties together.

A spread `scale * v_i - v_j <= width` over all pairs says that there is one number c, its level, with

    c <= v_j   and   scale * v_i <= c + width        for every member.

So thousands of pairs are two limits per row and one unknown per spread. Source: the epigraph form of a maximum; Boyd,
Vandenberghe (2004), section 4.1.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fairlayer._rows import SparseRows, entries_of
from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.solve.slabs import Faces, RowSlabs, SlabSystem

__all__ = ["RowTable", "faces_of_prices"]

_MANY = 64  # rows of a spread, from which its pairs are found at once


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
        scale: of each spread.
        width: of each spread.
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
        sizes = [len(block.matrix) for block in slabs.blocks]
        spread = [not isinstance(block, RowSlabs) for block in slabs.blocks]
        levels = np.where(spread, np.cumsum(spread) - 1, -1).astype(np.int64)
        none = np.zeros(0)
        offset, lower, upper, atol, scale, width = [none], [none], [none], [none], [], []
        for block, size in zip(slabs.blocks, sizes, strict=True):
            if isinstance(block, RowSlabs):
                offset.append(np.zeros(size))
                lower.append(block.lower)
                upper.append(block.upper)
                atol.append(np.ones(size) if block.atol is None else block.atol)
                continue
            offset.append(np.zeros(size) if block.offset is None else block.offset)
            lower.append(np.full(size, -np.inf))
            upper.append(np.full(size, np.inf))
            atol.append(np.full(size, block.atol))
            scale.append(block.scale)
            width.append(block.width)
        return RowTable(
            entries_of([block.matrix for block in slabs.blocks]),
            np.repeat(np.arange(len(sizes)), np.array(sizes, dtype=np.int64)),
            np.concatenate([none.astype(np.int64), *(np.arange(size) for size in sizes)]),
            np.repeat(levels, np.array(sizes, dtype=np.int64)),
            np.concatenate(offset),
            np.concatenate(lower),
            np.concatenate(upper),
            np.array(scale, dtype=np.float64),
            np.array(width, dtype=np.float64),
            np.concatenate(atol),
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


def faces_of_prices(slabs: SlabSystem, table: RowTable, high: FloatArray, low: FloatArray) -> tuple[Faces, FloatArray]:
    """Return the faces and multipliers that put given prices on the rows.

    Args:
        slabs: the system.
        table: its rows.
        high: price of each row's upper limit, >= 0, in units of `scale * value` for a member of a spread.
        low: price of each row's lower limit, >= 0; those of a spread add up to the same as its high ones.
    """
    keys, multipliers = [], []
    for prices, sign in ((high, 1), (low, -1)):
        rows = np.flatnonzero((prices > 0) & ~table.tied)
        keys.append(np.stack([table.block[rows], table.member[rows], np.full(len(rows), sign)], axis=1))
        multipliers.append(prices[rows])
    for rows in _spreads(table, high, low):
        tops, bottoms, amounts = _pairs(rows, high, low)
        keys.append(np.stack([table.block[tops], table.member[tops], table.member[bottoms]], axis=1))
        multipliers.append(amounts)
    return Faces(slabs, np.concatenate(keys)), np.concatenate(multipliers)


def _spreads(table: RowTable, high: FloatArray, low: FloatArray) -> list[IntArray]:
    """Return the rows of each spread that have a price."""
    active = np.flatnonzero(table.tied & ((high > 0) | (low > 0)))
    order = active[np.argsort(table.level[active], kind="stable")]
    cuts = np.flatnonzero(np.diff(table.level[order])) + 1
    return [rows for rows in np.split(order, cuts) if len(rows)]


def _pairs(rows: IntArray, high: FloatArray, low: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Pair the high members of a spread with its low ones, last to last, and say how much goes from each to each."""
    noise = 1e-13 * float(high[rows].sum())
    tops, bottoms = rows[high[rows] > noise][::-1], rows[low[rows] > noise][::-1]
    cut = _cut_at_once if min(len(tops), len(bottoms)) > 0 and len(tops) + len(bottoms) > _MANY else _cut
    i, j, amounts = cut(high[tops], low[bottoms], noise)
    return tops[i], bottoms[j], amounts


def _cut(high: FloatArray, low: FloatArray, noise: float) -> tuple[Any, Any, FloatArray]:
    """Lay two rows of amounts side by side, and return the pieces between the ends of either: whose, and how much."""
    i, j = 0, 0
    left, right = high.tolist(), low.tolist()
    pieces: list[tuple[int, int]] = []
    amounts: list[float] = []
    while i < len(left) and j < len(right):
        amount = min(left[i], right[j])
        pieces.append((i, j))
        amounts.append(amount)
        left[i] -= amount
        right[j] -= amount
        i, j = i + (left[i] <= noise), j + (right[j] <= noise)
    at = np.array(pieces, dtype=np.int64).reshape(-1, 2)
    return at[:, 0], at[:, 1], np.array(amounts)


def _cut_at_once(high: FloatArray, low: FloatArray, noise: float) -> tuple[Any, Any, FloatArray]:
    """The same in a few operations on arrays, which pays from some rows on."""
    left, right = np.cumsum(high), np.cumsum(low)
    ends = np.append(left, right)
    order = np.argsort(ends, kind="stable")
    amounts = np.diff(ends[order], prepend=0.0)
    passed: IntArray = np.cumsum(order < len(left)) - (order < len(left))  # ends of the first row before each piece
    i, j = passed, np.arange(len(order)) - passed
    real = (amounts > noise) & (i < len(left)) & (j < len(right))
    return i[real], j[real], amounts[real]
