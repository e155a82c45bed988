"""Demographic parity: equal mean predictions over groups."""

from __future__ import annotations

from collections.abc import Sequence

from fairlayer.constraints.base import Classes, Constraint, as_names, check_classes, check_tolerance, title
from fairlayer.constraints.batch import Batch
from fairlayer.constraints.statements import Spread, Statement, Tolerance

__all__ = ["DemographicParity"]


class DemographicParity(Constraint):
    """The mean predictions of any two groups differ by at most the tolerance.

        max_g mean_g(y) - min_g mean_g(y) <= tolerance

    Args:
        on: a sensitive feature, or a tuple of them for their intersections.
        tolerance: the largest gap allowed, in prediction units; a float, or a 0-d tensor that takes a gradient.
        classes: which columns of scores (n, k) it speaks of, one or several; None for all, each by itself.

    Raises:
        ConstraintDefinitionError: the tolerance is negative or not finite.

    Source: Calders, Kamiran, Pechenizkiy (2009); Agarwal et al. (2018), definition 1.
    Limits: it bounds mean scores, not the rate of thresholded decisions, and it is blind to base rates.

    Example:
        >>> import torch, fairlayer as fl
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> y = fl.project(torch.tensor([0.9, 0.7, 0.2, 0.4]), [parity], sensitive_features={"sex": [0, 0, 1, 1]})
        >>> y.value
        tensor([0.7000, 0.5000, 0.4000, 0.6000])
    """

    needs_labels = False
    limit_argument = "tolerance"

    def __init__(self, on: str | Sequence[str], tolerance: Tolerance, *, classes: Classes = None) -> None:
        self.on = as_names(on)
        self.classes = check_classes("DemographicParity", classes)
        self.name = title("DemographicParity", self.on, self.classes)
        self.tolerance = check_tolerance(self.name, tolerance)

    def spread_over(self) -> str | None:
        """See `Constraint.spread_over`."""
        own = type(self).statements is DemographicParity.statements
        return self.on[0] if own and len(self.on) == 1 else None

    def statements(self, batch: Batch) -> Sequence[Statement]:
        """Return one spread over the groups."""
        means = batch.means(self.on)
        return [Spread(means, means.select(), means.groups, self.tolerance)]
