"""Disparate impact: the ratio of mean predictions, as in the four-fifths rule."""

from __future__ import annotations

from collections.abc import Sequence

from fairlayer.constraints.base import Classes, Constraint, as_names, check_classes, check_number, title
from fairlayer.constraints.batch import Batch
from fairlayer.constraints.statements import Spread, Statement
from fairlayer.errors import ConstraintDefinitionError

__all__ = ["DisparateImpactRatio"]


class DisparateImpactRatio(Constraint):
    """The lowest group mean is at least `ratio` times the highest.

        min_g mean_g(y) >= ratio * max_g mean_g(y)

    Args:
        on: a sensitive feature, or a tuple of them for their intersections.
        ratio: the smallest ratio allowed, in (0, 1]; 0.8 is the four-fifths rule.
        classes: which columns of scores (n, k) it speaks of, one or several; None for all, each by itself.

    Raises:
        ConstraintDefinitionError: the ratio is outside (0, 1].

    Source: Feldman et al. (2015), definition 1.1; 29 CFR 1607.4 D (four-fifths rule).
    Limits: it speaks of mean scores, not of selection rates. Scores must not be negative, for a ratio of
        negative means bounds nothing.

    Example:
        >>> import fairlayer as fl
        >>> fl.DisparateImpactRatio("sex", ratio=0.8)
        DisparateImpactRatio('sex', ratio=0.8)
    """

    needs_labels = False
    limit_argument = "ratio"

    def __init__(self, on: str | Sequence[str], ratio: float, *, classes: Classes = None) -> None:
        self.on = as_names(on)
        self.classes = check_classes("DisparateImpactRatio", classes)
        self.name = title("DisparateImpactRatio", self.on, self.classes)
        self.ratio = float(check_number(self.name, "ratio", ratio))
        if not 0.0 < self.ratio <= 1.0:
            raise ConstraintDefinitionError(
                f"{self.name} was given ratio={self.ratio:g}; it must lie in (0, 1], for example 0.8."
            )

    def statements(self, batch: Batch) -> Sequence[Statement]:
        """Return one scaled spread over the groups."""
        means = batch.means(self.on)
        return [Spread(means, means.select(), means.groups, scale=self.ratio, ratio=True)]
