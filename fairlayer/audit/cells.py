"""Sensitive features and strata -> the cell of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairlayer._typing import Category, FloatArray, IntArray
from fairlayer.errors import ParameterError, ShapeError
from fairlayer.groups import EncodedFeature, Vocabulary, read_sensitive_features

__all__ = ["CellMembership", "distinct", "read_cells", "united"]


@dataclass(frozen=True)
class CellMembership:
    """Which rows belong to which combination of categories.

    Args:
        features: names of the sensitive features.
        strata: names of the columns within which groups may be compared.
        categories: the categories of each of them, features first.
        codes: (cells, columns) the categories of each cell, -1 for an unknown one.
        cell: (m,) the cell of each entry.
        row: (m,) the row that the entry belongs to; a row has several where its group is given as probabilities.
        share: (m,) how much of the row belongs there.
        estimated: the features that were given as probabilities.
        n: the number of rows read.
    """

    features: tuple[str, ...]
    strata: tuple[str, ...]
    categories: tuple[tuple[Category, ...], ...]
    codes: IntArray
    cell: IntArray
    row: IntArray
    share: FloatArray
    estimated: tuple[str, ...]
    n: int


def read_cells(sensitive_features: Any, strata: Any = None, vocabulary: Vocabulary | None = None) -> CellMembership:
    """Read the groups of a table.

    Raises:
        ParameterError: there is no sensitive feature, or a column is given twice.
        ShapeError: the lengths differ.
    """
    groups = read_sensitive_features(sensitive_features, (), vocabulary)
    columns = [groups.column(name) for name in groups.names]
    if not columns:
        raise ParameterError("an audit compares groups: give sensitive_features={'name': column}.")
    n, within = groups.n, _strata(strata, groups.n, groups.names)
    everything = [*columns, *within]
    row, codes, share = _entries(everything, n)
    cells, cell = distinct(codes, [len(column.categories) for column in everything])
    return CellMembership(
        groups.names,
        tuple(column.name for column in within),
        tuple(column.categories for column in everything),
        cells,
        cell,
        row,
        share,
        tuple(column.name for column in everything if column.membership is not None),
        n,
    )


def distinct(codes: IntArray, sizes: Sequence[int]) -> tuple[IntArray, IntArray]:
    """Return the distinct rows of codes (-1 to size - 1) in order, and which of them each row is."""
    if np.prod([float(size + 1) for size in sizes]) < 2.0**62:
        key = np.zeros(len(codes), dtype=np.int64)
        for code, size in zip(codes.T, sizes, strict=True):
            key = key * (size + 1) + code + 1
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        return codes[first], inverse.reshape(-1)
    cells, inverse = np.unique(codes, axis=0, return_inverse=True)
    return cells, inverse.reshape(-1)


def united(mine: tuple[Category, ...], theirs: tuple[Category, ...]) -> tuple[tuple[Category, ...], IntArray]:
    """Return the categories of both, mine first, and the new code of each of theirs (the last entry is -1's).

    Example:
        >>> united(("F", "M"), ("M", "X"))
        (('F', 'M', 'X'), array([ 1,  2, -1]))
    """
    both = mine + tuple(category for category in theirs if category not in mine)
    return both, np.array([*(both.index(category) for category in theirs), -1], dtype=np.int64)


def _strata(strata: Any, n: int, features: tuple[str, ...]) -> list[EncodedFeature]:
    if strata is None:
        return []
    groups = read_sensitive_features(strata)
    twice = [name for name in groups.names if name in features]
    if twice:
        raise ParameterError(f"{twice} are sensitive features and strata at once; a column can be one of the two.")
    if groups.n != n:
        raise ShapeError(f"strata must have one entry per row, {n}, but have {groups.n}.")
    return [groups.column(name) for name in groups.names]


def _entries(columns: Sequence[EncodedFeature], n: int) -> tuple[IntArray, IntArray, FloatArray]:
    """Return (row, codes, share) of each entry; a row of known groups is one entry with a share of 1."""
    row, share = np.arange(n), np.ones(n)
    codes = np.empty((n, 0), dtype=np.int64)
    for column in columns:
        if column.codes is not None:
            codes = np.column_stack([codes, column.codes[row]])
            continue
        assert column.membership is not None
        member = column.membership[row]
        member = np.column_stack([member, member.sum(axis=1) == 0])  # the last column: unknown
        entry, category = np.nonzero(member)
        share = share[entry] * member[entry, category]
        category = np.where(category == member.shape[1] - 1, -1, category)
        row, codes = row[entry], np.column_stack([codes[entry], category])
    return row, codes, share
