"""From a batch to the thresholds of each cell: read it, solve it, round it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fairlayer._typing import FloatArray
from fairlayer.decisions.inputs import read_capacity
from fairlayer.decisions.problem import Problem
from fairlayer.decisions.program import ClashingBlocks, Mixture, Optimum, solve_program
from fairlayer.decisions.short import counts_near_the_limits
from fairlayer.decisions.whole import as_mixture
from fairlayer.edge import Stated
from fairlayer.errors import InfeasibleConstraintsError

__all__ = ["DecisionPlan", "make_plan"]


@dataclass(frozen=True)
class DecisionPlan:
    """The best lottery per cell, and what is done: the same, or one threshold per cell.

    Args:
        problem: what was asked.
        optimum: the best lotteries, whose utility no thresholds within the limits exceed.
        mixtures: what is done in each cell.
        randomised: whether lots are drawn.
    """

    problem: Problem
    optimum: Optimum
    mixtures: tuple[Mixture, ...]
    randomised: bool


def make_plan(
    scores: FloatArray,
    constraints: Stated,
    *,
    sensitive_features: Any,
    y: Any,
    label_probabilities: Any,
    capacity: Any,
    utility: Any,
    randomised: bool,
    sample_weight: Any = None,
) -> DecisionPlan:
    """Return the thresholds for a batch; arguments as for `decide`."""
    problem = Problem.of(
        scores,
        constraints,
        sensitive_features=sensitive_features,
        y=y,
        label_probabilities=label_probabilities,
        capacity=read_capacity(capacity),
        utility=utility,
        sample_weight=sample_weight,
    )
    try:
        optimum = solve_program(problem.curves, problem.slabs, problem.statistics)
    except ClashingBlocks as clash:
        raise _infeasible(problem, clash, capacity) from None
    if randomised:
        return DecisionPlan(problem, optimum, optimum.mixtures, True)
    problem, counts = counts_near_the_limits(problem, optimum)
    mixtures = tuple(as_mixture(curve, k) for curve, k in zip(problem.curves, counts.tolist(), strict=True))
    return DecisionPlan(problem, optimum, mixtures, False)


def _infeasible(problem: Problem, clash: ClashingBlocks, capacity: Any) -> InfeasibleConstraintsError:
    owners = problem.assembly.owners
    names = dict.fromkeys(problem.constraints[owners[b]].name for b in clash.blocks if b < len(owners))
    asked = [*names, *([f"capacity={capacity}"] if any(b >= len(owners) for b in clash.blocks) else [])]
    return InfeasibleConstraintsError(
        f"no decisions by thresholds meet {' and '.join(asked)}{' together' if len(asked) > 1 else ''}, "
        "not even with lots between thresholds. Loosen one of them."
    )
