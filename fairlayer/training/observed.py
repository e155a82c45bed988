"""Rows of a table as constraints see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairlayer._typing import FloatArray
from fairlayer.constraints import Batch
from fairlayer.groups import Groups

__all__ = ["Observed"]


@dataclass(frozen=True)
class Observed:
    """Rows as constraints see them.

    Args:
        sensitive: group names (None where unknown) or numbers, by feature.
        labels: true labels, or None.
        raw: scores before the layer, for constraints that bin by score.

    Example:
        >>> rows = Observed({"sex": np.array(["F", "F", "M"])}, labels=np.array([0.0, 1.0, 1.0]))
        >>> rows.take(np.array([0, 2])).sensitive["sex"].tolist()
        ['F', 'M']
    """

    sensitive: Mapping[str, NDArray[Any]]
    labels: NDArray[Any] | None = None
    raw: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.sensitive.values())))

    @cached_property
    def batch(self) -> Batch:
        raw = _float64(self.raw)
        read = None if raw is None else (lambda: raw)
        return Batch(Groups(self.sensitive, len(self)), len(self), labels=_float64(self.labels), raw_scores=read)

    def take(self, rows: slice | NDArray[np.int64]) -> Observed:
        """Return the rows given."""
        sensitive = {name: column[rows] for name, column in self.sensitive.items()}
        return Observed(sensitive, _at(self.labels, rows), _at(self.raw, rows))

    def coded(self) -> Observed:
        """Return the same rows with integer codes for group names, quicker to read many times."""
        codes = {name: _codes(self.batch, name) for name in self.sensitive}
        return Observed(codes, self.labels, self.raw)


def _codes(batch: Batch, name: str) -> NDArray[Any]:
    """Return integer codes where the feature is groups, and the numbers themselves where it is continuous."""
    if batch.groups.raw[name].dtype.kind == "f":
        return batch.groups.values(name)
    codes = batch.groups.column(name).codes
    return batch.groups.raw[name] if codes is None else codes


def _at(values: NDArray[Any] | None, rows: slice | NDArray[np.int64]) -> NDArray[Any] | None:
    return None if values is None else values[rows]


def _float64(values: NDArray[Any] | None) -> FloatArray | None:
    return None if values is None else np.asarray(values, dtype=np.float64)
