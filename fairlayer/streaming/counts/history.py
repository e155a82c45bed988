"""What a stream has emitted so far, per cell: counts, sums, labelled sums, and a sketch of raw scores. A value.

A cell is one combination of the sensitive features that the constraints read. The history serves constraints as a
weighted batch: one row per cell (or per cell and label), standing for all its samples. So a constraint, a projection
and a report read a stream exactly as they read a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from fairlayer._typing import FloatArray, IntArray
from fairlayer.constraints import Batch
from fairlayer.errors import ShapeError
from fairlayer.fused import stream_loaded
from fairlayer.groups import Groups, Vocabulary
from fairlayer.streaming.counts.sketch import Sketch

__all__ = ["Counted", "History", "batch_of"]

_JOURNAL = 4096
_RANGE = ("low", "high", "weight", "seen", "outside", "arcsine")
_SUMS = ("count", "emitted", "raw", "moved", "count0", "count1", "emitted0", "emitted1", "labels")


class Counted(NamedTuple):
    """What a history had counted at one time.

    Args:
        features: sensitive features that make the cells.
        cells: the codes of each.
        sums: see `History`.
    """

    features: tuple[str, ...]
    cells: tuple[tuple[int, ...], ...]
    sums: dict[str, FloatArray]

    def codes(self) -> IntArray:
        """Return the codes of all cells, (cells, features)."""
        return np.array(self.cells, dtype=np.int64).reshape(len(self.cells), len(self.features))


class History:
    """Sums of a stream, per cell.

    Args:
        features: sensitive features that make the cells.
        sketch: the running distribution of raw scores.

    `count`, `emitted`, `raw` and `moved` sum 1, the prediction, the raw score and the squared change over all samples.
    Predictions are written to a `journal` first (cells, raw scores, predictions), and summed up when somebody reads the
    sums, or when it is full. Who reads the sketch only has the raw scores counted there, and no more: a solution does.

    `count0`, `count1`, `emitted0`, `emitted1` and `labels` sum over labelled samples, by label (a label other than 1
    counts in the first).
    """

    longest_draft = _JOURNAL

    def __init__(self, features: Sequence[str], sketch: Sketch) -> None:
        self.features = tuple(features)
        self.cells: list[tuple[int, ...]] = []
        self.index: dict[tuple[int, ...], int] = {}
        self._sketch = sketch
        self._sums: dict[str, FloatArray] = {name: np.zeros(0) for name in _SUMS}
        self.listeners: list[Callable[[IntArray, FloatArray, FloatArray], None]] = []  # told of all that is summed up
        self._written = 0  # samples in the journal
        self._sketched = 0  # those of them that the sketch has counted
        self._drafted = 0  # where the last draft begins
        self._cells, self._raw, self._emitted = np.empty(_JOURNAL, np.int64), np.empty(_JOURNAL), np.empty(_JOURNAL)
        self.journal = self._cells, self._raw, self._emitted

    @property
    def sums(self) -> dict[str, FloatArray]:
        """The sums, up to date."""
        if self._written:
            self._flush()
        return self._sums

    @property
    def sketch(self) -> Sketch:
        """The running distribution of raw scores, up to date."""
        if self._sketched < self._written:
            self._count_scores()
        return self._sketch

    def locate(self, codes: IntArray) -> IntArray:
        """Return the cell of each row of codes (n, features), making new cells where needed."""
        rows = [tuple(row) for row in codes.tolist()]
        for row in rows:
            if row not in self.index:
                self._add_cell(row)
        return np.array([self.index[row] for row in rows], dtype=np.int64)

    def emit(self, cells: IntArray, raw: FloatArray, emitted: FloatArray) -> None:
        """Count emitted predictions."""
        if self._written:
            self._flush()
        self._sketch.add(cells, raw)
        self._sum_up(cells, raw, emitted)

    def emit_one(self, cell: int, raw: float, emitted: float) -> None:
        """Count one emitted prediction."""
        end = self._written
        if end == _JOURNAL:
            self._flush()
            end = 0
        self._cells[end], self._raw[end], self._emitted[end] = cell, raw, emitted
        self._written = end + 1

    def draft(self, n: int) -> tuple[FloatArray, FloatArray]:
        """Return room for n raw scores and n predictions, n at most `longest_draft`; `emit_draft` counts them."""
        if self._written + n > _JOURNAL:
            self._flush()
        start = self._drafted = self._written
        end = start + n
        return self._raw[start:end], self._emitted[start:end]

    def place(self, n: int) -> int:
        """Return where in the `journal` n samples can be written, n at most `longest_draft`; `wrote` counts them."""
        if self._written + n > _JOURNAL:
            self._flush()
        return self._written

    def wrote(self, n: int) -> None:
        """Count the n predictions that were written to the journal at the last place."""
        self._written += n

    def emit_draft(self, cells: IntArray) -> FloatArray:
        """Count the predictions that were written to the last draft, and return them, where the journal has them."""
        start, end = self._written, self._written + len(cells)
        if start != self._drafted:  # somebody has read the sums since, which has emptied the journal
            drafted = slice(self._drafted, self._drafted + len(cells))
            self._raw[start:end], self._emitted[start:end] = self._raw[drafted], self._emitted[drafted]
        self._cells[start:end] = cells
        self._written = end
        return self._emitted[start:end]

    def forget_cells(self, known: int) -> None:
        """Drop cells made by a step that failed; nothing was counted in them."""
        for cell in self.cells[known:]:
            del self.index[cell]
        del self.cells[known:]
        self._sums = {name: sums[:known] for name, sums in self._sums.items()}
        self._sketch.shrink(known)

    def recode(self, cells: list[tuple[int, ...]]) -> None:
        """Give the cells new codes, one for one."""
        self.cells = cells
        self.index = {cell: i for i, cell in enumerate(cells)}

    def _count_scores(self) -> None:
        """Count in the sketch what it has not counted of the journal."""
        first, self._sketched = self._sketched, self._written
        self._sketch.add(self._cells[first : self._written], self._raw[first : self._written])

    def _flush(self) -> None:
        if self._sketched < self._written:
            self._count_scores()
        written, self._written, self._sketched = self._written, 0, 0
        self._sum_up(self._cells[:written], self._raw[:written], self._emitted[:written])

    def _sum_up(self, cells: IntArray, raw: FloatArray, emitted: FloatArray) -> None:
        k, quick = len(self.cells), stream_loaded()
        if quick is not None:
            quick.stream_counts.add_sums(cells, raw, emitted, *(self._sums[name] for name in _SUMS[:4]))
        for name, values in (
            ()
            if quick is not None
            else (("count", None), ("emitted", emitted), ("raw", raw), ("moved", (emitted - raw) ** 2))
        ):
            self._sums[name] += np.bincount(cells, weights=values, minlength=k)
        for told in self.listeners:
            told(cells, raw, emitted)

    def flush(self) -> None:
        """Sum up the journal."""
        if self._written:
            self._flush()

    def label(self, cells: IntArray, emitted: FloatArray, labels: FloatArray) -> None:
        """Count labels of predictions emitted before."""
        positive = labels == 1.0
        for mask, digit in ((~positive, "0"), (positive, "1")):
            np.add.at(self.sums[f"count{digit}"], cells[mask], 1.0)
            np.add.at(self.sums[f"emitted{digit}"], cells[mask], emitted[mask])
        np.add.at(self.sums["labels"], cells, labels)

    def codes(self) -> IntArray:
        """Return the codes of all cells, (cells, features)."""
        return np.array(self.cells, dtype=np.int64).reshape(len(self.cells), len(self.features))

    def counted(self) -> Counted:
        """Return what has been counted so far, which later steps do not change."""
        sums = {name: values.copy() for name, values in self.sums.items()}
        return Counted(self.features, tuple(self.cells), sums)

    def rows_of(self, other: History) -> IntArray:
        """Return the cell here of each cell of another history, making new cells where needed."""
        if other.features != self.features:
            raise ShapeError(f"histories over {self.features} and {other.features} cannot be merged.")
        return self.locate(other.codes())

    def take_over(self, other: History, rows: IntArray) -> None:
        """Add the sums and the sketch of another history, whose cell i is the cell `rows[i]` here."""
        for name, sums in self.sums.items():
            np.add.at(sums, rows, other.sums[name])
        self.sketch.take_over(other.sketch, rows)

    def merge(self, other: History, sign: float = 1.0) -> None:
        """Add the sums of another history, cell by cell (take them off, for sign -1); the sketch stays as it is."""
        rows, theirs = self.rows_of(other), other.sums
        for name, sums in self.sums.items():
            np.add.at(sums, rows, sign * theirs[name])

    def to_state(self) -> dict[str, torch.Tensor]:
        """Return tensors; a few kilobytes per cell."""
        sketch = self.sketch.to_state()
        table = np.stack([self.sums[name] for name in _SUMS]) if self.cells else np.zeros((len(_SUMS), 0))
        return {
            "cells": torch.from_numpy(self.codes()),
            "sums": torch.from_numpy(table.copy()),
            "sketch": torch.from_numpy(sketch["counts"]),
            "totals": torch.from_numpy(sketch["totals"]),
            "borrowed": torch.from_numpy(sketch["borrowed"] if sketch["borrowed"].any() else np.zeros((2, 0, 0))),
            "latest": torch.from_numpy(sketch["latest"]),
            "filled": torch.from_numpy(sketch["filled"]),
            "range": torch.tensor([sketch[name] for name in _RANGE], dtype=torch.float64),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `to_state` returned."""
        self.cells = [tuple(row) for row in state["cells"].tolist()]
        self.index = {cell: i for i, cell in enumerate(self.cells)}
        table = state["sums"].cpu().double().numpy()
        self._written = self._sketched = 0
        self._sums = {name: row.copy() for name, row in zip(_SUMS, table, strict=True)}
        saved = dict(zip(_RANGE, state["range"].tolist(), strict=True))
        arrays = {name: state[name].cpu().numpy() for name in ("totals", "borrowed", "latest", "filled")}
        counts = state["sketch"].cpu().double().numpy()
        if not arrays["borrowed"].size:
            arrays["borrowed"] = np.zeros((2, *counts.shape))
        self._sketch.load_state({**saved, "counts": counts, **arrays})

    def _add_cell(self, row: tuple[int, ...]) -> None:
        self.index[row] = len(self.cells)
        self.cells.append(row)
        self._sums = {name: np.append(sums, 0.0) for name, sums in self._sums.items()}
        self._sketch.grow(len(self.cells))


def batch_of(
    history: History | Counted,
    vocabulary: Vocabulary,
    rows: IntArray,
    *,
    weights: FloatArray,
    labels: FloatArray | None = None,
) -> Batch:
    """Return a weighted batch whose sample i is of the cell `rows[i]`."""
    codes = history.codes()[rows]
    columns = {name: codes[:, j] for j, name in enumerate(history.features)}
    groups = Groups.from_codes(columns, vocabulary)
    return Batch(groups, len(rows), labels=labels, weights=weights)
