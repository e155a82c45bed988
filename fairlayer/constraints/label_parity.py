"""Parity of mean predictions within a label: equal opportunity, predictive equality, equalized odds."""

from __future__ import annotations

from collections.abc import Sequence

from fairlayer.constraints.base import Classes, Constraint, as_names, check_classes, check_tolerance, title
from fairlayer.constraints.batch import Batch
from fairlayer.constraints.statements import Spread, Statement, Tolerance

__all__ = ["EqualOpportunity", "EqualizedOdds", "PredictiveEquality"]


class EqualOpportunity(Constraint):
    """Among the truly positive, the mean predictions of any two groups differ by at most the tolerance.

        max_g mean(y | g, label 1) - min_g mean(y | g, label 1) <= tolerance

    Args:
        on: a sensitive feature, or a tuple of them for their intersections.
        tolerance: the largest gap allowed, in prediction units.
        classes: which columns of scores (n, k) it speaks of, one or several; None for all, each by itself.

    Raises:
        ConstraintDefinitionError: the tolerance is negative or not finite.

    Source: Hardt, Price, Srebro (2016), definition 2.2, stated for mean scores.
    Limits: with label estimates instead of labels it bounds the estimate-weighted means only.

    Example:
        >>> import fairlayer as fl
        >>> fl.EqualOpportunity("sex", tolerance=0.05)
        EqualOpportunity('sex', tolerance=0.05)
    """

    needs_labels = True
    limit_argument = "tolerance"

    def __init__(self, on: str | Sequence[str], tolerance: Tolerance, *, classes: Classes = None) -> None:
        self.on = as_names(on)
        self.classes = check_classes("EqualOpportunity", classes)
        self.name = title("EqualOpportunity", self.on, self.classes)
        self.tolerance = check_tolerance(self.name, tolerance)

    def statements(self, batch: Batch) -> Sequence[Statement]:
        """Return one spread over the groups, within label 1."""
        return _within_labels(self, batch, (1,), self.tolerance)


class PredictiveEquality(Constraint):
    """Among the truly negative, the mean predictions of any two groups differ by at most the tolerance.

        max_g mean(y | g, label 0) - min_g mean(y | g, label 0) <= tolerance

    Args:
        on: a sensitive feature, or a tuple of them for their intersections.
        tolerance: the largest gap allowed, in prediction units.
        classes: which columns of scores (n, k) it speaks of, one or several; None for all, each by itself.

    Raises:
        ConstraintDefinitionError: the tolerance is negative or not finite.

    Source: Corbett-Davies et al. (2017), predictive equality, stated for mean scores.
    Limits: those of EqualOpportunity.

    Example:
        >>> import fairlayer as fl
        >>> fl.PredictiveEquality("sex", tolerance=0.05)
        PredictiveEquality('sex', tolerance=0.05)
    """

    needs_labels = True
    limit_argument = "tolerance"

    def __init__(self, on: str | Sequence[str], tolerance: Tolerance, *, classes: Classes = None) -> None:
        self.on = as_names(on)
        self.classes = check_classes("PredictiveEquality", classes)
        self.name = title("PredictiveEquality", self.on, self.classes)
        self.tolerance = check_tolerance(self.name, tolerance)

    def statements(self, batch: Batch) -> Sequence[Statement]:
        """Return one spread over the groups, within label 0."""
        return _within_labels(self, batch, (0,), self.tolerance)


class EqualizedOdds(Constraint):
    """Within each label, the mean predictions of any two groups differ by at most the tolerance.

        max_g mean(y | g, l) - min_g mean(y | g, l) <= tolerance      for l = 0 and l = 1

    Args:
        on: a sensitive feature, or a tuple of them for their intersections.
        tolerance: the largest gap allowed, in prediction units, the same for both labels.
        classes: which columns of scores (n, k) it speaks of, one or several; None for all, each by itself.

    Raises:
        ConstraintDefinitionError: the tolerance is negative or not finite.

    Source: Hardt, Price, Srebro (2016), definition 2.1, stated for mean scores.
    Limits: it cannot hold together with demographic parity at tolerance 0 where base rates differ, unless the
        scores ignore the label.

    Example:
        >>> import fairlayer as fl
        >>> fl.EqualizedOdds(("sex", "race"), tolerance=0.05)
        EqualizedOdds(('sex', 'race'), tolerance=0.05)
    """

    needs_labels = True
    limit_argument = "tolerance"

    def __init__(self, on: str | Sequence[str], tolerance: Tolerance, *, classes: Classes = None) -> None:
        self.on = as_names(on)
        self.classes = check_classes("EqualizedOdds", classes)
        self.name = title("EqualizedOdds", self.on, self.classes)
        self.tolerance = check_tolerance(self.name, tolerance)

    def statements(self, batch: Batch) -> Sequence[Statement]:
        """Return two spreads over the groups, one per label."""
        return _within_labels(self, batch, (0, 1), self.tolerance)


def _within_labels(
    constraint: Constraint, batch: Batch, labels: tuple[int, ...], tolerance: Tolerance
) -> list[Statement]:
    means = batch.means_by_label(constraint.on, constraint.name)
    return [Spread(means, means.select(label), means.names_in(label), tolerance) for label in labels]
