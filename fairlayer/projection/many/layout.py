"""The slabs of several problems in one assembly -> the rows of each problem over its own cells, padded to one size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fairlayer._rows import as_sparse
from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.projection.assembly import Assembly
from fairlayer.solve import RowSlabs, SpreadSlabs
from fairlayer.solve.many import ManyRows

__all__ = ["Layout"]


@dataclass(frozen=True)
class Layout:
    """Which row of which statement each padded row is.

    Args:
        rows: the rows for the solver.
        block: statement of each row, (m,).
        first: member of the statement, (b, m); -1 where there is no row.
        second: for a spread the lower member; for other rows 1 for the upper limit, -1 for the lower one, (b, m).
        scale: how many of the user's units one unit of the row is, (b, m).
        equality: whether the row has no slack, (b, m).
    """

    rows: ManyRows
    block: IntArray
    first: IntArray
    second: IntArray
    scale: FloatArray
    equality: BoolArray

    @staticmethod
    def of(assembly: Assembly, problems: IntArray, count: int) -> Layout:
        """Lay out an assembly whose samples belong to problems (n,), -1 for none."""
        cells = len(assembly.cells.counts)
        owner = np.full(cells + 1, -1)
        if assembly.cells.codes is not None:
            owner[assembly.cells.codes] = problems
        owner = owner[:-1]
        known = np.flatnonzero(owner >= 0)
        position = np.full(cells, 0)
        position[known] = _positions(owner[known])
        width = int(position.max(initial=0)) + 1
        place = np.full((count, width), cells)
        place[owner[known], position[known]] = known
        parts = [
            _of_block(index, slabs, owner, position, (count, width))
            for index, slabs in enumerate(assembly.slabs.blocks)
        ]
        if not parts:
            none = np.zeros((count, 0))
            rows = ManyRows(np.zeros((count, 0, width)), none, place, cells)
            empty = none.astype(np.int64)
            return Layout(rows, np.zeros(0, np.int64), empty, empty, none, none.astype(bool))
        matrix, limit, first, second, scale, equality = (
            np.concatenate([part[field] for part in parts], axis=1) for field in range(6)
        )
        block = np.repeat(np.arange(len(parts)), [part[1].shape[1] for part in parts])
        return Layout(ManyRows(matrix, limit, place, cells), block, first, second, scale, equality)


def _positions(owners: IntArray) -> IntArray:
    """Return the place of each entry among those of the same owner, in order."""
    order = np.argsort(owners, kind="stable")
    counts = np.bincount(owners)
    starts = np.append(0, np.cumsum(counts))[:-1]
    place = np.empty(len(owners), dtype=np.int64)
    place[order] = np.arange(len(owners)) - starts[owners[order]]
    return place


def _of_block(
    index: int, slabs: RowSlabs | SpreadSlabs, owner: IntArray, position: IntArray, shape: tuple[int, int]
) -> tuple[Any, ...]:
    matrix = as_sparse(slabs.matrix)
    of_row = np.zeros(len(matrix), dtype=np.int64)
    of_row[matrix.rows] = owner[matrix.columns]  # all cells of a row are of one problem
    member = _positions(of_row)
    k = int(member.max(initial=-1)) + 1
    padded, which = np.zeros((shape[0], k, shape[1])), np.full((shape[0], k), -1)
    which[of_row, member] = np.arange(len(matrix))
    padded[of_row[matrix.rows], member[matrix.rows], position[matrix.columns]] = matrix.data
    if isinstance(slabs, SpreadSlabs):
        return _pairs(slabs, padded, which)
    return _sides(slabs, padded, which)


def _pairs(slabs: SpreadSlabs, padded: FloatArray, which: IntArray) -> tuple[Any, ...]:
    """Every ordered pair of members of a problem."""
    k = which.shape[1]
    high, low = np.nonzero(~np.eye(k, dtype=bool))
    first, second = which[:, high], which[:, low]
    there = (first >= 0) & (second >= 0)
    offset = np.zeros(int(which.max(initial=-1)) + 2) if slabs.offset is None else np.append(slabs.offset, 0.0)
    limit = np.where(there, slabs.width + offset[second] - slabs.scale * offset[first], np.inf)
    matrix = np.where(there[:, :, None], slabs.scale * padded[:, high] - padded[:, low], 0.0)
    tied = there & slabs.tied
    return matrix, limit, np.where(there, first, -1), second, np.ones(first.shape), tied


def _sides(slabs: RowSlabs, padded: FloatArray, which: IntArray) -> tuple[Any, ...]:
    """Return the upper limits of all rows, then the lower ones."""
    there = which >= 0
    upper = np.where(there, np.append(slabs.upper, np.inf)[which], np.inf)
    lower = np.where(there, -np.append(slabs.lower, -np.inf)[which], np.inf)
    scale = np.ones(which.shape) if slabs.scale is None else np.where(there, np.append(slabs.scale, 1.0)[which], 1.0)
    equality = there & (upper == -lower)
    matrix = np.concatenate([padded, -padded], axis=1)
    first = np.concatenate([which, which], axis=1)
    second = np.concatenate([np.ones_like(which), -np.ones_like(which)], axis=1)
    limit = np.concatenate([upper, lower], axis=1)
    return matrix, limit, first, second, np.tile(scale, (1, 2)), np.tile(equality, (1, 2))
