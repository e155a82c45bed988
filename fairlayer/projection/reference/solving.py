"""Solving a task; where nothing meets it, the least widening under which something does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.errors import InfeasibleConstraintsError, require
from fairlayer.projection.reference.clarabel import failed, minimise
from fairlayer.projection.reference.conditions import Condition
from fairlayer.projection.reference.ending import ClarabelEnding, dual, ending_of
from fairlayer.projection.reference.program import Program, program_of
from fairlayer.projection.reference.system import Conditions, System
from fairlayer.projection.reference.task import Task

__all__ = ["SolvedTask", "solve"]

_ROOM = 1e-9  # what relaxing adds to the least widening, so that the program keeps an interior


@dataclass(frozen=True)
class SolvedTask:
    """A task solved."""

    program: Program
    system: System
    widening: float
    ending: ClarabelEnding
    value: FloatArray  # of the ending, within the bounds

    def held(self) -> Iterator[tuple[Conditions, FloatArray]]:
        """Return the conditions and their multipliers."""
        yield self.system.less, self.ending.less
        yield self.system.equal, self.ending.equal

    def multipliers(self) -> Iterator[tuple[Condition, float]]:
        """Each condition that holds, with its multiplier in the units of the statement."""
        for conditions, multipliers in self.held():
            for j in np.flatnonzero(multipliers):
                yield conditions.conditions[j], float(multipliers[j] / conditions.sizes[j])


def solve(task: Task, relax: bool) -> SolvedTask:
    """Solve a task, with the least widening if it needs one and `relax` allows it.

    Raises:
        InfeasibleConstraintsError: it needs one.
        SolverError: the accuracy was not reached.
    """
    system = System.of(task)
    status, solved = _solve_widened(task, system, program_of(task, system), 0.0)
    return solved or _solve_relaxed(task, status, relax)


def _solve_widened(task: Task, system: System, program: Program, by: float) -> tuple[str, SolvedTask | None]:
    status, ending = ending_of(program, system.arguments(task.inputs, by))
    if ending is None:
        return status, None
    return status, SolvedTask(program, system, by, ending, task.clip(ending.value))


def _solve_relaxed(task: Task, status: str, relax: bool) -> SolvedTask:
    """Solve with the least widening, or say that there is none, or that none is needed."""
    system = System.of(task, equalities=False)
    program = program_of(task, system)
    least, clashing = _least_widening(task, system, program)
    if least <= _ROOM:
        raise failed(f"Clarabel ended with status {status!r} on a feasible program")
    if not relax or not math.isfinite(least):
        raise _infeasible(task, least, clashing)
    widening = least + _ROOM * max(1.0, least)
    status, solved = _solve_widened(task, system, program, widening)
    if solved is None:
        raise failed(f"Clarabel ended with status {status!r} after widening by {widening:g}")
    return solved


def _least_widening(task: Task, system: System, program: Program) -> tuple[float, list[str]]:
    """Return the least widening of all statements, and the names of the constraints that ask for it."""
    cp = require("cvxpy", "cvxpy")
    by = cp.Variable(nonneg=True)
    limits = system.less.right(task.inputs.tolerances, 0.0).numpy()
    less = [program.left(system.less.matrix) <= limits + system.less.widens * by] if len(limits) else []
    with program.lock:
        program.set(system.arguments(task.inputs, 0.0))
        status, _ = minimise(cp.Problem(cp.Minimize(by), [*less, *program.rigid]))
        if not status.startswith("optimal"):
            return math.inf, [convex.name for convex in task.convex.values()]
        return float(by.value), _names_of(task, system.less, dual(less))


def _names_of(task: Task, conditions: Conditions, multipliers: FloatArray) -> list[str]:
    held = np.flatnonzero(multipliers > 1e-5 * np.abs(multipliers).max(initial=0.0))
    owners = {task.assembly.owners[conditions.conditions[j].block] for j in held}
    return [task.constraints[owner].name for owner in sorted(owners | set(task.convex))]


def _infeasible(task: Task, least: float, clashing: Sequence[str]) -> InfeasibleConstraintsError:
    within = " within the bounds" if any(task.bounded) else ""
    asked = f"no predictions{within} meet {' and '.join(clashing)}{' together' if len(clashing) > 1 else ''}"
    if not math.isfinite(least):
        return InfeasibleConstraintsError(f"{asked}, and no widening helps a convex constraint. Loosen it.")
    return InfeasibleConstraintsError(
        f"{asked}: the limits would have to be {least:g} wider. Loosen one of them, or use "
        'on_infeasible="relax" for the smallest widening.'
    )
