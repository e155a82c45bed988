"""One chunk of a table: scores, sensitive features and labels of some rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from fairlayer._arrays import host_array
from fairlayer._typing import FloatArray, IntArray
from fairlayer.errors import DataError, NonFiniteScoresError, ShapeError
from fairlayer.groups import Column, Vocabulary, read_sensitive_features

__all__ = ["Chunk", "Coded", "read_chunk"]


class Coded(NamedTuple):
    """A column as positions (n,) in a short list of its distinct values; -1 is missing."""

    values: Sequence[Any]
    positions: IntArray


class Chunk(NamedTuple):
    """Some rows of a table."""

    scores: FloatArray  # (n,), float64
    features: Any  # as for `project`; columns of a dict may be `Coded`
    labels: FloatArray | None
    single: bool  # whether scores came as float32 or less, and go back as float32

    def head(self, rows: int) -> Chunk:
        """Return the first rows."""
        labels = None if self.labels is None else self.labels[:rows]
        return Chunk(self.scores[:rows], _head(self.features, rows), labels, self.single)

    def plain_features(self) -> Any:
        """Return the features with coded columns written out."""
        if not isinstance(self.features, Mapping):
            return self.features
        return {name: _written_out(c) if isinstance(c, Coded) else c for name, c in self.features.items()}

    def column(self, name: str, names: Sequence[str], words: Vocabulary) -> tuple[Column, Vocabulary]:
        """Return one sensitive feature as groups, and what is known of the categories afterwards."""
        features = self.features
        if isinstance(features, Mapping) and isinstance(features.get(name), Coded):
            coded = features[name]
            short, words = _column({name: list(coded.values)}, name, names, words)
            assert short.codes is not None
            return short._replace(codes=np.append(short.codes, -1)[coded.positions], counts=None), words
        return _column(features if not isinstance(features, Mapping) else {name: features[name]}, name, names, words)


def _head(features: Any, rows: int) -> Any:
    if isinstance(features, Mapping):
        return {name: _head(column, rows) for name, column in features.items()}
    if isinstance(features, Coded):
        return Coded(features.values, features.positions[:rows])
    return features.iloc[:rows] if hasattr(features, "iloc") else features[:rows]


def _written_out(coded: Coded) -> Any:
    values = np.empty(len(coded.values) + 1, dtype=object)
    values[:-1], values[-1] = list(coded.values), None
    return values[coded.positions]


def _column(features: Any, name: str, names: Sequence[str], words: Vocabulary) -> tuple[Column, Vocabulary]:
    groups = read_sensitive_features(features, names, words)
    column = groups.column(name)
    return column, groups.vocabulary


def read_chunk(given: Any, number: int, *, labelled: bool) -> Chunk:
    """Read (scores, sensitive_features), (scores, sensitive_features, y), or a dict with these keys.

    Raises:
        DataError: it is neither.
        ShapeError: lengths differ.
        NonFiniteScoresError: a score or a label is NaN or infinite.
    """
    if isinstance(given, Mapping):
        parts = (given.get("scores"), given.get("sensitive_features"), given.get("y"))
    elif isinstance(given, tuple | list) and len(given) in (2, 3):
        parts = (*given, None)[:3]
    else:
        raise DataError(
            f"chunk {number} is {type(given).__name__}, but must be (scores, sensitive_features), (scores, "
            "sensitive_features, y), or a dict with these keys."
        )
    scores, single = _vector(parts[0], f"the scores of chunk {number}")
    labels = None if parts[2] is None or not labelled else _vector(parts[2], f"the labels of chunk {number}")[0]
    if labels is not None and len(labels) != len(scores):
        raise ShapeError(f"chunk {number} has {len(scores)} scores, but {len(labels)} labels.")
    return Chunk(scores, parts[1], labels, single)


def _vector(values: Any, what: str) -> tuple[FloatArray, bool]:
    if values is None:
        raise DataError(f"{what} are missing.")
    array = host_array(values) if isinstance(values, Tensor) else np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "fiub":
        raise ShapeError(f"{what} must be numbers of shape (n,) or (n, 1), but are {array.dtype} {array.shape}.")
    plain = array.astype(np.float64, copy=False)
    if not np.isfinite(plain).all():
        bad = int((~np.isfinite(plain)).sum())
        raise NonFiniteScoresError(f"{what}: {bad} of {len(plain)} are NaN or infinite. Drop or impute those rows.")
    return plain, array.dtype != np.float64
