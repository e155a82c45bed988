"""Clarabel, asked through cvxpy for more accuracy than cvxpy asks for, with its own word on how it went."""

from __future__ import annotations

import warnings
from typing import Any

from fairlayer.errors import SolverError, require

__all__ = ["ACCURACIES", "failed", "minimise"]

_GAPS = ("tol_gap_abs", "tol_gap_rel", "tol_feas")
_LEAST = dict.fromkeys((f"reduced_{gap}" for gap in _GAPS), 1e-9)
# What Clarabel is asked for, in turn: with cones it may stall just short of the first, and reports a failure.
ACCURACIES = tuple({**dict.fromkeys(_GAPS, accuracy), **_LEAST} for accuracy in (1e-12, 1e-10, 1e-9))


def minimise(problem: Any) -> tuple[str, Any]:
    """Solve a problem, and return cvxpy's status and Clarabel's own solution.

    "optimal_inaccurate" means within the `reduced_` accuracies, which are set to 1e-9.
    """
    require("clarabel", "cvxpy")
    for accuracy in ACCURACIES:
        status, raw = _minimise_to(problem, dict(accuracy))
        if status.startswith(("optimal", "infeasible")):
            break
    return status, raw


def _minimise_to(problem: Any, accuracy: dict[str, float]) -> tuple[str, Any]:
    cp = require("cvxpy", "cvxpy")
    data, chain, inverse = problem.get_problem_data(cp.CLARABEL, solver_opts=accuracy)
    raw = chain.solve_via_data(problem, data, solver_opts=accuracy)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "may be inaccurate": the status is checked instead
            problem.unpack_results(raw, chain, inverse)
    except cp.error.SolverError:
        return str(raw.status), raw
    return str(problem.status), raw


def failed(what: str) -> SolverError:
    """Say what went wrong, and what to do about it."""
    return SolverError(
        f'{what}. Bring the scores to the scale of 1, or use backend="exact" where all constraints are linear.'
    )
