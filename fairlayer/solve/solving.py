"""The front door of the solver: the cheapest method that is exact, and the elastic program where nothing fits."""

from __future__ import annotations

import contextlib
import math
from typing import NamedTuple

import numpy as np

from fairlayer.errors import SolverError
from fairlayer.passes import Passes, Point
from fairlayer.solve.accuracy import accuracy_of, gauged
from fairlayer.solve.along import solve_rows_along_curves
from fairlayer.solve.counted import CountedPasses
from fairlayer.solve.elastic import solve_proximal
from fairlayer.solve.elastic_program import Elastic
from fairlayer.solve.feasibility import clash_of, lone_clash, surely_feasible, widening_of
from fairlayer.solve.interior import roomy, solve_interior
from fairlayer.solve.newton import ROUNDING, accurate_enough, descend, optimality_error, solve_newton
from fairlayer.solve.quadratic import ClashingFaces
from fairlayer.solve.ranges import solve_ranges
from fairlayer.solve.scalar import solve_scalar
from fairlayer.solve.slabs import SingleSlab, SlabSystem
from fairlayer.solve.solution import Solution
from fairlayer.solve.sorted import lies_far_outside, sortable
from fairlayer.solve.standin import solve_by_stand_in
from fairlayer.solve.table import RowTable
from fairlayer.solve.units import Units

__all__ = ["WidenedSolution", "solve"]

_MANY = 48  # statistics, from which the elastic program costs more than a few steps
_FIRST_STEPS = 12  # of Newton's method, before feasibility is looked into
_WITHIN = 10.0  # accuracies by which limits may clash and are still met as well as numbers can be
_CROWDED = 0.25  # of the rows at a corner: a search along many curves serves at once
_FEW_ROWS = 24
_FEW_PASSES = 4  # after which a stand-in is asked where the solution lies
_MILD_PASSES = 7  # the same where log-odds are mild, which most often end before
_SOME_PASSES = 8
_ROUNDED = 0.2  # accuracies: what far scores leave as they round is less
_LAST_STEPS = 10
_FAR_LOG_ODDS = 50.0
_APART = 30.0  # log-odds from which a stand-in is asked at once
_MILD = 12.0  # log-odds
_PLAIN = (float, type(None))  # bounds that are the same for all samples
_ROOM = 1e-9  # what relaxing adds to the least widening, relative to 1 or to it, so that there is room inside


class WidenedSolution(NamedTuple):
    """A solution, the slabs it meets, and by how much they had to be widened (0 where they fit).

    Args:
        solution: the projection onto the slabs.
        slabs: what it meets, widened where that was needed.
        widening: by how much each limit was widened, in its own units.
        elastic: for a widened system, the proof of the least widening: it falls by a face's weight per unit of that
            face's limit.
    """

    solution: Solution
    slabs: SlabSystem
    widening: float
    elastic: Elastic | None = None

    def widening_by_limit(self, block: int) -> float:
        """Return by how much the widening falls per unit by which the limits of a block are loosened."""
        if self.elastic is None:
            return 0.0
        faces = ((self.slabs.face(key), weight) for key, weight in self.elastic.faces)
        return sum(weight / face.scale for face, weight in faces if face.key[0] == block)


def solve(passes: Passes, slabs: SlabSystem, *, relax: bool = False) -> WidenedSolution:
    """Project the (finite) scores of `passes` onto the slabs and the domain.

    Raises:
        ClashingFaces: nothing in the domain meets the slabs, and `relax` is False.
        SolverError: the accuracy was not reached.
    """
    counted = CountedPasses(passes)
    solved = _solve_counted(counted, slabs, relax=relax)
    if not np.isfinite(solved.solution.statistics).all():
        raise SolverError(
            "the projection ended in numbers that are not finite. Check for scores (or log-odds) of very unlike size."
        )
    solution = _finished(counted, solved.slabs, solved.solution)
    return solved._replace(solution=solution._replace(passes=counted.count))


def _finished(passes: Passes, slabs: SlabSystem, solution: Solution) -> Solution:
    """Go on where a solution ended within what far scores excuse, but not by how they round.

    Far scores round like their size, so that limits are met less exactly (see `gauged`). Where less of that is used up,
    the solution is as exact as it can be. Otherwise slack is left that the price of a limit makes dear.
    """
    if passes.geometry.smooth or not solution.faces or optimality_error(solution, slabs) <= ROUNDING:
        return solution
    wider = gauged(passes, slabs, solution.point, accuracy_of(passes), solution.nu)
    if optimality_error(solution, wider) <= _ROUNDED:
        return solution
    start, found = passes.at(None), [solution]
    with contextlib.suppress(SolverError, ClashingFaces, np.linalg.LinAlgError):
        found.append(descend(passes, slabs, start, _LAST_STEPS, solution, _LAST_STEPS, _SOME_PASSES))
    if roomy(passes) and optimality_error(found[-1], wider) > _ROUNDED:
        found.extend(filter(None, [solve_interior(passes, slabs, start, _exactly)]))
    return min(found, key=lambda each: optimality_error(each, slabs))


def _exactly(_: Passes, slabs: SlabSystem, solution: Solution) -> bool:
    return optimality_error(solution, slabs) <= ROUNDING


def _solve_counted(passes: Passes, slabs: SlabSystem, *, relax: bool) -> WidenedSolution:
    start = passes.at(None)
    if not slabs.blocks:
        return WidenedSolution(Solution.unmoved(start), slabs, 0.0)
    slabs = gauged(passes, slabs, start, accuracy_of(passes))
    if slabs.worst(start.statistics)[0] <= 1.0:
        return WidenedSolution(Solution.unmoved(start), slabs, 0.0)
    units = _units(passes, slabs)
    if surely_feasible(passes, slabs, start.statistics) or (units is not None and units.fit(passes)):
        return WidenedSolution(_solve(passes, slabs, start, units), slabs, 0.0)
    clash = None if relax else lone_clash(passes, slabs, _WITHIN)
    if clash is not None:
        raise clash
    many = len(start.statistics) > _MANY
    if passes.cells.dense is not None or passes.geometry.on_simplex or many:
        solution = _at_first(passes, slabs, start)  # here a few steps cost less than the elastic program
        if solution is not None:
            return WidenedSolution(solution, slabs, 0.0)
    elastic = widening_of(passes, slabs)
    if elastic.widening <= _WITHIN * _accuracy_of_clash(slabs, elastic):  # what a sum of these numbers rounds to
        return WidenedSolution(_solve(passes, slabs, start, units), slabs, 0.0)
    if not relax:
        raise clash_of(passes, slabs, elastic)
    by = elastic.widening + _ROOM * max(1.0, elastic.widening)
    wide = slabs.widened(by)
    return WidenedSolution(_solve(passes, wide, start, _units(passes, wide)), wide, by, elastic)


def _accuracy_of_clash(slabs: SlabSystem, elastic: Elastic) -> float:
    """Return how accurately the faces that clash can be met, weighted as they ask for the widening."""
    return sum(weight * slabs.face(key).atol for key, weight in elastic.faces)


def _try(
    passes: Passes, slabs: SlabSystem, start: Point, most_steps: int = _FIRST_STEPS, most_passes: float = np.inf
) -> Solution | None:
    try:
        return solve_newton(passes, slabs, start, most_steps, most_passes, patient=False)
    except (SolverError, ClashingFaces):
        return None


def _by_ranges(
    passes: Passes, slabs: SlabSystem, units: Units, start: Point, *, patient: bool = True
) -> Solution | None:
    solution = solve_ranges(passes, slabs, units, start, passes.widest_metric(), patient=patient)
    return solution if solution is not None and accurate_enough(passes, slabs, solution) else None


def _units(passes: Passes, slabs: SlabSystem) -> Units | None:
    """Return the rows of the slabs where no two of them share a statistic, and no statistic a sample."""
    if passes.cells.dense is not None or passes.geometry.on_simplex:
        return None
    return Units.of(RowTable.of(slabs))


def _suits(passes: Passes, units: Units, start: Point) -> bool:
    """Return whether ranges are worth a method of their own: many rows.

    Few rows are as well served by their faces. Where most cells cannot move at all, as in a stream, whose past is held
    by bounds of its own, slopes say little, and the search along the dual needs fewer passes.
    """
    if len(units.level) <= _FEW_ROWS:
        return False
    return isinstance(passes.lower, _PLAIN) or bool((start.curvature > 0).mean() > 0.5)


def _far_apart(passes: Passes, log_odds: float) -> bool:
    """Return whether log-odds go so far that slopes in one place say little about the next."""
    if not sortable(passes) or not passes.geometry.smooth:
        return False
    if passes.geometry.name == "entropic":
        return bool(passes.size > log_odds)
    nearest = min(float(passes.scores.min()), 1.0 - float(passes.scores.max()))  # to an end of (0, 1)
    return nearest < math.exp(-log_odds)


def _far_rows(passes: Passes) -> bool:
    """Return whether logits or scores of rows of classes go so far that a search along the dual rarely ends soon."""
    return bool(passes.geometry.on_simplex and roomy(passes) and passes.size > _APART)


def _patience(passes: Passes) -> int:
    """Return after how many sweeps a stand-in is asked: it costs more than the last ones of a mild batch would."""
    return _FEW_PASSES if _far_apart(passes, _MILD) else _MILD_PASSES


def _solve(passes: Passes, slabs: SlabSystem, start: Point, units: Units | None) -> Solution:
    """Solve a feasible system: by the cheapest method for it, and by slower and safer ones where that stalls."""
    single = slabs.single() if passes.cells.dense is None else None
    solution = _at_once(passes, slabs, start, units, single is not None)
    if solution is None and single is not None:
        return _by_one_multiplier(passes, slabs, single, start)
    if solution is None and sortable(passes):
        solution = solve_by_stand_in(passes, slabs, start)
        solution = solution or (None if units is None else _by_ranges(passes, slabs, units, start))
    return solution or _generally(passes, slabs, start)


def _at_once(passes: Passes, slabs: SlabSystem, start: Point, units: Units | None, single: bool) -> Solution | None:
    """Return the solution of a batch whose scores do not lie far out, where a few passes find it."""
    if lies_far_outside(passes) or _far_apart(passes, _APART):
        return None
    if units is not None and not single and _suits(passes, units, start):
        return _by_ranges(passes, slabs, units, start, patient=not sortable(passes))
    return _try(passes, slabs, start, most_passes=_patience(passes)) if sortable(passes) and not single else None


def _at_first(passes: Passes, slabs: SlabSystem, start: Point) -> Solution | None:
    """Return the solution where a few steps find it, or a stand-in shows where it lies."""
    if not sortable(passes):
        return None if _far_rows(passes) else _try(passes, slabs, start)
    return _try(passes, slabs, start, most_passes=_patience(passes)) or solve_by_stand_in(passes, slabs, start)


def _by_one_multiplier(passes: Passes, slabs: SlabSystem, single: SingleSlab, start: Point) -> Solution:
    if not sortable(passes):
        return solve_scalar(passes, single, start)
    if not (lies_far_outside(passes) or _far_apart(passes, _APART)):
        with contextlib.suppress(SolverError):
            return solve_scalar(passes, single, start, _patience(passes))
    return solve_by_stand_in(passes, slabs, start) or solve_scalar(passes, single, start)


def _generally(passes: Passes, slabs: SlabSystem, start: Point) -> Solution:
    if roomy(passes) and not sortable(passes):  # else it has been tried
        crowded = passes.cells.in_blocks and start.held > _CROWDED * passes.n
        solution = None if crowded else _try(passes, slabs, start, most_passes=_SOME_PASSES)
        if solution is None and passes.geometry.on_simplex:
            solution = solve_rows_along_curves(passes, slabs, start)
        solution = solution or solve_interior(passes, slabs, start)
        if solution is not None:
            return solution
    try:
        return solve_newton(passes, slabs, start)
    except (SolverError, ClashingFaces):
        return _slowly(passes, slabs)


def _slowly(passes: Passes, slabs: SlabSystem) -> Solution:
    try:
        return solve_proximal(passes, slabs)
    except SolverError as error:
        if passes.geometry.name != "entropic" or passes.size <= _FAR_LOG_ODDS:
            raise
        raise SolverError(
            f"{error} Some log-odds are beyond {_FAR_LOG_ODDS:g}, where predictions are all but 0 or 1, and "
            "limits are met by the few that tie. Divide the log-odds by a temperature, or loosen the tolerance."
        ) from None
