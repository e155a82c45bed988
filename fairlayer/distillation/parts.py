"""The shifts of an exact projection, one table per measure, and their sum in every cell.

The projection moves a sample by the sum, over the measures p that its cell belongs to, of

    s_p[g] = - nu_p[g] / n_p[g],        nu_p = sum over active faces of multiplier * (the face's row over measure p)

with g the sample's group in measure p (`assembly.py` has the cells; here each measure keeps its own part). So the
shift of any cell, also of a combination that the data lacks, is the sum of the parts of its groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from fairlayer._arrays import host_float64
from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.constraints import Batch, Constraint, Spread
from fairlayer.distillation.cells import CellMap
from fairlayer.edge import pick
from fairlayer.groups import Groups
from fairlayer.passes import make_passes
from fairlayer.projection.assembly import Assembly, assemble
from fairlayer.solve import Solution, solve

__all__ = ["Samples", "ShiftTable", "shift_table"]

Parts = dict[Any, FloatArray]  # by the key of the measure
_LABELS = 2


class Samples(NamedTuple):
    """What the shifts are fitted to: columns of scores, groups, and labels or their estimates, (n, 1) or (n, k)."""

    columns: tuple[Tensor, ...]
    groups: Groups
    labels: FloatArray | None
    estimates: FloatArray | None
    bounds: tuple[float | None, float | None]
    relax: bool

    def batch(self, column: int) -> Batch:
        """Return one column as constraints see it."""
        scores = self.columns[column]
        labels, estimates = pick(self.labels, column), pick(self.estimates, column)
        return Batch(self.groups, len(scores), labels, estimates, partial(host_float64, scores))


@dataclass(frozen=True)
class ShiftTable:
    """How far each cell is moved, in prediction units.

    Args:
        shift: (labels, cells, columns); two labels where the cells depend on the label, else one.
        counts: (cells,) samples that the shifts were fitted to.
        fitted: (cells,) whether every group of the cell had samples.
    """

    shift: FloatArray
    counts: FloatArray
    fitted: BoolArray


def shift_table(samples: Samples, constraints: Sequence[Constraint], cells: CellMap, *, by_label: bool) -> ShiftTable:
    """Project the samples exactly, and keep the shift of every cell."""
    each = [_parts(samples, constraints, column) for column in range(len(samples.columns))]
    shift = np.stack([_sum_parts(cells, parts, by_label=by_label) for parts, _ in each], axis=-1)
    seen = np.logical_and.reduce([_all_seen(cells, counts) for _, counts in each])
    return ShiftTable(shift, _count(cells, samples.groups), np.asarray(seen))


def _parts(samples: Samples, constraints: Sequence[Constraint], column: int) -> tuple[Parts, Parts]:
    """Return the shift of each group, and its count, by measure."""
    batch = samples.batch(column)
    assembly = assemble(constraints, batch, on_empty="skip")
    passes = make_passes(samples.columns[column], assembly.cells, *samples.bounds)
    solution = solve(passes, assembly.slabs, relax=samples.relax).solution
    measures = [statement.means for constraint in constraints for statement in constraint.statements(batch)]
    return _group_shifts(assembly, solution), {means.key: means.counts for means in measures}


def _group_shifts(assembly: Assembly, solution: Solution) -> Parts:
    shifts: Parts = {}
    for face, multiplier in zip(solution.faces, solution.multipliers, strict=True):
        block, i, j = face.key
        statement = assembly.statements[block]
        if isinstance(statement, Spread):
            row = statement.scale * statement.matrix[i] - statement.matrix[j]
        else:
            row = j * statement.matrix[i]  # j is the side, +1 or -1
        counts = statement.means.counts
        moved = -float(multiplier) / face.scale * row / np.where(counts > 0, counts, 1.0)
        shifts[statement.means.key] = shifts.get(statement.means.key, np.zeros(len(counts))) + moved
    return shifts


def _sum_parts(cells: CellMap, parts: Parts, *, by_label: bool) -> FloatArray:
    """Return the shift of each cell (labels, cells)."""
    labels = _LABELS if by_label else 1
    total = np.zeros(labels * len(cells))
    for key, shift in parts.items():
        total += np.append(shift, 0.0)[_codes(cells, key, labels)]  # -1, outside, is the appended 0
    return total.reshape(labels, len(cells))


def _all_seen(cells: CellMap, counts: Parts) -> BoolArray:
    """Return whether every group that a cell belongs to had samples, under whichever label."""
    seen = np.ones(len(cells), dtype=bool)
    for key, count in counts.items():
        of_each_label = np.append(count, 1.0)[_codes(cells, key, _LABELS)].reshape(_LABELS, -1)
        seen &= of_each_label.sum(axis=0) > 0
    return seen


def _codes(cells: CellMap, key: Any, labels: int) -> IntArray:
    """Return the row of one measure that each cell belongs to, -1 outside."""
    n = labels * len(cells)
    batch = Batch(cells.groups(labels), n, labels=np.repeat(np.arange(float(labels)), len(cells)))
    match key:
        case ("groups", on):
            means = batch.means(on)
        case ("given", on, given):
            means = batch.means_given(on, given)
        case _:
            means = batch.means_by_label(key[1], "fixed shifts")
    assert means.codes is not None
    return means.codes


def _count(cells: CellMap, groups: Groups) -> FloatArray:
    place = cells.place_groups(groups)
    if place.ndim == 2:
        return np.asarray(place.sum(axis=0), dtype=np.float64)
    return np.bincount(np.asarray(place, dtype=np.int64), minlength=len(cells)).astype(np.float64)
