"""Many slabs: a dual proximal Newton method whose steps are tiny quadratic programs.

At the dual point nu with unclipped samples F, a step d nu moves the statistics by -K d nu, K = B F B'. So

    center = s + K nu                                  statistics predicted at nu = 0
    m, lambda = quadratic program(center, K, slabs)    exact, in the space of the statistics
    nu+ = N' lambda

and the step is searched along the line on the directional derivative of the concave dual
D(nu, sigma) = min_y 1/2 |y - z|^2 + nu' B y - sigma, sigma = sum_j lambda_j limit_j: values of D stall at rounding
level, derivatives do not. Where a cell is saturated K is floored (the proximal part), ever less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.errors import SolverError
from fairlayer.passes import Passes, Point
from fairlayer.solve.quadratic import ClashingFaces, solve_quadratic
from fairlayer.solve.slabs import Face, SlabSystem
from fairlayer.solve.solution import Solution

__all__ = ["ROUNDING", "descend", "optimality_error", "raise_if_unbounded", "solve_newton"]

_MOST_STEPS = 200
_MOST_TRIALS = 60
ROUNDING = 50.0  # an error that no step reduces, up to this many atol, is rounding


@dataclass(frozen=True)
class _Dual:
    """A dual feasible point: nu and sigma are linear in the multipliers, which are >= 0."""

    nu: FloatArray
    sigma: float
    faces: tuple[Face, ...]
    multipliers: FloatArray

    def towards(self, other: _Dual, share: float) -> _Dual:
        if share == 1.0:
            return other
        weights = {face.key: (face, (1 - share) * m) for face, m in zip(self.faces, self.multipliers, strict=True)}
        for face, multiplier in zip(other.faces, other.multipliers, strict=True):
            old = weights.get(face.key, (face, 0.0))[1]
            weights[face.key] = (face, old + share * multiplier)
        faces, multipliers = zip(*weights.values(), strict=True)
        nu = self.nu + share * (other.nu - self.nu)
        return _Dual(nu, self.sigma + share * (other.sigma - self.sigma), faces, np.array(multipliers))


def solve_newton(passes: Passes, slabs: SlabSystem, start: Point, atol: float) -> Solution:
    """Return the projection onto the slabs and the bounds.

    Args:
        passes: the batch.
        slabs: a feasible system; feasibility is to be checked before.
        start: the point at nu = 0.
        atol: accuracy of the statistics, in their own units.

    Raises:
        SolverError: the accuracy was not reached.
        ClashingFaces: multipliers prove that nothing within the bounds meets the slabs.
    """
    solution = descend(passes, slabs, start, atol)
    error = optimality_error(solution, slabs)
    if error > ROUNDING * atol:
        raise SolverError(
            f"the projection was asked to within {atol:.3g}, but {error:.3g} is left after {solution.passes} passes "
            "over the batch. Check for constraints that barely fit the bounds, or rows of very different size."
        )
    return solution


def descend(passes: Passes, slabs: SlabSystem, start: Point, atol: float) -> Solution:
    """Run the method as `solve_newton`, and return where it stops, accurate or not."""
    if slabs.worst(start.statistics)[0] <= atol:
        return Solution.unmoved(start)
    dual = _Dual(np.zeros(len(start.statistics)), 0.0, (), np.zeros(0))
    point, count = start, 1
    guess: tuple[Face, ...] = ()
    error = np.inf
    for step in range(_MOST_STEPS):
        last, error = error, optimality_error(_finish(dual, point, count), slabs)
        if error <= atol or last <= error <= ROUNDING * atol:
            return _shortened(_finish(dual, point, count), slabs)
        metric = _floored(passes, point, step)
        target = _newton_target(dual, point, slabs, metric, guess=guess, atol=atol)
        guess = target.faces
        share, candidate, used = _search(passes, dual, target, point, atol)
        count += used
        raise_if_unbounded(passes, target, atol)
        if candidate is None:
            break
        dual, point = dual.towards(target, share), candidate
    return _shortened(_finish(dual, point, count), slabs)


def optimality_error(solution: Solution, slabs: SlabSystem) -> float:
    """Largest violation, or the multiplier-weighted mean slack of the faces that should be tight."""
    violation, _ = slabs.worst(solution.statistics)
    total = float(np.abs(solution.multipliers).sum())
    slack = abs(_sigma(solution) - float(solution.nu @ solution.statistics)) / total if total > 0 else 0.0
    return max(violation, slack)


def _sigma(dual: _Dual | Solution) -> float:
    return float(sum(m * face.limit for m, face in zip(dual.multipliers, dual.faces, strict=True)))


def _floored(passes: Passes, point: Point, step: int) -> FloatArray:
    """K, with clipped samples counted as slightly free where without them K could not move at all."""
    if passes.cells.dense is not None:
        return passes.metric(point, floor=max(0.05 * 0.1**step, 1e-9))
    metric = passes.metric(point)
    saturated = metric == 0.0
    return np.where(saturated, passes.metric(point, floor=max(0.05 * 0.5**step, 1e-9)), metric)


def _newton_target(
    dual: _Dual, point: Point, slabs: SlabSystem, metric: FloatArray, *, guess: tuple[Face, ...], atol: float
) -> _Dual:
    predicted = metric * dual.nu if metric.ndim == 1 else metric @ dual.nu
    quadratic = solve_quadratic(point.statistics + predicted, metric, slabs, guess, 0.1 * atol)
    faces, multipliers = quadratic.faces, quadratic.multipliers
    nu = multipliers @ np.array([f.normal for f in faces]) if faces else np.zeros_like(dual.nu)
    sigma = float(multipliers @ np.array([f.limit for f in faces])) if faces else 0.0
    return _Dual(nu, sigma, faces, multipliers)


def _search(passes: Passes, dual: _Dual, target: _Dual, point: Point, atol: float) -> tuple[float, Point | None, int]:
    """Find a share in (0, 1] where the directional derivative of the dual is small, or still positive at 1.

    Illinois variant of the secant method on the (monotone) derivative.
    """
    d_nu, d_sigma = target.nu - dual.nu, target.sigma - dual.sigma

    def derivative(at: Point) -> float:
        return float(d_nu @ at.statistics) - d_sigma

    noise = atol * float(np.abs(target.multipliers).sum() + np.abs(dual.multipliers).sum())
    left, right, first = 0.0, 1.0, derivative(point)
    at_left, candidate = first, passes.at(target.nu)
    at_right = derivative(candidate)
    if at_right >= -noise:
        return 1.0, candidate, 1
    if first <= 0.0:
        return 0.0, None, 1
    used = 1
    while used < _MOST_TRIALS:
        used += 1
        share = left + (right - left) * at_left / (at_left - at_right)
        share = min(max(share, left + 1e-3 * (right - left)), right - 1e-3 * (right - left))
        candidate = passes.at(dual.nu + share * d_nu)
        slope = derivative(candidate)
        if abs(slope) <= 0.1 * first or right - left < 1e-15:
            break
        if slope > 0:
            left, at_left, at_right = share, slope, 0.5 * at_right
        else:
            right, at_right, at_left = share, slope, 0.5 * at_left
    return share, candidate, used


def raise_if_unbounded(passes: Passes, dual: _Dual | Solution, atol: float) -> None:
    """Raise where multipliers prove infeasibility: min over all y within the bounds of nu' B y exceeds sigma.

    Only dense rows can bring this about; cells alone were decided before.
    """
    if passes.cells.dense is None:
        return
    if float(passes.lowest(dual.nu[None])[0]) - _sigma(dual) > 100 * atol * float(np.abs(dual.multipliers).sum()):
        raise ClashingFaces(dual.faces)


def _finish(dual: _Dual, point: Point, count: int) -> Solution:
    kept = [j for j, multiplier in enumerate(dual.multipliers) if multiplier > 0]
    faces = tuple(dual.faces[j] for j in kept)
    return Solution.at(point, dual.nu, faces, dual.multipliers[kept], passes=count)


def _shortened(solution: Solution, slabs: SlabSystem) -> Solution:
    faces, multipliers = slabs.shortened(solution.faces, solution.multipliers)
    return solution._replace(faces=tuple(faces), multipliers=multipliers)
