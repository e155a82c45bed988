"""Cells that do not depend on a batch: every combination of the known categories, and of not knowing.

A feature of k categories has k + 1 slots, the last for "unknown". A cell is one slot of each feature, numbered with
the last feature running fastest, so with a single feature the cell is the category's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from fairlayer._typing import BoolArray, Category, FloatArray, IntArray
from fairlayer.groups import EncodedFeature, Groups, Vocabulary, group_labels, read_sensitive_features

__all__ = ["CellMap"]


@dataclass(frozen=True)
class CellMap:
    """Sensitive features and the categories of each, in the order of their codes.

    Example:
        >>> cells = CellMap(("sex",), (("F", "M"),))
        >>> cells.names, cells.place({"sex": ["M", "F", None]}).tolist()
        (('sex=F', 'sex=M', 'sex unknown'), [1, 0, 2])
    """

    features: tuple[str, ...]
    categories: tuple[tuple[Category, ...], ...]

    @staticmethod
    def of(groups: Groups, features: Sequence[str]) -> CellMap:
        """Build from the features of a batch."""
        return CellMap(tuple(features), tuple(groups.column(name).categories for name in features))

    def __len__(self) -> int:
        return int(np.prod(self._slots, dtype=np.int64))

    @property
    def names(self) -> tuple[str, ...]:
        """One name per cell."""
        slots = [
            (*group_labels(name, known), f"{name} unknown")
            for name, known in zip(self.features, self.categories, strict=True)
        ]
        return tuple(" & ".join(cell) or "everyone" for cell in product(*slots))

    @property
    def slots(self) -> IntArray:
        """The slot of each feature in each cell (cells, features)."""
        index = np.indices(self._slots).reshape(len(self.features), -1).T
        return np.asarray(index, dtype=np.int64).reshape(len(self), len(self.features))

    @property
    def unknown(self) -> BoolArray:
        """Which cells have an unknown feature."""
        return np.asarray((self.slots == np.array(self._slots) - 1).any(axis=1))

    def groups(self, copies: int = 1) -> Groups:
        """Return one sample per cell, `copies` times over, as constraints see samples."""
        unknown = np.array(self._slots) - 1
        codes = np.tile(np.where(self.slots == unknown, -1, self.slots), (copies, 1))
        columns = {name: np.ascontiguousarray(codes[:, j]) for j, name in enumerate(self.features)}
        return Groups.from_codes(columns, self.vocabulary)

    @property
    def vocabulary(self) -> Vocabulary:
        """The categories, to be extended no more."""
        return Vocabulary(dict(zip(self.features, self.categories, strict=True)), open=False)

    def place(self, sensitive_features: Any) -> IntArray | FloatArray:
        """Return the cell of each sample (n,); or, with soft membership, the probability of each cell (n, cells).

        Raises:
            CategoryError: a category that is not known.
            MissingSensitiveFeatureError: a feature is missing.
        """
        return self.place_groups(read_sensitive_features(sensitive_features, self.features, self.vocabulary))

    def place_groups(self, groups: Groups) -> IntArray | FloatArray:
        """Do what `place` does, for features read already."""
        columns = [groups.column(name) for name in self.features]
        if any(column.membership is not None for column in columns):
            return self._probabilities(columns, groups.n)
        cells = np.zeros(groups.n, dtype=np.int64)
        for column, slots in zip(columns, self._slots, strict=True):
            assert column.codes is not None
            cells = cells * slots + np.where(column.codes < 0, slots - 1, column.codes)
        return cells

    def _probabilities(self, columns: Sequence[EncodedFeature], n: int) -> FloatArray:
        cells = np.ones((n, 1))
        for column, slots in zip(columns, self._slots, strict=True):
            if column.membership is None:
                assert column.codes is not None
                member = np.eye(slots)[column.codes]  # -1 is the last slot: unknown
            else:
                member = np.column_stack([column.membership, column.membership.sum(axis=1) == 0])
            cells = (cells[:, :, None] * member[:, None, :]).reshape(n, -1)
        return cells

    @property
    def _slots(self) -> tuple[int, ...]:
        return tuple(len(known) + 1 for known in self.categories)
