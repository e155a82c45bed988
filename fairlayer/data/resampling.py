"""Rows drawn again until every group has every label equally often; the drawing is imbalanced-learn's."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fairlayer.data.cells import as_column, fractional, named_arrays, read_groups_and_labels
from fairlayer.data.errors import ColumnError
from fairlayer.errors import require

__all__ = ["Resampled", "balanced_resampling"]

_METHODS = {"random_over": "RandomOverSampler", "random_under": "RandomUnderSampler", "smote": "SMOTE"}


class Resampled(NamedTuple):
    """Features (of the type given), labels (m,) and sensitive features of the m rows after resampling."""

    x: Any
    y: NDArray[Any]
    sensitive_features: dict[str, NDArray[Any]]


def balanced_resampling(
    x: Any, y: Any, *, sensitive_features: Any, method: str = "random_over", seed: int = 0
) -> Resampled:
    """Return rows in which each combination of groups and label occurs equally often.

    "random_over" repeats rows up to the largest combination, "random_under" drops rows down to the smallest, "smote"
    makes new rows between near rows of the same combination. All change the label rate, to the same in each group, so
    scores learnt on the result are no probabilities of the population; resample training rows only.

    Args:
        x: features (n, d): tensor, array, or frame; all numbers for "smote".
        y: labels (n,), of a few classes.
        sensitive_features: dict or frame of columns (n,), whose intersections are balanced; unknown is a group of its
            own.
        method: "random_over", "random_under" or "smote".
        seed: the same seed gives the same rows.

    Raises:
        MissingExtraError: imbalanced-learn is not installed.
        ColumnError: an unknown method, lengths that differ, features that are no numbers ("smote"), or a combination
            with fewer rows than "smote" needs neighbours.

    Source: Chawla et al. (2002) for SMOTE; Kamiran, Calders (2012) for sampling by group and label.

    Example:
        >>> x, y, sex = torch.arange(4.0)[:, None], [1, 0, 0, 1], {"sex": ["F", "F", "F", "M"]}
        >>> rows = balanced_resampling(x, y, sensitive_features=sex, method="random_under")
        >>> sorted(zip(rows.sensitive_features["sex"].tolist(), rows.y.tolist()))
        [('F', 0), ('F', 1), ('M', 1)]
    """
    if method not in _METHODS:
        raise ColumnError(f"method={method!r} was asked for; the methods are {', '.join(map(repr, _METHODS))}.")
    features, labels = named_arrays(sensitive_features), as_column("y", y)
    cell = read_groups_and_labels(features, labels, "balanced_resampling").both
    if len(x) != len(cell):
        raise ColumnError(f"balanced_resampling was given {len(x)} rows of features and {len(cell)} labels.")
    if len(np.unique(cell)) == 1:  # nothing to balance
        return Resampled(x, labels, features)
    draw = _smote if method == "smote" else _drawn_rows
    drawn, rows = draw(x, cell, _METHODS[method], seed)
    return Resampled(drawn, labels[rows], {name: column[rows] for name, column in features.items()})


def _drawn_rows(x: Any, cell: NDArray[np.int64], sampler: str, seed: int) -> tuple[Any, NDArray[np.int64]]:
    samplers = require("imblearn.over_sampling" if "Over" in sampler else "imblearn.under_sampling", "methods")
    drawing = getattr(samplers, sampler)(random_state=seed)
    drawing.fit_resample(np.arange(len(cell))[:, None], cell)
    rows = np.asarray(drawing.sample_indices_)
    return _take(x, rows), rows


def _smote(x: Any, cell: NDArray[np.int64], sampler: str, seed: int) -> tuple[Any, NDArray[np.int64]]:
    """New rows, and for each a row of the same cell, which lends it label and groups."""
    samplers = require("imblearn.over_sampling", "methods")
    try:
        drawn, cells = samplers.SMOTE(random_state=seed).fit_resample(_numbers(x), cell)
    except ValueError as error:
        raise ColumnError(
            f"SMOTE could not draw: {error} Combinations of groups and label have {np.bincount(cell).tolist()} rows. "
            'Merge small groups, or use method="random_over".'
        ) from error
    _, first = np.unique(cell, return_index=True)
    return _like(drawn, x), first[cells]


def _numbers(x: Any) -> NDArray[np.float64]:
    try:
        return np.asarray(x.detach().cpu() if isinstance(x, torch.Tensor) else x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ColumnError(
            f'method="smote" mixes rows, so features must be numbers, but are not ({error}). Encode them first '
            '(fairlayer.data.Encoder), or use method="random_over".'
        ) from error


def _take(x: Any, rows: NDArray[np.int64]) -> Any:
    if isinstance(x, torch.Tensor):
        return x[torch.as_tensor(rows, device=x.device)]
    return x.iloc[rows].reset_index(drop=True) if hasattr(x, "iloc") else np.asarray(x)[rows]


def _like(values: NDArray[np.float64], x: Any) -> Any:
    if isinstance(x, torch.Tensor):
        return torch.as_tensor(values, dtype=fractional(x.dtype), device=x.device)
    return (
        type(x)(values, columns=x.columns) if hasattr(x, "columns") else values.astype(fractional(np.asarray(x).dtype))
    )
