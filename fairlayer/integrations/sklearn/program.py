"""The convex program in the coordinates in which the loss is round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.errors import InfeasibleConstraintsError, SolverError, require
from fairlayer.integrations.sklearn.limits import LinearLimits

__all__ = ["Whitening", "nearest"]

_ACCURACY = 1e-12  # asked of the solver; what it reached is measured on the data, see Optimality


@dataclass(frozen=True)
class Whitening:
    """`theta = T u`, in which `1/2 theta' H theta = 1/2 u' u`."""

    T: FloatArray
    inverse: FloatArray

    @staticmethod
    def of(H: FloatArray) -> Whitening:
        """Factor a positive definite matrix; columns of very different sizes do no harm to Cholesky's factors.

        Raises:
            SolverError: it is singular to working precision.
        """
        try:
            L = np.linalg.cholesky(H)
        except np.linalg.LinAlgError as error:
            raise SolverError(
                "the features are linearly dependent to working precision at this strength of the penalty. "
                "Raise alpha (or lower C), standardise the features, or drop those that repeat others."
            ) from error
        return Whitening(np.asarray(np.linalg.inv(L).T, dtype=np.float64), np.asarray(L.T, dtype=np.float64))


def nearest(point: FloatArray, limits: LinearLimits, names: tuple[str, ...]) -> tuple[FloatArray, FloatArray]:
    """Return the point that meets the limits nearest to the one given, and the multipliers of `1/2 distance^2`.

    Args:
        point: (coefficients,).
        limits: the limits on the point.
        names: the names of the constraints, for the error.

    Raises:
        InfeasibleConstraintsError: no point meets all limits.
        SolverError: the solver failed.
    """
    if not len(limits):
        return point, np.zeros(0)
    size = float(np.abs(point).max(initial=0.0) + np.abs(limits.limit).max()) or 1.0
    cp = require("cvxpy", "cvxpy")
    u, c = cp.Variable(len(point)), cp.Variable(max(1, limits.free.shape[1]))
    stated = _stated(limits, u, c, size)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(u - point / size)), [face for _, face in stated])
    _solve(cp, problem, names)
    multipliers = np.zeros(len(limits))
    for rows, face in stated:
        multipliers[rows] = np.asarray(face.dual_value) * size
    return np.asarray(u.value) * size, multipliers


def _stated(limits: LinearLimits, u: Any, c: Any, size: float) -> list[tuple[Any, Any]]:
    """Return the equations and the inequalities, each with the faces it speaks of."""
    free = limits.free if limits.free.shape[1] else np.zeros((len(limits), 1))
    value = limits.matrix @ u + free @ c
    stated = []
    for rows in (np.flatnonzero(limits.tied), np.flatnonzero(~limits.tied)):
        if len(rows):
            limit = limits.limit[rows] / size
            stated.append((rows, value[rows] == limit if limits.tied[rows[0]] else value[rows] <= limit))
    return stated


def _solve(cp: Any, problem: Any, names: tuple[str, ...]) -> None:
    try:
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=_ACCURACY, tol_gap_rel=_ACCURACY, tol_feas=_ACCURACY)
    except cp.SolverError as error:
        raise SolverError(f"Clarabel did not solve the convex program of this model: {error}") from error
    if problem.status in (cp.INFEASIBLE, cp.INFEASIBLE_INACCURATE):
        raise InfeasibleConstraintsError(
            f"no linear model of these features meets {', '.join(names)} on the training data. "
            "Give a larger tolerance, or drop a constraint."
        )
    if problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
        raise SolverError(f"Clarabel ended with the status {problem.status!r} on the convex program of this model.")
