"""How well scores predict labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairlayer.errors import require
from fairlayer.training.comparison import Beside
from fairlayer.training.config import Task

__all__ = ["THRESHOLD", "cost_in_points", "quality_beside", "quality_of"]

THRESHOLD = 0.5
_END = 1e-7  # where a logarithm of 0 would be infinite

Array = NDArray[Any]


def quality_beside(labels: Array, scores: Beside[Array], task: Task) -> dict[str, Beside[float | None]]:
    """Return accuracy, F1 and AUC for classification; R2 and mean absolute error for regression."""
    quality = _of_classification if task == "classification" else _of_regression
    before, after = quality(labels, scores.unconstrained), quality(labels, scores.constrained)
    return {name: Beside(before[name], after[name]) for name in before}


def cost_in_points(quality: dict[str, Beside[float | None]], task: Task) -> float:
    """Return the accuracy (or R2) that was lost, times 100; a negative number is a gain."""
    main = quality["accuracy" if task == "classification" else "r2"]
    return 100.0 * ((main.unconstrained or 0.0) - (main.constrained or 0.0))


def quality_of(
    labels: Array, scores: Array, decisions: Array | None, task: Task, utility: Any = None
) -> dict[str, float | None]:
    """Return accuracy, AUC, log loss and Brier score of scores with decisions; R2 and errors for regression.

    Args:
        labels: (n,).
        scores: (n,).
        decisions: (n,) 0 or 1; None for regression.
        task: classification or regression.
        utility: 2 x 2 table, `utility[label][decision]`, for the entry "utility".

    Example:
        >>> labels, scores = np.array([0.0, 1.0]), np.array([0.5, 0.5])
        >>> quality_of(labels, scores, scores >= 0.5, "classification")["brier"]
        0.25
    """
    scores = np.asarray(scores, dtype=np.float64)
    if task == "regression" or decisions is None:
        return {**_of_regression(labels, scores), "mse": float(np.mean((labels - scores) ** 2))}
    inside = np.clip(scores, _END, 1 - _END)
    found = {
        "accuracy": float((decisions == labels).mean()),
        "auc": _of_classification(labels, scores)["auc"],
        "log_loss": float(-np.mean(np.where(labels == 1, np.log(inside), np.log1p(-inside)))),
        "brier": float(np.mean((labels - scores) ** 2)),
    }
    if utility is not None:
        gained = np.asarray(utility, dtype=np.float64)[labels.astype(np.int64), decisions.astype(np.int64)]
        found["utility"] = float(gained.mean())
    return found


def _of_classification(labels: Array, scores: Array) -> dict[str, float | None]:
    metrics = require("sklearn.metrics", "train")
    decided = scores >= THRESHOLD
    both = 0 < labels.mean() < 1  # the area under the curve needs both classes
    return {
        "accuracy": float((decided == (labels == 1)).mean()),
        "f1": float(metrics.f1_score(labels, decided, zero_division=0.0)),
        "auc": float(metrics.roc_auc_score(labels, scores)) if both else None,
    }


def _of_regression(labels: Array, scores: Array) -> dict[str, float | None]:
    metrics = require("sklearn.metrics", "train")
    varied = float(np.ptp(labels)) > 0  # R2 divides by the variance of the labels
    return {
        "r2": float(metrics.r2_score(labels, scores)) if varied else None,
        "mae": float(metrics.mean_absolute_error(labels, scores)),
    }
