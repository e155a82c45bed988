"""Covariance with a continuous sensitive feature."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.constraints.base import Classes, Constraint, as_names, check_classes, check_tolerance, title
from fairlayer.constraints.batch import Batch
from fairlayer.constraints.statements import Rows, Statement, Tolerance

__all__ = ["CovarianceBound"]


class CovarianceBound(Constraint):
    """The covariance of the predictions with each continuous sensitive feature is at most the tolerance.

        abs(1/n sum_i w_i (s_i - mean(s)) y_i) <= tolerance          n = sum_i w_i; without weights, w_i = 1

    Args:
        on: a numeric sensitive feature, or several (one bound each). Unknown values (NaN) take no part.
        tolerance: the largest covariance allowed, in prediction units times units of the feature.
        classes: which columns of scores (n, k) it speaks of, one or several; None for all, each by itself.

    Raises:
        ConstraintDefinitionError: the tolerance is negative or not finite.

    Source: Zafar et al. (2017), "Fairness constraints: mechanisms for fair classification", equation 2.
    Limits: it bounds linear dependence only. A feature may have zero covariance and still determine the score.

    Example:
        >>> import torch, fairlayer as fl
        >>> bound = fl.CovarianceBound("age", tolerance=0.0)
        >>> ages = torch.tensor([20.0, 30.0, 40.0])
        >>> fl.project(torch.tensor([0.1, 0.2, 0.3]), [bound], sensitive_features={"age": ages}).value
        tensor([0.2000, 0.2000, 0.2000])
    """

    needs_labels = False
    streamable = False
    limit_argument = "tolerance"

    def __init__(self, on: str | Sequence[str], tolerance: Tolerance, *, classes: Classes = None) -> None:
        self.on = as_names(on)
        self.classes = check_classes("CovarianceBound", classes)
        self.name = title("CovarianceBound", self.on, self.classes)
        self.tolerance = check_tolerance(self.name, tolerance)

    def statements(self, batch: Batch) -> Sequence[Statement]:
        """Return one dense row per feature."""
        weights = np.stack([_centred(batch.groups.values(name), batch) for name in self.on])
        means = batch.rows(self.name, tuple(f"cov({name})" for name in self.on), weights)
        zero = np.zeros(len(means))
        return [Rows(means, np.eye(len(means)), zero, zero, means.groups, self.tolerance)]


def _centred(values: FloatArray, batch: Batch) -> FloatArray:
    """Return (s_i - mean(s)) / n per sample, 0 where s is unknown."""
    known = np.isfinite(values)
    each = known * (1.0 if batch.weights is None else batch.weights)
    filled = np.where(known, values, 0.0)
    count, total, size = batch.total(np.array([each.sum(), each @ filled, each @ np.abs(filled)]))
    if count == 0:
        return np.zeros_like(values)
    centred = np.where(known, values - total / count, 0.0)
    spread = batch.total(np.array([each @ np.abs(centred)]))[0]
    if spread <= 1e-14 * size:  # a constant feature: what is left of it is rounding
        return np.zeros_like(values)
    return np.asarray(centred / count)
