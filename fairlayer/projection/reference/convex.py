"""The user's own convex constraints, built for one program and checked to be disciplined."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairlayer.constraints import Batch, Convex
from fairlayer.errors import ConstraintDefinitionError, require

__all__ = ["Built", "build"]


@dataclass(frozen=True)
class Built:
    """What a `Convex` constraint built."""

    owner: int
    constraints: tuple[Any, ...]
    parameters: tuple[Any, ...]

    def duals(self) -> Iterator[tuple[int, int, float]]:
        """Return (owner, position, multiplier) of each constraint, at the solution."""
        for j, constraint in enumerate(self.constraints):
            yield self.owner, j, _total_dual(constraint)


def _total_dual(constraint: Any) -> float:
    """Return the sum of the absolute duals of an inequality or equality; a cone's dual is no such number."""
    if isinstance(constraint.dual_value, list | tuple) or not hasattr(constraint, "expr"):
        return math.nan
    return float(np.abs(constraint.dual_value).sum())


def build(owner: int, convex: Convex, prediction: Any, batch: Batch) -> Built:
    """Build one constraint on the prediction.

    Raises:
        ConstraintDefinitionError: it returned no list of DPP constraints over its own parameters.
    """
    cp = require("cvxpy", "cvxpy")
    parameters = {
        key: cp.Parameter(tuple(value.shape), name=key, nonneg=bool((value >= 0).all()))
        for key, value in convex.parameters.items()
    }
    constraints = convex.build(prediction, batch, **parameters)
    listed = isinstance(constraints, list | tuple)
    if not listed or not all(isinstance(c, cp.Constraint) for c in constraints):
        raise ConstraintDefinitionError(
            f"{convex.name}: build must return a list of cvxpy constraints, but it returned {constraints!r}."
        )
    _check_disciplined(convex.name, constraints)
    _check_parameters(convex.name, constraints, list(parameters.values()))
    return Built(owner, tuple(constraints), tuple(parameters.values()))


def _check_disciplined(name: str, constraints: Sequence[Any]) -> None:
    for constraint in constraints:
        if not constraint.is_dcp():
            raise ConstraintDefinitionError(
                f"{name}: {constraint} is not convex by cvxpy's rules (DCP). Write it as convex <= concave."
            )
        if not constraint.is_dpp():
            raise ConstraintDefinitionError(
                f"{name}: {constraint} is convex, but not DPP: cvxpylayers needs it affine in the "
                "parameters, with no product of two parameters. Pass such a product as one parameter."
            )


def _check_parameters(name: str, constraints: Sequence[Any], parameters: Sequence[Any]) -> None:
    used = {p.id: p for constraint in constraints for p in constraint.parameters()}
    given = {p.id: p for p in parameters}
    odd = [p.name() for key, p in {**used, **given}.items() if (key in used) != (key in given)]
    if odd:
        raise ConstraintDefinitionError(
            f"{name}: build must use exactly the parameters it is given, but {', '.join(odd)} are not "
            "on both sides. Name them in parameters={...}, and use each one."
        )
