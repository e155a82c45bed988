"""The distinct rows of a table, where no two of them share a statistic: each answers to its own price alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fairlayer._rows import SparseRows
from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.passes import Passes
from fairlayer.solve.table import RowTable

__all__ = ["Units", "reach_of_units"]


@dataclass(frozen=True)
class Units:
    """The distinct rows of a table, each of which reads statistics of its own.

    Args:
        table: the rows.
        unit: unit of each row.
        matrix: (units, statistics).
        level: spread of each unit, -1 for none.
        offset: added to its value within the spread.
        lower: own lower limit.
        upper: own upper limit.
        atol: accuracy.
        scale: the scale of each spread.
        width: the width of each spread.
    """

    table: RowTable
    unit: IntArray
    matrix: SparseRows
    level: IntArray
    offset: FloatArray
    lower: FloatArray
    upper: FloatArray
    atol: FloatArray
    scale: FloatArray
    width: FloatArray

    @staticmethod
    def of(table: RowTable) -> Units | None:
        """Return the units, or None where rows share statistics without being the same."""
        matrix, r = table.matrix, len(table.matrix)
        lengths = np.diff(matrix.starts)
        if not len(matrix.data) or (lengths == 0).any():
            return None
        first = np.full(matrix.shape[1], r)
        np.minimum.at(first, matrix.columns, matrix.rows)
        same = first[matrix.columns[matrix.starts[:-1]]]  # the first row that reads what this one reads
        if (first[matrix.columns] != same[matrix.rows]).any() or (lengths[same] != lengths).any():
            return None
        twin = matrix.starts[same][matrix.rows] + np.arange(len(matrix.data)) - matrix.starts[matrix.rows]
        if (matrix.columns[twin] != matrix.columns).any() or (matrix.data[twin] != matrix.data).any():
            return None
        distinct, unit = np.unique(same, return_inverse=True)
        level, offset = np.full(len(distinct), -1), np.zeros(len(distinct))
        if (np.bincount(unit, table.tied) > 1).any():
            return None  # two spreads over the same rows
        level[unit[table.tied]] = table.level[table.tied]
        offset[unit[table.tied]] = table.offset[table.tied]
        lower, upper = np.full(len(distinct), -np.inf), np.full(len(distinct), np.inf)
        atol = np.full(len(distinct), np.inf)
        np.maximum.at(lower, unit, table.lower)
        np.minimum.at(upper, unit, table.upper)
        np.minimum.at(atol, unit, table.atol)
        return Units(
            table, unit, matrix.take_rows(distinct), level, offset, lower, upper, atol, table.scale, table.width
        )

    @cached_property
    def inside(self) -> BoolArray:
        """Which units belong to a spread."""
        return self.level >= 0

    @cached_property
    def _place(self) -> IntArray:
        """Where the sum of each unit's spread is kept; the first is of those in none."""
        return self.level + 1

    def ends(self, c: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the limits of each unit at given levels, those of its spread and its own together."""
        low, high = self.tied_ends(c)
        lower = np.maximum(low, self.lower)
        return lower, np.maximum(np.minimum(high, self.upper), lower)

    def tied_ends(self, c: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the limits that the spreads alone set."""
        low, high = np.append(c, -np.inf), np.append((c + self.width) / self.scale, np.inf)  # the last: of no spread
        return low[self.level] - self.offset, high[self.level] - self.offset

    def add(self, values: FloatArray) -> FloatArray:
        """Return sums of the units of each spread."""
        return np.bincount(self._place, values, len(self.scale) + 1)[1:].astype(np.float64, copy=False)

    def domain(self, reach: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, FloatArray]:
        """Return the range of each level within which every unit has somewhere to be.

        Args:
            reach: least and largest value that each unit can take.
        """
        c_low, c_high = self.level_domain(np.maximum(self.lower, reach[0]), np.minimum(self.upper, reach[1]))
        return c_low, np.maximum(c_high, c_low)

    def level_domain(self, least: FloatArray, most: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the range of each level for units between given values; empty where the first is the larger."""
        c_low, c_high = np.full(len(self.scale), -np.inf), np.full(len(self.scale), np.inf)
        narrow = self.scale < 1.0
        c_low[narrow] = -self.width[narrow] / (1.0 - self.scale[narrow])
        wide = self.scale > 1.0
        c_high[wide] = self.width[wide] / (self.scale[wide] - 1.0)
        own, at = self.level[self.inside], self.inside
        np.minimum.at(c_high, own, most[at] + self.offset[at])
        np.maximum.at(c_low, own, (least[at] + self.offset[at]) * self.scale[own] - self.width[own])
        return c_low, c_high

    def fit(self, passes: Passes) -> bool:
        """Return whether the limits leave every unit some room, with a margin for rounding; False says nothing."""
        of_units, of_levels = self.room(passes)
        return bool(of_units.all() and of_levels.all())

    def room(self, passes: Passes) -> tuple[BoolArray, BoolArray]:
        """Return the same of each unit by itself, and of each level."""
        if not _common(passes.lower) or not _common(passes.upper):
            return np.zeros(len(self.level), dtype=bool), np.zeros(len(self.scale), dtype=bool)
        least, most = reach_of_units(passes, self)
        low, high = np.maximum(self.lower, least), np.minimum(self.upper, most)
        c_low, c_high = self.level_domain(low, high)
        size = np.abs(np.where(np.isfinite(c_low), c_low, 0.0))  # a level may be free downwards
        return low <= high - 4.0 * self.atol, c_low + 1e-12 * np.maximum(1.0, size) <= c_high

    @cached_property
    def scales(self) -> FloatArray:
        """Scale of each unit's spread."""
        return np.append(self.scale, 1.0)[self.level]

    def shares(self, price: FloatArray, c: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the part of each price that the spread has to bear, at upper and lower limits, both >= 0."""
        low, high = self.tied_ends(c)
        above = np.where(self.inside & (price > 0) & (high <= self.upper), price / self.scales, 0.0)
        below = np.where(self.inside & (price < 0) & (low >= self.lower), -price, 0.0)
        return above, below

    def most_and_least(self, price: FloatArray, c: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return the least and the largest such parts: above, above, below, below.

        Where a limit of the unit's own is that of its spread, each may bear any part of the price.
        """
        low, high = self.tied_ends(c)
        near = 2.0 * self.atol
        above, below = np.maximum(price, 0.0) / self.scales, np.maximum(-price, 0.0)
        with np.errstate(invalid="ignore"):
            least = self.inside & (high < self.upper - near), self.inside & (low > self.lower + near)
            most = self.inside & (high <= self.upper + near), self.inside & (low >= self.lower - near)
        zero = np.zeros_like(price)
        return (
            np.where(least[0], above, zero),
            np.where(most[0], above, zero),
            np.where(least[1], below, zero),
            np.where(most[1], below, zero),
        )

    def balance(self, price: FloatArray, c: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return what each spread's prices add up to at least, in absolute value, and what their sizes add up to."""
        above, above_most, below, below_most = self.most_and_least(price, c)
        lowest, highest = self.add(above - below_most), self.add(above_most - below)
        return np.minimum(np.maximum(0.0, lowest), highest), self.add(above_most + below_most)


def _common(bound: object) -> bool:
    return bound is None or isinstance(bound, float)


def reach_of_units(passes: Passes, units: Units) -> tuple[FloatArray, FloatArray]:
    """Return the least and the largest value of each unit over the domain; all reals where bounds differ by sample."""
    lower, upper = passes.lower, passes.upper
    low = -np.inf if lower is None or not isinstance(lower, float) else lower
    high = np.inf if upper is None or not isinstance(upper, float) else upper
    positive, negative = np.maximum(units.matrix.data, 0.0), np.minimum(units.matrix.data, 0.0)
    size = len(units.level)

    def end(first: float, second: float) -> FloatArray:
        with np.errstate(invalid="ignore"):
            each = np.where(positive > 0, positive * first, 0.0) + np.where(negative < 0, negative * second, 0.0)
        return np.bincount(units.matrix.rows, each, size).astype(np.float64, copy=False)

    return end(low, high), end(high, low)
