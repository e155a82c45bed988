"""The equations of a program over statistics, row by row: what falls apart into parts, and what is eliminated first.

Rows of different parts share neither a statistic nor a level, so that what is left of their equations are blocks of an
array (parts, rows, rows), which is solved at once. Which entries add up where depends on the rows alone, so that it is
found once for all metrics K.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fairlayer._rows import SparseRows
from fairlayer._typing import FloatArray, IntArray
from fairlayer.solve.table import RowTable

__all__ = ["Cross", "Entries", "Places", "gram", "pairs_of", "ranks_of", "square_of", "sums"]


@dataclass(frozen=True)
class Places:
    """Where the rows that are not apart, and the levels, stand within their parts.

    Args:
        parts: number of parts.
        part: the part of each row.
        row: place of each row in its part.
        rows: most rows of a part.
        level: place of each level in its part.
        level_part: part of each level.
        levels: the level at each place of a part, (parts, width).
        width: most levels of a part.
    """

    parts: int
    part: IntArray
    row: IntArray
    rows: int
    level: IntArray
    level_part: IntArray
    levels: IntArray
    width: int

    @staticmethod
    def of(part: IntArray, table: RowTable, part_of_all: IntArray) -> Places:
        """Count the rows and levels of each part."""
        parts = int(part_of_all.max(initial=0)) + 1
        level_part = np.zeros(len(table.scale), dtype=np.int64)
        level_part[table.level[table.tied]] = part_of_all[table.tied]
        row, level = ranks_of(part), ranks_of(level_part)
        width = int(level.max(initial=-1)) + 1
        levels = np.zeros((parts, width), dtype=np.int64)
        levels[level_part, level] = np.arange(len(level))
        return Places(parts, part, row, int(row.max(initial=-1)) + 1, level, level_part, levels, width)

    def between(self, first: IntArray, second: IntArray) -> IntArray:
        """Return the place of entries between two rows of a part in an array (parts, rows, rows), read as one line."""
        return (self.part[first] * self.rows + self.row[first]) * self.rows + self.row[second]


class Entries(NamedTuple):
    """Entries of S = M K M' between rows, each a sum of products of M with K of a statistic.

    Args:
        place: where each product adds.
        column: its statistic.
        product: the product of the two entries of M.
    """

    place: IntArray
    column: IntArray
    product: FloatArray

    def at(self, metric: FloatArray, size: int) -> FloatArray:
        """Return the entries at K, (size,)."""
        return sums(self.place, self.product * metric[self.column], size)


@dataclass(frozen=True)
class Cross:
    """Entries of S between the rows apart and the others, and all pairs of entries of the same row apart.

    Args:
        one: row apart of each entry.
        rest: the other row.
        entries: what adds up to each.
        first: entry of each pair.
        second: the other entry.
        place: the place of the pair among all pairs of other rows.
    """

    one: IntArray
    rest: IntArray
    entries: Entries
    first: IntArray
    second: IntArray
    place: IntArray

    @staticmethod
    def of(apart: SparseRows, others: SparseRows, places: Places) -> Cross:
        """Gather the entries of M."""
        reader, weight = np.full(apart.shape[1], -1), np.zeros(apart.shape[1])
        reader[apart.columns], weight[apart.columns] = apart.rows, apart.data
        read = reader[others.columns]
        both = np.flatnonzero(read >= 0)
        columns, size = others.columns[both], max(len(others), 1)
        place, inverse = np.unique(read[both] * size + others.rows[both], return_inverse=True)
        one, rest = place // size, place % size
        _, first, second = pairs_of(one)
        entries = Entries(inverse, columns, others.data[both] * weight[columns])
        return Cross(one, rest, entries, first, second, places.between(rest[first], rest[second]))


def square_of(rows: SparseRows, places: Places) -> Entries:
    """Return S among rows of the same part as entries of an array (parts, rows, rows), read as one line."""
    pair, first, second = pairs_of(rows.columns)
    place = places.between(rows.rows[first], rows.rows[second])
    return Entries(place, rows.columns[pair], rows.data[first] * rows.data[second])


def sums(place: IntArray, values: FloatArray, size: int) -> FloatArray:
    """Return the sum of the values of each place; floats, also where there are none."""
    return np.bincount(place, values, size).astype(np.float64, copy=False)


def ranks_of(part: IntArray) -> IntArray:
    """Return the place of each entry among those of its part, in order."""
    order = np.argsort(part, kind="stable")
    counts = np.bincount(part) if len(part) else np.zeros(0, np.int64)
    ranks = np.empty(len(part), dtype=np.int64)
    ranks[order] = np.arange(len(part)) - (np.cumsum(counts) - counts)[part[order]]
    return ranks


def gram(  # noqa: PLR0917 - a matrix by its entries
    part: IntArray, row: IntArray, level: IntArray, entry: FloatArray, diagonal: FloatArray, like: FloatArray
) -> FloatArray:
    """A D^-1 A' of each part, (parts, k, k), of a matrix with few entries, or of one full one."""
    parts, k, _ = like.shape
    counts = np.bincount(level, minlength=len(diagonal))
    if parts == 1 and 4 * int((counts**2).sum()) > k * len(row):
        full = np.zeros((k, len(diagonal)))
        full[row, level] = entry
        return np.asarray((full / diagonal) @ full.T)[None]
    _, first, second = pairs_of(level)
    product = entry[first] * entry[second] / diagonal[level[first]]
    return sums((part[first] * k + row[first]) * k + row[second], product, like.size).reshape(like.shape)


def pairs_of(key: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return all ordered pairs (with themselves) of places that have the same key: place, place, place."""
    order = np.argsort(key, kind="stable")
    counts = np.bincount(key) if len(key) else np.zeros(0, np.int64)
    mine = counts[key[order]]
    start = (np.cumsum(counts) - counts)[key[order]]
    first = np.repeat(np.arange(len(order)), mine)
    begin = np.cumsum(mine) - mine
    second = np.arange(len(first)) - begin[first] + start[first]
    return order[first], order[first], order[second]
