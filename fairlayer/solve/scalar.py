"""One two-sided slab: a bracketed Newton method on a single multiplier.

With nu = lambda * normal the statistic phi(lambda) = normal @ s(nu) falls monotonically and is piecewise
linear with slope -normal' K normal, so Newton is exact on each piece and the bracket keeps it safe.
"""

from __future__ import annotations

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.errors import SolverError
from fairlayer.passes import Passes, Point
from fairlayer.solve.slabs import Face, SingleSlab
from fairlayer.solve.solution import Solution

__all__ = ["solve_scalar"]

_MOST_PASSES = 200


def solve_scalar(passes: Passes, slab: SingleSlab, start: Point, atol: float) -> Solution:
    """Return the projection onto `slab.lower <= slab.normal @ s <= slab.upper`.

    Args:
        passes: the batch.
        slab: a feasible slab; feasibility is to be checked before.
        start: the point at multiplier zero.
        atol: accuracy of the slab, in its own units.

    Raises:
        SolverError: the accuracy was not reached.
    """
    value = float(slab.normal @ start.statistics)
    if slab.lower - atol <= value <= slab.upper + atol:
        return Solution.unmoved(start)
    face = slab.face(value)
    multiplier, point, count = _find_root(passes, face, start, atol)
    return Solution.at(point, multiplier * face.normal, (face,), np.array([multiplier]), passes=count + 1)


def _find_root(passes: Passes, face: Face, point: Point, atol: float) -> tuple[float, Point, int]:
    low, high, multiplier = 0.0, np.inf, 0.0
    excess = float(face.normal @ point.statistics) - face.limit
    count = 0
    while count < _MOST_PASSES:
        count += 1
        low, high = (multiplier, high) if excess > 0 else (low, multiplier)
        multiplier = _next(multiplier, excess, _slope(passes, point, face.normal), low, high)
        point = passes.at(multiplier * face.normal)
        excess = float(face.normal @ point.statistics) - face.limit
        if abs(excess) <= atol or multiplier in (low, high):
            break
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


def _slope(passes: Passes, point: Point, normal: FloatArray) -> float:
    metric = passes.metric(point)
    return float((normal * metric) @ normal) if metric.ndim == 1 else float(normal @ metric @ normal)
