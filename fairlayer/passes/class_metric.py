"""K of cells whose samples are in several statistics each, one block (classes, classes) for each cell of samples.

A row of class probabilities answers within itself, and a sample whose label is estimated counts in the statistics of
each label; so K couples the statistics of a cell and no two cells. With thousands of cells the whole of K has millions
of zeros; here only the blocks are kept.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from fairlayer._typing import FloatArray, IntArray

__all__ = ["ClassLayout", "ClassMetric"]


class ClassLayout(NamedTuple):
    """How the statistics of m cells and k classes stand: class by class, or cell by cell.

    Args:
        classes: k.
        by_cell: whether class c of cell g is entry g k + c; otherwise it is entry c m + g.
    """

    classes: int
    by_cell: bool = False

    def cells_and_classes(self, places: IntArray, size: int) -> tuple[IntArray, IntArray]:
        """Return the cell and the class of places among `size` statistics."""
        if self.by_cell:
            return np.divmod(places, self.classes)
        kinds, cells = np.divmod(places, size // self.classes)
        return cells, kinds

    def to_cells(self, values: FloatArray) -> FloatArray:
        """Return (statistics, c) as (m, k, c)."""
        k, m, columns = self.classes, len(values) // self.classes, values.shape[1]
        return values.reshape(m, k, columns) if self.by_cell else np.moveaxis(values.reshape(k, m, columns), 0, 1)

    def from_cells(self, values: FloatArray) -> FloatArray:
        """Return (m, k, c) as (statistics, c)."""
        standing = values if self.by_cell else np.moveaxis(values, 1, 0)
        return standing.reshape(values.shape[0] * self.classes, values.shape[2])


class ClassMetric(NDArrayOperatorsMixin):
    """A matrix over the statistics of m cells and k classes.

    Products with vectors, sums of two, and multiples stay blocks; everything else makes an array first.

    Args:
        blocks: (m, k, k), symmetric.
        by_cell: how the statistics stand (see `ClassLayout`).

    Example:
        >>> metric = ClassMetric(np.array([[[2.0, -2.0], [-2.0, 2.0]], [[1.0, -1.0], [-1.0, 1.0]]]))
        >>> (metric @ np.array([1.0, 1.0, 0.0, 3.0])).tolist()
        [2.0, -2.0, -2.0, 2.0]
    """

    ndim = 2

    def __init__(self, blocks: FloatArray, *, by_cell: bool = False) -> None:
        self.blocks = blocks
        self.layout = ClassLayout(blocks.shape[1], by_cell)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.blocks.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """(statistics, statistics)."""
        size = self.blocks.shape[0] * self.classes
        return size, size

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> FloatArray:
        m, k, _ = self.blocks.shape
        cell = np.arange(m)
        full = np.zeros((m, k, m, k) if self.layout.by_cell else (k, m, k, m))
        if self.layout.by_cell:
            full[cell, :, cell, :] = self.blocks
        else:
            full[:, cell, :, cell] = self.blocks
        return full.reshape(self.shape).astype(dtype or np.float64, copy=False)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if method == "__call__" and not options and len(inputs) == 2:
            left, right = inputs
            if ufunc is np.matmul:
                return right._times(left.T).T if left is not self else self._times(right)
            if ufunc in (np.add, np.subtract) and isinstance(left, ClassMetric) and isinstance(right, ClassMetric):
                return self._like(ufunc(left.blocks, right.blocks))
            if ufunc is np.multiply and np.ndim(right if left is self else left) == 0:
                return self._like((right if left is self else left) * self.blocks)
        full = [np.asarray(each) if isinstance(each, ClassMetric) else each for each in inputs]
        return getattr(ufunc, method)(*full, **options)

    def _times(self, right: Any) -> FloatArray:
        """Return K of a vector (statistics,) or of the columns of an array (statistics, c)."""
        right = np.asarray(right)
        columns = self.layout.to_cells(right[:, None] if right.ndim == 1 else right)
        return np.asarray(self.layout.from_cells(self.blocks @ columns).reshape(right.shape))

    def _like(self, blocks: FloatArray) -> ClassMetric:
        return ClassMetric(blocks, by_cell=self.layout.by_cell)
