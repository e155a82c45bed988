"""Calibration within groups: in each band of the raw score, predictions average to the labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairlayer._numbers import is_whole
from fairlayer.constraints.base import Classes, Constraint, as_names, check_classes, check_tolerance, title
from fairlayer.constraints.batch import Batch
from fairlayer.constraints.statements import Rows, Statement, Tolerance
from fairlayer.errors import ConstraintDefinitionError

__all__ = ["GroupCalibration"]


class GroupCalibration(Constraint):
    """In each group and each bin of the raw score, the mean residual is at most the tolerance.

        abs(mean(label - y | g, raw score in bin b)) <= tolerance      for each g and b

    Args:
        on: a sensitive feature, or a tuple of them for their intersections.
        tolerance: the largest mean residual allowed, in prediction units.
        bins: number of equal bins of [0, 1], or increasing edges; scores outside join the outermost bins.
        classes: which columns of scores (n, k) it speaks of, one or several; None for all, each by itself.

    Raises:
        ConstraintDefinitionError: the tolerance is negative, or the bins are not increasing.

    Source: Pleiss et al. (2017), section 2; Hebert-Johnson et al. (2018), accuracy in expectation (mean per cell).
    Limits: the bins are those of the raw score, which the projection does not move. An empty bin says nothing.

    Example:
        >>> import fairlayer as fl
        >>> fl.GroupCalibration("sex", tolerance=0.05, bins=5)
        GroupCalibration('sex', tolerance=0.05, bins=5)
    """

    needs_labels = True
    frees_level = True
    streamable = False
    limit_argument = "tolerance"

    def __init__(
        self,
        on: str | Sequence[str],
        tolerance: Tolerance,
        *,
        bins: int | Sequence[float] = 10,
        classes: Classes = None,
    ) -> None:
        self.on = as_names(on)
        self.classes = check_classes("GroupCalibration", classes)
        self.name = title("GroupCalibration", self.on, self.classes)
        self.tolerance = check_tolerance(self.name, tolerance)
        edges = np.linspace(0.0, 1.0, bins + 1) if is_whole(bins) else np.asarray(bins, dtype=np.float64)
        if len(edges) < 2 or not (np.diff(edges) > 0).all():
            raise ConstraintDefinitionError(
                f"{self.name} was given bins={bins!r}; give a number of bins >= 1, or increasing edges."
            )
        self.bins, self.edges = bins, edges

    def statements(self, batch: Batch) -> Sequence[Statement]:
        """Return one row per group and bin."""
        means = batch.means_by_bin(self.on, self.edges)
        target = batch.label_means_by_bin(self.on, self.edges, self.name)
        identity = np.eye(len(means))
        return [Rows(means, identity, target, target, means.names, self.tolerance, absence_expected=True)]
