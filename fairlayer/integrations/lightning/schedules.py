"""Tolerances and adversary strengths that change as training goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from fairlayer.adversarial import Adversary
from fairlayer.constraints import Constraint
from fairlayer.constraints.base import check_tolerance
from fairlayer.errors import ConstraintDefinitionError
from fairlayer.integrations.lightning.errors import ScheduleLengthError
from fairlayer.penalties import Penalty
from fairlayer.projection import FairProjection

__all__ = ["Schedule", "ToleranceSchedule", "adversaries_of", "steps_of"]

Schedule = Callable[[float], float]  # progress of training in [0, 1] -> value


def steps_of(trainer: Any) -> float:
    """Return how many optimiser steps this fit will have.

    Raises:
        ScheduleLengthError: the trainer has no end.
    """
    steps = float(trainer.estimated_stepping_batches)
    if not math.isfinite(steps):
        raise ScheduleLengthError(
            "a schedule over the course of training was asked for (tolerance=, or an adversary in the module), but "
            "the trainer cannot tell how many steps there will be. Give it max_steps=, or max_epochs= and a loader "
            "that has a length."
        )
    return max(1.0, steps)


def adversaries_of(module: nn.Module) -> list[Adversary]:
    """Every adversary."""
    return [found for found in module.modules() if isinstance(found, Adversary)]


class ToleranceSchedule:
    """Tolerances of a module's constraints while it is trained; `put_back` gives each its own again.

    Args:
        module: its layers' and penalties' constraints are meant.
        schedule: for every constraint that has a tolerance, or by the constraint's name.

    Raises:
        ConstraintDefinitionError: there is no such constraint, or its tolerance is a tensor that may be learnt.
    """

    def __init__(self, module: nn.Module, schedule: Schedule | Mapping[str, Schedule]) -> None:
        self._scheduled = _chosen(_constraints_of(module), schedule)
        self._own = [(constraint, constraint.tolerance) for constraint, _ in self._scheduled]  # type: ignore[attr-defined]

    def advance(self, progress: float) -> dict[str, float]:
        """Set the tolerances for a progress in [0, 1]; return them by the constraint's name."""
        values = {c.name: (c, check_tolerance(c.name, schedule(progress))) for c, schedule in self._scheduled}
        for constraint, value in values.values():
            constraint.tolerance = value  # type: ignore[attr-defined]
        return {name: float(value) for name, (_, value) in values.items()}

    def put_back(self) -> None:
        """Give every constraint the tolerance that it was made with."""
        for constraint, tolerance in self._own:
            constraint.tolerance = tolerance  # type: ignore[attr-defined]


def _constraints_of(module: nn.Module) -> list[Constraint]:
    owners = [found for found in module.modules() if isinstance(found, FairProjection | Penalty)]
    found = {id(constraint): constraint for owner in owners for constraint in owner.constraints}
    return [constraint for constraint in found.values() if hasattr(constraint, "tolerance")]


def _chosen(
    constraints: list[Constraint], schedule: Schedule | Mapping[str, Schedule]
) -> list[tuple[Constraint, Schedule]]:
    known = [constraint.name for constraint in constraints]
    unknown = [name for name in schedule if name not in known] if isinstance(schedule, Mapping) else []
    if unknown or not constraints:
        raise ConstraintDefinitionError(
            f"a tolerance schedule was given for {unknown or 'every constraint'}, but the constraints with a tolerance "
            f"in this module are: {', '.join(known) or 'none'}. Use these names."
        )
    learnt = [constraint.name for constraint in constraints if isinstance(constraint.tolerance, Tensor)]  # type: ignore[attr-defined]
    if learnt:
        raise ConstraintDefinitionError(
            f"a tolerance schedule was given, but the tolerance of {', '.join(learnt)} is a tensor, which may be "
            "learnt. Give a number as tolerance, or leave the schedule out."
        )
    if isinstance(schedule, Mapping):
        return [(constraint, schedule[constraint.name]) for constraint in constraints if constraint.name in schedule]
    return [(constraint, schedule) for constraint in constraints]
