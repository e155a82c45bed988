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

import numpy as np

from fairlayer._rows import SparseRows, entries_of
from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.solve.slabs import Face, FaceKey, RowSlabs, SlabSystem

__all__ = ["RowTable", "faces_of_prices"]


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


def faces_of_prices(
    slabs: SlabSystem, table: RowTable, high: FloatArray, low: FloatArray
) -> tuple[tuple[Face, ...], FloatArray]:
    """Return the faces and multipliers that put given prices on the rows.

    Args:
        slabs: the system.
        table: its rows.
        high: price of each row's upper limit, >= 0, in units of `scale * value` for a member of a spread.
        low: price of each row's lower limit, >= 0; those of a spread add up to the same as its high ones.
    """
    found: list[tuple[FaceKey, float]] = []
    for prices, sign in ((high, 1), (low, -1)):
        for row in np.flatnonzero((prices > 0) & ~table.tied).tolist():
            found.append(((int(table.block[row]), int(table.member[row]), sign), float(prices[row])))
    for side in _sides(table, high, low):
        found += side
    return tuple(slabs.face(key) for key, _ in found), np.array([price for _, price in found])


def _sides(table: RowTable, high: FloatArray, low: FloatArray) -> Sequence[list[tuple[FaceKey, float]]]:
    """Pair the high members of each spread with its low ones, first to first."""
    active = np.flatnonzero(table.tied & ((high > 0) | (low > 0)))
    order = active[np.argsort(table.level[active], kind="stable")]
    cuts = np.flatnonzero(np.diff(table.level[order])) + 1
    return [_pairs(table, rows, high, low) for rows in np.split(order, cuts) if len(rows)]


def _pairs(table: RowTable, rows: IntArray, high: FloatArray, low: FloatArray) -> list[tuple[FaceKey, float]]:
    block, members = int(table.block[rows[0]]), table.member
    noise = 1e-13 * float(high[rows].sum())
    tops = [[int(members[r]), float(high[r])] for r in rows.tolist() if high[r] > noise]
    bottoms = [[int(members[r]), float(low[r])] for r in rows.tolist() if low[r] > noise]
    sent: list[tuple[FaceKey, float]] = []
    while tops and bottoms:
        amount = min(tops[-1][1], bottoms[-1][1])
        sent.append(((block, int(tops[-1][0]), int(bottoms[-1][0])), amount))
        for side in (tops, bottoms):
            side[-1][1] -= amount
            if side[-1][1] <= noise:
                side.pop()
    return sent
