"""Matrices of which each row has few entries: the groups of a statement among many cells.

A statement over thousands of groups picks one mean per row. As a full array that would be groups squared, so that large
matrices are kept by their entries. Small ones stay arrays, which NumPy works on faster. Both read alike: products,
absolute values, multiples and choices of rows stay sparse, everything else makes an array first.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from fairlayer._typing import BoolArray, FloatArray, IntArray

__all__ = [
    "GroupedRows",
    "Matrix",
    "SparseRows",
    "as_sparse",
    "compress",
    "entries_of",
    "largest_reach",
    "matrix_of",
    "positive_part",
    "reach_of",
    "reads",
]

_FULL_UP_TO = 4096  # entries of a matrix that stays an array
_RUN = 16_384  # samples that are worked on at a time: the arrays between stay small, and so do the sums


class SparseRows(NDArrayOperatorsMixin):
    """A matrix (rows, columns) by its entries, sorted by row.

    Example:
        >>> matrix = SparseRows(np.array([0, 1, 1]), np.array([2, 0, 1]), np.array([1.0, 0.5, 0.5]), (2, 3))
        >>> (matrix @ np.array([1.0, 3.0, 7.0])).tolist(), matrix[1].tolist()
        ([7.0, 2.0], [0.5, 0.5, 0.0])
    """

    ndim = 2

    def __init__(self, rows: IntArray, columns: IntArray, data: FloatArray, shape: tuple[int, int]) -> None:
        self.rows, self.columns, self.data, self.shape = rows, columns, data, shape

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> FloatArray:
        full = np.zeros(self.shape)
        np.add.at(full, (self.rows, self.columns), self.data)
        return full if dtype is None else full.astype(dtype)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)

    @cached_property
    def starts(self) -> IntArray:
        """Where the entries of each row begin, and where the last ones end, (rows + 1,)."""
        return np.append(0, np.cumsum(np.bincount(self.rows, minlength=self.shape[0])))

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, int | np.integer):
            full = np.zeros(self.shape[1])
            at = range(len(self))[which]
            here = slice(self.starts[at], self.starts[at + 1])
            np.add.at(full, self.columns[here], self.data[here])
            return full
        if isinstance(which, tuple):
            return np.asarray(self)[which]
        return self.take_rows(np.arange(len(self))[which])

    def take_rows(self, which: IntArray) -> SparseRows:
        """Return some of the rows, in the order given."""
        lengths = np.diff(self.starts)[which]
        rows = np.repeat(np.arange(len(which)), lengths)
        first = np.append(0, np.cumsum(lengths))[:-1]
        place = np.arange(len(rows)) - first[rows] + self.starts[which][rows]
        return SparseRows(rows, self.columns[place], self.data[place], (len(which), self.shape[1]))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if method == "__call__" and not options:
            if ufunc is np.matmul:
                return self._product(*inputs)
            if ufunc in (np.absolute, np.negative):
                return self._with(ufunc(self.data))
            if ufunc in (np.multiply, np.true_divide) and isinstance(inputs[0], SparseRows):
                by = np.asarray(inputs[1])
                if by.ndim == 0:
                    return self._with(ufunc(self.data, by))
                if by.ndim == 2 and by.shape[1] == 1:
                    return self._with(ufunc(self.data, by[self.rows, 0] if len(by) > 1 else by[0, 0]))
            if ufunc is np.multiply and np.ndim(inputs[0]) == 0:
                return self._with(inputs[0] * self.data)
        full = [np.asarray(each) if isinstance(each, SparseRows) else each for each in inputs]
        return getattr(ufunc, method)(*full, **options)

    def _with(self, data: FloatArray) -> SparseRows:
        return SparseRows(self.rows, self.columns, data, self.shape)

    def _product(self, left: Any, right: Any) -> Any:
        if isinstance(left, SparseRows) and isinstance(right, SparseRows):
            return left._of_rows(right)
        if isinstance(left, SparseRows):
            right = np.asarray(right)
            if right.ndim == 1:
                return np.bincount(left.rows, left.data * right[left.columns], len(left)).astype(np.float64, copy=False)
            out = np.zeros((len(left), right.shape[1]))
            np.add.at(out, left.rows, left.data[:, None] * right[left.columns])
            return out
        left = np.asarray(left)
        if left.ndim == 2:
            return np.array([row @ right for row in left]).reshape(len(left), right.shape[1])
        weights = right.data * left[right.rows]
        return np.bincount(right.columns, weights, right.shape[1]).astype(np.float64, copy=False)

    def _of_rows(self, other: SparseRows) -> SparseRows:
        """Return the product of two, by the entries of both."""
        found = other.take_rows(self.columns)
        product = SparseRows(
            self.rows[found.rows], found.columns, found.data * self.data[found.rows], (len(self), other.shape[1])
        )
        return product.merged()

    def merged(self) -> SparseRows:
        """Return the same matrix with one entry per place, in order."""
        place, inverse = np.unique(self.rows * self.shape[1] + self.columns, return_inverse=True)
        data = np.bincount(inverse, self.data, len(place)).astype(np.float64, copy=False)
        return SparseRows(place // self.shape[1], place % self.shape[1], data, self.shape)


Matrix = FloatArray | SparseRows


def matrix_of(rows: IntArray, columns: IntArray, data: FloatArray, shape: tuple[int, int]) -> Any:
    """Return a matrix by its entries (sorted by row): an array where it is small, else sparse."""
    sparse = SparseRows(rows, columns, data, shape)
    return np.asarray(sparse) if shape[0] * shape[1] <= _FULL_UP_TO else sparse


def as_sparse(matrix: Any) -> SparseRows:
    """Return any matrix by its entries."""
    if isinstance(matrix, SparseRows):
        return matrix
    rows, columns = np.nonzero(matrix)
    return SparseRows(rows, columns, matrix[rows, columns], matrix.shape)


def entries_of(parts: list[Any]) -> SparseRows:
    """Return matrices of equal width, one below the other, by their entries."""
    found = [as_sparse(part) for part in parts]
    first = np.append(0, np.cumsum([len(part) for part in found]))
    if not found:
        return SparseRows(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), (0, 0))
    return SparseRows(
        np.concatenate([part.rows + at for part, at in zip(found, first.tolist(), strict=False)]),
        np.concatenate([part.columns for part in found]),
        np.concatenate([part.data for part in found]),
        (int(first[-1]), found[0].shape[1]),
    )


def positive_part(matrix: Any) -> Any:
    """Return max(entry, 0) of each entry."""
    if not isinstance(matrix, SparseRows):
        return np.maximum(matrix, 0.0)
    return SparseRows(matrix.rows, matrix.columns, np.maximum(matrix.data, 0.0), matrix.shape)


def reads(matrix: Any, columns: BoolArray) -> BoolArray:
    """Return which rows have an entry in any of the columns."""
    if not isinstance(matrix, SparseRows):
        return np.asarray((matrix[:, columns] != 0).any(axis=1))
    found = np.zeros(len(matrix), dtype=bool)
    found[matrix.rows[columns[matrix.columns] & (matrix.data != 0)]] = True
    return found


def largest_reach(limit: FloatArray, matrix: Any) -> FloatArray:
    """Return for each column the largest abs(limit[row]) / abs(matrix[row, column]), 0 where nothing is read."""
    reached = np.zeros(matrix.shape[1])
    sparse = as_sparse(matrix)
    kept = sparse.data != 0
    np.maximum.at(reached, sparse.columns[kept], np.abs(limit)[sparse.rows[kept]] / np.abs(sparse.data[kept]))
    return reached


class GroupedRows(NDArrayOperatorsMixin):
    """Rows (groups x strata, n) of which a sample is in those of one group only: soft strata of hard groups.

    Row `g * len(strata) + s` is `strata[s] / scale[row]` for the samples of group g, and 0 for the others. So whatever
    the number of groups, only the strata are as long as the batch. Products with vectors go over the samples once;
    everything else makes an array first.

    Args:
        codes: group of each sample, -1 for none.
        strata: (strata, n).
        scale: what each row is divided by.

    Example:
        >>> rows = GroupedRows(np.array([0, 1, 1]), np.array([[1.0, 0.5, 0.25]]), np.array([1.0, 2.0]))
        >>> (rows @ np.array([3.0, 4.0, 8.0])).tolist(), rows[1].tolist()
        ([3.0, 2.0], [0.0, 0.25, 0.125])
    """

    ndim = 2

    def __init__(self, codes: IntArray, strata: FloatArray, scale: FloatArray) -> None:
        self.codes, self.strata, self.scale = codes, strata, scale
        self.groups = len(scale) // len(strata)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and samples."""
        return len(self.scale), len(self.codes)

    @property
    def dtype(self) -> Any:
        """Of the entries."""
        return self.strata.dtype

    def __len__(self) -> int:
        return len(self.scale)

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, int | np.integer):
            g, s = divmod(range(len(self))[which], len(self.strata))
            return np.where(self.codes == g, self.strata[s], 0.0) / self.scale[which]
        if isinstance(which, tuple) and which[0] == slice(None) and isinstance(which[1], slice):
            return GroupedRows(self.codes[which[1]], self.strata[:, which[1]], self.scale)
        return np.asarray(self)[which]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> FloatArray:
        full = np.zeros(self.shape)
        for row in range(len(self)):
            full[row] = self[row]
        return full if dtype is None else full.astype(dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if method == "__call__" and not options:
            left, right = inputs[0], inputs[-1]
            if ufunc is np.matmul and np.ndim(left) == 1:
                return self._transposed(np.asarray(left))
            if ufunc is np.matmul and np.ndim(right) == 1 and left is self:
                return self._times(np.asarray(right))
            if ufunc is np.absolute:
                return GroupedRows(self.codes, np.abs(self.strata), np.abs(self.scale))
        full = [np.asarray(each) if isinstance(each, GroupedRows) else each for each in inputs]
        return getattr(ufunc, method)(*full, **options)

    def _times(self, values: FloatArray) -> FloatArray:
        sums = np.zeros((self.groups, len(self.strata)))
        for run in _runs(len(values)):
            for s, stratum in enumerate(self.strata):
                sums[:, s] += _per_code(self.codes[run], stratum[run] * values[run], self.groups)
        return sums.ravel() / self.scale

    def _transposed(self, prices: FloatArray) -> FloatArray:
        table = np.zeros((self.groups + 1, len(self.strata)))  # the last row serves code -1
        table[:-1] = (prices / self.scale).reshape(self.groups, -1)
        found = np.empty(len(self.codes))
        for run in _runs(len(found)):
            codes = self.codes[run]
            found[run] = table[codes, 0] * self.strata[0, run]
            for s in range(1, len(self.strata)):
                found[run] += table[codes, s] * self.strata[s, run]
        return found

    def blocks(self, weight: FloatArray) -> FloatArray:
        """Return what `rows @ diag(weight) @ rows.T` has for each group, (groups, strata, strata); all else is 0."""
        size = len(self.strata)
        found = np.empty((self.groups, size, size))
        for s, first in enumerate(self.strata):
            weighted = first * weight
            for t in range(s, size):
                found[:, s, t] = found[:, t, s] = _per_code(self.codes, weighted * self.strata[t], self.groups)
        scale = self.scale.reshape(self.groups, size)
        return found / scale[:, :, None] / scale[:, None, :]

    def square(self, weight: FloatArray) -> FloatArray:
        """Return `rows @ diag(weight) @ rows.T`."""
        size, group = len(self.strata), np.arange(self.groups)
        full = np.zeros((self.groups, size, self.groups, size))
        full[group, :, group, :] = self.blocks(weight)
        return full.reshape(len(self), len(self))

    def cross(self, weight: FloatArray, cells: IntArray | None, count: int) -> FloatArray:
        """Return the sums of `weight * row` over each of `count` cells, (rows, count)."""
        if cells is None or not count:
            return np.zeros((len(self), count))
        found = np.empty((self.groups, len(self.strata), count))
        place = np.where(self.codes < 0, self.groups, self.codes) * (count + 1) + np.minimum(cells, count)
        for s, stratum in enumerate(self.strata):
            sums = np.bincount(place, stratum * weight, (self.groups + 1) * (count + 1))
            found[:, s] = sums.reshape(self.groups + 1, count + 1)[:-1, :-1]
        return found.reshape(len(self), count) / self.scale[:, None]


def reach_of(rows: Any, size: FloatArray) -> FloatArray:
    """Return `abs(rows) @ size`, without a copy of the rows."""
    if isinstance(rows, GroupedRows | SparseRows):
        return np.asarray(np.abs(rows) @ size)
    return np.array([np.abs(row) @ size for row in rows])


def _runs(n: int) -> list[slice]:
    return [slice(start, start + _RUN) for start in range(0, n, _RUN)]


def _per_code(codes: IntArray, values: FloatArray, count: int) -> FloatArray:
    return np.bincount(codes + 1, values, count + 1)[1:].astype(np.float64, copy=False)


def compress(keys: IntArray, size: int) -> tuple[IntArray, IntArray]:
    """Return the distinct keys below `size` in order, and the position of each key among them."""
    if size > 4 * len(keys) + 1024:
        present, position = np.unique(keys, return_inverse=True)
        return present, position
    occurs = np.bincount(keys, minlength=size) > 0
    return np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[keys]
