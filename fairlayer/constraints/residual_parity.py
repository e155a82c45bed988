"""Mean residual parity: a regression or a score is not systematically high or low for a group."""

from __future__ import annotations

from collections.abc import Sequence

from fairlayer.constraints.base import Classes, Constraint, as_names, check_classes, check_tolerance, title
from fairlayer.constraints.batch import Batch
from fairlayer.constraints.statements import Rows, Spread, Statement, Tolerance

__all__ = ["MeanResidualParity"]


class MeanResidualParity(Constraint):
    """The mean residual of each group is at most the tolerance away from zero, or from that of other groups.

        abs(mean_g(label - y)) <= tolerance                                       for each g
        max_g mean_g(label - y) - min_g mean_g(label - y) <= tolerance            with between_groups=True

    Args:
        on: a sensitive feature, or a tuple of them for their intersections.
        tolerance: the largest mean residual allowed, or the largest gap of mean residuals, in prediction units.
        between_groups: compare the groups with each other instead of with zero.
        classes: which columns of scores (n, k) it speaks of, one or several; None for all, each by itself.

    Raises:
        ConstraintDefinitionError: the tolerance is negative or not finite.

    Source: Calders et al. (2013), "Controlling attribute effect in linear regression".
    Limits: with label estimates instead of labels it keeps group means near the estimates' means. A `FairProjection`
        or `FairModel` that was trained with labels uses, in evaluation without labels, the running shift of each
        group; the constraint then holds on new rows within sampling error, not exactly.

    Example:
        >>> import fairlayer as fl
        >>> fl.MeanResidualParity("race", tolerance=0.05)
        MeanResidualParity('race', tolerance=0.05)
    """

    needs_labels = True
    frees_level = True
    shifts_groups = True
    limit_argument = "tolerance"

    def __init__(
        self, on: str | Sequence[str], tolerance: Tolerance, *, between_groups: bool = False, classes: Classes = None
    ) -> None:
        self.on = as_names(on)
        self.between_groups = between_groups
        self.classes = check_classes("MeanResidualParity", classes)
        self.name = title("MeanResidualParity", self.on, self.classes)
        self.tolerance = check_tolerance(self.name, tolerance)

    def statements(self, batch: Batch) -> Sequence[Statement]:
        """Return one row per group, or one spread over the groups."""
        means = batch.means(self.on)
        target = batch.label_means(self.on, self.name)
        if self.between_groups:
            return [Spread(means, -means.select(), means.groups, self.tolerance, offset=target)]
        return [Rows(means, means.select(), target, target, means.groups, self.tolerance)]
