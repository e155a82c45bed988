"""Named errors of the data stage; each says what was asked, what was found and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

from fairlayer.errors import DataError, ShapeError

__all__ = [
    "ColumnError",
    "MissingColumnError",
    "MissingDataError",
    "SeveralFaultsError",
    "TargetError",
    "all_faults",
    "listed",
    "near",
    "spelt_alike",
]


class MissingDataError(DataError):
    """No file of that data set was found and it could not be fetched."""


class MissingColumnError(DataError):
    """The table lacks a column that was named.

    Args:
        fault: which column, and what it was wanted for.
        there: the columns that there are, which several such faults say once.
    """

    def __init__(self, fault: str, there: str = "") -> None:
        self.fault, self.there = fault, there
        super().__init__(f"{fault} {there}".rstrip())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.fault, self.there)


class ColumnError(DataError, ShapeError):
    """A column is there, but its values cannot be used as asked."""


class TargetError(DataError):
    """The target column cannot be read as the labels of the task."""


class SeveralFaultsError(DataError):
    """A table has several faults, which the text lists."""

    def __init__(self, faults: Iterable[DataError]) -> None:
        self.faults = tuple(faults)
        lines = [each.fault if isinstance(each, MissingColumnError) else str(each) for each in self.faults]
        known = dict.fromkeys(each.there for each in self.faults if isinstance(each, MissingColumnError) and each.there)
        numbered = [f"{k}. {line}" for k, line in enumerate(lines, 1)]
        super().__init__("\n  ".join([f"{len(self.faults)} faults were found:", *numbered, *known]))


def all_faults(*attempts: Callable[[], object]) -> None:
    """Make every attempt, and raise what they found wrong: one fault as it is, several in one message.

    Raises:
        DataError: the only fault.
        SeveralFaultsError: several of them.

    Example:
        >>> def fails():
        ...     raise TargetError("no target.")
        >>> all_faults(fails, fails)
        Traceback (most recent call last):
        fairlayer.data.errors.TargetError: no target.
    """
    found: dict[str, DataError] = {}
    for attempt in attempts:
        try:
            attempt()
        except SeveralFaultsError as error:
            found |= {str(each): each for each in error.faults}
        except DataError as error:
            found[str(error)] = error
    if len(found) == 1:
        raise next(iter(found.values()))
    if found:
        raise SeveralFaultsError(found.values())


def near(name: str, known: Iterable[object]) -> str:
    """Return the end of a sentence that suggests the known name that was probably meant.

    Example:
        >>> near("lable", ["label", "sex"]), near("zzz", ["label"])
        ("; did you mean 'label'?", '.')
    """
    names = {str(each).lower(): str(each) for each in known}
    found = get_close_matches(str(name).lower(), names, n=1)
    return f"; did you mean '{names[found[0]]}'?" if found else "."


def listed(values: Iterable[object], most: int = 12) -> str:
    """Return a few values for an error text, with the number left out.

    Example:
        >>> listed(["a", "b", "c"], most=2)
        "'a', 'b' (and 1 more)"
    """
    names = [repr(value) for value in values]
    left_out = len(names) - most
    return ", ".join(names[:most]) + (f" (and {left_out} more)" if left_out > 0 else "")


def spelt_alike(values: Iterable[object]) -> list[list[str]]:
    """Return the values that differ by capitals or blanks alone, as those of one answer typed in several ways.

    Example:
        >>> spelt_alike(["Yes", "yes", "no"]), spelt_alike(["F", "M"])
        ([['Yes', 'yes']], [])
    """
    found: dict[str, list[str]] = {}
    for value in sorted({str(value) for value in values}):
        found.setdefault("".join(value.split()).casefold(), []).append(value)
    return [names for names in found.values() if len(names) > 1]
