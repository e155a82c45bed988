"""Rows that read the means of classes in cells of samples: what adds up to S = M K M', and which rows go together.

K has one block (k, k) for each cell. The rows of a group, one for each class, make a bundle: two bundles of an
attribute share no cell, so that S is made of small blocks where there is one attribute. With more of them, the rows of
the others and the levels are what is left once the bundles are eliminated (see `class_systems`).
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np

from fairlayer._rows import SparseRows
from fairlayer._typing import FloatArray, IntArray
from fairlayer.passes.class_metric import ClassLayout, ClassMetric
from fairlayer.solve.parts import pairs_of, ranks_of, sums

__all__ = ["ClassRows", "Products"]

_WIDEST = 3  # rows of a bundle, for each class


class Products(NamedTuple):
    """Sums of products of two entries of M with the entry of K between their statistics.

    Args:
        place: where each product adds.
        column: its place among the entries of the blocks of K.
        product: the product of the two entries of M.
    """

    place: IntArray
    column: IntArray
    product: FloatArray

    def at(self, metric: ClassMetric, size: int) -> FloatArray:
        """Return the sums at K, (size,)."""
        return sums(self.place, self.product * metric.blocks.ravel()[self.column], size)


class ClassRows:
    """Rows over the means of k classes.

    Args:
        matrix: the rows M.
        block: the block of each row: those of one block go into the bundles together, or not at all.
        layout: how the statistics stand.
    """

    def __init__(self, matrix: SparseRows, block: IntArray, layout: ClassLayout) -> None:
        self.matrix, self.block, self.classes = matrix, block, layout.classes
        cell, kinds = layout.cells_and_classes(matrix.columns, matrix.shape[1])
        self.cell, classes = cell, layout.classes
        _, first, second = pairs_of(cell)
        self.first, self.second = matrix.rows[first], matrix.rows[second]
        self.column = (cell[first] * classes + kinds[first]) * classes + kinds[second]
        self.product = matrix.data[first] * matrix.data[second]

    def __len__(self) -> int:
        return len(self.matrix)

    def _products(self, which: IntArray, place: IntArray) -> Products:
        return Products(place, self.column[which], self.product[which])

    @cached_property
    def _own(self) -> Products:
        which = np.flatnonzero(self.first == self.second)
        return self._products(which, self.first[which])

    def diagonal(self, metric: ClassMetric) -> FloatArray:
        """Return the diagonal of S."""
        return self._own.at(metric, len(self))

    @cached_property
    def bundle(self) -> IntArray:
        """The bundle of each row, -1 for the rows that are left."""
        matrix, block_of = self.matrix, self.block[self.matrix.rows]
        cells, blocks = matrix.shape[1] // self.classes, int(self.block.max(initial=-1)) + 1
        owner, found, made = np.full(cells, -1), np.full(len(self), -1), 0
        order = np.argsort(block_of, kind="stable")
        entries = np.split(order, np.cumsum(np.bincount(block_of, minlength=blocks))[:-1])
        sizes = np.bincount(self.block, minlength=blocks)
        for block in np.argsort(-sizes, kind="stable").tolist():
            rows, cell = matrix.rows[entries[block]], self.cell[entries[block]]
            if not len(rows) or len(np.unique(cell)) < len(cell):
                continue
            low = np.full(len(self), np.iinfo(np.int64).max)
            high = np.full(len(self), -1)
            np.minimum.at(low, rows, owner[cell])
            np.maximum.at(high, rows, owner[cell])
            mine = np.unique(rows)
            if not (low[mine] == high[mine]).all():
                continue
            new = mine[high[mine] < 0]
            high[new] = made + np.arange(len(new))
            widths = np.bincount(np.append(found[found >= 0], high[mine]))
            if widths.max() > _WIDEST * self.classes:
                continue
            made += len(new)
            found[mine], owner[cell] = high[mine], high[rows]
        return found

    @cached_property
    def place(self) -> IntArray:
        """The place of each row in its bundle, or among the rows that are left."""
        return ranks_of(self.bundle + 1)

    @cached_property
    def bundles(self) -> int:
        """The number of bundles."""
        return int(self.bundle.max(initial=-1)) + 1

    @cached_property
    def width(self) -> int:
        """Most rows of a bundle."""
        return int(self.place[self.bundle >= 0].max(initial=-1)) + 1

    @cached_property
    def rest(self) -> IntArray:
        """The rows that are left."""
        return np.flatnonzero(self.bundle < 0)

    @cached_property
    def inside(self) -> Products:
        """What adds up to S within the bundles, (bundles, width, width) read as one line."""
        which = np.flatnonzero((self.bundle[self.first] >= 0) & (self.bundle[self.second] >= 0))
        one, two = self.first[which], self.second[which]
        return self._products(which, (self.bundle[one] * self.width + self.place[one]) * self.width + self.place[two])

    @cached_property
    def across(self) -> Products:
        """What adds up to S between bundles and rows that are left, (bundles, width, rest)."""
        which = np.flatnonzero((self.bundle[self.first] >= 0) & (self.bundle[self.second] < 0))
        one, two = self.first[which], self.second[which]
        line = self.bundle[one] * self.width + self.place[one]
        return self._products(which, line * len(self.rest) + self.place[two])

    @cached_property
    def among(self) -> Products:
        """What adds up to S between the rows that are left, (rest, rest)."""
        which = np.flatnonzero((self.bundle[self.first] < 0) & (self.bundle[self.second] < 0))
        return self._products(which, self.place[self.first[which]] * len(self.rest) + self.place[self.second[which]])

    @cached_property
    def pattern(self) -> tuple[IntArray, Products]:
        """The entries of S that may not be zero: their places in S read as one line, and what adds up to them."""
        places, inverse = np.unique(self.first * len(self) + self.second, return_inverse=True)
        return places, Products(inverse, self.column, self.product)
