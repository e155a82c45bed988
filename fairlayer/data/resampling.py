"""Rows drawn again until every group has every label equally often; the drawing is imbalanced-learn's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fairlayer.data.cells import as_column, fractional, named_arrays, read_groups_and_labels
from fairlayer.data.errors import ColumnError, listed, near
from fairlayer.errors import require

__all__ = ["Resampled", "balanced_resampling"]

_REPEATING = {"random_over": "RandomOverSampler", "random_under": "RandomUnderSampler"}
_MIXING = ("smote", "smote_enn", "smote_tomek")
_METHODS = (*_REPEATING, *_MIXING)


class Resampled(NamedTuple):
    """Features (of the type given), labels (m,) and sensitive features of the m rows after resampling.

    Example:
        >>> x, y, sex = torch.arange(4.0)[:, None], [1, 0, 0, 1], {"sex": ["F", "F", "F", "M"]}
        >>> rows = balanced_resampling(x, y, sensitive_features=sex, method="random_under")
        >>> rows.x.shape, rows.y.shape
        (torch.Size([3, 1]), (3,))
    """

    x: Any
    y: NDArray[Any]
    sensitive_features: dict[str, NDArray[Any]]


def balanced_resampling(
    x: Any,
    y: Any,
    *,
    sensitive_features: Any,
    method: str = "random_over",
    categorical: Sequence[int | str] = (),
    seed: int = 0,
) -> Resampled:
    """Return rows in which each combination of groups and label occurs equally often, or nearly so.

    "random_over" repeats rows up to the largest combination. "random_under" drops rows down to the smallest. "smote"
    makes new rows between near rows of the same combination; "smote_enn" then drops rows whose neighbours are mostly of
    another combination, and "smote_tomek" pairs of nearest rows of two combinations. Both leave the counts nearly
    equal.

    All of them make the label rate the same in each group, so scores learnt on the result are not probabilities of the
    population. Resample training rows only.

    Args:
        x: features (n, d): tensor, array, or frame; all numbers for the three that make rows, but those `categorical`.
        y: labels (n,), of a few classes.
        sensitive_features: dict or frame of columns (n,), whose intersections are balanced; unknown is a group of its
            own.
        method: "random_over", "random_under", "smote", "smote_enn" or "smote_tomek".
        categorical: columns of codes or names, by number or (of a frame) by name: a new row takes the value that is
            most common among its neighbours, and no fraction of a code (SMOTENC). One-hot columns are to be one such
            column.
        seed: the same seed gives the same rows.

    Raises:
        MissingExtraError: imbalanced-learn is not installed.
        ColumnError: an unknown method, lengths that differ, features that are not numbers ("smote"), or a combination
            with fewer rows than "smote" needs neighbours.

    Source: Chawla et al. (2002) for SMOTE and SMOTENC; Batista, Prati, Monard (2004) for the two hybrids;
        Kamiran, Calders (2012) for sampling by group and label.

    Example:
        >>> x, y, sex = torch.arange(4.0)[:, None], [1, 0, 0, 1], {"sex": ["F", "F", "F", "M"]}
        >>> rows = balanced_resampling(x, y, sensitive_features=sex, method="random_under")
        >>> sorted(zip(rows.sensitive_features["sex"].tolist(), rows.y.tolist()))
        [('F', 0), ('F', 1), ('M', 1)]
    """
    if method not in _METHODS:
        raise ColumnError(
            f"method={method!r} was asked for{near(method, _METHODS)} The methods are {', '.join(map(repr, _METHODS))}."
        )
    features, labels = named_arrays(sensitive_features), as_column("y", y)
    cell = read_groups_and_labels(features, labels, "balanced_resampling").both
    if len(x) != len(cell):
        raise ColumnError(f"balanced_resampling was given {len(x)} rows of features and {len(cell)} labels.")
    if len(np.unique(cell)) == 1:  # nothing to balance
        return Resampled(x, labels, features)
    if method in _REPEATING:
        drawn, rows = _drawn_rows(x, cell, _REPEATING[method], seed)
    else:
        drawn, rows = _mixed(x, cell, method, _positions(x, categorical), seed)
    return Resampled(drawn, labels[rows], {name: column[rows] for name, column in features.items()})


def _drawn_rows(x: Any, cell: NDArray[np.int64], sampler: str, seed: int) -> tuple[Any, NDArray[np.int64]]:
    samplers = require("imblearn.over_sampling" if "Over" in sampler else "imblearn.under_sampling", "methods")
    drawing = getattr(samplers, sampler)(random_state=seed)
    drawing.fit_resample(np.arange(len(cell))[:, None], cell)
    rows = np.asarray(drawing.sample_indices_)
    return _take(x, rows), rows


def _mixed(
    x: Any, cell: NDArray[np.int64], method: str, categorical: list[int], seed: int
) -> tuple[Any, NDArray[np.int64]]:
    """Return new rows, and for each a row of the same cell, which lends it label and groups."""
    over = require("imblearn.over_sampling", "methods")
    smote = over.SMOTENC(categorical, random_state=seed) if categorical else over.SMOTE(random_state=seed)
    table = _objects(x, categorical) if categorical else _numbers(x)
    try:
        drawn, cells = smote.fit_resample(table, cell)
    except ValueError as error:
        raise ColumnError(
            f"SMOTE could not draw: {error} Combinations of groups and label have {np.bincount(cell).tolist()} rows. "
            'Merge small groups, or use method="random_over".'
        ) from error
    if method != "smote":
        kept = _kept(_one_hot(drawn, categorical), cells, method)
        drawn, cells = drawn[kept], cells[kept]
    _, first = np.unique(cell, return_index=True)
    return _like(drawn, x), first[cells]


def _kept(table: NDArray[np.float64], cells: NDArray[np.int64], method: str) -> NDArray[np.int64]:
    """Return the rows that the second step of a hybrid leaves."""
    under = require("imblearn.under_sampling", "methods")
    kind = under.EditedNearestNeighbours if method == "smote_enn" else under.TomekLinks
    cleaning = kind(sampling_strategy="all")
    cleaning.fit_resample(table, cells)
    return np.asarray(cleaning.sample_indices_)


def _one_hot(table: NDArray[Any], categorical: list[int]) -> NDArray[np.float64]:
    """Return numbers as they are, and for each categorical column one column of 0 and 1 per value."""
    if not categorical:
        return np.asarray(table, dtype=np.float64)
    others = [j for j in range(table.shape[1]) if j not in categorical]
    codes = [np.unique(table[:, j].astype(str), return_inverse=True)[1] for j in categorical]
    return np.hstack([table[:, others].astype(np.float64), *(np.eye(code.max() + 1)[code] for code in codes)])


def _positions(x: Any, categorical: Sequence[int | str]) -> list[int]:
    names = list(x.columns) if hasattr(x, "columns") else list(range(np.shape(x)[1] if np.ndim(x) > 1 else 0))
    unknown = [name for name in categorical if name not in names]
    if unknown:
        raise ColumnError(
            f"categorical={list(categorical)} was given, but the features have no columns {unknown}. They have: "
            f"{listed(names)}."
        )
    return [names.index(name) for name in categorical]


def _objects(x: Any, categorical: list[int]) -> NDArray[np.object_]:
    """Return the columns side by side, numbers checked to be such."""
    values = x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x, dtype=object)
    table = values.astype(object)
    others = [j for j in range(table.shape[1]) if j not in categorical]
    table[:, others] = _numbers(table[:, others])
    return table


def _numbers(x: Any) -> NDArray[np.float64]:
    try:
        return np.asarray(x.detach().cpu() if isinstance(x, torch.Tensor) else x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ColumnError(
            f'method="smote" mixes rows, so features must be numbers, but are not ({error}). Name those that are '
            'none (categorical=), or use method="random_over".'
        ) from error


def _take(x: Any, rows: NDArray[np.int64]) -> Any:
    if isinstance(x, torch.Tensor):
        return x[torch.as_tensor(rows, device=x.device)]
    return x.iloc[rows].reset_index(drop=True) if hasattr(x, "iloc") else np.asarray(x)[rows]


def _like(values: NDArray[Any], x: Any) -> Any:
    if isinstance(x, torch.Tensor):
        return torch.as_tensor(values.astype(np.float64), dtype=fractional(x.dtype), device=x.device)
    mixed = values.dtype.kind == "O"
    if hasattr(x, "columns"):
        frame = type(x)(values, columns=x.columns)
        return frame.infer_objects() if mixed else frame
    kind = np.asarray(x).dtype
    return values if kind.kind == "O" else values.astype(fractional(kind))
