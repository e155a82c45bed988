"""Augmentation: each row once with every value of a sensitive column, all else equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fairlayer.data.columns import MOST_NUMBERED_GROUPS, column_of
from fairlayer.data.errors import ColumnError

__all__ = ["Counterfactuals", "counterfactual_flip"]


class Counterfactuals(NamedTuple):
    """Augmented features, and for each row the row that it was made of (the first n are the originals).

    Example:
        >>> x = torch.tensor([[0.0, 5.0], [1.0, 6.0]])
        >>> found = counterfactual_flip(x, 0)
        >>> found.x[2].tolist(), found.rows[2].item()
        ([1.0, 5.0], 0)
    """

    x: Any
    rows: NDArray[np.int64]


def counterfactual_flip(x: Any, column: int | str | Sequence[int] | Sequence[str]) -> Counterfactuals:
    """Return the rows, followed by a copy of each for every other value of a sensitive column.

    A binary column gives one flipped copy, one of k values (or a one-hot block of k columns) k - 1 copies, so that
    each row occurs once with every value. Labels keep: `y[result.rows]`. Rows of unknown value (NaN, None, a one-hot
    row of zeros) get no copy.

    Args:
        x: features: a tensor or array (n, d), or a frame.
        column: a column of a few distinct values, by index (tensor, array) or name (frame); or the columns of a
            one-hot block.

    Raises:
        ColumnError: no such column, a column with one value only or more than could be groups, or a block that is not
            one-hot.

    Source: the augmentation of Kusner et al. (2017), "Counterfactual fairness", without a causal model.
    Limits: it flips the column alone. Features that follow from it (a proxy) stay as they are, so a copy is a
        counterfactual only where nothing follows.

    Example:
        >>> x = torch.tensor([[0.0, 5.0], [1.0, 6.0]])
        >>> result = counterfactual_flip(x, 0)
        >>> result.x.tolist(), result.rows.tolist()
        ([[0.0, 5.0], [1.0, 6.0], [1.0, 5.0], [0.0, 6.0]], [0, 1, 0, 1])
    """
    if isinstance(column, int | str | np.integer):
        return _of_column(x, column)
    return _of_block(x, list(column))


def _of_column(x: Any, column: Any) -> Counterfactuals:
    values = _read(x, column)
    known = np.flatnonzero(_known(x, column, values))
    categories, codes = np.unique(values[known], return_inverse=True)
    k = len(categories)
    if not 2 <= k <= MOST_NUMBERED_GROUPS:
        raise ColumnError(
            f"column {column!r} has {k} distinct values; a flip needs 2 to {MOST_NUMBERED_GROUPS}. "
            "Name another column, or cut amounts into bands first."
        )
    rows = np.concatenate([np.arange(len(x)), *[known] * (k - 1)])
    augmented = _copy(x, rows)
    shifted = [categories[(codes + shift) % k] for shift in range(1, k)]
    _write(augmented, column, np.concatenate([values, *shifted]))
    return Counterfactuals(augmented, rows)


def _of_block(x: Any, columns: list[Any]) -> Counterfactuals:
    block = np.stack([_read(x, column) for column in columns], axis=1) if columns else np.zeros((len(x), 0))
    k = len(columns)
    if k < 2 or not np.isin(block, (0, 1)).all() or (block.sum(axis=1) > 1).any():
        raise ColumnError(
            f"columns {columns} must be a one-hot block: two or more columns of 0 and 1, with at most one 1 per row."
        )
    known = np.flatnonzero(block.sum(axis=1))
    rows = np.concatenate([np.arange(len(x)), *[known] * (k - 1)])
    rolled = np.concatenate([block, *(np.roll(block[known], shift, axis=1) for shift in range(1, k))])
    augmented = _copy(x, rows)
    for j, column in enumerate(columns):
        _write(augmented, column, rolled[:, j])
    return Counterfactuals(augmented, rows)


def _known(x: Any, column: Any, values: NDArray[Any]) -> Any:
    if hasattr(x, "columns"):
        return x[column].notna().to_numpy()
    return [value is not None and value == value for value in values.tolist()]  # noqa: PLR0124 - NaN


def _read(x: Any, column: Any) -> NDArray[Any]:
    if hasattr(x, "columns"):
        return np.asarray(column_of(x, column, "sensitive").to_numpy())
    shape = tuple(getattr(x, "shape", ()))
    if len(shape) != 2 or not isinstance(column, int | np.integer) or not -shape[1] <= column < shape[1]:
        raise ColumnError(
            f"column {column!r} was asked for, but the features are {type(x).__name__} of shape {shape}. Give a tensor "
            "or an array (n, d) with an index, or a frame with a name."
        )
    return np.asarray(x[:, column].detach().cpu() if isinstance(x, torch.Tensor) else x[:, column])


def _copy(x: Any, rows: NDArray[np.int64]) -> Any:
    if isinstance(x, torch.Tensor):
        return x[torch.as_tensor(rows, device=x.device)]
    return x.iloc[rows].reset_index(drop=True) if hasattr(x, "columns") else x[rows]


def _write(x: Any, column: Any, values: NDArray[Any]) -> None:
    if hasattr(x, "columns"):
        x[column] = type(x[column])(values, dtype=x[column].dtype)
    else:
        x[:, column] = torch.as_tensor(values, dtype=x.dtype) if isinstance(x, torch.Tensor) else values
