"""The front door of the solver: feasibility first, then the cheapest method that is exact."""

from __future__ import annotations

from typing import NamedTuple

from fairlayer.errors import SolverError
from fairlayer.passes import Passes, Point
from fairlayer.solve.accuracy import accuracy_of, gauged
from fairlayer.solve.elastic import solve_proximal
from fairlayer.solve.feasibility import attainable, check_feasible, smallest_widening
from fairlayer.solve.newton import solve_newton
from fairlayer.solve.quadratic import ClashingFaces
from fairlayer.solve.scalar import solve_scalar
from fairlayer.solve.slabs import FaceKey, SlabSystem
from fairlayer.solve.solution import Solution

__all__ = ["Solved", "solve"]

_PLAIN = (float, type(None))  # bounds that are the same for all samples


class Solved(NamedTuple):
    """A solution, the slabs it meets, and by how much they had to be widened (0 where they fit).

    Args:
        solution: the projection onto the slabs.
        slabs: what it meets, widened where that was needed.
        widening: by how much each limit was widened, in its own units.
        clash: of a widened system, the faces that ask for the widening and their weights: it falls by a face's
            weight per unit of that face's limit in the user's units.
    """

    solution: Solution
    slabs: SlabSystem
    widening: float
    clash: tuple[tuple[FaceKey, float], ...] = ()

    def widening_by_limit(self, block: int) -> float:
        """Return by how much the widening falls per unit by which the limits of a block are loosened."""
        return sum(weight for key, weight in self.clash if key[0] == block)


def solve(passes: Passes, slabs: SlabSystem, *, relax: bool = False) -> Solved:
    """Project the (finite) scores of `passes` onto the slabs and the bounds.

    Raises:
        ClashingFaces: nothing within the bounds meets the slabs, and `relax` is False.
        SolverError: the accuracy was not reached.
    """
    start = passes.at(None)
    if not slabs.blocks:
        return Solved(Solution.unmoved(start), slabs, 0.0)
    slabs = gauged(passes, slabs, start, accuracy_of(passes))
    try:
        if not _always_feasible(passes, slabs):
            check_feasible(slabs, *attainable(passes), start.statistics)
        return Solved(_solve(passes, slabs, start), slabs, 0.0)
    except ClashingFaces:
        if not relax:
            raise
    low, high = attainable(passes)
    least = smallest_widening(slabs, low, high, start.statistics)
    return _solve_widened(passes, slabs, start, least)


def _always_feasible(passes: Passes, slabs: SlabSystem) -> bool:
    """Whether equal cell means, attainable under common bounds, meet any such slabs."""
    common = isinstance(passes.lower, _PLAIN) and isinstance(passes.upper, _PLAIN)
    return common and passes.cells.dense is None and slabs.holds_for_constants


def _solve(passes: Passes, slabs: SlabSystem, start: Point) -> Solution:
    single = slabs.single()
    if single is not None and passes.cells.dense is None:
        return solve_scalar(passes, single, start)
    try:
        return solve_newton(passes, slabs, start)
    except SolverError:  # degenerate beyond it: the safer method, at the same accuracy
        return solve_proximal(passes, slabs)


def _solve_widened(passes: Passes, slabs: SlabSystem, start: Point, least: float) -> Solved:
    """Solve with the least widening. With dense rows `least` is a lower limit only: bisect on the solver itself."""

    def attempt(by: float) -> Solved | None:
        wide = slabs.widened(by)
        try:
            return Solved(solve_newton(passes, wide, start), wide, by)
        except (ClashingFaces, SolverError):  # on the very edge of feasibility the solver may not decide
            return None

    solved, narrow, wide = attempt(least), least, max(least, 1e-6)
    while solved is None:
        if wide > 1.0 + 1e6 * max(1.0, least):
            raise SolverError(f"no widening up to {wide:.3g} was found under which the constraints can be met.")
        wide *= 2.0
        solved = attempt(wide)
    while solved.widening - narrow > 1e-9 * max(1.0, solved.widening):
        middle = 0.5 * (narrow + solved.widening)
        better = attempt(middle)
        narrow, solved = (middle, solved) if better is None else (narrow, better)
    return solved
