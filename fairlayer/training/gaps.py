"""What a constraint bounds, measured on rows of a table: scores, or decisions of 0 and 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairlayer.constraints import Constraint, Measured
from fairlayer.constraints.measure import measure as measure_constraint
from fairlayer.training.observed import Observed

__all__ = ["Gap", "measure"]


@dataclass(frozen=True)
class Gap:
    """A measured value beside its limit, as `Constraint.measure` has it.

    `value` is None where there is nothing to compare (fewer than two groups present), or a ratio is none. `at_least`
    says on which side of the limit it should lie, `excess` by how much the constraint fails, and `worst` which groups
    make the value, the highest first. Intervals are those of `fairlayer.audit`.

    Example:
        >>> gap = Gap(0.03, 0.02, excess=0.01, worst=("sex=F", "sex=M"))
        >>> gap.kept, gap.worst
        (False, ('sex=F', 'sex=M'))
    """

    value: float | None
    limit: float
    at_least: bool = False
    excess: float | None = None
    worst: tuple[str, ...] = ()

    @staticmethod
    def of(measured: Measured) -> Gap:
        """Return what a constraint measured."""
        return Gap(measured.value, measured.limit, measured.at_least, excess=measured.excess, worst=measured.worst)

    @property
    def kept(self) -> bool:
        """Whether the constraint holds, up to 1e-6."""
        return self.excess is None or self.excess <= 1e-6


def measure(constraint: Constraint, observed: Observed, predictions: NDArray[Any]) -> Gap:
    """Return the value that `constraint` bounds, for these predictions.

    Args:
        observed: labels and groups of the rows.

    Example:
        >>> from fairlayer.constraints import DemographicParity
        >>> rows = Observed({"sex": np.array(["f", "f", "m"])})
        >>> measure(DemographicParity("sex", 0.1), rows, np.array([0.2, 0.4, 0.8])).value
        0.5
    """
    values = np.asarray(predictions, dtype=np.float64)
    return Gap.of(measure_constraint(constraint, observed.batch, values))
