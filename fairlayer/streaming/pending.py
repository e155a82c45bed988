"""Predictions that wait for their labels, by id; the oldest are dropped beyond a limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fairlayer._typing import FloatArray, IntArray
from fairlayer.errors import ShapeError

__all__ = ["Pending"]


class Pending:
    """An insertion-ordered table id -> (cell, emitted prediction).

    Args:
        limit: most predictions that wait; the oldest make room.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self.limit = limit
        self._waiting: dict[str | int, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, ids: Sequence[str | int], cells: IntArray, emitted: FloatArray) -> None:
        """Remember predictions."""
        for key, cell, value in zip(ids, cells.tolist(), emitted.tolist(), strict=True):
            self._waiting.pop(key, None)
            self._waiting[key] = (cell, value)
        while len(self._waiting) > self.limit:
            del self._waiting[next(iter(self._waiting))]

    def take(self, ids: Sequence[str | int]) -> tuple[IntArray, FloatArray]:
        """Return and forget the cells and predictions of some ids.

        Raises:
            ShapeError: an id is unknown, was labelled before, or is given twice; then nothing is forgotten.
        """
        missing = [key for key in ids if key not in self._waiting]
        if missing or len(set(ids)) < len(ids):
            raise ShapeError(
                f"labels came for ids {missing[:5] or 'given twice'}, which wait for none. "
                f"Pass ids= when predicting; each id takes one label, and the latest {self.limit} predictions wait."
            )
        found = [self._waiting.pop(key) for key in ids]
        cells, emitted = zip(*found, strict=True) if found else ((), ())
        return np.array(cells, dtype=np.int64), np.array(emitted, dtype=np.float64)

    def to_state(self) -> dict[str, Any]:
        """Return plain containers and tensors."""
        found = list(self._waiting.values())
        return {
            "ids": list(self._waiting),
            "cells": torch.tensor([cell for cell, _ in found], dtype=torch.int64),
            "emitted": torch.tensor([value for _, value in found], dtype=torch.float64),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `to_state` returned."""
        pairs = zip(state["cells"].tolist(), state["emitted"].tolist(), strict=True)
        self._waiting = dict(zip(state["ids"], pairs, strict=True))
