"""Sensitive features of a small batch -> cells that the stream has met, past the general reading of groups."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from fairlayer._typing import IntArray
from fairlayer.groups import Vocabulary

__all__ = ["CellLookup"]

_LARGEST_CODE, _LARGEST_TABLE = 1024, 65536


class CellLookup:
    """Tables from categories to cells.

    Args:
        features: sensitive features that make the cells, in order.
        vocabulary: their categories.
        cells: the codes of each cell; one with a missing category cannot be looked up.
    """

    def __init__(self, features: Sequence[str], vocabulary: Vocabulary, cells: Sequence[tuple[int, ...]]) -> None:
        self.vocabulary, self.size = vocabulary, len(cells)
        self._features = tuple(features)
        words = [tuple(vocabulary.categories.get(name, ())) for name in features]
        self._codes = [{category: code for code, category in enumerate(table)} for table in words]
        self._tables = [_by_number(table) for table in words]
        self._strides = _strides([len(table) + 1 for table in words])
        complete = {codes: cell for cell, codes in enumerate(cells) if codes and min(codes) >= 0}
        self._joint: IntArray | None = None
        if self._strides is not None:
            self._joint = np.full(math.prod(len(table) + 1 for table in words), len(cells))
            for codes, cell in complete.items():
                self._joint[np.dot(codes, self._strides)] = cell
        single = len(words) == 1 and self._joint is not None and self._tables[0] is not None
        self._direct = self._joint[self._tables[0]] if single else None  # type: ignore[index]
        self._cell_of = {
            (words[0][codes[0]] if len(words) == 1 else tuple(w[c] for w, c in zip(words, codes, strict=True))): cell
            for codes, cell in complete.items()
        }

    def one(self, features: Any) -> int | None:
        """Return the cell of one sample, None where it is not to be had here."""
        if type(features) is not dict:
            return None
        values = []
        for name in self._features:
            column = features.get(name)
            if isinstance(column, Tensor | np.ndarray) and column.ndim == 1:
                column = column.tolist()
            if not isinstance(column, list | tuple) or len(column) != 1:
                return None
            values.append(column[0])
        try:
            return self._cell_of.get(values[0] if len(values) == 1 else tuple(values))
        except (TypeError, IndexError):  # no category at all, or no features
            return None

    def many(self, features: Any, n: int) -> IntArray | None:
        """Return the cell of each of n samples, one past the last where it has never been met; None as for `one`."""
        if type(features) is not dict or self._strides is None or self._joint is None:
            return None
        try:
            if self._direct is not None:  # one feature: its table leads to the cells
                return _read(features[self._features[0]], n, self._cell_of, self._direct)
            joint: Any = 0
            for name, stride, codes, table in zip(
                self._features, self._strides, self._codes, self._tables, strict=True
            ):
                joint = joint + stride * _read(features.get(name), n, codes, table)
        except (KeyError, TypeError, IndexError, ValueError, RuntimeError):  # a category never met, or no plain column
            return None
        cells: IntArray = self._joint[joint]
        return cells


def _read(column: Any, n: int, codes: Mapping[Any, int], table: IntArray | None) -> IntArray:
    """Return the code of each category, a code past the last for an unknown number; raise where that is no column."""
    if isinstance(column, Tensor):
        column = column.numpy()  # raises where it is not on the host
    if isinstance(column, np.ndarray):
        if column.shape != (n,):
            raise ValueError
        if table is not None and column.dtype.kind in "iu":
            found: IntArray = table[column]
            return found
        column = column.tolist()
    if not isinstance(column, list | tuple) or len(column) != n:
        raise ValueError
    return np.array([codes[category] for category in column])


def _by_number(categories: Sequence[Any]) -> IntArray | None:
    """Return a table from whole numbers to codes; a number below zero reaches its end, which is unknown."""
    if not all(type(category) is int and 0 <= category < _LARGEST_CODE for category in categories):
        return None
    table = np.full(2 * (max(categories, default=0) + 1), len(categories))
    for code, category in enumerate(categories):
        table[category] = code
    return table


def _strides(sizes: Sequence[int]) -> tuple[int, ...] | None:
    if not sizes or math.prod(sizes) > _LARGEST_TABLE:
        return None
    return tuple(math.prod(sizes[j + 1 :]) for j in range(len(sizes)))
