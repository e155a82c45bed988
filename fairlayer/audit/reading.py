"""Predictions of any kind -> rows: checked once, trusted afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from fairlayer._arrays import host_float64
from fairlayer._typing import FloatArray, IntArray
from fairlayer.audit.slots import NEGATIVE, POSITIVE, REAL, REJECTED, SELECTED, UNDECIDED, UNLABELLED
from fairlayer.errors import (
    EmptyBatchError,
    LabelValueError,
    NonFiniteScoresError,
    ParameterError,
    ShapeError,
)

__all__ = ["AuditRows", "Task", "numbers", "read_rows"]

Task: TypeAlias = Literal["classification", "regression"]


@dataclass(frozen=True)
class AuditRows:
    """Validated rows.

    Args:
        scores: (n,), or None.
        labels: (n,), NaN where there is none.
        label_slots: (n,) NEGATIVE, POSITIVE, REAL or UNLABELLED.
        decision_slots: (n,) REJECTED, SELECTED or UNDECIDED.
        weights: (n,), not negative.
        values: further numbers of the caller, by name, (n,) each.
        task: what the labels are; None where there are none.
        decided: whether there are decisions.
        cut: whether the decisions were made here, by the threshold.
    """

    scores: FloatArray | None
    labels: FloatArray
    label_slots: IntArray
    decision_slots: IntArray
    weights: FloatArray
    values: Mapping[str, FloatArray]
    task: Task | None
    decided: bool
    cut: bool

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.weights)

    @property
    def probabilities(self) -> bool:
        """Whether every score lies in [0, 1]."""
        return self.scores is not None and bool(((self.scores >= 0) & (self.scores <= 1)).all())

    def take(self, rows: IntArray, share: FloatArray) -> AuditRows:
        """Return the rows named, each with a share of its weight."""
        return AuditRows(
            None if self.scores is None else self.scores[rows],
            self.labels[rows],
            self.label_slots[rows],
            self.decision_slots[rows],
            self.weights[rows] * share,
            {name: value[rows] for name, value in self.values.items()},
            self.task,
            self.decided,
            self.cut,
        )


def read_rows(
    n: int,
    *,
    scores: Any = None,
    decisions: Any = None,
    y: Any = None,
    sample_weight: Any = None,
    values: Mapping[str, Any] | None = None,
    threshold: float = 0.5,
    task: Task | None = None,
) -> AuditRows:
    """Read predictions for n rows.

    Raises:
        EmptyBatchError: there are no rows.
        ShapeError: a column has not n entries.
        NonFiniteScoresError: a score, weight or value is not finite, or a weight is negative.
        LabelValueError: labels are neither 0 and 1 nor numbers of a regression, or decisions are not 0 or 1.
        ParameterError: there are neither scores nor decisions.
    """
    if not n:
        raise EmptyBatchError("an audit needs at least one row, but the sensitive features have none.")
    if scores is None and decisions is None and not values:
        raise ParameterError("an audit needs predictions: give scores=, or decisions=, or both.")
    given = None if scores is None else _finite("scores", numbers("scores", scores, n))
    labels = np.full(n, np.nan) if y is None else numbers("y", y, n)
    task, label_slots = _label_slots(labels, task)
    decision_slots = _decision_slots(given, decisions, threshold, task, n)
    return AuditRows(
        given,
        labels,
        label_slots,
        decision_slots,
        _weights(sample_weight, n),
        {name: _finite(name, numbers(name, value, n)) for name, value in (values or {}).items()},
        task,
        bool((decision_slots != UNDECIDED).any()),
        decisions is None,
    )


def numbers(name: str, column: Any, n: int) -> FloatArray:
    """Return a column as n float64 numbers; None becomes NaN.

    Raises:
        ShapeError: it has not n entries.
        LabelValueError: it holds something that is not a number.
    """
    if isinstance(column, torch.Tensor):
        array = host_float64(column)
    else:
        try:
            array = np.asarray(_without_missing(column), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise LabelValueError(
                f"{name} must be numbers, but holds something else ({error}). Recode names as 0 and 1 first."
            ) from error
    if array.shape not in ((n,), (n, 1)):
        raise ShapeError(
            f"{name} must have one entry per row, {n} as the sensitive features have, but has shape {array.shape}."
        )
    return array.reshape(n)


def _without_missing(column: Any) -> Any:
    """Return a column in which the missing values of frames and lists are NaN."""
    array = np.asarray(column)
    if array.dtype != object:
        return array
    return [np.nan if value is None or type(value).__name__ == "NAType" else value for value in array.tolist()]


def _finite(name: str, column: FloatArray) -> FloatArray:
    bad = ~np.isfinite(column)
    if bad.any():
        raise NonFiniteScoresError(
            f"{name} must be finite, but {int(bad.sum())} of {len(column)} entries are NaN or infinite, the first in "
            f"row {int(bad.argmax())}. Leave such rows out, and say how many they were."
        )
    return column


def _weights(sample_weight: Any, n: int) -> FloatArray:
    if sample_weight is None:
        return np.ones(n)
    weights = _finite("sample_weight", numbers("sample_weight", sample_weight, n))
    if (weights < 0).any():
        raise NonFiniteScoresError(
            f"sample_weight must not be negative, but its smallest entry is {weights.min():g}. 0 leaves a row out."
        )
    return weights


def _label_slots(labels: FloatArray, task: Task | None) -> tuple[Task | None, IntArray]:
    known = ~np.isnan(labels)
    if np.isinf(labels).any():
        raise NonFiniteScoresError("y must be finite, but holds infinity. Use NaN for a label that is not known.")
    found = labels[known]
    classes = bool(((found == 0) | (found == 1)).all())
    if task is None and len(found):
        task = "classification" if classes else _regression(found)
    if task == "classification" and not classes:
        raise LabelValueError(
            f"classification labels are 0 and 1, but y holds {_some(found)}. Recode it, or use task='regression'."
        )
    slots = np.full(len(labels), UNLABELLED, dtype=np.int64)
    slots[known] = REAL if task == "regression" else np.where(found == 1, POSITIVE, NEGATIVE)
    return task, slots


def _regression(found: FloatArray) -> Task:
    if len(np.unique(found)) == 2:
        raise LabelValueError(
            f"y holds two values, {_some(found)}, which are not 0 and 1: two classes, or a regression? Recode the "
            "favourable label as 1 and the other as 0, or say task='regression'."
        )
    return "regression"


def _some(found: FloatArray) -> str:
    values = np.unique(found)
    return ", ".join(f"{value:g}" for value in values[:4]) + (", ..." if len(values) > 4 else "")


def _decision_slots(scores: FloatArray | None, decisions: Any, threshold: float, task: Task | None, n: int) -> IntArray:
    if decisions is None:
        if scores is None or task == "regression":  # a threshold on a regression's numbers decides nothing
            return np.full(n, UNDECIDED, dtype=np.int64)
        return np.where(scores >= threshold, SELECTED, REJECTED).astype(np.int64)
    taken = numbers("decisions", decisions, n)
    known = ~np.isnan(taken)
    found = taken[known]
    if not ((found == 0) | (found == 1)).all():
        raise LabelValueError(
            f"decisions are 0 or 1 (NaN: none), but hold {_some(found)}. Give scores as scores=, with threshold=."
        )
    slots = np.full(n, UNDECIDED, dtype=np.int64)
    slots[known] = np.where(found == 1, SELECTED, REJECTED)
    return slots
