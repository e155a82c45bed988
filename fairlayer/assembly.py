"""Statements of constraints -> cells and slabs: from what must hold to what a solver reads.

Every hard measure is a partition of the samples. The cells are their common refinement, and a group mean is
a count-weighted mean of cell means: mean_p = L_p @ mu with L_p[group, cell] = n_cell / n_group. Dense measures are
statistics of their own. So each statement becomes a block of slabs on s = (mu, dense).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.constraints import Batch, Constraint, Means, Rows, Spread, Statement
from fairlayer.errors import EmptyGroupError
from fairlayer.solve import Cells, Face, RowSlabs, SlabSystem, SpreadSlabs

__all__ = ["Assembly", "assemble"]


@dataclass(frozen=True)
class Assembly:
    """A batch of statements in numbers, and the way back to names.

    Args:
        cells: statistics of the batch.
        slabs: the feasible set; block b comes from statement b.
        statements: the statements that are not vacuous in this batch.
        owners: for each block, the index of its constraint.
        cell_names: one name per statistic.
        absent: rows of statements that this batch says nothing about, as (constraint, row name).
        constraints: number of constraints.
    """

    cells: Cells
    slabs: SlabSystem
    statements: tuple[Statement, ...]
    owners: tuple[int, ...]
    cell_names: tuple[str, ...]
    absent: tuple[tuple[str, str], ...]
    constraints: int

    def describe(self, face: Face) -> str:
        """Return a face in words."""
        block, i, j = face.key
        statement = self.statements[block]
        if isinstance(statement, Spread):
            scale = "" if statement.scale == 1.0 else f"{statement.scale:g} * "
            return f"{scale}mean[{statement.names[i]}] - mean[{statement.names[j]}] <= {float(statement.tolerance):g}"
        return f"{'upper' if j > 0 else 'lower'} limit on [{statement.names[i]}]"


def assemble(constraints: Sequence[Constraint], batch: Batch, *, on_empty: str) -> Assembly:
    """Gather the statements of all constraints for one batch.

    Raises:
        EmptyGroupError: a compared group has no sample, and `on_empty` is "raise".
    """
    kept: list[Statement] = []
    owners: list[int] = []
    absent: list[tuple[str, str]] = []
    for owner, constraint in enumerate(constraints):
        for statement in constraint.statements(batch):
            present, missing = _without_vacuous(statement)
            absent += [(constraint.name, name) for name in missing]
            if missing and on_empty == "raise" and not statement.absence_expected:
                _raise_empty(constraint, statement, missing)
            if present is not None:
                kept.append(present)
                owners.append(owner)
    measures = {statement.means.key: statement.means for statement in kept}
    cells, lifts, names = _refine([*measures.values()])
    lift = dict(zip(measures, lifts, strict=True))
    blocks = [_block(statement, lift[statement.means.key]) for statement in kept]
    return Assembly(cells, SlabSystem(blocks), tuple(kept), tuple(owners), names, tuple(absent), len(constraints))


def _without_vacuous(statement: Statement) -> tuple[Statement | None, list[str]]:
    counts = statement.means.counts
    if counts.all() and statement.matrix.any(axis=1).all():
        return (statement if _compares(statement, len(statement.matrix)) else None), []
    keep = ~(statement.matrix[:, counts == 0] != 0).any(axis=1) & statement.matrix.any(axis=1)
    missing = [name for name, kept in zip(statement.names, keep, strict=True) if not kept]
    if not _compares(statement, int(keep.sum())):
        return None, missing
    names = tuple(name for name, kept in zip(statement.names, keep, strict=True) if kept)
    if isinstance(statement, Spread):
        offset = None if statement.offset is None else statement.offset[keep]
        spread = Spread(statement.means, statement.matrix[keep], names, statement.tolerance, offset, statement.scale)
        return spread, missing
    lower, upper = statement.lower_offset[keep], statement.upper_offset[keep]
    return Rows(statement.means, statement.matrix[keep], lower, upper, names, statement.tolerance), missing


def _compares(statement: Statement, members: int) -> bool:
    return members > (1 if isinstance(statement, Spread) else 0)


def _raise_empty(constraint: Constraint, statement: Statement, missing: Sequence[str]) -> None:
    counts = ", ".join(f"{n} {int(c)}" for n, c in zip(statement.means.names, statement.means.counts, strict=True))
    raise EmptyGroupError(
        f"{constraint.name} compares groups {', '.join(map(repr, statement.names))}, but this batch has no "
        f"{', '.join(map(repr, missing))} (counts: {counts}). Use batches that hold every group, a larger batch, "
        'or on_empty="skip".'
    )


def _refine(measures: Sequence[Means]) -> tuple[Cells, list[FloatArray], tuple[str, ...]]:
    """Return the common refinement, the matrix from its statistics to each measure's rows, and names."""
    hard = [means for means in measures if means.codes is not None]
    dense = [means for means in measures if means.codes is None]
    codes, table = _joint_codes(hard)
    k = table.shape[1]
    counts = np.bincount(codes, minlength=k + 1)[:k].astype(np.float64) if codes is not None else np.zeros(0)
    lifts = {id(means): _lift(means, row, counts) for means, row in zip(hard, table, strict=True)}
    size = k + sum(len(means) for means in dense)
    start = k
    for means in dense:
        lifts[id(means)] = np.eye(len(means), size, start)
        start += len(means)
    weights = np.concatenate([w for m in dense if (w := m.weights) is not None]) if dense else None
    names = _cell_names(hard, table) + tuple(name for means in dense for name in means.names)
    padded = [np.pad(lifts[id(m)], ((0, 0), (0, size - lifts[id(m)].shape[1]))) for m in measures]
    return Cells(codes, np.maximum(counts, 1.0), weights), padded, names


def _joint_codes(measures: Sequence[Means]) -> tuple[IntArray | None, IntArray]:
    """Return the cell of each sample, and for each measure (row) the code of each cell, -1 outside."""
    if not measures:
        return None, np.zeros((0, 0), dtype=np.int64)
    if len(measures) == 1:
        codes, k = measures[0].codes, len(measures[0])
        assert codes is not None
        return np.where(codes < 0, k, codes), np.arange(k)[None, :]
    stacked = np.stack([codes for m in measures if (codes := m.codes) is not None])
    table, cells = np.unique(_mixed_radix(stacked, [len(m) for m in measures]), return_inverse=True)
    outside = bool(len(table)) and table[0] == 0  # in no measure at all
    cells = np.where(cells == 0, len(table) - 1, cells - 1) if outside else cells
    return cells, _digits(table[1:] if outside else table, [len(m) for m in measures])


def _mixed_radix(codes: IntArray, sizes: Sequence[int]) -> IntArray:
    joint = np.zeros(codes.shape[1], dtype=np.int64)
    for row, size in zip(codes, sizes, strict=True):
        joint = joint * (size + 1) + (row + 1)
    return joint


def _digits(joint: IntArray, sizes: Sequence[int]) -> IntArray:
    rows = []
    for size in reversed(sizes):
        rows.append(joint % (size + 1) - 1)
        joint = joint // (size + 1)
    return np.stack(rows[::-1])


def _lift(means: Means, codes: IntArray, counts: FloatArray) -> FloatArray:
    lift = np.zeros((len(means), len(counts)))
    inside = np.flatnonzero(codes >= 0)
    lift[codes[inside], inside] = counts[inside] / np.maximum(means.counts[codes[inside]], 1.0)
    return lift


def _cell_names(measures: Sequence[Means], table: IntArray) -> tuple[str, ...]:
    names = [means.names for means in measures]
    return tuple(
        "; ".join(names[p][code] for p, code in enumerate(cell) if code >= 0) for cell in table.T.tolist()
    )


def _block(statement: Statement, lift: FloatArray) -> RowSlabs | SpreadSlabs:
    matrix, tolerance = statement.matrix @ lift, float(statement.tolerance)
    if isinstance(statement, Rows):
        return RowSlabs(matrix, statement.lower_offset - tolerance, statement.upper_offset + tolerance)
    offset = np.zeros(len(matrix)) if statement.offset is None else statement.offset
    return SpreadSlabs(matrix, offset, statement.scale, tolerance)
