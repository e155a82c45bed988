"""One sensitive feature of one batch, as codes or as memberships."""

from __future__ import annotations

from typing import NamedTuple

from fairlayer._typing import Category, FloatArray, IntArray
from fairlayer.groups.naming import group_labels

__all__ = ["EncodedFeature"]


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
