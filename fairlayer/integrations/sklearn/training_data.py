"""What a fit reads, checked: parameters, features, labels, weights, and the statements to meet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import _check_sample_weight

from fairlayer._numbers import is_number
from fairlayer._typing import FloatArray
from fairlayer.constraints import Batch, Constraint, Statement
from fairlayer.constraints.measure import measure
from fairlayer.edge import read_groups
from fairlayer.errors import BackendError, ParameterError
from fairlayer.integrations.sklearn.groups_of_rows import check_rows
from fairlayer.integrations.sklearn.limits import LinearLimits
from fairlayer.projection import Plan
from fairlayer.projection.assembly import assemble

__all__ = ["Centred", "Demands", "check_positive", "read_demands", "read_weights"]


def check_positive(owner: str, name: str, value: Any) -> float:
    """Return a finite number > 0.

    Raises:
        ParameterError: it is something else.

    Example:
        >>> check_positive("FairRidge", "alpha", 1)
        1.0
    """
    if not is_number(value) or value <= 0:
        raise ParameterError(
            f"{owner} was given {name}={value!r}; it must be a finite number > 0, which makes the optimum unique."
        )
    return float(value)


class Centred(NamedTuple):
    """Features about their weighted mean, with a column of ones; `theta = (slopes, mean prediction)`."""

    predictors: FloatArray  # (n, features + 1)
    centre: FloatArray  # (features,)
    weights: FloatArray  # (n,)

    @staticmethod
    def of(x: FloatArray, weights: FloatArray) -> Centred:
        """Centre the features, so that the intercept does not depend on the slopes."""
        centre = weights @ x / weights.sum()
        return Centred(np.column_stack([x - centre, np.ones(len(x))]), centre, weights)

    def coefficients(self, theta: FloatArray) -> tuple[FloatArray, float]:
        """Return the slopes and the intercept for features as they were."""
        return theta[:-1], float(theta[-1] - self.centre @ theta[:-1])


class Demands(NamedTuple):
    """What the predictions of the training data must meet."""

    names: tuple[str, ...]  # of the constraints
    constraints: tuple[Constraint, ...]
    batch: Batch
    statements: tuple[Statement, ...]
    owners: tuple[int, ...]  # number of the constraint of each statement
    absent: tuple[tuple[str, str], ...]

    def limits(self, data: Centred) -> LinearLimits:
        """Return them as limits on the coefficients."""
        return LinearLimits.of(self.statements, self.owners, data.predictors)

    def violation(self, predictions: FloatArray) -> float:
        """Return by how much the worst statement exceeds its limit; 0 if none does."""
        found = [measure(constraint, self.batch, predictions) for constraint in self.constraints]
        return max([0.0, *(each.excess for each in found if each.excess is not None)])

    def numbers(self, predictions: FloatArray) -> dict[str, float]:
        """Return the number that each constraint bounds; NaN where it compares nothing."""
        found = [measure(constraint, self.batch, predictions) for constraint in self.constraints]
        return dict(zip(self.names, map(float, found), strict=True))


def read_weights(sample_weight: Any, x: FloatArray) -> FloatArray:
    """Return one weight >= 0 per row, 1 by default.

    Raises:
        ParameterError: a weight is negative, or none is positive.
    """
    weights: FloatArray = _check_sample_weight(sample_weight, x, dtype=np.float64)
    if weights.min() < 0 or weights.max() <= 0:
        raise ParameterError(
            f"sample_weight must be >= 0, and > 0 somewhere, but ranges from "
            f"{weights.min():g} to {weights.max():g}. Drop such rows, or leave sample_weight out."
        )
    return weights


def read_demands(
    owner: str,
    constraints: Sequence[Constraint],
    sensitive_features: Any,
    labels: FloatArray,
    weights: FloatArray | None,
) -> Demands:
    """Read the constraints on n training samples.

    Raises:
        FairlayerError: a named subclass; see `fairlayer.errors`.
    """
    # A plan checks the constraints, and numbers those of one name.
    plan = Plan(constraints)
    check_rows(owner, len(labels), sensitive_features)
    groups = read_groups(sensitive_features, plan.constraints, len(labels), None)
    batch = Batch(groups, len(labels), labels, raw_scores=partial(_refuse_bins, owner), weights=weights)
    assembly = assemble(plan.constraints, batch, on_empty="skip")
    return Demands(plan.names, plan.constraints, batch, assembly.statements, assembly.owners, assembly.absent)


def _refuse_bins(owner: str) -> FloatArray:
    raise BackendError(
        f"{owner} cannot hold a constraint that bins samples by their score: the bins would depend on the "
        "coefficients. Use FairModel, or project(...) on the predictions."
    )
