"""Named errors of the data stage; each says what was asked, what was found and what to do."""

from __future__ import annotations

from collections.abc import Iterable

from fairlayer.errors import DataError, ShapeError

__all__ = ["ColumnError", "MissingColumnError", "MissingDataError", "TargetError", "listed"]


class MissingDataError(DataError):
    """No file of that data set was found and it could not be fetched."""


class MissingColumnError(DataError):
    """The table lacks a column that was named."""


class ColumnError(DataError, ShapeError):
    """A column is there, but its values cannot be used as asked."""


class TargetError(DataError):
    """The target column cannot be read as the labels of the task."""


def listed(values: Iterable[object], most: int = 12) -> str:
    """A few values for an error text, with the number left out.

    Example:
        >>> listed(["a", "b", "c"], most=2)
        "'a', 'b' (and 1 more)"
    """
    names = [repr(value) for value in values]
    left_out = len(names) - most
    return ", ".join(names[:most]) + (f" (and {left_out} more)" if left_out > 0 else "")
