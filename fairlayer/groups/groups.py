"""Sensitive features -> groups: the only file that knows how group membership is encoded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from fairlayer._arrays import host_array
from fairlayer._typing import Category, FloatArray, IntArray
from fairlayer.collective import Ranks
from fairlayer.errors import CategoryError, MissingSensitiveFeatureError, ShapeError

__all__ = ["Column", "Groups", "Vocabulary", "read_sensitive_features"]

_DENSE_CODES = 1 << 16  # integer codes up to here are counted instead of sorted


@dataclass(frozen=True)
class Vocabulary:
    """The categories of each sensitive feature, in code order.

    While `open`, a category that was never seen is appended; once closed, it is an error.

    Example:
        >>> words = Vocabulary().learn({"sex": ["F", "M", None]})
        >>> words.categories["sex"], words.open
        (('F', 'M'), False)
    """

    categories: Mapping[str, tuple[Category, ...]] = field(default_factory=dict)
    open: bool = True

    def learn(self, sensitive_features: Any, names: Sequence[str] = ()) -> Vocabulary:
        """Return a closed vocabulary that also knows every category in `sensitive_features`."""
        groups = read_sensitive_features(sensitive_features, names, Vocabulary(self.categories, open=True))
        for name in groups.names:
            if not _is_continuous(groups.raw[name]):
                groups.column(name)
        return Vocabulary(groups.vocabulary.categories, open=False)

    def closed(self) -> Vocabulary:
        """Return the same categories, to be extended no more."""
        return Vocabulary(self.categories, open=False)

    def with_categories(self, name: str, categories: tuple[Category, ...]) -> Vocabulary:
        """Return the vocabulary with the categories of one feature replaced."""
        return Vocabulary({**self.categories, name: categories}, self.open)

    def united(self, name: str, found: Iterable[Iterable[Category]]) -> Vocabulary:
        """Return the vocabulary with the categories of one feature that were found in several places.

        The order is that in which one place with all the samples would have met them.
        """
        new = {category for categories in found for category in categories}
        return self.with_categories(name, _extend(self.categories.get(name), sorted(new, key=_order)))

    def to_state(self) -> dict[str, Any]:
        """Return plain containers, loadable with `weights_only=True`."""
        return {"categories": {k: list(v) for k, v in self.categories.items()}, "open": self.open}

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> Vocabulary:
        """Rebuild what `to_state` wrote."""
        return Vocabulary({k: tuple(v) for k, v in state["categories"].items()}, bool(state["open"]))


class Column(NamedTuple):
    """One sensitive feature of one batch: a code per sample (-1 unknown), or a probability per category."""

    name: str
    categories: tuple[Category, ...]
    codes: IntArray | None = None  # (n,)
    counts: FloatArray | None = None  # samples per category, where the encoding counted them anyway
    membership: FloatArray | None = None  # (n, len(categories)), rows sum to 1, or to 0 where unknown

    @property
    def labels(self) -> tuple[str, ...]:
        """`name=category` for each category."""
        return _labels(self.name, self.categories)


@lru_cache(maxsize=1024)
def _labels(name: str, categories: tuple[Category, ...]) -> tuple[str, ...]:
    return tuple(f"{name}={category}" for category in categories)


class Groups:
    """The sensitive features of one batch; columns are encoded when a constraint first asks.

    Args:
        raw: feature name -> array of shape (n,), or (n, k) floats for soft membership.
        n: number of samples.
        vocabulary: known categories; `groups.vocabulary` afterwards also holds those learnt here.
        ranks: the processes that hold the batch together, and learn categories together.
    """

    def __init__(
        self, raw: Mapping[str, Any], n: int, vocabulary: Vocabulary | None = None, ranks: Ranks | None = None
    ) -> None:
        self.raw = raw
        self.n = n
        self.vocabulary = vocabulary or Vocabulary()
        self.ranks = ranks
        self._columns: dict[str, Column] = {}

    @staticmethod
    def from_codes(codes: Mapping[str, IntArray], vocabulary: Vocabulary) -> Groups:
        """Build groups from codes that follow the vocabulary (-1 unknown)."""
        groups = Groups(codes, len(next(iter(codes.values()), ())), vocabulary)
        for name, column in codes.items():
            groups._columns[name] = Column(name, vocabulary.categories[name], codes=column)
        return groups

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features given."""
        return tuple(self.raw)

    def column(self, name: str) -> Column:
        """Return one feature as groups."""
        if name not in self._columns:
            self._columns[name] = self._encode(name)
        return self._columns[name]

    def values(self, name: str) -> FloatArray:
        """Return one feature as numbers (NaN where unknown)."""
        raw = self._require(name)
        try:
            return np.asarray(raw, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise CategoryError(
                f"sensitive feature '{name}' is needed as numbers, but holds {_sample(raw)}. "
                "Give a numeric column, or use a constraint that compares groups."
            ) from error

    def unknown_counts(self) -> dict[str, int]:
        """How many samples have an unknown category, for each feature that was read as groups."""
        return {name: _count_unknown(column) for name, column in self._columns.items()}

    def _require(self, name: str) -> Any:
        if name not in self.raw:
            given = ", ".join(repr(n) for n in self.raw) or "none"
            raise MissingSensitiveFeatureError(
                f"a constraint needs the sensitive feature '{name}', but the features given are: {given}. "
                f"Pass sensitive_features={{'{name}': ...}} with one entry per sample."
            )
        return self.raw[name]

    def _encode(self, name: str) -> Column:
        if self.ranks is not None and (self.vocabulary.open or name not in self.vocabulary.categories):
            before, here = self.vocabulary, self._encode_here(name).categories
            self.vocabulary = before.united(name, self.ranks.objects(here, f"categories of {name}"))
        return self._encode_here(name)

    def _encode_here(self, name: str) -> Column:
        raw = self._require(name)
        known = self.vocabulary.categories.get(name)
        if raw.ndim == 2:
            return _soft_column(name, raw, known)
        if raw.dtype.kind == "i" and known is not None:
            counts = _count_known_codes(raw, known)
            if counts is not None:
                return Column(name, known, raw.astype(np.int64, copy=False), counts)
        if raw.dtype.kind in "iub":
            codes, categories = _encode_integers(name, raw, known)
        else:
            codes, categories = _encode_objects(name, raw, known)
        if known is None or len(categories) > len(known):
            if known is not None and not self.vocabulary.open:
                _raise_unseen(name, categories[len(known) :], known)
            self.vocabulary = self.vocabulary.with_categories(name, categories)
        return Column(name, categories, codes=codes)


def read_sensitive_features(
    sensitive_features: Any,
    names: Sequence[str] = (),
    vocabulary: Vocabulary | None = None,
    ranks: Ranks | None = None,
) -> Groups:
    """Read a dict, a frame, or a tensor of codes into `Groups`.

    Args:
        sensitive_features: dict of name -> tensor / array / list / strings / column; or a frame; or an
            integer tensor (n,) or (n, a), whose columns are `names` in order. NaN, None and -1 are unknown.
        names: names for the columns of a bare tensor.
        vocabulary: known categories.
        ranks: the processes that hold the batch together.

    Raises:
        ShapeError: lengths differ, or a column is not (n,) or (n, k).

    Example:
        >>> groups = read_sensitive_features({"sex": ["F", "M", None]})
        >>> groups.column("sex").codes.tolist(), groups.unknown_counts()
        ([0, 1, -1], {'sex': 1})
    """
    raw = {name: _to_array(name, column) for name, column in _named_columns(sensitive_features, names)}
    lengths = {name: len(column) for name, column in raw.items()}
    if len(set(lengths.values())) > 1:
        raise ShapeError(f"sensitive features must have one entry per sample, but their lengths are {lengths}.")
    return Groups(raw, next(iter(lengths.values()), 0), vocabulary, ranks)


def _named_columns(features: Any, names: Sequence[str]) -> Iterable[tuple[str, Any]]:
    if isinstance(features, Mapping):
        return [(str(name), column) for name, column in features.items()]
    if hasattr(features, "columns"):  # pandas, polars
        return [(str(name), features[name]) for name in features.columns]
    if isinstance(features, torch.Tensor | np.ndarray):
        columns = features.reshape(len(features), -1).T if features.ndim == 2 else features[None]
        if features.ndim not in (1, 2) or len(columns) != len(names):
            raise ShapeError(
                f"the constraints speak of {len(names)} sensitive features {list(names)}, so a bare tensor must "
                f"have shape (n,) for one or (n, {len(names)}), but it has shape {tuple(features.shape)}. "
                "Give one column per name in that order, or a dict of name -> column."
            )
        return list(zip(names, columns, strict=True))
    raise ShapeError(
        f"sensitive_features must be a dict of name -> column, a frame, or a tensor of codes, not "
        f"{type(features).__name__}. For one attribute write sensitive_features={{'name': column}}."
    )


def _to_array(name: str, column: Any) -> Any:
    if isinstance(column, torch.Tensor):
        array = host_array(column)
    elif hasattr(column, "to_numpy"):
        array = np.asarray(column.to_numpy())
    else:
        array = column if isinstance(column, np.ndarray) else _from_sequence(column)
    soft = array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind == "f"
    if array.ndim != 1 and not soft:
        raise ShapeError(
            f"sensitive feature '{name}' must have shape (n,), or (n, k) floats with k >= 2 for soft "
            f"membership, but it has shape {array.shape}. Use column.squeeze(-1) for a single column."
        )
    return array


def _from_sequence(column: Any) -> Any:
    values = list(column)
    if all(isinstance(value, str) or value is None for value in values):
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array
    if any(_is_missing(value) for value in values):
        return np.array([None if _is_missing(value) else value for value in values], dtype=object)
    return np.asarray(values)


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


def _encode_integers(name: str, raw: Any, known: tuple[Category, ...] | None) -> tuple[IntArray, tuple[Category, ...]]:
    if raw.dtype.kind == "b":
        raw = raw.astype(np.int64)
    low, high = (int(raw.min()), int(raw.max())) if len(raw) else (-1, -1)
    if low < -1:
        raise CategoryError(
            f"sensitive feature '{name}' holds the code {low}; codes are 0, 1, 2, ... and -1 means unknown. "
            "Recode the column, or pass it as strings."
        )
    if known is not None and high < len(known) and known == tuple(range(len(known))):
        return raw.astype(np.int64, copy=False), known
    present = _distinct(raw, high)
    categories = _extend(known, present)
    if categories == tuple(range(len(categories))):
        return raw.astype(np.int64, copy=False), categories
    return _look_up_integers(raw, categories), categories


def _distinct(raw: Any, high: int) -> list[int]:
    if high < _DENSE_CODES:
        present = np.flatnonzero(np.bincount(raw.astype(np.int64, copy=False) + 1)) - 1
    else:
        present = np.unique(raw)
    return [code for code in present.tolist() if code >= 0]


def _look_up_integers(raw: Any, categories: tuple[Category, ...]) -> IntArray:
    numbers = {int(c): i for i, c in enumerate(categories) if not isinstance(c, str)}
    keys = np.array(sorted(numbers), dtype=np.int64)
    values = np.array([numbers[int(key)] for key in keys], dtype=np.int64)
    position = np.searchsorted(keys, raw)
    return np.where(raw < 0, -1, values[np.minimum(position, len(keys) - 1)]).astype(np.int64)


def _encode_objects(name: str, raw: Any, known: tuple[Category, ...] | None) -> tuple[IntArray, tuple[Category, ...]]:
    if raw.dtype.kind == "f":
        return _encode_floats(name, raw, known)
    normal = [_normalise(value) for value in raw.tolist()]
    found = {value for value in normal if value is not None}
    categories = _extend(known, sorted(found, key=_order))
    table: dict[Any, int] = {category: code for code, category in enumerate(categories)}
    table[None] = -1
    return np.fromiter((table[value] for value in normal), dtype=np.int64, count=len(normal)), categories


def _encode_floats(name: str, raw: Any, known: tuple[Category, ...] | None) -> tuple[IntArray, tuple[Category, ...]]:
    if _is_continuous(raw):
        raise CategoryError(
            f"sensitive feature '{name}' holds fractional numbers such as {_sample(raw)}, which do not name "
            "groups. Cut it into bands first, or use CovarianceBound for a continuous feature."
        )
    if np.isinf(raw).any():
        raise CategoryError(
            f"sensitive feature '{name}' holds infinity; codes are 0, 1, 2, ..., and NaN means unknown."
        )
    return _encode_integers(name, np.where(np.isnan(raw), -1, raw).astype(np.int64), known)


def _soft_column(name: str, raw: Any, known: tuple[Category, ...] | None) -> Column:
    membership = np.asarray(raw, dtype=np.float64)
    unknown = np.asarray(np.isnan(membership).any(axis=1))
    membership = np.where(unknown[:, None], 0.0, membership)
    off = np.abs(membership.sum(axis=1)[~unknown] - 1.0)
    if bool(np.any(membership < 0)) or (len(off) and off.max() > 1e-4):
        raise CategoryError(
            f"soft membership '{name}' must have non-negative rows that sum to 1, but the rows are off by up to "
            f"{off.max() if len(off) else 0:.3g}. Apply a softmax, or pass codes."
        )
    k = membership.shape[1]
    if known is not None and len(known) != k:
        raise CategoryError(
            f"soft membership '{name}' has {k} columns, but the vocabulary knows {len(known)} categories {known}."
        )
    return Column(name, known or tuple(range(k)), membership=membership)


def _extend(known: tuple[Category, ...] | None, found: Iterable[Category]) -> tuple[Category, ...]:
    old = known or ()
    seen = set(old)
    return old + tuple(category for category in found if category not in seen)


def _order(category: Category) -> tuple[bool, Any]:
    """Numbers before strings."""
    return isinstance(category, str), category


def _raise_unseen(name: str, unseen: Sequence[Category], known: Sequence[Category]) -> None:
    raise CategoryError(
        f"sensitive feature '{name}' holds the categories {list(unseen)}, but only {list(known)} are known. "
        "Map them to a known category or to None (unknown), or call fit_categories(...) on data that has them."
    )


def _normalise(value: Any) -> Category | None:
    if isinstance(value, np.generic):
        value = value.item()
    if _is_missing(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value == -1:
        return None
    return value if isinstance(value, str | int) else str(value)


def _is_missing(value: Any) -> bool:
    return (
        value is None
        or type(value).__name__ in {"NAType", "NaTType"}
        or (isinstance(value, float) and math.isnan(value))
    )


def _is_continuous(raw: Any) -> bool:
    if raw.ndim != 1 or raw.dtype.kind != "f":
        return False
    finite = raw[np.isfinite(raw)]
    return not np.array_equal(finite, np.round(finite))


def _count_unknown(column: Column) -> int:
    if column.codes is not None:
        return int((column.codes < 0).sum())
    assert column.membership is not None
    return int((column.membership.sum(axis=1) == 0).sum())


def _sample(raw: Any) -> str:
    return repr(list(raw[:3].tolist()))
