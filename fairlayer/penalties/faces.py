"""The faces of a statement: the single linear inequalities that it is made of, by name and by value.

With v the values of the statement's members:

    Rows:    v_i - (upper_i + tolerance) <= 0        (lower_i - tolerance) - v_i <= 0        finite limits only
    Spread:  scale * v_i - v_j - tolerance <= 0      for each ordered pair i != j
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.constraints import Rows, Spread, Statement
from fairlayer.constraints.statements import Tolerance
from fairlayer.penalties.means import Bounded

__all__ = ["face_names", "faces", "gaps", "present_faces"]


def faces(measured: Bounded, tolerance: Tolerance | FloatArray) -> Tensor:
    """Return the signed excess of each face, <= 0 where it holds; meaningless where `present_faces` says no.

    Args:
        measured: a statement with its values.
        tolerance: the tolerance to be used instead of the statement's own; one per row for `Rows`, if an array.
    """
    statement, values = measured.statement, measured.values
    if isinstance(statement, Spread):
        i, j = _pairs(len(statement.names))
        return statement.scale * values[_index(i, values)] - values[_index(j, values)] - _as_like(tolerance, values)
    width = _as_like(tolerance, values).expand(len(values))
    up, low = (_index(side, values) for side in _sides(statement))
    above = values[up] - (_as_like(statement.upper_offset, values)[up] + width[up])
    below = (_as_like(statement.lower_offset, values)[low] - width[low]) - values[low]
    return torch.cat([above, below])


def gaps(measured: Bounded, tolerance: Tolerance | FloatArray) -> Tensor:
    """Return what `faces` returns for present faces, but of a spread the worst face only (none: no entry)."""
    statement, present = measured.statement, measured.present
    if isinstance(statement, Rows):
        return faces(measured, tolerance)[_index(np.flatnonzero(present_faces(measured)), measured.values)]
    values = measured.values[_index(np.flatnonzero(present), measured.values)]
    if len(values) < 2:
        return values[:0]
    return (statement.gap(values) - _as_like(tolerance, values)).reshape(1)


def present_faces(measured: Bounded) -> BoolArray:
    """Return which faces say something about this batch."""
    statement, present = measured.statement, measured.present
    if isinstance(statement, Spread):
        i, j = _pairs(len(statement.names))
        return present[i] & present[j]
    up, low = _sides(statement)
    return np.concatenate([present[up], present[low]])


def face_names(statement: Statement) -> tuple[str, ...]:
    """Return a name per face; the same in every batch, whatever the tolerance."""
    if isinstance(statement, Spread):
        return _pair_names(statement.names, statement.scale)
    up, low = _sides(statement)
    above = tuple(f"upper limit on [{statement.names[i]}]" for i in up)
    return above + tuple(f"lower limit on [{statement.names[i]}]" for i in low)


def _sides(rows: Rows) -> tuple[IntArray, IntArray]:
    return np.flatnonzero(np.isfinite(rows.upper_offset)), np.flatnonzero(np.isfinite(rows.lower_offset))


@lru_cache(maxsize=64)
def _pairs(members: int) -> tuple[IntArray, IntArray]:
    i, j = np.nonzero(~np.eye(members, dtype=bool))
    return i, j


@lru_cache(maxsize=256)
def _pair_names(names: tuple[str, ...], scale: float) -> tuple[str, ...]:
    factor = "" if scale == 1.0 else f"{scale:g} * "
    return tuple(f"{factor}mean[{names[i]}] - mean[{names[j]}]" for i, j in zip(*_pairs(len(names)), strict=True))


def _index(index: IntArray, values: Tensor) -> Tensor:
    return torch.as_tensor(index, device=values.device)


def _as_like(number: Tolerance | FloatArray, values: Tensor) -> Tensor:
    if isinstance(number, Tensor):
        return number.to(device=values.device, dtype=values.dtype)
    return torch.tensor(number, device=values.device, dtype=values.dtype)
