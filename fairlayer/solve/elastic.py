"""Slabs that give way in proportion to their multiplier: the soft sibling of the projection.

    minimise 1/2 |y - z|^2 + 1/2 sum_r d_r^2 / softness_r   subject to   lower <= C (B y - d) <= upper

The minimiser has d = softness * nu, so each statistic just loses `softness * nu`: as if it held one more sample,
free and at zero. The solvers run unchanged on these passes. softness -> 0 is the projection itself.

Around a centre, d = softness * (nu - centre), this is one step of the proximal point method on the dual (Rockafellar
1976): repeated, it solves the degenerate problems on which the plain method stalls, and where nothing is feasible its
multipliers grow into the proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from fairlayer._typing import FloatArray
from fairlayer.errors import SolverError
from fairlayer.passes import WHOLE, Passes, Point, WholeBatch
from fairlayer.solve.accuracy import gauged
from fairlayer.solve.newton import ROUNDING, descend, optimality_error, raise_if_unbounded, unfinished
from fairlayer.solve.slabs import SlabSystem
from fairlayer.solve.solution import Solution

__all__ = ["solve_elastic", "solve_proximal"]

_MOST_STEPS = 40
_ACCURACY, _SOFT_ACCURACY = 1e-13, 1e-8
_SOFTER = (1e6, 1e5, 1e4, 1e3, 1e2, 1e1, 1.0)


def solve_elastic(passes: Passes, slabs: SlabSystem, softness: FloatArray) -> Solution:
    """Return the soft projection; there is always one.

    Where hardly anything gives way and nearly all samples are at a bound, the method may stall on the way from nothing.
    Then the problem is solved with more softness first, and with less and less of it from there. What is returned is
    the least soft one that was reached.

    Args:
        passes: the batch.
        slabs: what the statistics are pulled towards.
        softness: (s,), > 0: how far a statistic gives way per unit of its multiplier.

    Raises:
        SolverError: not even 1e-8 was reached, relative to the scores, with a million times that softness.
    """
    solution, error = _softly(passes, slabs, softness, None)
    if error <= _SOFT_ACCURACY:
        return solution
    reached: Solution | None = None
    for factor in _SOFTER:
        near, last = _softly(passes, slabs, factor * softness, reached)
        if last <= _SOFT_ACCURACY:
            reached = near
        elif reached is not None:
            break
    if reached is None:
        raise SolverError(
            f"the soft projection was asked to within {_SOFT_ACCURACY:.3g} of the size of its scores, but "
            f"{error:.3g} is left."
        )
    return reached


def _softly(passes: Passes, slabs: SlabSystem, softness: FloatArray, near: Solution | None) -> tuple[Solution, float]:
    """Return where the method stops, and how far that is from the solution, relative to the scores."""
    soft = _ElasticPasses(passes, softness)
    start = soft.at(None)
    accurate = gauged(passes, slabs, start, _ACCURACY)
    solution = descend(soft, accurate, start, near=near)
    return solution, optimality_error(solution, accurate) * _ACCURACY


def solve_proximal(passes: Passes, slabs: SlabSystem) -> Solution:
    """Return the projection by the proximal point method: slower than `solve_newton`, and safer.

    Raises:
        ClashingFaces: multipliers prove that nothing within the bounds meets the slabs.
        SolverError: the accuracy was not reached.
    """
    whole = passes.widest_metric()
    softness = 0.1 * (whole if whole.ndim == 1 else np.diag(whole)) + 1e-300
    centre, count, error = np.zeros(len(softness)), 0, np.inf
    for _ in range(_MOST_STEPS):
        soft = _ElasticPasses(passes, softness, centre)
        inner = descend(soft, slabs, soft.at(None))
        centre, softness, count = inner.nu, 0.3 * softness, count + inner.passes
        point = passes.at(centre)
        outer = Solution.at(point, centre, inner.faces, inner.multipliers, passes=count + 1)
        raise_if_unbounded(passes, outer)
        error = optimality_error(outer, slabs)
        if error <= ROUNDING:
            return outer
    raise unfinished(error, count)


class _ElasticPasses:
    """Passes whose statistics give way."""

    def __init__(self, base: Passes, softness: FloatArray, centre: FloatArray | None = None) -> None:
        self.base, self.softness = base, softness
        self.centre = np.zeros(len(softness)) if centre is None else centre
        self.scores, self.cells, self.geometry = base.scores, base.cells, base.geometry
        self.lower, self.upper = base.lower, base.upper
        self.parts, self.least_floor = base.parts, base.least_floor

    @property
    def size(self) -> float:
        """See `Passes.size`."""
        return self.base.size

    def at(self, nu: FloatArray | None) -> Point:
        """See `Passes.at`."""
        point = self.base.at(nu)
        change = -self.centre if nu is None else nu - self.centre
        return point.counted(point.statistics - self.softness * change, partial(self._softened_at, point))

    def widest_metric(self) -> FloatArray:
        """See `Passes.widest_metric`."""
        return self._softened(self.base.widest_metric())

    def _softened_at(self, point: Point) -> FloatArray:
        return self._softened(point.curvature)

    def _softened(self, metric: FloatArray) -> FloatArray:
        return metric + (self.softness if metric.ndim == 1 else np.diag(self.softness))

    def whole_batch(self) -> WholeBatch:
        """See `Passes.whole_batch`."""
        return self.base.whole_batch()

    def magnitudes(self, point: Point) -> FloatArray:
        """See `Passes.magnitudes`."""
        return self.base.magnitudes(point)

    def lowest(self, nus: FloatArray) -> FloatArray:
        """See `Passes.lowest`: what gives way has no least value."""
        return np.where(nus.any(axis=1), -np.inf, 0.0)

    @property
    def n(self) -> int:
        """See `Passes.n`."""
        return self.base.n

    def total(self, sums: torch.Tensor) -> torch.Tensor:
        """See `Passes.total`."""
        return self.base.total(sums)

    @property
    def runs(self) -> Sequence[slice]:
        """See `Passes.runs`."""
        return self.base.runs

    def forget(self) -> None:
        """See `Passes.forget`."""
        self.base.forget()

    def pull(self, nu: FloatArray, run: slice = WHOLE) -> Any:
        """See `Passes.pull`."""
        return self.base.pull(nu, run)

    def sums(self, value: Any, run: slice, *, weighted: bool = True) -> FloatArray:
        """See `Passes.sums`."""
        return self.base.sums(value, run, weighted=weighted)

    def together(self, statistics: FloatArray) -> FloatArray:
        """See `Passes.together`."""
        return self.base.together(statistics)

    def measure(self, value: Any, *, weighted: bool = True) -> FloatArray:
        """See `Passes.measure`."""
        return self.base.measure(value, weighted=weighted)

    def export(self, point: Point, dtype: torch.dtype) -> torch.Tensor:
        """See `Passes.export`."""
        return self.base.export(point, dtype)

    def as_tensor(self, array: Any) -> torch.Tensor:
        """See `Passes.as_tensor`."""
        return self.base.as_tensor(array)

    def from_tensor(self, tensor: torch.Tensor) -> Any:
        """See `Passes.from_tensor`."""
        return self.base.from_tensor(tensor)
