"""One two-sided slab: a bracketed Newton method on a single multiplier.

With nu = lambda * normal the statistic phi(lambda) = normal @ s(nu) falls monotonically with slope
-normal' K normal. In the Euclidean geometry it is piecewise linear, so Newton is exact on each piece; in any geometry
the bracket, and a limit on how far a pull may change at once, keep it safe.
"""

from __future__ import annotations

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.errors import SolverError
from fairlayer.passes import Passes, Point
from fairlayer.solve.accuracy import accuracy_of, statistic_sizes
from fairlayer.solve.slabs import Face, SingleSlab
from fairlayer.solve.solution import Solution

__all__ = ["largest_pull", "solve_scalar"]

_MOST_PASSES = 200
_NEAR = 1e-6  # prediction units: from so near, the next step or two end at the limit


def solve_scalar(passes: Passes, slab: SingleSlab, start: Point, most_passes: int = _MOST_PASSES) -> Solution:
    """Return the projection onto `slab.lower <= slab.normal @ s <= slab.upper`.

    Args:
        passes: the batch.
        slab: a feasible slab with its accuracy; feasibility is to be checked before.
        start: the point at multiplier zero.
        most_passes: the number of sweeps after which to stop, unless the limit is near by then.

    Raises:
        SolverError: the accuracy was not reached.
    """
    value = float(slab.normal @ start.statistics)
    if slab.lower - slab.atol <= value <= slab.upper + slab.atol:
        return Solution.unmoved(start)
    face = slab.face(value)
    multiplier, point, count = _find_root(passes, face, start, most_passes)
    return Solution.at(point, multiplier * face.normal, (face,), np.array([multiplier]), passes=count + 1)


def _find_root(passes: Passes, face: Face, point: Point, most_passes: int) -> tuple[float, Point, int]:
    low, high, multiplier, atol = 0.0, np.inf, 0.0, face.atol
    unit = largest_pull(passes, face.normal)
    excess = float(face.normal @ point.statistics) - face.limit
    count = 0
    while count < most_passes or (abs(excess) <= _NEAR and count < _MOST_PASSES):
        count += 1
        low, high = (multiplier, high) if excess > 0 else (low, multiplier)
        most = multiplier + passes.geometry.longest_step / unit + multiplier if unit > 0 else np.inf
        multiplier = _next(multiplier, excess, _slope(point, face.normal), low, min(high, most))
        point = passes.at(multiplier * face.normal)
        excess = float(face.normal @ point.statistics) - face.limit
        if abs(excess) <= atol or multiplier in (low, high):
            break
    else:  # stopped anywhere, on either side of the limit
        excess = abs(excess)
    if excess > 100 * atol:
        sizes = statistic_sizes(passes, point, multiplier * face.normal)
        atol = accuracy_of(passes) * max(1.0, float(np.abs(face.normal) @ sizes))
    if excess > 100 * atol:
        raise SolverError(
            f"one slab was asked to within {atol:.3g}, but {excess:.3g} is left after {count} passes. "
            "Check the bounds and the size of the scores."
        )
    return multiplier, point, count


def _next(multiplier: float, excess: float, slope: float, low: float, high: float) -> float:
    """Newton where it stays strictly inside the bracket, else bisect (or double while there is no bracket)."""
    if slope > 0:
        newton = multiplier + excess / slope
        if low < newton < high:
            return newton
    if np.isinf(high):
        return 2.0 * multiplier if multiplier > 0 else 1.0
    return 0.5 * (low + high)


def largest_pull(passes: Passes, nu: FloatArray) -> float:
    """Return the largest pull on any sample at nu; 0 where the geometry allows steps of any length."""
    if np.isinf(passes.geometry.longest_step):
        return 0.0
    if passes.cells.dense is None and passes.cells.classes == 1:
        return float(np.abs(nu / passes.cells.counts).max(initial=0.0))  # no sweep, and nothing that a device is asked
    pull = passes.pull(nu)
    return float(abs(pull).max()) if np.ndim(pull) and len(pull) else 0.0


def _slope(point: Point, normal: FloatArray) -> float:
    metric = point.curvature
    return float((normal * metric) @ normal) if metric.ndim == 1 else float(normal @ metric @ normal)
