"""The edge: scores, what is known of labels, utility and capacity, checked once and made plain."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlayer._arrays import host_float64
from fairlayer._typing import FloatArray
from fairlayer.decisions.errors import UtilityError
from fairlayer.edge import as_score_tensor, read_per_sample
from fairlayer.errors import EmptyBatchError, LabelValueError, NonFiniteScoresError, ShapeError

__all__ = ["ACCURACY", "as_scores", "like", "read_capacity", "read_labels", "read_scores", "read_utility"]

ACCURACY = ((1.0, 0.0), (0.0, 1.0))


def as_scores(scores: Any) -> Tensor:
    """Return scores as a floating tensor; whole numbers, such as ranks, are scores too.

    Raises:
        ShapeError: they are not numbers.
    """
    return as_score_tensor(scores, whole=True)


def read_scores(scores: Tensor) -> FloatArray:
    """Return one column of finite scores, (n,).

    Raises:
        ShapeError: they are not (n,) or (n, 1).
        EmptyBatchError: there are none.
        NonFiniteScoresError: some are NaN or infinite.
    """
    shape = tuple(scores.shape)
    if len(shape) not in (1, 2) or shape[1:] not in ((), (1,)):
        raise ShapeError(
            f"scores must have shape (n,) or (n, 1), but have {shape}. Give the column of the positive class."
        )
    if not shape[0]:
        raise EmptyBatchError(f"the batch is empty: scores have shape {shape}. Skip such a batch.")
    values = host_float64(scores).reshape(-1)
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise NonFiniteScoresError(
            f"{bad} of {len(values)} scores are NaN or infinite, which no order holds. Drop or impute them."
        )
    return values


def read_labels(
    values: FloatArray, shape: tuple[int, ...], y: Any, label_probabilities: Any
) -> tuple[FloatArray | None, FloatArray]:
    """Return the labels, if given, and the probability of label 1 of each sample: y, else estimates, else scores.

    Raises:
        LabelValueError: labels are not 0 or 1, or probabilities are outside [0, 1].
    """
    labels = read_per_sample("y", y, shape)
    if labels is not None:
        if not np.isin(labels, (0.0, 1.0)).all():
            odd = labels[~np.isin(labels, (0.0, 1.0))][:3].tolist()
            raise LabelValueError(f"decisions need labels 0 or 1, but y holds {odd}. Recode y, as in (y == positive).")
        return labels[:, 0], labels[:, 0]
    estimates = read_per_sample("label_probabilities", label_probabilities, shape)
    what, p = ("scores", values) if estimates is None else ("label_probabilities", estimates[:, 0])
    low, high = float(p.min()), float(p.max())
    if low < 0.0 or high > 1.0:
        raise LabelValueError(
            f"without y, {what} are read as probabilities of label 1, but they range from {low:g} to {high:g}. "
            "Give y=labels, or label_probabilities= (calibrated, in [0, 1]); any scores may then give the order."
        )
    return None, p


def read_utility(utility: Any) -> FloatArray:
    """Return the utility matrix (label, decision) as float64.

    Raises:
        UtilityError: it is not 2 x 2, not finite, or does not reward selecting label 1 rather than label 0.
    """
    try:
        matrix = host_float64(utility) if isinstance(utility, Tensor) else np.asarray(utility, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UtilityError(f"utility must be a 2 x 2 table of numbers, but is {utility!r}.") from error
    if matrix.shape != (2, 2) or not np.isfinite(matrix).all():
        raise UtilityError(
            f"utility must be 2 x 2 finite numbers, utility[label][decision], but is {matrix.tolist()}. "
            "For costs give their negatives."
        )
    if matrix[1, 1] - matrix[1, 0] <= matrix[0, 1] - matrix[0, 0]:
        raise UtilityError(
            f"utility {matrix.tolist()} gains {matrix[1, 1] - matrix[1, 0]:g} by selecting a label 1 and "
            f"{matrix[0, 1] - matrix[0, 0]:g} by selecting a label 0, so higher scores would not come first. "
            "Rows are labels 0 and 1, columns are decisions 0 and 1."
        )
    return matrix


def read_capacity(capacity: Any) -> int | None:
    """Return the largest number of samples to select.

    Raises:
        UtilityError: it is not a whole number >= 0.
    """
    if capacity is None:
        return None
    if isinstance(capacity, bool) or not isinstance(capacity, int | np.integer) or capacity < 0:
        raise UtilityError(f"capacity is the most samples to select, a whole number >= 0, but is {capacity!r}.")
    return int(capacity)


def like(scores: Tensor, values: Any, dtype: torch.dtype) -> Tensor:
    """Return values (n,) in the shape and on the device of the scores."""
    return torch.as_tensor(values, dtype=dtype, device=scores.device).reshape(scores.shape)
