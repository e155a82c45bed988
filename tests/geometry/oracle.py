"""The nearest feasible predictions of a case by a conic program (cvxpy with Clarabel), and what its answer is worth."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import cvxpy as cp
import numpy as np
from scipy.optimize import nnls

from tests.core import truth
from tests.core.cases import Case
from tests.core.problems import Problem
from tests.core.truth import AllPairs, Between


@dataclass(frozen=True)
class ConicSolution:
    """What the conic solver found, and how it says it went."""

    y: np.ndarray
    status: str


def conic(case: Case, accuracy: float = 1e-10) -> ConicSolution | None:
    """Solve the case; None where the solver gives nothing."""
    z, weights = case.raw, case.weights
    y = cp.Variable(z.shape)
    distance = cp.sum(cp.multiply(weights, _divergence(case, y, z)))
    limits = [limit for column, terms in _statements(case, y) for term in terms for limit in _limits(term, column)]
    lower, upper = case.views[0].bounds or (None, None)
    if case.domain.simplex:
        limits += [y >= 0, cp.sum(y, axis=1) == 1]
    elif case.domain.plain:
        limits += [] if lower is None else [y >= lower]
        limits += [] if upper is None else [y <= upper]
    else:
        limits += [y >= 0, y <= 1]
    program = cp.Problem(cp.Minimize(distance), limits)
    asked = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), accuracy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an inaccurate answer, which the status tells
        try:
            program.solve(solver=cp.CLARABEL, **asked)
        except cp.SolverError:
            return None
    return None if y.value is None else ConicSolution(y.value, program.status)


def _divergence(case: Case, y: cp.Variable, z: np.ndarray) -> cp.Expression:
    match case.domain.geometry:
        case "euclidean":
            return 0.5 * cp.square(y - z)
        case "likelihood":
            return cp.rel_entr(z, y) + cp.rel_entr(1 - z, 1 - y)
        case _:
            one = cp.kl_div(y, z)  # its further terms, z - y, add up to nothing
            return one if case.domain.simplex else one + cp.kl_div(1 - y, 1 - z)


def _statements(case: Case, y: cp.Variable) -> list[tuple[cp.Expression, list[Between | AllPairs]]]:
    views = enumerate(case.views)
    return [(y[:, c] if case.domain.simplex else y, truth.all_terms(view)) for c, view in views]


def _limits(term: Between | AllPairs, y: cp.Expression) -> list[cp.Constraint]:
    v = term.rows @ y + term.offset
    if isinstance(term, AllPairs):
        level = cp.Variable()
        return [term.scale * v - term.width <= level, v >= level]
    limits = []
    for sign, limit in ((1.0, term.upper), (-1.0, term.lower)):
        finite = np.flatnonzero(np.isfinite(limit))
        if len(finite):
            limits.append(sign * v[finite] <= sign * limit[finite])
    return limits


def residual(case: Case, y: np.ndarray, near: float = 1e-9) -> float:
    """How far a feasible y is at most from the nearest point, where weights are positive.

    The smallest |r| such that `-weight d'(y) - r` is a sum of normals of tight statements and bounds, weights >= 0,
    divided by how much d curves: d'' >= 1 for the squared distance, >= 4 for both of the others on (0, 1), >= 1 for
    the entropic one on the simplex.
    """
    if any(case.violation(rule, y) > near * max(1.0, case.reach(rule, y)) for rule in case.rules):
        return np.inf
    normals: list[np.ndarray] = []
    for c, (view, column) in enumerate(case.columns(y)):
        for normal in _tight(view, column, near):
            whole = np.zeros_like(y)
            whole[(slice(None), c) if case.domain.simplex else ...] = normal
            normals.append(whole.ravel())
    free = (case.weights > 0).ravel()
    normals += [sign * e for sign, e in _held(case, y, near)]
    target = -case.slope(y).ravel()
    kept = [a / size for a in normals if (size := float(np.linalg.norm(a))) > 0]
    if not kept:
        left = float(np.linalg.norm(target))
    else:
        left = float(nnls(np.array(kept).T, target, maxiter=50 * len(kept) + 1000)[1])
    curvature = 1.0 if case.domain.geometry == "euclidean" or case.domain.simplex else 4.0
    return left / (curvature * float(case.weights.ravel()[free].min()))


def _tight(view: Problem, y: np.ndarray, near: float) -> list[np.ndarray]:
    normals: list[np.ndarray] = []
    for term in truth.all_terms(view):
        v, reach = term.rows @ y + term.offset, near * max(1.0, float(np.abs(term.rows).sum(axis=1).max()))
        if isinstance(term, Between):
            normals += [*term.rows[v >= term.upper - reach], *-term.rows[v <= term.lower + reach]]
            continue
        slack = term.width - (term.scale * v[:, None] - v[None, :])
        normals += [term.scale * term.rows[i] - term.rows[j] for i, j in np.argwhere(slack <= reach) if i != j]
    return normals


def _held(case: Case, y: np.ndarray, near: float) -> list[tuple[float, np.ndarray]]:
    """Normals of the domain at y."""
    units = np.eye(y.size)
    if case.domain.simplex:
        rows = np.repeat(np.eye(case.n), y.shape[1], axis=1)
        at_zero = np.flatnonzero(y.ravel() <= near) if case.domain.geometry == "euclidean" else []
        return [*((sign, row) for row in rows for sign in (1.0, -1.0)), *((-1.0, units[i]) for i in at_zero)]
    if not case.domain.plain:
        return []
    held: list[tuple[float, np.ndarray]] = []
    for bound, sign in zip(case.views[0].bounds or (None, None), (-1.0, 1.0), strict=True):
        if bound is not None:
            held += [(sign, units[i]) for i in np.flatnonzero(sign * (y - bound) >= -near)]
    return held
