"""The linear map from predictions to statistics, as the elastic program sees it: whole, its transpose, its columns."""

from __future__ import annotations

import copy
from functools import cached_property

import numpy as np

from fairlayer._typing import BoolArray, FloatArray, IntArray

__all__ = ["SampleMap"]


class SampleMap:
    """The linear map B from predictions to statistics: cell means, then dense rows.

    With m cells and k classes, entry c m + g is the mean of class c in cell g, and the dense rows follow, each in a
    unit of its own, the sum of its absolute weights: a feature in tiny units rounds like any other.

    Args:
        codes: cell of each sample, (n,); `len(counts)` marks samples in no cell. None with `counts` None: the
            predictions are the cell means themselves.
        counts: what the sum over each cell is divided by, (m,).
        dense: weights (d, n) of the dense rows, or None.
        weights: how many samples each row stands for, (n,); dense rows are per unit of weight.
        classes: number of columns of the predictions.
        dense_class: the class that each dense row speaks of, (d,).
    """

    def __init__(
        self,
        codes: IntArray | None = None,
        counts: FloatArray | None = None,
        dense: FloatArray | None = None,
        *,
        weights: FloatArray | None = None,
        classes: int = 1,
        dense_class: IntArray | None = None,
    ) -> None:
        self.codes, self.cells, self.classes = codes, 0 if counts is None else len(counts), classes
        self.identity = codes is None and counts is None and dense is None
        if codes is not None and counts is not None:
            self.share = np.append(1.0 / counts, 0.0)[codes]  # of a sample in the mean of its cell
            if weights is not None:
                self.share = self.share * weights
        self.dense = dense if dense is None or weights is None else dense * weights
        self.unit = np.ones(0)  # of each dense row
        if self.dense is not None:
            self.unit = np.abs(self.dense).sum(axis=1)  # 0 for a row without weights, which nothing can move
            self.dense = self.dense / np.where(self.unit > 0.0, self.unit, 1.0)[:, None]
        self.dense_class = np.zeros(0 if dense is None else len(dense), int) if dense_class is None else dense_class

    def only(self, chosen: BoolArray) -> SampleMap:
        """Return the map of some of the entries of a box to the same statistics."""
        other = SampleMap()
        other.identity, other.cells, other.unit, other.dense_class = False, self.cells, self.unit, self.dense_class
        if self.identity:
            other.codes, other.cells, other.share = np.flatnonzero(chosen), len(chosen), np.ones(int(chosen.sum()))
        elif self.codes is not None:
            other.codes, other.share = self.codes[chosen], self.share[chosen]
        other.dense = None if self.dense is None else self.dense[:, chosen]
        return other

    def measure(self, x: FloatArray) -> FloatArray:
        """Return B x."""
        if self.identity:
            return x.T.ravel()
        columns = x[:, None] if x.ndim == 1 else x
        means = [self._means(column) for column in columns.T]
        if self.dense is None:
            return np.concatenate(means)
        if self.classes == 1:
            return np.append(means[0], self.dense @ columns[:, 0])
        dense = [row @ columns[:, c] for row, c in zip(self.dense, self.dense_class.tolist(), strict=True)]
        return np.concatenate([*means, np.array(dense)])

    def _means(self, column: FloatArray) -> FloatArray:
        if self.codes is None:
            return np.zeros(self.cells)
        sums = np.bincount(self.codes, weights=self.share * column, minlength=self.cells + 1)
        return sums[: self.cells].astype(np.float64, copy=False)

    def pull(self, q: FloatArray) -> FloatArray:
        """Return B' q: (n,) or (n, classes)."""
        if self.identity:
            return q if self.classes == 1 else np.ascontiguousarray(q.reshape(self.classes, -1).T)
        hard, m = self.classes * self.cells, self.cells
        if self.classes == 1:
            pulled = np.zeros(self.count) if self.codes is None else np.append(q[:m], 0.0)[self.codes] * self.share
            return pulled if self.dense is None else pulled + q[hard:] @ self.dense
        table = np.zeros((m + 1, self.classes))
        table[:m] = q[:hard].reshape(self.classes, m).T
        pulled = np.zeros((self.count, self.classes))
        if self.codes is not None:
            pulled = table[self.codes] * self.share[:, None]
        if self.dense is not None:
            for row, c, price in zip(self.dense, self.dense_class.tolist(), q[hard:].tolist(), strict=True):
                if price:
                    pulled[:, c] += price * row
        return pulled

    def columns(self, normals: FloatArray, entries: IntArray, classes: IntArray) -> FloatArray:
        """Return normals @ B at some entries of the predictions, (len(normals), len(entries))."""
        if self.identity:
            m = normals.shape[1] // self.classes
            return normals[:, classes * m + entries]
        hard, m = self.classes * self.cells, self.cells
        found = np.zeros((len(normals), len(entries)))
        if self.codes is not None:
            inside = self.codes[entries] < m
            where = classes * m + np.where(inside, self.codes[entries], 0)
            found = normals[:, where] * (self.share[entries] * inside)
        if self.dense is not None:
            found = found + normals[:, hard:] @ (self.dense[:, entries] * (self.dense_class[:, None] == classes))
        return found

    def norms(self, n: int) -> FloatArray:
        """Return the size of each column of B, (n,)."""
        if self.identity:
            return np.ones(n)
        size = np.zeros(n) if self.codes is None else np.abs(self.share)
        return size if self.dense is None else size + np.abs(self.dense).sum(axis=0)

    @cached_property
    def absolute(self) -> SampleMap:
        """The map with the absolute value of every weight."""
        other = copy.copy(self)
        other.dense = None if self.dense is None else np.abs(self.dense)
        return other

    def sizes(self, x: FloatArray, s: FloatArray) -> FloatArray:
        """Return the sums of the absolute values that s = B x adds up."""
        if self.identity:
            return np.abs(s)
        return s if self._adds_up and float(x.min(initial=0.0)) >= 0.0 else self.absolute.measure(np.abs(x))

    @cached_property
    def _adds_up(self) -> bool:
        return self.dense is None or float(self.dense.min(initial=0.0)) >= 0.0

    @property
    def count(self) -> int:
        """The number of rows of predictions, where it is known."""
        if self.codes is not None:
            return len(self.codes)
        return 0 if self.dense is None else self.dense.shape[1]
