"""Conditional parity: equal mean predictions within each stratum of a legitimate factor."""

from __future__ import annotations

from collections.abc import Sequence

from fairlayer.constraints.base import Classes, Constraint, as_names, check_classes, check_tolerance, title
from fairlayer.constraints.batch import Batch
from fairlayer.constraints.statements import Spread, Statement, Tolerance
from fairlayer.errors import ConstraintDefinitionError

__all__ = ["ConditionalParity"]


class ConditionalParity(Constraint):
    """Demographic parity within each stratum of a legitimate factor.

        max_g mean(y | g, s) - min_g mean(y | g, s) <= tolerance      for each stratum s

    Args:
        on: a sensitive feature, or a tuple of them.
        given: the feature (or features) whose values make the strata; passed among `sensitive_features`.
        tolerance: the largest gap allowed within a stratum, in prediction units.
        classes: which columns of scores (n, k) it speaks of, one or several; None for all, each by itself.

    Raises:
        ConstraintDefinitionError: the tolerance is negative, or `given` repeats `on`.

    Source: Kamiran, Zliobaite, Calders (2013); Corbett-Davies et al. (2017), conditional statistical parity.
    Limits: whether the factor is legitimate is for the user to argue.

    Example:
        >>> import fairlayer as fl
        >>> fl.ConditionalParity("sex", given="education", tolerance=0.05)
        ConditionalParity('sex', given='education', tolerance=0.05)
    """

    needs_labels = False
    limit_argument = "tolerance"

    def __init__(
        self, on: str | Sequence[str], *, given: str | Sequence[str], tolerance: Tolerance, classes: Classes = None
    ) -> None:
        self.on = as_names(on)
        self.given = as_names(given)
        self.classes = check_classes("ConditionalParity", classes)
        self.name = title("ConditionalParity", self.on, self.classes, f", given={self.given!r}")
        self.tolerance = check_tolerance(self.name, tolerance)
        if set(self.on) & set(self.given):
            raise ConstraintDefinitionError(f"{self.name}: `given` must name other features than `on`.")

    @property
    def features(self) -> tuple[str, ...]:
        """The groups and the strata."""
        return self.on + self.given

    def statements(self, batch: Batch) -> Sequence[Statement]:
        """Return one spread per stratum."""
        means = batch.means_given(self.on, self.given)
        strata = range(len(means.strata))
        return [Spread(means, means.select(s), means.names_in(s), self.tolerance) for s in strata]
