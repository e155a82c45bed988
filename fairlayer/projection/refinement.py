"""The cells of a batch: the common refinement of the measures that statements are about, and the way between both."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fairlayer._rows import SparseRows, as_sparse, compress, matrix_of
from fairlayer._typing import FloatArray, IntArray
from fairlayer.collective import Ranks
from fairlayer.constraints import GroupMeans
from fairlayer.passes import Cells

__all__ = ["Refinement"]


class Refinement(NamedTuple):
    """The common refinement of several measures."""

    cells: Cells
    hard: tuple[GroupMeans, ...]
    table: IntArray  # (hard measures, cells): the row that each cell belongs to, -1 outside
    dense: tuple[tuple[GroupMeans, int], ...]  # with the class that each speaks of
    lifts: dict[Hashable, SparseRows]  # by measure, made when first asked for
    readers: dict[Hashable, Any]  # likewise

    @staticmethod
    def of(
        measures: Sequence[tuple[GroupMeans, int]], ranks: Ranks | None, sample_weights: FloatArray | None, classes: int
    ) -> Refinement:
        hard = tuple(means for means, _ in measures if means.codes is not None)
        dense = tuple((means, column) for means, column in measures if means.codes is None)
        parts = [means.weights for means, _ in dense if means.weights is not None]
        rows = None if not parts else parts[0] if len(parts) == 1 else np.concatenate(parts)
        of_rows = np.repeat([c for _, c in dense], [len(m) for m, _ in dense]).astype(np.int64) if classes > 1 else None
        if len(hard) == 1:
            cells, table = _single(hard[0], rows, ranks), _identity(len(hard[0]))
        else:
            codes, table = _joint_codes(hard)
            if ranks is not None and codes is not None:
                codes, table = _united(codes, table, ranks)
            k = table.shape[1]
            covering = codes is None or not bool((codes == k).any())
            cells = Cells(codes, _divisors(codes, k, sample_weights, ranks), rows, covering, sample_weights)
        if classes > 1:
            cells = cells._replace(classes=classes, dense_class=None if rows is None else of_rows)
        return Refinement(cells, hard, table, dense, {}, {})

    @property
    def plain(self) -> bool:
        """Whether the statistics are the means over the rows of the one measure that is stated."""
        return not self.dense and len(self.hard) == 1 and self.cells.classes == 1

    def names(self) -> tuple[str, ...]:
        """Return one name per cell, then one per dense row."""
        rows = [means.names for means in self.hard]
        cells = ("; ".join(rows[p][code] for p, code in enumerate(cell) if code >= 0) for cell in self.table.T)
        return (*cells, *(name for means, _ in self.dense for name in means.names))

    def apply(self, matrix: Any, means: GroupMeans, column: int) -> Any:
        """Return a matrix over the rows of one measure as a matrix over the statistics."""
        if self.plain:
            return matrix
        m = self.table.shape[1]
        found, start = as_sparse(matrix), self.cells.classes * m
        if means.codes is not None:
            found, start = found @ self._lift(means), column * m
        else:
            for measure, of in self.dense:
                if measure.key == means.key and of == column:
                    break
                start += len(measure)
        return matrix_of(found.rows, found.columns + start, found.data, (len(matrix), self.cells.size))

    def reader(self, means: GroupMeans) -> Any:
        """Return the matrix that makes of statistics the means over each row of a measure, in a single column."""
        if means.key not in self.readers:
            hard = means.codes is not None and not self.plain
            found = self._lift(means) if hard else as_sparse(self.apply(as_sparse(np.eye(len(means))), means, 0))
            shape = len(means), self.cells.size
            self.readers[means.key] = matrix_of(found.rows, found.columns, found.data, shape)
        return self.readers[means.key]

    def _lift(self, means: GroupMeans) -> SparseRows:
        if means.key not in self.lifts:
            position = [measure.key for measure in self.hard].index(means.key)
            self.lifts[means.key] = _lift(means, self.table[position], self.cells.counts)
        return self.lifts[means.key]


@lru_cache(maxsize=256)
def _identity(k: int) -> IntArray:
    return np.arange(k)[None, :]


def _single(means: GroupMeans, weights: FloatArray | None, ranks: Ranks | None) -> Cells:
    assert means.codes is not None
    counts = means.counts.tolist()
    countable = means.sample_weights is None and ranks is None  # then counting is faster than looking
    covering = sum(counts) == len(means.codes) if countable else not bool((means.codes < 0).any())
    codes = means.codes if covering else np.where(means.codes < 0, len(means), means.codes)
    divisors = np.where(means.counts > 0, means.counts, 1.0) if 0.0 in counts else means.counts
    return Cells(codes, divisors, weights, covering, means.sample_weights)


def _divisors(codes: IntArray | None, k: int, weights: FloatArray | None, ranks: Ranks | None) -> FloatArray:
    if codes is None:
        return np.zeros(0)
    counts = np.bincount(codes, weights=weights, minlength=k + 1)[:k].astype(np.float64)
    counts = counts if ranks is None else ranks.total(counts)
    positive = counts[counts > 0]
    # A cell of weight 0 moves with its groups and adds nothing to their means, whatever it is divided by; a number of
    # the size of the others keeps the rows of its groups in proportion.
    return np.where(counts > 0, counts, positive.min() if len(positive) else 1.0)


def _joint_codes(measures: Sequence[GroupMeans]) -> tuple[IntArray | None, IntArray]:
    """Return the cell of each sample, and for each measure (row) the code of each cell, -1 outside.

    Measures join one after the other, and only the cells that occur are kept, so the numbers stay small.
    """
    if not measures:
        return None, np.zeros((0, 0), dtype=np.int64)
    cells = np.zeros(len(_codes(measures[0])), dtype=np.int64)
    table = np.zeros((0, 1), dtype=np.int64)
    for means in measures:
        size = len(means) + 1
        present, cells = compress(cells * size + (_codes(means) + 1), table.shape[1] * size)
        table = np.vstack([table[:, present // size], present % size - 1])
    outside = (table < 0).all(axis=0)  # at most one cell: the samples in no measure at all, moved to the end
    order = np.argsort(outside, kind="stable")
    return np.argsort(order)[cells], table[:, order[: len(order) - int(outside.sum())]]


def _united(codes: IntArray, table: IntArray, ranks: Ranks) -> tuple[IntArray, IntArray]:
    """Return the cells of this process as cells of all processes: those that occur anywhere, in the same order."""
    union = np.unique(np.concatenate(ranks.objects(table, "cells"), axis=1), axis=1)
    position = {cell: j for j, cell in enumerate(map(tuple, union.T.tolist()))}
    here = [position[cell] for cell in map(tuple, table.T.tolist())]
    return np.array([*here, union.shape[1]], dtype=np.int64)[codes], union


def _codes(means: GroupMeans) -> IntArray:
    assert means.codes is not None
    return means.codes


def _lift(means: GroupMeans, codes: IntArray, counts: FloatArray) -> SparseRows:
    """Return L: which share of each mean each cell has."""
    order = np.argsort(codes, kind="stable")
    inside = order[codes[order] >= 0]
    whole = means.counts[codes[inside]]
    share = counts[inside] / np.where(whole > 0, whole, 1.0)
    return SparseRows(codes[inside], inside, share, (len(means), len(counts)))
