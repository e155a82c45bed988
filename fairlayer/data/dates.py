"""Columns of dates: how they are written, and the days that they count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fairlayer.data.errors import ColumnError, listed
from fairlayer.errors import require

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DATES_WITHOUT_FORMAT", "as_days", "date_format"]

DATES_WITHOUT_FORMAT = "datetime"  # of a parquet file
_ISO = "ISO8601"
_FORMATS = ("%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%Y/%m/%d", "%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M")
_SHAPE = r"\s*\d{1,4}[-./]\d{1,2}[-./]\d{1,4}([ T]\d{1,2}:\d{2}.*)?\s*"


def date_format(column: pd.Series) -> str | None:
    """Return how all known values of a column are written as dates; None where it holds something else.

    Raises:
        ColumnError: days and months cannot be told apart.

    Example:
        >>> import pandas as pd
        >>> date_format(pd.Series(["2024-01-31", None])), date_format(pd.Series(["31.01.2024"]))
        ('ISO8601', '%d.%m.%Y')
    """
    if column.dtype.kind == "M":
        return DATES_WITHOUT_FORMAT
    known = column.dropna()
    if column.dtype.kind in "iufb" or known.empty:
        return None
    text = known.astype(str)
    if not text.str.fullmatch(_SHAPE).all():
        return None
    fitting = [each for each in (_ISO, *_FORMATS) if _parsed(text, each).notna().all()]
    if {"%d/%m/%Y", "%m/%d/%Y"} <= set(fitting) and not _same(text, "%d/%m/%Y", "%m/%d/%Y"):
        raise ColumnError(
            f"feature '{column.name}' holds dates such as {listed(text.unique(), 3)}, of which it cannot be told "
            "whether the day or the month comes first. Write them as 2024-01-31, or leave the column out "
            f"(--drop {column.name})."
        )
    return fitting[0] if fitting else None


def as_days(column: pd.Series, written: str) -> pd.Series:
    """Return the days since 1970 as numbers, missing as NaN.

    Raises:
        ColumnError: a value is no such date.
    """
    pandas = require("pandas", "train")
    dates = column if column.dtype.kind == "M" else _parsed(column, written)
    odd = dates.isna() & column.notna()
    if odd.any():
        raise ColumnError(
            f"column '{column.name}' was read as dates ({written}), but {int(odd.sum())} of {len(column)} values are "
            f"not: {listed(column[odd].unique(), 5)}. Mend them, or leave the cells empty."
        )
    zone = getattr(dates.dt, "tz", None)
    plain = dates if zone is None else dates.dt.tz_convert("UTC").dt.tz_localize(None)
    days = (plain - pandas.Timestamp("1970-01-01")) / pandas.Timedelta(days=1)
    return days.astype(np.float64).rename(column.name)


def _parsed(text: pd.Series, written: str) -> pd.Series:
    pandas = require("pandas", "train")
    known = text.where(text.isna(), text.astype(str).str.strip())
    return pandas.to_datetime(known, format=written, errors="coerce", utc=written == _ISO)


def _same(text: pd.Series, one: str, other: str) -> bool:
    return bool((_parsed(text, one) == _parsed(text, other)).all())
