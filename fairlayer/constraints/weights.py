"""Weights of samples: how many samples each row stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fairlayer._arrays import host_float64
from fairlayer._typing import FloatArray
from fairlayer.errors import NonFiniteScoresError, ParameterError, ShapeError

__all__ = ["read_sample_weight"]


def read_sample_weight(sample_weight: Any, n: int) -> FloatArray | None:
    """Return weights (n,), each finite and >= 0 and not all 0; None where None was given: one each.

    Raises:
        ShapeError: they are not numbers, or not one per sample.
        NonFiniteScoresError: some are NaN or infinite.
        ParameterError: one is negative, or all are 0.

    Example:
        >>> read_sample_weight([1, 0, 2.5], 3).tolist()
        [1.0, 0.0, 2.5]
    """
    if sample_weight is None:
        return None
    weights = _as_array(sample_weight)
    weights = weights[:, 0] if weights.ndim == 2 and weights.shape[1] == 1 else weights
    if weights.shape != (n,):
        raise ShapeError(
            f"sample_weight must hold one weight per sample, so have shape ({n},), but has shape {weights.shape}."
        )
    bad = int((~np.isfinite(weights)).sum())
    if bad:
        raise NonFiniteScoresError(f"{bad} of {n} sample weights are NaN or infinite. Give 0 to leave a row out.")
    negative = np.flatnonzero(weights < 0)
    if len(negative):
        raise ParameterError(
            f"sample_weight must be >= 0 (how many samples each row stands for), but {len(negative)} of {n} are "
            f"negative, the first {weights[negative[0]]:g} in row {negative[0]}. Give 0 to leave a row out."
        )
    if n and not weights.any():
        raise ParameterError(f"sample_weight is 0 for all {n} samples, so there is nothing to measure or move.")
    return np.array(weights, dtype=np.float64)  # a copy: the caller's may change


def _as_array(sample_weight: Any) -> FloatArray:
    if isinstance(sample_weight, torch.Tensor):
        return host_float64(sample_weight)
    try:
        return np.asarray(sample_weight, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"sample_weight must be numbers, one per sample, but is not ({error}).") from error
