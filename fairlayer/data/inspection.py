"""What a look at a table's columns finds: those to set aside, codes that look like amounts, and leaks of the target."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fairlayer.data.columns import as_text, is_numeric
from fairlayer.data.dates import date_format
from fairlayer.data.errors import ColumnError, listed
from fairlayer.data.table import Table
from fairlayer.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Inspection", "inspect_table"]

FEW = 50  # fewer rows than this say nothing of a column
TELLS_ALONE = 0.97  # the AUC, or the share of the variance, from which a column is said to tell the target
_NAME_OF_ID = re.compile(r"(^|[^a-z])(id|ids|uuid|guid|key|index|idx|nr|no|rownum|row)$|^(id|uuid)([^a-z]|$)")
_NAME_OF_CODE = re.compile(
    r"(code|type|class|cat|zip|plz|postal|region|state|county|district|branch|status|group)", re.I
)


@dataclass(frozen=True)
class Inspection:
    """What was found, for the rows of a whole table.

    Args:
        set_aside: column -> why it is not a feature: it numbers or names the rows, or it is empty.
        codes: whole numbers with few values, which may be codes.
        tells_target: column -> the AUC (of two classes) or the share of the variance that it alone explains.
        dates: columns of dates, which are read as numbers of days.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"id": range(60), "age": [30, 40, 50] * 20, "paid": ["yes", "no"] * 30})
        >>> found = inspect_table(Table("t", frame, target="paid", positive="yes", sensitive=()))
        >>> found.set_aside, found.dates
        ({'id': 'it has another value in every row'}, ())
    """

    set_aside: Mapping[str, str]
    codes: tuple[str, ...]
    tells_target: Mapping[str, float]
    dates: tuple[str, ...]

    def applied(self, table: Table) -> Table:
        """Return the table with what was set aside among the columns that are not features."""
        return replace(table, not_features=tuple(dict.fromkeys([*table.not_features, *self.set_aside])))

    def notes(self, table: Table) -> tuple[str, ...]:
        """Return what the user should know, in sentences."""
        what = "share of the variance" if table.positive is None else "AUC"
        found = [
            f"'{name}' is not a feature: {why} (--use {_quoted(name)} makes it one)."
            for name, why in self.set_aside.items()
        ]
        found += [
            f"'{name}' alone tells the target '{table.target}' ({what} {value:.3f}). If it is not known before the "
            f"target is, leave it out (--drop {_quoted(name)})."
            for name, value in self.tells_target.items()
        ]
        if self.codes:
            names = ", ".join(f"'{name}'" for name in self.codes)
            found.append(
                f"{names}: few whole numbers, which are read as amounts. If they are codes, say so "
                f"(--categorical {_quoted(self.codes[0])})."
            )
        others = [] if table.positive is None else sorted(set(table.frame[table.target].dropna().astype(str)))
        if len(others) > 2:
            rest = listed([name for name in others if name != table.positive], 6)
            found.append(f"'{table.target}' has {len(others)} answers; {rest} all count as 0.")
        if self.dates:
            found.append(f"{', '.join(map(repr, self.dates))}: dates, which are read as numbers of days.")
        return tuple(found)


def inspect_table(table: Table, *, kept: Sequence[str] = ()) -> Inspection:
    """Look at the columns that would be features.

    Args:
        table: a table whose target can be read.
        kept: columns that are features whatever they look like.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"id": range(60), "age": [30, 40, 50] * 20, "paid": ["yes", "no"] * 30})
        >>> found = inspect_table(Table("t", frame, target="paid", positive="yes", sensitive=()))
        >>> dict(found.set_aside), found.codes
        ({'id': 'it has another value in every row'}, ('age',))
    """
    named = {*table.sensitive, *(cut.source for cut in table.cuts), *table.categorical, *kept}
    features = [name for name in table.features() if name not in named]
    aside = {name: why for name in features if (why := _why_aside(table.frame[name], name)) is not None}
    left = [name for name in table.features() if name not in aside]
    codes = tuple(name for name in features if name not in aside and _may_be_codes(table.frame[name], name))
    dates = tuple(name for name in left if _is_date(table.frame[name]))
    return Inspection(aside, codes, _tellers(table, left), dates)


def _why_aside(column: pd.Series, name: str) -> str | None:
    known = column.dropna()
    if known.empty:
        return "it is empty"
    distinct = known.nunique()
    n = len(column)
    if name == "" or name.startswith("Unnamed:"):
        return "it has no name" + (", and another value in every row" if distinct == n else "")
    if n < FEW or distinct < len(known) or _is_date(column):
        return None
    whole = is_numeric(column) and bool((known == known.round()).all())
    if whole:
        counts = bool((np.abs(np.diff(known.to_numpy(dtype=np.float64))) == 1).all())
        return "it has another value in every row" if counts or _NAME_OF_ID.search(name.lower()) else None
    return None if is_numeric(column) else "it has another value in every row"


def _may_be_codes(column: pd.Series, name: str) -> bool:
    if not is_numeric(column):
        return False
    known = column.dropna()
    distinct = known.nunique()
    if len(known) < FEW or not bool((known == known.round()).all()) or distinct < 3:
        return False
    return distinct <= 30 or (bool(_NAME_OF_CODE.search(name)) and distinct <= len(known) / 2)


def _is_date(column: pd.Series) -> bool:
    try:
        return date_format(column) is not None
    except ColumnError:  # told where the column is read
        return False


def _tellers(table: Table, names: Sequence[str]) -> dict[str, float]:
    try:
        labels = table.labels().astype(np.float64)
    except DataError:  # told where the labels are read
        return {}
    if len(labels) < FEW:
        return {}
    binary = table.positive is not None
    found = {}
    for name in names:
        guess = _best_guess(table.frame[name], labels)
        if guess is not None:
            value = _auc(guess, labels) if binary else _explained(guess, labels)
            if value >= TELLS_ALONE:
                found[name] = value
    return found


def _best_guess(column: pd.Series, labels: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return numbers that grow with what the column says of the labels; None where too few rows share a value."""
    if is_numeric(column) and column.nunique() > 30:
        numbers = column.to_numpy(dtype=np.float64)
        missing = np.isnan(numbers)
        if missing.all():
            return None
        numbers = np.where(missing, np.nanmedian(numbers), numbers)
        return numbers if np.isfinite(numbers).all() else None
    levels, codes = np.unique(as_text(column).astype(str), return_inverse=True)
    if len(levels) > len(labels) / 20:
        return None
    return np.asarray((np.bincount(codes, labels) / np.bincount(codes))[codes])


def _auc(guess: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Return the chance that a row of label 1 has the larger guess, or that of the smaller one if it is more."""
    order, codes = np.unique(guess, return_inverse=True)
    ones, all_ = np.bincount(codes, labels, len(order)), np.bincount(codes, minlength=len(order))
    zeros = all_ - ones
    below = np.cumsum(zeros) - zeros
    pairs = ones.sum() * zeros.sum()
    value = float((ones * (below + 0.5 * zeros)).sum() / pairs) if pairs else 0.5
    return max(value, 1.0 - value)


def _explained(guess: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Return the squared correlation."""
    if guess.std() == 0 or labels.std() == 0:
        return 0.0
    return float(np.corrcoef(guess, labels)[0, 1] ** 2)


def _quoted(name: str) -> str:
    return f"'{name}'" if re.search(r"[^\w.-]", name) or not name else name
