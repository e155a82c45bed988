"""One category: what may name a group, what means unknown, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from datetime import date, time, timedelta
from fractions import Fraction
from numbers import Number
from typing import Any

import numpy as np
import torch

from fairlayer._typing import Category
from fairlayer.errors import CategoryError

__all__ = [
    "extend",
    "in_order",
    "is_missing",
    "normalise",
    "raise_unseen",
    "refuse_disguised",
    "refuse_fractions",
    "refuse_infinity",
    "refuse_signs",
]

# What a missing value becomes when NumPy, pandas or a file turns a column into text.
DISGUISED = frozenset({"", "nan", "NaN", "None", "<NA>", "NaT"})
_DATES = (date, time, timedelta, np.datetime64, np.timedelta64)
_NO_NAMES = (bytes, bytearray, memoryview, list, tuple, dict, set, frozenset, np.ndarray, torch.Tensor)


def is_missing(value: Any) -> bool:
    """Return whether a value says that the category is not known: None, NaN, `pandas.NA`, NaT, or a masked entry."""
    return (
        value is None
        or value is np.ma.masked
        or type(value).__name__ in {"NAType", "NaTType"}
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, np.datetime64 | np.timedelta64) and bool(np.isnat(value)))
    )


def normalise(name: str, value: Any) -> Category | None:
    """Return a value as a category (text, a whole number, or a bool), None where it is unknown.

    Raises:
        CategoryError: the value names no group: a fraction, infinity, a date, bytes, a container, a bare object.

    Example:
        >>> [normalise("g", value) for value in ("a", 2.0, np.int64(3), True, float("nan"))]
        ['a', 2, 3, True, None]
    """
    if type(value) is str:
        return value
    if is_missing(value):
        return None
    if isinstance(value, np.generic | torch.Tensor) and value.ndim == 0 and not isinstance(value, _DATES):
        return normalise(name, value.item())
    if isinstance(value, str | int):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, Number) and not isinstance(value, complex):
        return _whole(name, value)
    if isinstance(value, _DATES):
        raise CategoryError(
            f"sensitive feature '{name}' holds dates such as {value!s}, which do not name groups. Cut them into "
            "periods first, for example into years, and give those as text."
        )
    if isinstance(value, (*_NO_NAMES, complex)) or _has_no_words(value):
        raise CategoryError(
            f"sensitive feature '{name}' holds a value of type {type(value).__name__}, which does not name a group. "
            "Give text, whole numbers or bools, with None for unknown."
        )
    return str(value)


def refuse_fractions(name: str, sample: str) -> None:
    """Raise the error for numbers that do not name groups.

    Raises:
        CategoryError: always.
    """
    raise CategoryError(
        f"sensitive feature '{name}' holds fractional numbers such as {sample}, which do not name "
        "groups. Cut it into bands first, or use CovarianceBound for a continuous feature; HSIC and Adversary take "
        f"continuous={name!r}."
    )


def refuse_infinity(name: str) -> None:
    """Raise the error for infinite numbers.

    Raises:
        CategoryError: always.
    """
    raise CategoryError(f"sensitive feature '{name}' holds infinity; codes are 0, 1, 2, ..., and NaN means unknown.")


def refuse_signs(name: str) -> None:
    """Raise the error for the codes -1 and 1 alone.

    Raises:
        CategoryError: always.
    """
    raise CategoryError(
        f"sensitive feature '{name}' holds the codes -1 and 1 alone. This is ambiguous: they may be two groups, "
        "or group 1 and samples of unknown group, which nothing would compare. Recode two groups to 0 and 1 "
        "(or pass them as strings); write None or NaN for unknown."
    )


def refuse_disguised(name: str, found: Iterable[Any], known: Collection[Category] | None) -> None:
    """Refuse text that a missing value turns into, unless the vocabulary says that it names a group.

    Raises:
        CategoryError: such text is among the categories found.
    """
    hidden = DISGUISED.intersection(found).difference(known or ())
    if hidden:
        raise CategoryError(
            f"sensitive feature '{name}' holds the text {', '.join(map(repr, sorted(hidden)))}, which is what a "
            "missing value becomes when a column is turned into text, or an empty cell. Write None for unknown, for "
            "example in a list or an array of dtype=object. If it names a group, give that group another name."
        )


def extend(known: tuple[Category, ...] | None, found: Iterable[Category]) -> tuple[Category, ...]:
    """Return the known categories, and after them those found that are new."""
    old = known or ()
    seen = set(old)
    return old + tuple(category for category in found if category not in seen)


def in_order(found: Iterable[Category]) -> list[Category]:
    """Return categories in the order of their codes: numbers before text."""
    return sorted(found, key=lambda category: (isinstance(category, str), category))


def raise_unseen(name: str, unseen: Sequence[Category], known: Sequence[Category]) -> None:
    """Raise the error for categories that a closed vocabulary does not know.

    Raises:
        CategoryError: always.
    """
    raise CategoryError(
        f"sensitive feature '{name}' holds the categories {list(unseen)}, but only {list(known)} are known. "
        "Map them to a known category or to None (unknown; in a file an empty cell), or call fit_categories(...) on "
        "data that has them."
    )


def _whole(name: str, value: Any) -> int:
    try:
        exact = Fraction(value)
    except OverflowError:
        refuse_infinity(name)
    except (TypeError, ValueError):
        refuse_fractions(name, repr(value))
    else:
        if exact.denominator != 1:
            refuse_fractions(name, f"[{value!r}]")
    return int(value)


def _has_no_words(value: Any) -> bool:
    """Return whether an object prints as its address only, which would make each object a group of its own."""
    written: tuple[Any, Any] = (type(value).__str__, type(value).__repr__)
    return callable(value) or written == (object.__str__, object.__repr__)
