"""K of rows of class probabilities, one block (classes, classes) for each cell of samples.

A sample answers within its own row, so that K couples the classes of a cell and no two cells. With thousands of cells
the whole of K has millions of zeros; here only the blocks are kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from fairlayer._typing import FloatArray

__all__ = ["ClassMetric"]


class ClassMetric(NDArrayOperatorsMixin):
    """A matrix over the statistics of m cells and k classes, entry c m + g for class c of cell g.

    Products with vectors, sums of two, and multiples stay blocks; everything else makes an array first.

    Args:
        blocks: (m, k, k), symmetric.

    Example:
        >>> metric = ClassMetric(np.array([[[2.0, -2.0], [-2.0, 2.0]], [[1.0, -1.0], [-1.0, 1.0]]]))
        >>> (metric @ np.array([1.0, 1.0, 0.0, 3.0])).tolist()
        [2.0, -2.0, -2.0, 2.0]
    """

    ndim = 2

    def __init__(self, blocks: FloatArray) -> None:
        self.blocks = blocks

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
        full, cell = np.zeros((k, m, k, m)), np.arange(m)
        full[:, cell, :, cell] = self.blocks
        return full.reshape(self.shape).astype(dtype or np.float64, copy=False)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if method == "__call__" and not options and len(inputs) == 2:
            left, right = inputs
            if ufunc is np.matmul:
                return right._times(left.T).T if left is not self else self._times(right)
            if ufunc in (np.add, np.subtract) and isinstance(left, ClassMetric) and isinstance(right, ClassMetric):
                return ClassMetric(ufunc(left.blocks, right.blocks))
            if ufunc is np.multiply and np.ndim(right if left is self else left) == 0:
                return ClassMetric((right if left is self else left) * self.blocks)
        full = [np.asarray(each) if isinstance(each, ClassMetric) else each for each in inputs]
        return getattr(ufunc, method)(*full, **options)

    def _times(self, right: Any) -> FloatArray:
        """Return K of a vector (statistics,) or of the columns of an array (statistics, c)."""
        right = np.asarray(right)
        m, k, _ = self.blocks.shape
        columns = np.moveaxis(right.reshape(k, m, -1), 0, 1)
        return np.asarray(np.moveaxis(self.blocks @ columns, 1, 0).reshape(right.shape))
