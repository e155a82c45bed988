"""Feature columns to a float32 matrix, learnt from training rows only and carried in the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fairlayer.data.columns import as_numbers, as_text, column_of, is_numeric
from fairlayer.data.dates import as_days, date_format
from fairlayer.data.errors import ColumnError, all_faults, listed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CategoricalColumn", "DateColumn", "Encoder", "NumericColumn"]

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

    def unfamiliar(self, column: pd.Series) -> str:
        """Return what the training rows did not have, in words; nothing where all is known."""
        missing = 0 if self.indicator else int(np.isnan(as_numbers(column)).sum())
        if not missing:
            return ""
        return f"{missing} of {len(column)} rows are missing, and no training row was; they count as the mean"

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "numeric", "mean": self.mean, "scale": self.scale, "indicator": self.indicator}

    @classmethod
    def from_dict(cls, name: str, state: Mapping[str, Any]) -> NumericColumn:
        return cls(name, float(state["mean"]), float(state["scale"]), bool(state["indicator"]))


@dataclass(frozen=True)
class DateColumn:
    """A date as a number of days, standardised as a `NumericColumn` is."""

    name: str
    written: str
    days: NumericColumn

    @classmethod
    def fit(cls, column: pd.Series, written: str) -> DateColumn:
        return cls(str(column.name), written, NumericColumn.fit(as_days(column, written)))

    @property
    def width(self) -> int:
        return self.days.width

    def encode(self, column: pd.Series) -> NDArray[np.float32]:
        return self.days.encode(as_days(column, self.written))

    def unfamiliar(self, column: pd.Series) -> str:
        return self.days.unfamiliar(as_days(column, self.written))

    def to_dict(self) -> dict[str, Any]:
        return {**self.days.to_dict(), "kind": "date", "written": self.written}

    @classmethod
    def from_dict(cls, name: str, state: Mapping[str, Any]) -> DateColumn:
        return cls(name, str(state["written"]), NumericColumn.from_dict(name, state))


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

    def unfamiliar(self, column: pd.Series) -> str:
        """Return what the training rows did not have, in words; nothing where all is known."""
        new = [name for name in as_text(column) if name not in self.levels]
        if not new:
            return ""
        shown = listed(sorted({"(missing)" if name is None else name for name in new}), 3)
        return (
            f"{len(new)} of {len(column)} rows hold what no training row had, such as {shown}; they count as none of "
            "the known values"
        )

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
    """A text column that is mostly numbers is a numeric one with odd entries; truth values are not numbers."""
    import pandas as pd

    truths = column.map(lambda value: isinstance(value, bool | np.bool_)).to_numpy(dtype=bool)
    numbers = pd.to_numeric(column, errors="coerce").notna() & ~truths
    if numbers.mean() > 0.5:
        odd = column[~numbers & column.notna()].unique()
        if not len(odd):
            raise ColumnError(
                f"feature '{column.name}' is text, although all of its values in the training rows are numbers: "
                "another row of the file holds a word. Say which word means a missing value (--na WORD), or that the "
                f"numbers are codes (--categorical {column.name})."
            )
        raise ColumnError(
            f"feature '{column.name}' holds numbers and also {listed(odd, 5)}. If one of these "
            f"means a missing value, say so (--na {_quoted(odd[0])}); if the numbers are codes, say that "
            f"(--categorical {column.name})."
        )


FittedColumn = NumericColumn | CategoricalColumn | DateColumn


def _quoted(word: str) -> str:
    return word if word.isalnum() else f"'{word}'"


_KINDS: dict[str, type[FittedColumn]] = {
    "numeric": NumericColumn,
    "categorical": CategoricalColumn,
    "date": DateColumn,
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

    columns: tuple[FittedColumn, ...]

    @classmethod
    def fit(cls, frame: pd.DataFrame, names: Sequence[str], *, categorical: Sequence[str] = ()) -> Encoder:
        """Learn means, scales and levels; `categorical` names columns of codes that look like numbers."""
        if not names:
            raise ColumnError("no feature column is left to learn from; name fewer columns to drop.")
        chosen = [column_of(frame, name, "feature") for name in names]
        fitted: list[FittedColumn] = []
        all_faults(*(lambda c=c: fitted.append(_fit_column(c, c.name in categorical)) for c in chosen))
        return cls(tuple(fitted))

    @property
    def width(self) -> int:
        return sum(column.width for column in self.columns)

    def encode(self, frame: pd.DataFrame) -> NDArray[np.float32]:
        """Return the feature matrix (rows, width), float32.

        Raises:
            MissingColumnError: the frame lacks a column that the encoder was fitted on.
            ColumnError: a numeric column holds text or infinity.
        """
        parts: list[NDArray[np.float32]] = []
        all_faults(*(lambda c=c: parts.append(c.encode(column_of(frame, c.name, "feature"))) for c in self.columns))
        return np.hstack(parts)

    def unfamiliar(self, frame: pd.DataFrame) -> tuple[str, ...]:
        """Return a sentence for each feature with values that the training rows did not have.

        Example:
            >>> import pandas as pd
            >>> encoder = Encoder.fit(pd.DataFrame({"job": ["clerk", "nurse"]}), ["job"])
            >>> encoder.unfamiliar(pd.DataFrame({"job": ["nurse", "pilot"]}))[0][:45]
            "'job': 1 of 2 rows hold what no training row "
        """
        found = {column.name: column.unfamiliar(column_of(frame, column.name, "feature")) for column in self.columns}
        return tuple(f"{name!r}: {said}." for name, said in found.items() if said)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: column name -> what was learnt."""
        return {column.name: column.to_dict() for column in self.columns}

    @classmethod
    def from_dict(cls, state: Mapping[str, Mapping[str, Any]]) -> Encoder:
        return cls(tuple(_KINDS[learnt["kind"]].from_dict(name, learnt) for name, learnt in state.items()))


def _fit_column(column: pd.Series, codes: bool) -> FittedColumn:
    if codes:
        return CategoricalColumn.fit(column)
    if is_numeric(column):
        return NumericColumn.fit(column)
    written = date_format(column)
    if written is not None:
        return DateColumn.fit(column, written)
    _check_text(column)
    return CategoricalColumn.fit(column)
