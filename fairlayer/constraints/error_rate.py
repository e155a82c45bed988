"""Expected error per group: parity between groups, or a cap on each (bounded group loss)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.constraints.base import (
    Classes,
    Constraint,
    as_names,
    check_classes,
    check_number,
    check_tolerance,
    title,
)
from fairlayer.constraints.batch import Batch
from fairlayer.constraints.means import GroupMeans
from fairlayer.constraints.statements import Rows, Spread, Statement, Tolerance

__all__ = ["BoundedGroupLoss", "ErrorRateParity"]

_SLOPES = np.array([1.0, -1.0])  # |label - y| = y for label 0, and 1 - y for label 1


class ErrorRateParity(Constraint):
    """The expected error rates of any two groups differ by at most the tolerance.

        e_g = mean_g((1 - 2 label) y + label),      max_g e_g - min_g e_g <= tolerance

    Args:
        on: a sensitive feature, or a tuple of them for their intersections.
        tolerance: the largest gap allowed, in units of the error rate.
        classes: which columns of scores (n, k) it speaks of, one or several; None for all, each by itself.

    Raises:
        ConstraintDefinitionError: the tolerance is negative or not finite.

    Source: Agarwal et al. (2018), section 2; e_g is the error rate of a decision drawn with probability y.
    Limits: it is for scores in [0, 1] and labels 0 or 1. The error rate of a threshold is another number.

    Example:
        >>> import fairlayer as fl
        >>> fl.ErrorRateParity("sex", tolerance=0.05)
        ErrorRateParity('sex', tolerance=0.05)
    """

    needs_labels = True
    limit_argument = "tolerance"

    def __init__(self, on: str | Sequence[str], tolerance: Tolerance, *, classes: Classes = None) -> None:
        self.on = as_names(on)
        self.classes = check_classes("ErrorRateParity", classes)
        self.name = title("ErrorRateParity", self.on, self.classes)
        self.tolerance = check_tolerance(self.name, tolerance)

    def statements(self, batch: Batch) -> Sequence[Statement]:
        """Return one spread over the groups' expected errors."""
        means = batch.means_by_label(self.on, self.name)
        slopes, base = _expected_error(means)
        return [Spread(means, slopes, means.groups, self.tolerance, offset=base)]


class BoundedGroupLoss(Constraint):
    """The mean loss of each group stays under a cap, for a loss that is affine in the prediction.

        mean_g(a_i + b_i y_i) <= cap      for each g

    Args:
        on: a sensitive feature, or a tuple of them for their intersections.
        cap: highest mean loss allowed, in units of the loss.
        loss: None for `|label - y|` with labels 0 or 1 and scores in [0, 1]; or a function from the labels
            (n,) to intercepts a (n,) and slopes b (n,).
        classes: which columns of scores (n, k) it speaks of, one or several; None for all, each by itself.

    Raises:
        ConstraintDefinitionError: the cap is not finite.

    Source: Agarwal, Dudik, Wu (2019), "Fair regression: quantitative definitions", section 2.
    Limits: a low cap may be out of reach within the bounds, which raises an InfeasibleConstraintsError.

    Example:
        >>> import fairlayer as fl
        >>> fl.BoundedGroupLoss("sex", cap=0.3)
        BoundedGroupLoss('sex', cap=0.3)
    """

    needs_labels = True
    limit_argument = "cap"

    def __init__(
        self,
        on: str | Sequence[str],
        cap: Tolerance,
        *,
        loss: Callable[[FloatArray], tuple[FloatArray, FloatArray]] | None = None,
        classes: Classes = None,
    ) -> None:
        self.on = as_names(on)
        self.classes = check_classes("BoundedGroupLoss", classes)
        self.name = title("BoundedGroupLoss", self.on, self.classes)
        self.cap = check_number(self.name, "cap", cap)
        self.loss = loss

    def statements(self, batch: Batch) -> Sequence[Statement]:
        """Return one upper limit per group."""
        if self.loss is None:
            means = batch.means_by_label(self.on, self.name)
            slopes, base = _expected_error(means)
        else:
            means, slopes, base = _affine_loss(batch, self.on, self.name, self.loss)
        none = np.full(len(base), -np.inf)
        return [Rows(means, slopes, none, -base, means.groups, self.cap, origin=-base)]  # slopes @ means + base <= cap


def _expected_error(means: GroupMeans) -> tuple[FloatArray, FloatArray]:
    """Return slopes over (group, label) means, and the share of label 1 per group."""
    return means.pool(_SLOPES), means.pool(np.array([0.0, 1.0])).sum(axis=1)


def _affine_loss(
    batch: Batch,
    on: tuple[str, ...],
    asked_by: str,
    loss: Callable[[FloatArray], tuple[FloatArray, FloatArray]],
) -> tuple[GroupMeans, FloatArray, FloatArray]:
    intercept, slope = loss(batch.label_estimates(asked_by, binary=False))
    groups = batch.means(on)
    average = groups.per_sample()
    rows = batch.rows(("loss", on, asked_by), groups.groups, average * slope, groups.counts)
    return rows, np.eye(len(rows)), batch.means_of(groups, intercept)
