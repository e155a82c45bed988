"""One chunk of a table: scores, sensitive features and labels of some rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.edge import as_numbers, read_features
from fairlayer.errors import DataError, NonFiniteScoresError, ShapeError
from fairlayer.groups import EncodedFeature, Vocabulary
from fairlayer.groups.reading import ReadColumns, named_columns

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

    def head(self, rows: int, names: Sequence[str]) -> Chunk:
        """Return the first rows, of the features `names`, with coded columns written out."""
        features: dict[str, Any] = {}
        given = ReadColumns({} if self.features is None else named_columns(self.features, names), len(self.scores))
        for name in names:
            if name in given:
                column = given.column(name)
                whole = _written_out(column) if isinstance(column, Coded) else given[name]
                features[name] = whole[:rows]
        labels = None if self.labels is None else self.labels[:rows]
        return Chunk(self.scores[:rows], features, labels, self.single)

    def column(self, name: str, names: Sequence[str], words: Vocabulary) -> tuple[EncodedFeature, Vocabulary]:
        """Return one sensitive feature as groups, and what is known of the categories afterwards."""
        features = self.features
        coded = features.get(name) if isinstance(features, Mapping) else None
        if not isinstance(coded, Coded):
            read = read_features(features, names, len(self.scores), words)
            return read.column(name), read.vocabulary
        short = read_features({name: list(coded.values)}, (name,), len(coded.values), words)
        column = short.column(name)
        assert column.codes is not None
        return column._replace(codes=np.append(column.codes, -1)[coded.positions], counts=None), short.vocabulary


def _written_out(coded: Coded) -> Any:
    values = np.empty(len(coded.values) + 1, dtype=object)
    values[:-1], values[-1] = list(coded.values), None
    return values[coded.positions]


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
    try:
        array = as_numbers(values)
    except TypeError as error:
        raise ShapeError(f"{what} must be numbers of shape (n,) or (n, 1), but are not ({error}).") from error
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ShapeError(f"{what} must be numbers of shape (n,) or (n, 1), but are {array.dtype} {array.shape}.")
    plain = array.astype(np.float64, copy=False)
    if not np.isfinite(plain).all():
        bad = int((~np.isfinite(plain)).sum())
        raise NonFiniteScoresError(f"{what}: {bad} of {len(plain)} are NaN or infinite. Drop or impute those rows.")
    return plain, array.dtype != np.float64
