"""The front door of the solver: feasibility first, then the cheapest method that is exact."""

from __future__ import annotations

from typing import NamedTuple

from fairlayer.errors import SolverError
from fairlayer.passes import Passes, Point
from fairlayer.solve.elastic import solve_proximal
from fairlayer.solve.feasibility import attainable, check_feasible, smallest_widening
from fairlayer.solve.newton import solve_newton
from fairlayer.solve.quadratic import ClashingFaces
from fairlayer.solve.scalar import solve_scalar
from fairlayer.solve.slabs import SlabSystem
from fairlayer.solve.solution import Solution

__all__ = ["Solved", "solve"]

_PLAIN = (float, type(None))  # bounds that are the same for all samples


class Solved(NamedTuple):
    """A solution, the slabs it meets, and by how much they had to be widened (0 where they fit)."""

    solution: Solution
    slabs: SlabSystem
    widening: float


def solve(passes: Passes, slabs: SlabSystem, *, relax: bool = False) -> Solved:
    """Project the (finite) scores of `passes` onto the slabs and the bounds.

    Raises:
        ClashingFaces: nothing within the bounds meets the slabs, and `relax` is False.
        SolverError: the accuracy was not reached.
    """
    start = passes.at(None)
    if not slabs.blocks:
        return Solved(Solution.unmoved(start), slabs, 0.0)
    size = max(1.0, passes.size, slabs.size())
    atol = (1e-13 + 1e-15 * passes.n**0.5) * size  # sums of n numbers round like sqrt(n)
    try:
        if not _always_feasible(passes, slabs):
            check_feasible(slabs, *attainable(passes), start.statistics, atol)
        return Solved(_solve(passes, slabs, start, atol), slabs, 0.0)
    except ClashingFaces:
        if not relax:
            raise
    low, high = attainable(passes)
    least = smallest_widening(slabs, low, high, start.statistics, atol)
    return _solve_widened(passes, slabs, start, least, atol)


def _always_feasible(passes: Passes, slabs: SlabSystem) -> bool:
    """Whether equal cell means, attainable under common bounds, meet any such slabs."""
    common = isinstance(passes.lower, _PLAIN) and isinstance(passes.upper, _PLAIN)
    return common and passes.cells.dense is None and slabs.holds_for_constants


def _solve(passes: Passes, slabs: SlabSystem, start: Point, atol: float) -> Solution:
    single = slabs.single()
    if single is not None and passes.cells.dense is None:
        return solve_scalar(passes, single, start, atol)
    try:
        return solve_newton(passes, slabs, start, atol)
    except SolverError:  # degenerate beyond it: the safer method, at the same accuracy
        return solve_proximal(passes, slabs, atol)


def _solve_widened(passes: Passes, slabs: SlabSystem, start: Point, least: float, atol: float) -> Solved:
    """Solve with the least widening. With dense rows `least` is a lower limit only: bisect on the solver itself."""

    def attempt(by: float) -> Solved | None:
        wide = slabs.widened(by)
        try:
            return Solved(solve_newton(passes, wide, start, atol), wide, by)
        except (ClashingFaces, SolverError):  # on the very edge of feasibility the solver may not decide
            return None

    solved, narrow, wide = attempt(least), least, max(least, 1e-6)
    while solved is None:
        if wide > 1e12 * atol + 1e6 * max(1.0, least):
            raise SolverError(f"no widening up to {wide:.3g} was found under which the constraints can be met.")
        wide *= 2.0
        solved = attempt(wide)
    while solved.widening - narrow > 1e-9 * max(1.0, solved.widening):
        middle = 0.5 * (narrow + solved.widening)
        better = attempt(middle)
        narrow, solved = (middle, solved) if better is None else (narrow, better)
    return solved
