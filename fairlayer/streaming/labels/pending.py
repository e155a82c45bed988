"""Predictions that wait for their labels, by id; the oldest are dropped beyond a limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from fairlayer._typing import FloatArray, IntArray
from fairlayer.errors import ShapeError

__all__ = ["Pending", "read_ids"]


class Waiting(NamedTuple):
    """What is remembered of predictions whose labels have come.

    Args:
        codes: (n, features) of their cells.
        raw: (n,) raw scores.
        emitted: (n,) predictions.
        estimates: (n,) label estimates at the time.
        numbers: (n,) the buckets in which they were emitted.
    """

    codes: IntArray
    raw: FloatArray
    emitted: FloatArray
    estimates: FloatArray
    numbers: IntArray


class Pending:
    """An insertion-ordered table id -> what is remembered of the prediction.

    Args:
        limit: most predictions that wait; the oldest make room.
    """

    def __init__(self, limit: int = 50_000) -> None:
        self.limit = limit
        self._waiting: dict[str | int, tuple[tuple[int, ...], float, float, float, int]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, ids: Sequence[str | int], waiting: Waiting) -> int:
        """Remember predictions; return how many had to make room."""
        rows = zip(map(tuple, waiting.codes.tolist()), *(part.tolist() for part in waiting[1:]), strict=True)
        for key, row in zip(ids, rows, strict=True):
            self._waiting.pop(key, None)
            self._waiting[key] = row
        lost = max(0, len(self._waiting) - self.limit)
        for _ in range(lost):
            del self._waiting[next(iter(self._waiting))]
        return lost

    def find(self, ids: Sequence[str | int]) -> Waiting:
        """Return what is remembered of some ids.

        Raises:
            ShapeError: an id is unknown, was labelled before, or is given twice.
        """
        missing = [key for key in ids if key not in self._waiting]
        if missing or len(set(ids)) < len(ids):
            raise ShapeError(
                f"labels came for ids {missing[:5] or 'given twice'}, which wait for none. "
                f"Pass ids= when predicting; each id takes one label, and the latest {self.limit} predictions wait."
            )
        return _table([self._waiting[key] for key in ids])

    def drop(self, ids: Sequence[str | int]) -> None:
        """Forget some ids, all of which wait."""
        for key in ids:
            del self._waiting[key]

    def to_state(self) -> dict[str, Any]:
        """Return plain containers and tensors."""
        found = _table(list(self._waiting.values()))
        return {"ids": list(self._waiting), **{name: torch.from_numpy(part) for name, part in found._asdict().items()}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `to_state` returned."""
        codes = map(tuple, state["codes"].tolist())
        rest = (state[name].tolist() for name in Waiting._fields[1:])
        self._waiting = dict(zip(state["ids"], zip(codes, *rest, strict=True), strict=True))

    def recode(self, change: Callable[[tuple[int, ...]], tuple[int, ...]]) -> None:
        """Give every waiting prediction's cell new codes."""
        self._waiting = {key: (change(codes), *rest) for key, (codes, *rest) in self._waiting.items()}  # type: ignore[misc]


def _table(rows: list[tuple[tuple[int, ...], float, float, float, int]]) -> Waiting:
    columns = list(zip(*rows, strict=True)) if rows else [(), (), (), (), ()]
    codes = np.array(columns[0], dtype=np.int64).reshape(len(rows), -1 if rows and columns[0][0] else 0)
    raw, emitted, estimates = (np.array(column, dtype=np.float64) for column in columns[1:4])
    return Waiting(codes, raw, emitted, estimates, np.array(columns[4], dtype=np.int64))


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
