"""A column as it was read -> codes and categories, or memberships."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from types import NoneType
from typing import Any, Literal, NamedTuple

import numpy as np

from fairlayer._typing import BoolArray, Category, FloatArray, IntArray
from fairlayer.errors import CategoryError, ShapeError
from fairlayer.groups.categories import (
    extend,
    in_order,
    normalise,
    refuse_disguised,
    refuse_fractions,
    refuse_infinity,
    refuse_signs,
)
from fairlayer.groups.naming import group_labels

__all__ = ["EncodedFeature", "encode", "encode_values", "is_continuous", "judge_signs"]

_DENSE_CODES = 1 << 16  # integer codes up to here are counted instead of sorted
_ROUNDING = 1.0001e-2  # how far a row of memberships may be from 1: two decimals, or half precision
_TEXT = {str, NoneType}

Known = tuple[Category, ...] | None
Signs = Literal["judge", "refuse", "accept"]


class EncodedFeature(NamedTuple):
    """One sensitive feature of one batch: a code per sample (-1 unknown), or a probability per category."""

    name: str
    categories: tuple[Category, ...]
    codes: IntArray | None = None  # (n,)
    counts: FloatArray | None = None  # samples per category, where the encoding counted them anyway
    membership: FloatArray | None = None  # (n, len(categories)), rows sum to 1, or to 0 where unknown

    @property
    def labels(self) -> tuple[str, ...]:
        """`name=category` for each category."""
        return group_labels(self.name, self.categories)

    @property
    def unknown(self) -> int:
        """How many samples have an unknown category."""
        if self.codes is not None:
            return int((self.codes < 0).sum())
        assert self.membership is not None
        return int((self.membership.sum(axis=1) == 0).sum())


def encode(name: str, raw: Any, known: Known, *, signs: Signs = "judge") -> EncodedFeature:
    """Return a column that was read by `read_column` as groups: those known, then those found, in order.

    Args:
        name: the name of the feature.
        raw: (n,), or (n, k) floats.
        known: the categories that have codes already; None where nothing is known of the feature.
        signs: what to do where -1 and 1 are the only codes, which may be two groups, or one group and unknown samples:
            "refuse" where all the data are seen; "accept" where other samples may hold group 0; "judge" refuses where
            the batch tells, which is where it has 32 samples and either code has at least 3 of 10.

    Raises:
        CategoryError: a value names no group, or the column can be read in two ways.
    """
    if raw.ndim == 2:
        return _soft_column(name, raw, known)
    kind = raw.dtype.kind
    if kind == "i" and known is not None:
        counts = _count_known_codes(raw, known)
        if counts is not None:
            return EncodedFeature(name, known, raw.astype(np.int64), counts)  # a copy: the caller's may change
    if kind in "iub":
        codes, categories = _encode_integers(name, raw, known, signs, None)
    elif kind == "f":
        codes, categories = _encode_floats(name, raw, known, signs)
    else:
        codes, categories = _encode_objects(name, raw, known, signs)
    return EncodedFeature(name, categories, codes=codes)


def encode_values(name: str, raw: Any) -> IntArray:
    """Return one code per distinct value (n,), unknown being a value of its own: what strata are made of.

    Any number is a value here, for a column may hold labels such as -1 and 1, or half points.

    Raises:
        ShapeError: the column is soft.
        CategoryError: a value is not a name.
    """
    if raw.ndim == 2:
        raise ShapeError(f"'{name}' is soft membership of shape {raw.shape}, which has no strata. Give categories.")
    if raw.dtype.kind in "iufb":
        return np.asarray(np.unique(raw, return_inverse=True)[1], dtype=np.int64)  # NaN comes last, once
    values, found = _normalised(name, raw)
    return _look_up(values, in_order(found), unknown=len(found))


def is_continuous(raw: Any) -> bool:
    """Return whether a column that was read holds fractions, so that it is a number and not a group."""
    if raw.ndim != 1 or raw.dtype.kind != "f":
        return False
    finite = raw[np.isfinite(raw)]
    return not np.array_equal(finite, np.round(finite))


# ---- whole numbers


def _count_known_codes(raw: Any, known: tuple[Category, ...]) -> FloatArray | None:
    """Count codes that are -1, 0, ..., k - 1 for the categories 0, ..., k - 1; None for anything else."""
    if known != _range(len(known)) or not len(raw):
        return None
    try:
        counts = np.bincount(raw + 1, minlength=len(known) + 1)
    except (ValueError, TypeError, MemoryError):  # a code below -1, or an enormous one: for the general way
        return None
    return counts[1:].astype(np.float64) if len(counts) == len(known) + 1 else None


@lru_cache(maxsize=256)
def _range(k: int) -> tuple[int, ...]:
    return tuple(range(k))


def _encode_integers(
    name: str, raw: Any, known: Known, signs: Signs, missing: BoolArray | None
) -> tuple[IntArray, tuple[Category, ...]]:
    """Encode whole numbers; those `missing` are unknown, and so is -1 unless it is a known category."""
    if raw.dtype.kind == "b":
        raw = raw.astype(np.int64)
    valid = raw if missing is None else raw[~missing]
    low, high = (int(valid.min()), int(valid.max())) if len(valid) else (0, 0)
    if missing is None and low >= 0 and known is not None and high < len(known) and known == _range(len(known)):
        return raw.astype(np.int64), known
    present = _distinct(valid, low, high)
    categories = extend(known, in_order(_groups_among(name, present, valid, known, signs)))
    codes = _look_up_integers(raw, categories)
    if missing is not None:
        codes[missing] = -1
    return codes, categories


def _distinct(valid: Any, low: int, high: int) -> list[int]:
    if low >= -1 and high < _DENSE_CODES:
        found: list[int] = (np.flatnonzero(np.bincount(valid.astype(np.int64, copy=False) + 1)) - 1).tolist()
        return found
    distinct: list[int] = np.unique(valid).tolist()
    return distinct


def _groups_among(name: str, codes: Collection[int], values: Any, known: Known, signs: Signs) -> list[Category]:
    """Return which codes are groups, without the -1 of the unknown.

    Raises:
        CategoryError: a code is below -1, or the codes are -1 and 1 alone, which may be two groups.
    """
    meant = set(known or ())
    below = [code for code in codes if code < 0 and code not in meant]
    if below and min(below) < -1:
        raise CategoryError(
            f"sensitive feature '{name}' holds the code {min(below)}; codes are 0, 1, 2, ... and -1 means unknown. "
            "Recode the column, or pass it as strings."
        )
    groups: list[Category] = [code for code in codes if code not in below]
    if below and groups == [1] and meant <= {1}:
        samples = values if isinstance(values, np.ndarray) else np.array(values, dtype=object)
        judge_signs(name, int((samples == -1).sum()), int((samples == 1).sum()), signs)
    return groups


def judge_signs(name: str, below: int, above: int, signs: Signs) -> None:
    """Refuse a column of -1 (so many times) and 1 (so many times) alone, where that is to be done; see `encode`.

    Raises:
        CategoryError: the codes are taken for two groups.
    """
    n = below + above
    tells = n >= 32 and min(below, above) >= 0.3 * n
    if signs == "refuse" or (signs == "judge" and tells):
        refuse_signs(name)


def _look_up_integers(raw: Any, categories: tuple[Category, ...]) -> IntArray:
    """Return the code of each number, -1 for one that is not a category."""
    if categories == _range(len(categories)):
        return np.where(raw < 0, -1, raw).astype(np.int64)
    numbers = {int(c): i for i, c in enumerate(categories) if not isinstance(c, str)}
    if not numbers:
        return np.full(len(raw), -1, dtype=np.int64)
    keys = np.array(sorted(numbers), dtype=np.int64)
    values = np.array([numbers[int(key)] for key in keys], dtype=np.int64)
    position = np.minimum(np.searchsorted(keys, raw), len(keys) - 1)
    return np.where(keys[position] == raw, values[position], -1).astype(np.int64)


# ---- numbers with a point


def _encode_floats(name: str, raw: Any, known: Known, signs: Signs) -> tuple[IntArray, tuple[Category, ...]]:
    _check_whole(name, raw)
    missing = np.isnan(raw)
    whole = np.where(missing, 0, raw).astype(np.int64)
    return _encode_integers(name, whole, known, signs, missing if missing.any() else None)


def _check_whole(name: str, raw: Any) -> None:
    if is_continuous(raw):
        refuse_fractions(name, repr(raw[:3].tolist()))
    if np.isinf(raw).any():
        refuse_infinity(name)
    exact = 2 / np.finfo(raw.dtype).eps  # from here on, one floating number stands for several whole ones
    if len(raw) and not np.nanmax(np.abs(raw), initial=0.0) < exact:
        raise CategoryError(
            f"sensitive feature '{name}' holds codes as large as {np.nanmax(np.abs(raw)):.0f} as floating numbers "
            f"({raw.dtype}), which do not tell whole numbers of that size apart, so that groups may have become one. "
            "Give the codes as whole numbers or as text."
        )


# ---- names, and mixtures


def _encode_objects(name: str, raw: Any, known: Known, signs: Signs) -> tuple[IntArray, tuple[Category, ...]]:
    values, found = _normalised(name, raw)
    numbers = sorted(value for value in found if not isinstance(value, str))
    groups = found
    if numbers and numbers[0] < 0:
        texts = [value for value in found if isinstance(value, str)]
        if not texts:
            groups = set(_groups_among(name, numbers, values, known, signs))
        else:
            groups = {*texts, *_groups_among(name, numbers, values, (*(known or ()), *texts), signs)}
    refuse_disguised(name, groups, known)
    categories = extend(known, in_order(groups))
    return _look_up(values, categories, unknown=-1), categories


def _normalised(name: str, raw: Any) -> tuple[list[Category | None], set[Any]]:
    """Return each value as a category, and the distinct ones."""
    values = raw.tolist()
    if not set(map(type, values)) <= _TEXT:
        values = [normalise(name, value) for value in values]
    found = set(values)
    found.discard(None)
    return values, found


def _look_up(values: list[Category | None], categories: Collection[Category], unknown: int) -> IntArray:
    table: dict[Any, int] = {category: code for code, category in enumerate(categories)}
    return np.array([table.get(value, unknown) for value in values], dtype=np.int64)


# ---- memberships


def _soft_column(name: str, raw: Any, known: Known) -> EncodedFeature:
    membership = np.array(raw, dtype=np.float64)
    unknown = np.asarray(np.isnan(membership).any(axis=1))
    membership[unknown] = 0.0
    sums = membership.sum(axis=1)
    off = np.abs(sums - 1.0)[~unknown]
    worst = float(off.max()) if len(off) else 0.0
    if bool((membership < -_ROUNDING).any()) or not worst <= _ROUNDING:
        raise CategoryError(
            f"soft membership '{name}' must have non-negative rows that sum to 1, but the rows are off by up to "
            f"{worst:.3g}, which no rounding explains, and the smallest entry is {membership.min():.3g}. Scores or "
            "logits need a softmax first; rows that leave a group out need a column for it; codes are whole numbers."
        )
    k = membership.shape[1]
    if known is not None and len(known) != k:
        raise CategoryError(
            f"soft membership '{name}' has {k} columns, but the vocabulary knows {len(known)} categories {known}."
        )
    return EncodedFeature(name, known or tuple(range(k)), membership=_without_rounding(membership, unknown, worst))


def _without_rounding(membership: FloatArray, unknown: BoolArray, worst: float) -> FloatArray:
    """Return rows that sum to 1 exactly, and to 0 where unknown."""
    if worst <= 1e-12 and membership.min(initial=0.0) >= 0.0:
        return membership
    membership = np.maximum(membership, 0.0)
    return np.asarray(membership / np.where(unknown, 1.0, membership.sum(axis=1))[:, None])
