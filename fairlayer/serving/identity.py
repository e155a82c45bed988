"""Which run answers, and which record was asked about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairlayer.training import Run

__all__ = ["digests_of", "name_of", "read_of"]


def name_of(run: Run, folder: str | Path | None) -> str:
    """Return the folder's name, where there is one, and a hash of the weights: `run@0a1b2c3d4e5f`."""
    found = hashlib.sha256()
    for name, tensor in sorted(run.model.state_dict().items()):
        found.update(name.encode())
        if hasattr(tensor, "detach"):
            found.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    for name, value in sorted(run.recipe.to_dict().items()):
        found.update(f"{name}={json.dumps(value, sort_keys=True, default=str)}".encode())
    mark = found.hexdigest()[:12]
    return mark if folder is None else f"{Path(folder).resolve().name}@{mark}"


def digests_of(records: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """Return a short hash of what the model reads of each record: 96 bits.

    Example:
        >>> one, same, other = digests_of([{"a": 1, "b": 2}, {"b": 3, "a": 1.0}, {"a": 2}], ["a"])
        >>> one == same, one == other
        (True, False)
    """
    return [_digest(list(read.values())) for read in read_of(records, columns)]


def read_of(records: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return what the model reads of each record, by column.

    Example:
        >>> read_of([{"a": 1, "b": "x", "c": None}], ["b", "a"])
        [{'b': 'x', 'a': 1.0}]
    """
    return [{name: _plain(record[name]) for name in columns} for record in records]


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:24]


def _plain(value: Any) -> Any:
    """Return one form for 1 and 1.0, which JSON writers use alike. An integer that no double holds becomes text."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    return float(value) if abs(value) < 2**53 else str(value)
