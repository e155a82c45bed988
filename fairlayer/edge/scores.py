"""Scores: a floating tensor of one or several columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlayer._arrays import holds_no_numbers
from fairlayer.edge.numbers import as_numbers
from fairlayer.errors import BackendError, EmptyBatchError, ShapeError

__all__ = ["as_columns", "as_score_tensor"]


def as_score_tensor(scores: Any, *, whole: bool = False) -> Tensor:
    """Return scores as a floating tensor: a tensor as it is, with its graph; an array, series or list as a copy.

    An array keeps its precision; Python numbers become float64.

    Args:
        scores: tensor, NumPy array, series, or list of numbers.
        whole: whether whole numbers are scores too (a rank, a credit score), which become float64.

    Raises:
        BackendError: they are a tensor without numbers (meta, fake).
        ShapeError: they are not numbers, or not laid out row by row (sparse); or whole numbers or bools, where these
            are not scores.

    Example:
        >>> as_score_tensor([0.25, 0.5])
        tensor([0.2500, 0.5000], dtype=torch.float64)
    """
    if isinstance(scores, Tensor):
        _check_storage(scores)
        return scores if scores.is_floating_point() else _widened(scores, whole)
    try:
        array = as_numbers(scores)
    except TypeError as error:
        raise ShapeError(
            f"scores must be numbers in a tensor, an array or a list, one per sample, but {type(scores).__name__} was "
            f"given ({error})."
        ) from error
    if array.dtype.kind != "f":
        return _widened(torch.from_numpy(array.astype(np.int64 if array.dtype.kind != "b" else np.bool_)), whole)
    held = array.dtype if array.dtype in (np.float16, np.float32) else np.float64
    return torch.from_numpy(array.astype(held, order="C"))  # a copy, as columns of pandas are read-only


def _check_storage(scores: Tensor) -> None:
    if scores.layout != torch.strided:
        raise ShapeError(
            f"scores must be a dense tensor, one number per sample, but have layout {scores.layout}. Pass "
            "scores.to_dense()."
        )
    if holds_no_numbers(scores):
        raise BackendError(
            f"scores of shape {tuple(scores.shape)} are a {type(scores).__name__} on {scores.device} that holds no "
            "numbers, so there is nothing to project. Move the model and its input to a real device; FairProjection "
            "and FairModel return the shape alone."
        )


def as_columns(scores: Tensor, *, empty: bool = False) -> tuple[Tensor, ...]:
    """Return the columns of scores (n,), (n, 1) or (n, k), each (n,).

    Raises:
        ShapeError: not a floating tensor of such a shape.
        EmptyBatchError: no samples, and `empty` is False.
    """
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        found = f"a tensor of {scores.dtype}" if isinstance(scores, Tensor) else type(scores).__name__
        raise ShapeError(f"scores must be a floating tensor (n,), (n, 1) or (n, k), but found {found}.")
    if scores.ndim not in (1, 2):
        raise ShapeError(f"scores must have shape (n,), (n, 1) or (n, k), but have {tuple(scores.shape)}.")
    if scores.numel() == 0 and not (empty and scores.shape[1:].numel()):
        raise EmptyBatchError(f"the batch is empty: scores have shape {tuple(scores.shape)}. Skip such a batch.")
    return (scores,) if scores.ndim == 1 else scores.unbind(1)


def _widened(scores: Tensor, whole: bool) -> Tensor:
    if whole and not scores.is_complex() and scores.dtype != torch.bool:
        return scores.double()
    raise ShapeError(
        f"scores must be floating numbers, but found values of {scores.dtype}. Decisions and codes are not scores; if "
        "these are, pass scores.double() or .astype(float)."
    )
