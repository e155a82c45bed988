"""Features without linear correlation with the sensitive columns; the arithmetic is Fairlearn's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fairlayer.data.cells import fractional
from fairlayer.data.columns import column_of
from fairlayer.data.errors import ColumnError
from fairlayer.errors import require

__all__ = ["remove_correlation"]


def remove_correlation(
    x: Any, *others: Any, columns: int | str | Sequence[int] | Sequence[str], strength: float = 1.0
) -> tuple[Any, ...]:
    """Return the other features of x, and of further tables, less what the sensitive columns predict linearly.

        z - strength * (s - mean(s)) W      W: least squares of z on s, learnt from x alone

    Args:
        x: training rows, (n, d) numbers: tensor, array, or frame.
        others: validation and test rows, with the same columns.
        columns: the sensitive ones (or one), by index or name; they are left out of the result. Encode categories
            first.
        strength: share of the correlation to remove, in [0, 1].

    Raises:
        MissingExtraError: Fairlearn is not installed.
        ColumnError: no such column, none or all of them, or a strength outside [0, 1].

    Source: Fairlearn, `fairlearn.preprocessing.CorrelationRemover`.
    Limits: it removes linear dependence of single features on the training rows. A model can recover the group by
        dependence of any other kind.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [1.0, 3.0], [0.0, 2.0], [1.0, 4.0]])
        >>> remove_correlation(x, columns=[0])[0].tolist()
        [[2.0], [2.0], [3.0], [3.0]]
    """
    if not 0.0 <= strength <= 1.0:
        raise ColumnError(f"strength={strength!r} was asked for; it must lie in [0, 1].")
    sensitive = [columns] if isinstance(columns, int | str | np.integer) else list(columns)
    for column in sensitive:
        _check(x, column)
    if not 0 < len(set(sensitive)) < x.shape[1]:
        raise ColumnError(f"columns={sensitive} were asked for of {x.shape[1]}; give some but not all of them.")
    remover = require("fairlearn.preprocessing", "methods").CorrelationRemover(
        sensitive_feature_ids=sensitive, alpha=strength
    )
    remover.fit(_plain(x))
    return tuple(_like(remover.transform(_plain(part)), part, sensitive) for part in (x, *others))


def _check(x: Any, column: Any) -> None:
    if hasattr(x, "columns"):
        column_of(x, column, "sensitive")
    elif not (x.ndim == 2 and isinstance(column, int | np.integer) and 0 <= column < x.shape[1]):
        raise ColumnError(f"column {column!r} was asked for, but the features have shape {tuple(x.shape)}.")


def _plain(x: Any) -> Any:
    return x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else x


def _like(values: Any, x: Any, columns: Sequence[Any]) -> Any:
    if isinstance(x, torch.Tensor):
        return torch.as_tensor(np.asarray(values), dtype=fractional(x.dtype), device=x.device)
    if hasattr(x, "columns"):
        kept = [name for name in x.columns if name not in set(columns)]
        return type(x)(np.asarray(values), columns=kept, index=x.index)
    return np.asarray(values, dtype=fractional(x.dtype))
