"""The sensitive features of one batch, each encoded when it is first asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.collective import Ranks
from fairlayer.errors import CategoryError, MissingSensitiveFeatureError
from fairlayer.groups.categories import raise_unseen
from fairlayer.groups.encoding import EncodedFeature, encode
from fairlayer.groups.reading import read_columns
from fairlayer.groups.vocabulary import Vocabulary

__all__ = ["Groups", "read_sensitive_features"]


class Groups:
    """The sensitive features of one batch; columns are read and encoded when a constraint first asks.

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
        self._columns: dict[str, EncodedFeature] = {}

    @staticmethod
    def from_codes(codes: Mapping[str, IntArray], vocabulary: Vocabulary) -> Groups:
        """Build groups from codes that follow the vocabulary (-1 unknown)."""
        groups = Groups(codes, len(next(iter(codes.values()), ())), vocabulary)
        for name, column in codes.items():
            groups._columns[name] = EncodedFeature(name, vocabulary.categories[name], codes=column)
        return groups

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features given."""
        return tuple(self.raw)

    def column(self, name: str) -> EncodedFeature:
        """Return one feature as groups.

        Raises:
            MissingSensitiveFeatureError: no such feature was given.
            CategoryError: it does not name groups, or holds a category that a closed vocabulary does not know.
            ShapeError: it is not a column of n samples.
        """
        column = self._columns.get(name)
        if column is None:
            column = self._columns[name] = self._encode(name)
        return column

    def values(self, name: str) -> FloatArray:
        """Return one feature as numbers (NaN where unknown)."""
        raw = self._require(name)
        try:
            return np.asarray(raw, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise CategoryError(
                f"sensitive feature '{name}' is needed as numbers, but holds {list(raw[:3].tolist())!r}. "
                "Give a numeric column, or use a constraint that compares groups."
            ) from error

    def unknown_counts(self) -> dict[str, int]:
        """Return how many samples have an unknown category, for each feature that was read as groups."""
        return {name: column.unknown for name, column in self._columns.items()}

    def _require(self, name: str) -> Any:
        try:
            return self.raw[name]
        except KeyError:
            given = ", ".join(repr(n) for n in self.raw) or "none"
            raise MissingSensitiveFeatureError(
                f"a constraint needs the sensitive feature '{name}', but the features given are: {given}. "
                f"Pass sensitive_features={{'{name}': ...}} with one entry per sample."
            ) from None

    def _encode(self, name: str) -> EncodedFeature:
        if self.ranks is not None and (self.vocabulary.open or name not in self.vocabulary.categories):
            before, raw = self.vocabulary, self._require(name)
            here = encode(name, raw, before.categories.get(name), signs="accept").categories
            self.vocabulary = before.united(name, self.ranks.objects(here, f"categories of {name}"))
        known = self.vocabulary.categories.get(name)
        column = encode(name, self._require(name), known)
        if column.codes is not None and (known is None or len(column.categories) > len(known)):
            if known is not None and not self.vocabulary.open:
                raise_unseen(name, column.categories[len(known) :], known)
            self.vocabulary = self.vocabulary.with_categories(name, column.categories)
        return column


def read_sensitive_features(
    sensitive_features: Any,
    names: Sequence[str] = (),
    vocabulary: Vocabulary | None = None,
    ranks: Ranks | None = None,
    n: int | None = None,
) -> Groups:
    """Read a dict of columns, a frame, a single column, or a tensor of codes into `Groups`.

    A column is a list or tuple, a NumPy array, a tensor on any device, a series, index or categorical of pandas, a
    series of polars, or an array of pyarrow. It holds text, whole numbers, bools, or a mixture. It may also be an (n,
    k) array of floats, k >= 2, whose rows are the probability of each group. A frame is one of pandas or polars, a
    table or record batch of pyarrow, or a relation of DuckDB. Only the columns asked for are read.

    Unknown are None, NaN, `pandas.NA`, NaT, masked entries, and the code -1. Two things are refused as ambiguous where
    the vocabulary does not say what is meant. One is the texts "", "nan", "NaN", "None", "<NA>" and "NaT": a group, or
    a missing value? The other is a column whose only codes are -1 and 1: two groups, or one group and unknown samples?
    `fit_categories` always refuses such a column, and a batch does where it has 32 samples and either code makes up 3
    of 10. In a smaller batch -1 is unknown, and a constraint that is left with one group says so.

    Args:
        sensitive_features: dict of name -> column; or a frame; or, for one name, its column alone; or an array or
            tensor (n, a), whose columns are `names` in order.
        names: the features to read; where nothing names them, all that are given.
        vocabulary: known categories.
        ranks: the processes that hold the batch together.
        n: number of samples, where it is known already.

    Raises:
        ShapeError: it is not a column or frame, or lengths differ.

    Example:
        >>> groups = read_sensitive_features({"sex": ["F", "M", None]})
        >>> groups.column("sex").codes.tolist(), groups.unknown_counts()
        ([0, 1, -1], {'sex': 1})
    """
    raw = read_columns(sensitive_features, names, n)
    return Groups(raw, raw.n if n is None else n, vocabulary, ranks)
