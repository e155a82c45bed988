"""Predictions that wait for their labels, by id; the oldest are dropped beyond a limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fairlayer._typing import FloatArray, IntArray
from fairlayer.errors import ShapeError

__all__ = ["Pending", "read_ids"]


class Pending:
    """An insertion-ordered table id -> (codes of its cell, emitted prediction).

    Args:
        limit: most predictions that wait; the oldest make room.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self.limit = limit
        self._waiting: dict[str | int, tuple[tuple[int, ...], float]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, ids: Sequence[str | int], codes: IntArray, emitted: FloatArray) -> None:
        """Remember predictions; codes are (n, features)."""
        for key, cell, value in zip(ids, codes.tolist(), emitted.tolist(), strict=True):
            self._waiting.pop(key, None)
            self._waiting[key] = (tuple(cell), value)
        while len(self._waiting) > self.limit:
            del self._waiting[next(iter(self._waiting))]

    def find(self, ids: Sequence[str | int]) -> tuple[IntArray, FloatArray]:
        """Return the codes (n, features) and predictions of some ids.

        Raises:
            ShapeError: an id is unknown, was labelled before, or is given twice.
        """
        missing = [key for key in ids if key not in self._waiting]
        if missing or len(set(ids)) < len(ids):
            raise ShapeError(
                f"labels came for ids {missing[:5] or 'given twice'}, which wait for none. "
                f"Pass ids= when predicting; each id takes one label, and the latest {self.limit} predictions wait."
            )
        found = [self._waiting[key] for key in ids]
        codes, emitted = zip(*found, strict=True) if found else ((), ())
        return np.array(codes, dtype=np.int64).reshape(len(found), -1), np.array(emitted, dtype=np.float64)

    def drop(self, ids: Sequence[str | int]) -> None:
        """Forget some ids, all of which wait."""
        for key in ids:
            del self._waiting[key]

    def to_state(self) -> dict[str, Any]:
        """Return plain containers and tensors."""
        found = list(self._waiting.values())
        return {
            "ids": list(self._waiting),
            "codes": torch.tensor([codes for codes, _ in found], dtype=torch.int64),
            "emitted": torch.tensor([value for _, value in found], dtype=torch.float64),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `to_state` returned."""
        codes = [tuple(row) for row in state["codes"].tolist()]
        self._waiting = dict(zip(state["ids"], zip(codes, state["emitted"].tolist(), strict=True), strict=True))

    def recode(self, change: Callable[[tuple[int, ...]], tuple[int, ...]]) -> None:
        """Give every waiting prediction's cell new codes."""
        self._waiting = {key: (change(codes), value) for key, (codes, value) in self._waiting.items()}


def read_ids(ids: Any, n: int | None = None) -> list[str | int]:
    """Return ids as plain strings and integers.

    Raises:
        ShapeError: not n of them, where n is given; an id given twice, or neither string nor integer.
    """
    found: Any = ids.tolist() if hasattr(ids, "tolist") else ids
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise ShapeError(f"ids must be a list with one id per sample, but found {found!r}.")
    values: list[Any] = list(found)
    n = len(values) if n is None else n
    keys: list[Any] = [value.item() if isinstance(value, np.generic | torch.Tensor) else value for value in values]
    if not all(isinstance(key, str | int) for key in keys):
        raise ShapeError(f"ids must be strings or integers, but found {keys[:5]}.")
    if len(keys) != n or len(set(keys)) != n:
        raise ShapeError(f"ids must be {n} different ones, one per sample, but there are {len(keys)}: {keys[:5]} ...")
    return keys
