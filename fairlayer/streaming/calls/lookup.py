"""Sensitive features of a small batch -> cells that the stream has met, past the general reading of groups."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlayer._typing import IntArray
from fairlayer.fused.book import AT_COLUMN, AT_JOINT, AT_TABLE, COLUMNS, OF_FEATURES, OF_TABLE, PER_COLUMN, STRIDE
from fairlayer.groups import Vocabulary

__all__ = ["CellLookup"]

_LARGEST_CODE, _LARGEST_TABLE = 1024, 65536
_INT64 = torch.int64
_ROOM = 4096  # samples whose cells can be handed to a compiled call


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

        self._edge, self._room = self._addresses(), np.zeros(_ROOM, dtype=np.int64)
        self._slots = None if self._edge is None else self._places_of_columns(self._edge)
        self._by_cell = np.array([0, 0, address(self._room)])

    def edge(self, features: Any, n: int) -> int | None:
        """Return the address at which a compiled call finds the categories of n samples; None as for `one`.

        Columns of whole numbers in tensors are read in place, and so must live as long as the call; of all others the
        cells are looked up here. What is returned is good until the next call.
        """
        if type(features) is not dict:
            return None
        if self._slots is not None:
            columns, slots, at = self._slots
            for name, slot in slots:
                column = features.get(name)
                if (
                    type(column) is not Tensor
                    or column.dtype is not _INT64
                    or column.ndim != 1
                    or column.numel() != n
                    or not (column.is_cpu and column.is_contiguous())
                ):
                    break
                columns[slot] = column.data_ptr()
            else:
                return at
        if n == 1:
            cell = self.one(features)
            if cell is None:
                return None
            self._room[0] = cell
            return address(self._by_cell)
        cells = self.many(features, n) if n <= _ROOM else None
        if cells is None:
            return None
        self._room[:n] = cells
        return address(self._by_cell)

    def _places_of_columns(self, edge: IntArray) -> tuple[memoryview, tuple[tuple[str, int], ...], int]:
        """Return the numbers of an edge to write to, the feature and place of each column, and the edge's address."""
        slots = [(name, COLUMNS + PER_COLUMN * place + AT_COLUMN) for place, name in enumerate(self._features)]
        return edge.data, tuple(slots), address(edge)

    def _addresses(self) -> IntArray | None:
        """Return the addresses of the tables, with room for those of columns; None where some feature has none."""
        tables = [table for table in self._tables if table is not None]
        if self._strides is None or self._joint is None or len(tables) < len(self._tables):
            return None
        edge = np.zeros(COLUMNS + PER_COLUMN * len(self._features), dtype=np.int64)
        edge[OF_FEATURES], edge[AT_JOINT] = len(self._features), address(self._joint)
        for place, (table, stride) in enumerate(zip(tables, self._strides, strict=True)):
            at = COLUMNS + PER_COLUMN * place
            edge[at + AT_TABLE], edge[at + OF_TABLE], edge[at + STRIDE] = address(table), len(table), stride
        return edge

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


def address(array: np.ndarray[Any, Any] | None) -> int:
    """Return where the numbers of an array begin."""
    assert array is not None
    found: int = array.__array_interface__["data"][0]
    return found


def _read(column: Any, n: int, codes: Mapping[Any, int], table: IntArray | None) -> IntArray:
    """Return the code of each category, a code past the last for an unknown number; raise for anything but a column."""
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
