"""Feature columns to a float32 matrix, learnt from training rows only and carried in the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fairlayer.data.columns import as_numbers, as_text, column_of, is_numeric
from fairlayer.data.errors import ColumnError, listed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CategoricalColumn", "Encoder", "NumericColumn"]

MOST_LEVELS = 2000
FEW_LEVELS = 50


@dataclass(frozen=True)
class NumericColumn:
    """(value - mean) / scale, 0 where missing; beside it an indicator if training rows had missing values."""

    name: str
    mean: float
    scale: float
    indicator: bool

    @classmethod
    def fit(cls, column: pd.Series) -> NumericColumn:
        numbers = as_numbers(column)
        known = numbers[~np.isnan(numbers)]
        mean, deviation = (float(known.mean()), float(known.std())) if len(known) else (0.0, 0.0)
        return cls(str(column.name), mean, deviation or 1.0, indicator=len(known) < len(numbers))

    @property
    def width(self) -> int:
        return 1 + self.indicator

    def encode(self, column: pd.Series) -> NDArray[np.float32]:
        numbers = as_numbers(column)
        missing = np.isnan(numbers)
        amount = np.where(missing, 0.0, (numbers - self.mean) / self.scale)
        return np.stack([amount, missing][: self.width], axis=1).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "numeric", "mean": self.mean, "scale": self.scale, "indicator": self.indicator}

    @classmethod
    def from_dict(cls, name: str, state: Mapping[str, Any]) -> NumericColumn:
        return cls(name, float(state["mean"]), float(state["scale"]), bool(state["indicator"]))


@dataclass(frozen=True)
class CategoricalColumn:
    """One 0 / 1 column per level seen in training (missing is a level, if seen); unseen is all zeros."""

    name: str
    levels: tuple[str | None, ...]

    @classmethod
    def fit(cls, column: pd.Series) -> CategoricalColumn:
        found = set(as_text(column))
        levels = (*sorted(found - {None}), *([None] if None in found else []))
        _check_levels(column, levels)
        return cls(str(column.name), levels)

    @property
    def width(self) -> int:
        return len(self.levels)

    def encode(self, column: pd.Series) -> NDArray[np.float32]:
        place = {level: k for k, level in enumerate(self.levels)}
        codes = np.array([place.get(name, -1) for name in as_text(column)], dtype=np.int64)
        matrix = np.zeros((len(codes), self.width), dtype=np.float32)
        known = codes >= 0
        matrix[known.nonzero()[0], codes[known]] = 1.0
        return matrix

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "categorical", "levels": list(self.levels)}

    @classmethod
    def from_dict(cls, name: str, state: Mapping[str, Any]) -> CategoricalColumn:
        return cls(name, tuple(state["levels"]))


def _check_levels(column: pd.Series, levels: tuple[str | None, ...]) -> None:
    if len(levels) > MOST_LEVELS or (len(levels) > FEW_LEVELS and len(levels) > len(column) / 2):
        raise ColumnError(
            f"feature '{column.name}' has {len(levels)} distinct values in {len(column)} rows (for example "
            f"{listed(levels[:3])}): it looks like an identifier or free text. "
            f"Leave it out (--drop {column.name})."
        )


def _check_text(column: pd.Series) -> None:
    """A text column that is mostly numbers is a numeric one with odd entries."""
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce").notna()
    if numbers.mean() > 0.5:
        odd = column[~numbers & column.notna()].unique()
        raise ColumnError(
            f"feature '{column.name}' holds numbers and also {listed(odd, 5)}. Leave such cells empty if "
            f"they are missing, or say that its values are codes (--categorical {column.name})."
        )


_KINDS: dict[str, type[NumericColumn] | type[CategoricalColumn]] = {
    "numeric": NumericColumn,
    "categorical": CategoricalColumn,
}


@dataclass(frozen=True)
class Encoder:
    """Table rows to a float32 matrix of `width` columns.

    Example:
        >>> import pandas as pd
        >>> train = pd.DataFrame({"age": [20, 40], "job": ["clerk", "nurse"]})
        >>> encoder = Encoder.fit(train, ["age", "job"])
        >>> encoder.encode(pd.DataFrame({"age": [30], "job": ["pilot"]})).tolist()
        [[0.0, 0.0, 0.0]]
        >>> Encoder.from_dict(encoder.to_dict()) == encoder
        True
    """

    columns: tuple[NumericColumn | CategoricalColumn, ...]

    @classmethod
    def fit(cls, frame: pd.DataFrame, names: Sequence[str], *, categorical: Sequence[str] = ()) -> Encoder:
        """Learn means, scales and levels; `categorical` names columns of codes that look like numbers."""
        if not names:
            raise ColumnError("no feature column is left to learn from; name fewer columns to drop.")
        chosen = [column_of(frame, name, "feature") for name in names]
        return cls(tuple(_fit_column(column, column.name in categorical) for column in chosen))

    @property
    def width(self) -> int:
        return sum(column.width for column in self.columns)

    def encode(self, frame: pd.DataFrame) -> NDArray[np.float32]:
        """The feature matrix (rows, width), float32.

        Raises:
            MissingColumnError: the frame lacks a column that the encoder was fitted on.
            ColumnError: a numeric column holds text or infinity.
        """
        return np.hstack([column.encode(column_of(frame, column.name, "feature")) for column in self.columns])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: column name -> what was learnt."""
        return {column.name: column.to_dict() for column in self.columns}

    @classmethod
    def from_dict(cls, state: Mapping[str, Mapping[str, Any]]) -> Encoder:
        return cls(tuple(_KINDS[learnt["kind"]].from_dict(name, learnt) for name, learnt in state.items()))


def _fit_column(column: pd.Series, codes: bool) -> NumericColumn | CategoricalColumn:
    if codes:
        return CategoricalColumn.fit(column)
    if is_numeric(column):
        return NumericColumn.fit(column)
    _check_text(column)
    return CategoricalColumn.fit(column)
