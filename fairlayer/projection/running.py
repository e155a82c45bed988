"""Running shifts: what a layer in evaluation adds where labels are not known, as BatchNorm uses its running means.

In training, with q the emitted scores and c the cell (the combination of the sensitive features) of a sample,

    S_c <- .98 S_c + sum over the samples of c of (q_i - raw_i)          N_c <- .98 N_c + samples of c

and in evaluation without labels q_i = raw_i + S_c / N_c. Sums and not means, because rare groups are rare in batches.
In the geometries of probabilities the shifts are of the log-odds. Where a cell is not known, or was not seen in
training, the mean shift of all samples is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fairlayer._arrays import host_float64
from fairlayer._typing import FloatArray, IntArray
from fairlayer.groups import Groups
from fairlayer.tensor_state import PAGE, read_tensor, refuse_foreign, to_tensor

__all__ = ["RunningShifts"]

DECAY = 0.98
_ROOM = 4 * PAGE
_END = 1e-6  # log-odds are followed up to this near to 0 and 1


class RunningShifts(nn.Module):
    """The running shift of each cell of some sensitive features.

    Args:
        features: their names.
        log_odds: whether shifts are of the log-odds.
    """

    def __init__(self, features: tuple[str, ...], *, log_odds: bool) -> None:
        super().__init__()
        self.features, self.log_odds = features, log_odds
        self._sums: dict[tuple[Any, ...], FloatArray] = {}
        self._rows: dict[tuple[Any, ...], float] = {}

    @property
    def learnt(self) -> bool:
        """Whether any training batch was seen."""
        return bool(self._rows)

    def shifts(self) -> dict[tuple[Any, ...], FloatArray]:
        """Return the shift of each cell seen, (columns,)."""
        return {cell: self._sums[cell] / self._rows[cell] for cell in self._rows if self._rows[cell] > 0}

    @torch.no_grad()
    def observe(self, raw: Tensor, value: Tensor, groups: Groups) -> None:
        """Count a training batch; soft memberships teach nothing.

        Args:
            raw: predictions before the projection.
            value: the value after it.
            groups: the groups of the batch.
        """
        cells = self._cells(groups)
        if cells is None:
            return
        names, cell_of = cells
        moved = _columns(self._place(value) - self._place(raw))
        for cell in self._rows:
            self._sums[cell] = DECAY * self._sums[cell]
            self._rows[cell] *= DECAY
        for number, cell in enumerate(names):
            inside = cell_of == number
            before = self._sums.get(cell, np.zeros(moved.shape[1]))
            self._sums[cell] = before + moved[inside].sum(axis=0)
            self._rows[cell] = self._rows.get(cell, 0.0) + float(inside.sum())

    def apply_to(self, raw: Tensor, groups: Groups) -> Tensor | None:
        """Return predictions moved by the shifts of their cells; None where memberships are soft."""
        cells = self._cells(groups)
        if cells is None:
            return None
        names, cell_of = cells
        known, mean = self.shifts(), sum(self._sums.values()) / sum(self._rows.values())
        table = np.array([known[cell] if None not in cell and cell in known else mean for cell in names])
        shift = torch.as_tensor(table[cell_of], dtype=raw.dtype, device=raw.device).reshape(raw.shape)
        moved = self._place(raw) + shift
        return torch.sigmoid(moved) if self.log_odds else moved

    def _place(self, scores: Tensor) -> Tensor:
        return torch.logit(scores, eps=_END) if self.log_odds else scores

    def _cells(self, groups: Groups) -> tuple[list[tuple[Any, ...]], IntArray] | None:
        """Return the cells of a batch, as categories, and the number of each sample's."""
        columns = [groups.column(name) for name in self.features]
        codes = [column.codes for column in columns if column.codes is not None]
        if len(codes) < len(columns):
            return None
        table, cell_of = np.unique(np.stack(codes, axis=1), axis=0, return_inverse=True)
        names = [
            tuple(None if k < 0 else column.categories[k] for k, column in zip(row, columns, strict=True))
            for row in table.tolist()
        ]
        return names, np.asarray(cell_of).reshape(-1)

    def get_extra_state(self) -> Tensor:
        """Return the running sums as one tensor; see `fairlayer.tensor_state`."""
        state = {
            "features": list(self.features),
            "cells": [list(cell) for cell in self._rows],
            "sums": [self._sums[cell].tolist() for cell in self._rows],
            "rows": [self._rows[cell] for cell in self._rows],
        }
        return to_tensor("running shifts", state, room=_ROOM)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the running sums.

        Raises:
            CheckpointError: it is no such tensor, or was changed; the sums are as before.
        """
        self._sums, self._rows = self._read_state(state)

    def _read_state(self, state: Tensor) -> _Read:
        saved, features = read_tensor("running shifts", state, lambda s: (_shifts(s), s["features"]))
        refuse_foreign("running shifts", features, self.features)
        return saved


_Read = tuple[dict[tuple[Any, ...], FloatArray], dict[tuple[Any, ...], float]]


def _shifts(saved: Mapping[str, Any]) -> _Read:
    cells = [tuple(cell) for cell in saved["cells"]]
    return (
        {cell: np.array(sums) for cell, sums in zip(cells, saved["sums"], strict=True)},
        {cell: float(rows) for cell, rows in zip(cells, saved["rows"], strict=True)},
    )


def _columns(moved: Tensor) -> FloatArray:
    array = host_float64(moved)
    return array[:, None] if array.ndim == 1 else array
