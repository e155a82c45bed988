"""Minimum rate: a floor under each group's mean prediction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairlayer.constraints.base import Classes, Constraint, as_names, check_classes, check_number, title
from fairlayer.constraints.batch import Batch
from fairlayer.constraints.statements import Rows, Statement, Tolerance

__all__ = ["MinimumRate"]


class MinimumRate(Constraint):
    """The mean prediction of each group is at least the floor.

        mean_g(y) >= floor      for each g

    Args:
        on: a sensitive feature, or a tuple of them for their intersections.
        floor: the smallest mean allowed, in prediction units.
        classes: which columns of scores (n, k) it speaks of, one or several; None for all, each by itself.

    Raises:
        ConstraintDefinitionError: the floor is not finite.

    Source: Cotter et al. (2019), "Optimization with non-differentiable constraints" (rate constraints).
    Limits: it bounds the mean score, not the share of positive decisions.

    Example:
        >>> import fairlayer as fl
        >>> fl.MinimumRate("sex", floor=0.2)
        MinimumRate('sex', floor=0.2)
    """

    needs_labels = False
    limit_argument = "floor"

    def __init__(self, on: str | Sequence[str], floor: Tolerance, *, classes: Classes = None) -> None:
        self.on = as_names(on)
        self.classes = check_classes("MinimumRate", classes)
        self.name = title("MinimumRate", self.on, self.classes)
        self.floor = check_number(self.name, "floor", floor)

    def statements(self, batch: Batch) -> Sequence[Statement]:
        """Return one lower limit per group."""
        means = batch.means(self.on)
        zero, none = np.zeros(len(means)), np.full(len(means), np.inf)
        return [Rows(means, means.select(), zero, none, means.groups, -self.floor)]
