"""Tolerances and adversary strengths that change as training goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from fairlayer._numbers import is_number
from fairlayer.adversarial import Adversary
from fairlayer.constraints import Constraint
from fairlayer.constraints.base import check_tolerance
from fairlayer.errors import ConstraintDefinitionError
from fairlayer.integrations.lightning.errors import ScheduleLengthError
from fairlayer.penalties import LossTerm
from fairlayer.projection import FairProjection

__all__ = ["Course", "Schedule", "ToleranceSchedule", "adversaries_of", "check_weighted"]

Schedule = Callable[[float], float]  # progress of training in [0, 1] -> value


class Course:
    """How far a fit has come: the share of its batches, or of its `max_steps`, whichever is nearer to the end.

    Batches are counted, not optimiser steps: these are fewer with accumulated gradients, and more with several
    optimisers. A resumed fit goes on where it was.

    Raises:
        ScheduleLengthError: the trainer has no end.
    """

    def __init__(self, trainer: Any) -> None:
        epochs = math.inf if trainer.max_epochs in (None, -1) else trainer.max_epochs
        self._in_epoch = float(trainer.num_training_batches)
        self._batches = epochs * self._in_epoch if self._in_epoch else 0.0
        self._steps = math.inf if trainer.max_steps in (None, -1) else float(trainer.max_steps)
        if math.isinf(self._batches) and math.isinf(self._steps):
            raise ScheduleLengthError(
                "a schedule over the course of training was asked for (tolerance=, penalty_weight=, or an adversary in "
                "the module), but the trainer cannot tell how many batches there will be. Give it max_steps=, or "
                "max_epochs= and a loader that has a length."
            )

    def progress(self, trainer: Any, batch_idx: int) -> float:
        """Return the progress in [0, 1] before a batch."""
        done = 0.0 if math.isinf(self._batches) else trainer.current_epoch * self._in_epoch + batch_idx
        return min(1.0, max(done / max(1.0, self._batches), float(trainer.global_step) / max(1.0, self._steps)))


def adversaries_of(module: nn.Module) -> list[Adversary]:
    """Every adversary."""
    return [found for found in module.modules() if isinstance(found, Adversary)]


def check_weighted(module: Any) -> float:
    """Return the module's weight of its penalties, which a schedule is to change.

    Raises:
        ConstraintDefinitionError: it has none.
    """
    weight = getattr(module, "penalty_weight", None)
    if is_number(weight):
        return weight
    raise ConstraintDefinitionError(
        f"a schedule penalty_weight= was given, but {type(module).__name__} has no number of this name. Let its "
        "training_step multiply the penalties by self.penalty_weight, set in __init__, or leave the schedule out."
    )


class ToleranceSchedule:
    """Tolerances of a module's constraints while it is trained; `put_back` gives each its own again.

    Args:
        module: the module whose layers' and penalties' constraints are meant.
        schedule: one schedule for every constraint that has a tolerance, or by the constraint's name.

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
    owners = [found for found in module.modules() if isinstance(found, FairProjection | LossTerm)]
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
