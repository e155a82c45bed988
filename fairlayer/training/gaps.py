"""What a constraint bounds, measured on any predictions (scores, 0/1 decisions) from its own statements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairlayer._typing import FloatArray
from fairlayer.constraints import Constraint, Means, Rows, Spread, Statement
from fairlayer.training.observed import Observed

__all__ = ["Gap", "measure", "measure_with_interval"]

RESAMPLES = 200
LEVEL = (2.5, 97.5)  # percentiles: a 95 % interval


@dataclass(frozen=True)
class Gap:
    """A measured value beside its limit; `at_least` says on which side of the limit it should lie.

    `value` is None where there is nothing to compare (fewer than two groups present). `low` and `high` are a
    bootstrap interval of the measured value over the rows; a largest-minus-smallest gap is biased upwards in
    small groups, and so is its interval.
    """

    value: float | None
    limit: float
    at_least: bool = False
    low: float | None = None
    high: float | None = None

    @property
    def kept(self) -> bool:
        """Whether the value is on the right side of the limit, up to 1e-6."""
        excess = 0.0 if self.value is None else self.value - self.limit
        return (-excess if self.at_least else excess) <= 1e-6


def measure(constraint: Constraint, observed: Observed, predictions: NDArray[Any]) -> Gap:
    """The value that `constraint` bounds, for these predictions.

    Example:
        >>> from fairlayer.constraints import DemographicParity
        >>> rows = Observed({"sex": np.array(["f", "f", "m"])})
        >>> measure(DemographicParity("sex", 0.1), rows, np.array([0.2, 0.4, 0.8])).value
        0.5
    """
    statements = constraint.statements(observed.batch)
    values = [_value(statement, predictions) for statement in statements]
    known = [value for value in values if not np.isnan(value)]
    at_least = _at_least(statements[0])
    worst = min if at_least else max
    return Gap(float(worst(known)) if known else None, _limit(statements[0]), at_least)


def measure_with_interval(
    constraint: Constraint, observed: Observed, predictions: Sequence[NDArray[Any]], *, seed: int = 0
) -> list[Gap]:
    """`measure` for several predictions of the same rows, with 95 % bootstrap intervals (same resamples)."""
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
    if gap.value is None or np.isnan(drawn).all():
        return gap
    low, high = np.nanpercentile(drawn, LEVEL)
    return Gap(gap.value, gap.limit, gap.at_least, float(low), float(high))


def _value(statement: Statement, predictions: NDArray[Any]) -> float:
    rows = statement.matrix @ _means(statement.means, predictions)
    touched = statement.matrix != 0  # a row that touches an empty group, or nothing at all, says nothing
    present = touched.any(axis=1) & ~(touched & (statement.means.counts == 0)).any(axis=1)
    if isinstance(statement, Spread):
        return _spread(statement, rows, present)
    above = np.where(present, rows - statement.upper_offset, -np.inf)
    below = np.where(present, rows - statement.lower_offset, np.inf)
    if not present.any():
        return float("nan")
    return float(below.min()) if _at_least(statement) else float(max(above.max(), -below.min()))


def _spread(statement: Spread, rows: FloatArray, present: NDArray[np.bool_]) -> float:
    if present.sum() < 2:
        return float("nan")
    values = (rows if statement.offset is None else rows + statement.offset)[present]
    if statement.scale == 1.0:
        return float(values.max() - values.min())
    return float(values.min() / values.max()) if values.max() > 0 else float("nan")


def _at_least(statement: Statement) -> bool:
    """A ratio, and rows with lower limits only, are bounded from below; everything else from above."""
    if isinstance(statement, Rows):
        return bool(np.isinf(statement.upper_offset).all())
    return statement.scale != 1.0


def _limit(statement: Statement) -> float:
    if isinstance(statement, Spread) and statement.scale != 1.0:
        return statement.scale
    tolerance = float(statement.tolerance)
    return -tolerance if _at_least(statement) else tolerance


def _means(means: Means, predictions: NDArray[Any]) -> FloatArray:
    values = np.asarray(predictions, dtype=np.float64)
    if means.codes is None:
        return np.asarray(means.as_weights() @ values)
    sums = np.bincount(means.codes + 1, weights=values, minlength=len(means) + 1)[1:]
    return np.asarray(sums / np.maximum(means.counts, 1.0))


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
