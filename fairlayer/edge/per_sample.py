"""What is known of each sample beside its groups: labels, their estimates, weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from fairlayer._arrays import host_float64
from fairlayer._typing import FloatArray
from fairlayer.edge.numbers import as_numbers
from fairlayer.errors import LabelValueError, NonFiniteScoresError, ShapeError

__all__ = ["pick", "read_per_sample"]


def read_per_sample(name: str, values: Any, shape: tuple[int, ...]) -> FloatArray | None:
    """Return labels or their estimates as (n, 1) or (n, k)."""
    if values is None:
        return None
    try:
        array = host_float64(values) if isinstance(values, Tensor) else as_numbers(values).astype(np.float64)
    except TypeError as error:
        raise LabelValueError(
            f"{name} must be numbers, but is not ({error}). Recode it, for example (column == positive)."
        ) from error
    if array.shape not in {shape[:1], shape}:
        raise ShapeError(
            f"{name} must have shape {shape[:1]} or that of the scores, {shape}, but has shape {array.shape}. "
            "Use .squeeze(-1) or .unsqueeze(-1) to match."
        )
    if not np.isfinite(array).all():
        raise NonFiniteScoresError(f"{name} holds NaN or infinite values; drop or impute those samples.")
    return array if array.ndim == 2 else array[:, None]


def pick(values: FloatArray | None, column: int) -> FloatArray | None:
    """Return one column of what `read_per_sample` returned; a single column serves all."""
    return None if values is None else values[:, min(column, values.shape[1] - 1)]
