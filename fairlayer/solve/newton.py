"""Many slabs: a dual proximal Newton method whose steps are tiny quadratic programs.

At the dual point nu a step d nu moves the statistics by -K d nu, K = B W B' with W = -dy/dq of the geometry. So

    centre = s + K nu                                  statistics predicted at nu = 0
    m, lambda = quadratic program(centre, K, slabs)    exact, in the space of the statistics
    nu+ = N' lambda

and the step is searched along the line on the directional derivative of the concave dual
D(nu, sigma) = min_y d(y, z) + nu' B y - sigma, sigma = sum_j lambda_j limit_j: values of D stall at rounding
level, derivatives do not. Where a cell is saturated K is floored (the proximal part), ever less. A curved geometry
limits how far a pull may change at once, for its K says little about points further away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.errors import SolverError
from fairlayer.passes import Passes, Point
from fairlayer.passes.class_metric import ClassMetric
from fairlayer.solve.accuracy import accuracy_of, gauged
from fairlayer.solve.prices import PriceProgram
from fairlayer.solve.quadratic import ClashingFaces, solve_quadratic
from fairlayer.solve.scalar import largest_pull
from fairlayer.solve.slabs import Face, FaceKey, Faces, SlabSystem, normals_of
from fairlayer.solve.solution import Solution
from fairlayer.solve.table import RowTable, faces_of_prices

__all__ = [
    "ROUNDING",
    "accurate_enough",
    "close_enough",
    "descend",
    "floored",
    "optimality_error",
    "raise_if_unbounded",
    "solve_newton",
    "unfinished",
]

_MOST_STEPS = 200
_MOST_TRIALS = 60
MANY_ROWS = 48  # from which the program over statistics is solved by a price per row
_MOST_BY_FACES = 128  # rows, beyond which a search by faces is the last that is tried
_SATURATED = 1e-12  # a cell that can move by less than this share of what its floor allows cannot move at all
ROUNDING = 50.0  # an error that no step reduces, up to this many times the accuracy, is rounding
_FINE = 3  # steps that what is near the solution is worth
# Prediction units: what is further off than rounding, by limits and by prices, is not taken.
_MET, _SLACK = 2e-11, 8e-12
_ROUNDED = 1e-16  # what is added to that for each unit of the scores
_LEAST_OF_BLOCKS = 1e-7  # what a clipped row of classes counts at least where K is of blocks: prices must find it
_CREEPS, _MOST_CREEPING = 1e-2, 1  # a share of a step by which a search creeps, and how often one of few sweeps may
_NEAR = 1e6  # accuracies: from so near, the next step or two end at the solution


@dataclass(frozen=True)
class _Dual:
    """A dual feasible point: nu and sigma are linear in the multipliers, which are >= 0."""

    nu: FloatArray
    sigma: float
    faces: Sequence[Face]
    multipliers: FloatArray

    @staticmethod
    def of(faces: Sequence[Face], multipliers: FloatArray, size: int) -> _Dual:
        """Build from faces over `size` statistics; a multiplier below 0 is rounding, and no dual point has one."""
        multipliers = np.maximum(multipliers, 0.0)
        sigma = float(multipliers @ np.array([face.limit for face in faces])) if faces else 0.0
        return _Dual(multipliers @ normals_of(faces, size), sigma, faces, multipliers)

    def towards(self, other: _Dual, share: float) -> _Dual:
        if share == 1.0:
            return other
        weights: dict[FaceKey, tuple[Face, float]] = {}
        for dual, part in ((self, 1 - share), (other, share)):
            for face, multiplier in zip(dual.faces, dual.multipliers, strict=True):  # a face may be there twice
                weights[face.key] = face, weights.get(face.key, (face, 0.0))[1] + part * float(multiplier)
        faces, multipliers = zip(*weights.values(), strict=True)
        nu = self.nu + share * (other.nu - self.nu)
        return _Dual(nu, self.sigma + share * (other.sigma - self.sigma), faces, np.array(multipliers))


def solve_newton(
    passes: Passes,
    slabs: SlabSystem,
    start: Point,
    most_steps: int = _MOST_STEPS,
    most_passes: float = np.inf,
    *,
    near: Solution | None = None,
    patient: bool = True,
) -> Solution:
    """Return the projection onto the slabs and the bounds.

    Args:
        passes: the batch.
        slabs: a feasible system with its accuracy; feasibility is to be checked before.
        start: the point at nu = 0.
        most_steps: the number of steps after which to stop.
        most_passes: the number of sweeps after which to stop, unless the solution is near by then.
        near: what is near the solution, to start from.
        patient: see `descend`.

    Raises:
        SolverError: the accuracy was not reached.
        ClashingFaces: multipliers prove that nothing within the bounds meets the slabs.
    """
    fine = 0 if near is None else _FINE
    solution = descend(passes, slabs, start, most_steps, near, fine, most_passes, patient=patient)
    error = _error(passes, slabs, solution)
    if error > ROUNDING:
        raise unfinished(error, solution.passes)
    return solution


def accurate_enough(passes: Passes, slabs: SlabSystem, solution: Solution) -> bool:
    """Return whether a solution meets the slabs, and its multipliers theirs, as well as its numbers allow."""
    return _error(passes, slabs, solution) <= ROUNDING


def close_enough(passes: Passes, slabs: SlabSystem, solution: Solution) -> bool:
    """Return whether a solution is accurate enough, and misses its limits by no more than rounding.

    In a curved geometry no price may leave more slack than that either.
    """
    rounded = _ROUNDED * passes.size
    met = slabs.violation(solution.statistics) <= _MET + rounded and accurate_enough(passes, slabs, solution)
    if not (met and passes.geometry.smooth):
        return met
    prices = solution.multipliers
    limits = np.array([face.limit for face in solution.faces])
    left = abs(float(prices @ limits - solution.nu @ solution.statistics))
    return left <= (_SLACK + rounded) * float(prices.sum())


def _error(passes: Passes, slabs: SlabSystem, solution: Solution) -> float:
    error = optimality_error(solution, slabs)
    if error <= ROUNDING:
        return error
    wider = gauged(passes, slabs, solution.point, accuracy_of(passes), solution.nu)
    return min(error, optimality_error(solution, wider))


def unfinished(error: float, passes: int) -> SolverError:
    """Return the error that says how much is left."""
    return SolverError(
        f"the projection stopped {error:.3g} times further from its solution than it was asked to, after {passes} "
        "passes over the batch. Check for constraints that barely fit the bounds, or rows of very different size."
    )


def descend(  # noqa: PLR0917 - a search
    passes: Passes,
    slabs: SlabSystem,
    start: Point,
    most_steps: int = _MOST_STEPS,
    near: Solution | None = None,
    fine: int = 0,
    most_passes: float = np.inf,
    *,
    patient: bool = True,
) -> Solution:
    """Run the method as `solve_newton`, and return where it stops, accurate or not.

    Args:
        passes: the batch.
        slabs: a feasible system with its accuracy.
        start: the point at nu = 0.
        most_steps: the number of steps after which to stop.
        near: what is near the solution, to start from.
        fine: the steps of a search from nothing that the first one is worth, where clipped samples count less.
        most_passes: the number of sweeps after which to stop, unless the solution is near by then.
        patient: whether to go on by faces where prices do not settle a program of many rows. With F faces in force that
            costs as F^3 and more, so that whoever has another method had better not wait for it.

    Raises:
        SolverError: it must not be patient, and a program was not settled.
    """
    if slabs.worst(start.statistics)[0] <= 1.0:
        return Solution.unmoved(start)
    dual = _Dual(np.zeros(len(start.statistics)), 0.0, (), np.zeros(0))
    point, count = start, 1
    if near is not None and near.faces:
        dual = _Dual.of(tuple(slabs.face(face.key) for face in near.faces), near.multipliers, len(start.statistics))
        point, count = passes.at(dual.nu), 2
    programs = _Programs(patient=patient)
    error, creeping = np.inf, 0
    for step in range(fine, fine + most_steps):
        last, error = error, optimality_error(_finish(dual, point, count), slabs)
        if 1.0 < 0.5 * last <= error:  # it stalls: the numbers may have grown, or samples far outside come in
            slabs = gauged(passes, slabs, point, accuracy_of(passes), dual.nu)
            error = optimality_error(_finish(dual, point, count), slabs)
        if error <= 1.0 or last <= error <= ROUNDING:
            return _shortened(_finish(dual, point, count), slabs)
        metric = floored(passes, point, step)
        target = programs.target(dual, point, slabs, metric)
        share, candidate, used = _search(passes, dual, target, point, min(_MOST_TRIALS, max(most_passes - count, 2)))
        count += used
        raise_if_unbounded(passes, target)
        if candidate is None:
            break
        dual, point = dual.towards(target, share), candidate
        creeping = creeping + 1 if share < _CREEPS else 0
        if creeping >= _MOST_CREEPING and np.isfinite(most_passes):
            break
        if count >= most_passes and optimality_error(_finish(dual, point, count), slabs) > _NEAR:
            break
    return _shortened(_finish(dual, point, count), slabs)


def optimality_error(solution: Solution, slabs: SlabSystem) -> float:
    """Largest violation, or the multiplier-weighted mean slack of the faces that should be tight; in accuracies."""
    if not (np.isfinite(solution.nu).all() and np.isfinite(solution.statistics).all()):
        return np.inf
    violation, _ = slabs.worst(solution.statistics)
    total = _weight(solution, slabs)
    slack = abs(_sigma(solution) - float(solution.nu @ solution.statistics)) / total if total > 0 else 0.0
    return max(violation, slack)


def _weight(dual: _Dual | Solution, slabs: SlabSystem | None = None) -> float:
    """Return sum_j lambda_j atol_j; with slabs, by their accuracy now."""
    if isinstance(dual.faces, Faces):
        return float(dual.multipliers @ dual.faces.accuracies(slabs))
    now = dual.faces if slabs is None else [slabs.face(face.key) for face in dual.faces]
    return float(sum(m * face.atol for m, face in zip(dual.multipliers, now, strict=True)))


def _sigma(dual: _Dual | Solution) -> float:
    if isinstance(dual.faces, Faces):
        return float(dual.multipliers @ dual.faces.limits)
    return float(sum(m * face.limit for m, face in zip(dual.multipliers, dual.faces, strict=True)))


def floored(passes: Passes, point: Point, step: int) -> FloatArray:
    """Return K, with clipped samples counted as slightly free where without them K could not move at all."""
    metric, whole = point.curvature, passes.widest_metric()
    if metric.ndim == 2:
        least = passes.least_floor if _full(metric) else max(passes.least_floor, _LEAST_OF_BLOCKS)
        return metric + max(0.05 * 0.1**step, least) * (whole - metric)
    floored = metric + max(0.05 * 0.5**step, passes.least_floor) * (whole - metric)
    return np.where(metric <= _SATURATED * floored, floored, metric)


def _full(metric: Any) -> bool:
    return metric.ndim == 2 and not isinstance(metric, ClassMetric)


class _Programs:
    """The quadratic programs of one search, each started from where the one before ended."""

    def __init__(self, *, patient: bool) -> None:
        self.patient = patient
        self.guess: Sequence[Face] = ()
        self.slabs: SlabSystem | None = None
        self.program: PriceProgram | None = None

    def target(self, dual: _Dual, point: Point, slabs: SlabSystem, metric: FloatArray) -> _Dual:
        """Return the solution of the program around a point: by prices where there are many rows, else by faces."""
        centre = point.statistics + (metric * dual.nu if metric.ndim == 1 else metric @ dual.nu)
        # Prices are for a K that is diagonal, or of blocks.
        rows = sum(len(block.matrix) for block in slabs.blocks)
        if not _full(metric) and rows > MANY_ROWS:
            found = self._by_prices(centre, metric, slabs)
            if found is not None:
                return found
            if rows > _MOST_BY_FACES and not self.patient:
                raise SolverError(f"a program of {rows} rows was not settled by prices")
        quadratic = solve_quadratic(centre, metric, slabs, self.guess, 0.1)
        self.guess = quadratic.faces
        return _Dual.of(quadratic.faces, quadratic.multipliers, len(centre))

    def _by_prices(self, centre: FloatArray, metric: FloatArray, slabs: SlabSystem) -> _Dual | None:
        if self.program is None or self.slabs is not slabs:
            self.slabs, self.program = slabs, PriceProgram(RowTable.of(slabs), layout=getattr(metric, "layout", None))
        found = self.program.solve(centre, metric)
        if found is None:
            return None
        table, price = self.program.table, found.price
        high = np.maximum(price, 0.0) / np.append(table.scale, 1.0)[table.level]
        faces, multipliers = faces_of_prices(slabs, table, high, np.maximum(-price, 0.0))
        return _Dual(price @ table.matrix, float(multipliers @ faces.limits), faces, multipliers)


def _search(
    passes: Passes, dual: _Dual, target: _Dual, point: Point, most_trials: float = _MOST_TRIALS
) -> tuple[float, Point | None, int]:
    """Find a share in (0, 1] where the directional derivative of the dual is small, or still positive at the end.

    Illinois variant of the secant method on the (monotone) derivative. Where most of the way is flat, as before a
    sample that is about to become free, secants creep; every second trial therefore is Newton's from the far end, if it
    has a slope there.
    """
    d_nu, d_sigma = target.nu - dual.nu, target.sigma - dual.sigma

    def derivative(at: Point) -> float:
        return float(d_nu @ at.statistics) - d_sigma

    noise = _weight(target) + _weight(dual)
    left, right, first = 0.0, _longest_share(passes, dual.nu, d_nu), derivative(point)
    at_left, candidate = first, passes.at(target.nu if right == 1.0 else dual.nu + right * d_nu)
    at_right = derivative(candidate)
    if at_right >= -noise:
        return right, candidate, 1
    if first <= 0.0:
        return 0.0, None, 1
    used, far_end, falling = 1, candidate, at_right
    while used < most_trials:
        used += 1
        share = left + (right - left) * at_left / (at_left - at_right)
        share = min(max(share, left + 1e-3 * (right - left)), right - 1e-3 * (right - left))
        if used % 2:
            metric = far_end.curvature
            steepness = float(d_nu @ (metric * d_nu if metric.ndim == 1 else metric @ d_nu))
            newton = right + falling / steepness if steepness > 0 else share
            share = newton if left < newton < right else share
        candidate = passes.at(dual.nu + share * d_nu)
        slope = derivative(candidate)
        if abs(slope) <= 0.1 * first or right - left < 1e-15:
            break
        if slope > 0:
            left, at_left, at_right = share, slope, 0.5 * at_right
        else:
            right, at_right, at_left = share, slope, 0.5 * at_left
            far_end, falling = candidate, slope
    return share, candidate, used


def _longest_share(passes: Passes, nu: FloatArray, d_nu: FloatArray) -> float:
    """Return how much of a step a curved geometry allows: its longest step beyond the pull that there is."""
    change = largest_pull(passes, d_nu)
    if change <= passes.geometry.longest_step:
        return 1.0
    return min(1.0, (passes.geometry.longest_step + largest_pull(passes, nu)) / change)


def raise_if_unbounded(passes: Passes, dual: _Dual | Solution) -> None:
    """Raise where multipliers prove infeasibility: min over all y within the bounds of nu' B y exceeds sigma.

    Only dense rows can bring this about; cells alone were decided before.
    """
    if passes.cells.dense is None:
        return
    if float(passes.lowest(dual.nu[None])[0]) - _sigma(dual) > 100 * _weight(dual):
        raise ClashingFaces(dual.faces)


def _finish(dual: _Dual, point: Point, count: int) -> Solution:
    kept = np.flatnonzero(dual.multipliers > 0)
    many = isinstance(dual.faces, Faces)
    faces = dual.faces[kept] if many else tuple(dual.faces[j] for j in kept.tolist())  # type: ignore[call-overload]
    return Solution.at(point, dual.nu, faces, dual.multipliers[kept], passes=count)


def _shortened(solution: Solution, slabs: SlabSystem) -> Solution:
    faces, multipliers = slabs.shortened(solution.faces, solution.multipliers)
    return solution._replace(faces=tuple(faces), multipliers=multipliers)
