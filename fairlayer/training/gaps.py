"""What a constraint bounds, measured on rows of a table (scores, 0/1 decisions), with intervals over the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairlayer._typing import FloatArray
from fairlayer.constraints import Constraint, Measured
from fairlayer.constraints.measure import measure as measure_constraint
from fairlayer.training.observed import Observed

__all__ = ["Gap", "measure", "measure_with_interval"]

RESAMPLES = 200
LEVEL = (2.5, 97.5)  # percentiles: a 95 % interval


@dataclass(frozen=True)
class Gap:
    """A measured value beside its limit, as `Constraint.measure` has it, with an interval where one was asked for.

    `value` is None where there is nothing to compare (fewer than two groups present), or a ratio is none. `at_least`
    says on which side of the limit it should lie, `excess` by how much the constraint fails, and `worst` which groups
    make the value, the highest first. `low` and `high` are an interval over the rows that contains the value; None
    where there is none such.
    """

    value: float | None
    limit: float
    at_least: bool = False
    low: float | None = None
    high: float | None = None
    excess: float | None = None
    worst: tuple[str, ...] = ()

    @staticmethod
    def of(measured: Measured) -> Gap:
        """Return it without an interval."""
        return Gap(measured.value, measured.limit, measured.at_least, excess=measured.excess, worst=measured.worst)

    @property
    def kept(self) -> bool:
        """Whether the constraint holds, up to 1e-6."""
        return self.excess is None or self.excess <= 1e-6


def measure(constraint: Constraint, observed: Observed, predictions: NDArray[Any]) -> Gap:
    """The value that `constraint` bounds, for these predictions.

    Example:
        >>> from fairlayer.constraints import DemographicParity
        >>> rows = Observed({"sex": np.array(["f", "f", "m"])})
        >>> measure(DemographicParity("sex", 0.1), rows, np.array([0.2, 0.4, 0.8])).value
        0.5
    """
    values = np.asarray(predictions, dtype=np.float64)
    return Gap.of(measure_constraint(constraint, observed.batch, values))


def measure_with_interval(
    constraint: Constraint, observed: Observed, predictions: Sequence[NDArray[Any]], *, seed: int = 0
) -> list[Gap]:
    """`measure` for several predictions of the same rows, with 95 % bootstrap intervals (same resamples).

    No interval is given that would leave out the value itself.
    """
    random = np.random.default_rng(seed)
    coded = observed.coded()
    drawn = np.full((RESAMPLES, len(predictions)), np.nan)
    for k in range(RESAMPLES):
        rows = random.integers(0, len(coded), len(coded))
        resampled = coded.take(rows)
        drawn[k] = [_number(measure(constraint, resampled, each[rows]).value) for each in predictions]
    return [
        _with_interval(measure(constraint, observed, each), column)
        for each, column in zip(predictions, drawn.T, strict=True)
    ]


def _with_interval(gap: Gap, drawn: FloatArray) -> Gap:
    """Give the percentiles of the draws, unless they leave the value itself outside.

    A largest difference over small groups is biased upwards in every draw, so its percentiles can all lie above it.
    """
    if gap.value is None or np.isnan(drawn).all():
        return gap
    low, high = np.nanpercentile(drawn, LEVEL)
    return replace(gap, low=float(low), high=float(high)) if low <= gap.value <= high else gap


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
