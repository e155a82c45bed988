"""What a fit changes as it goes on, set before each batch and put back when it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from fairlayer.adversarial import Adversary
from fairlayer.integrations.lightning.layers import key_of
from fairlayer.integrations.lightning.schedules import Course, Schedule, ToleranceSchedule, check_weighted

__all__ = ["Scheduling"]


class Scheduling:
    """Tolerances, the weight of penalties and the strengths of adversaries during one fit.

    Args:
        module: the module that is trained.
        tolerance: schedule of the tolerances, or one by the name of each constraint; None leaves them.
        penalty_weight: schedule of the module's attribute `penalty_weight`; None leaves it.

    Raises:
        ConstraintDefinitionError: the module has nothing of what is to be scheduled.
    """

    def __init__(
        self, module: nn.Module, tolerance: Schedule | Mapping[str, Schedule] | None, penalty_weight: Schedule | None
    ) -> None:
        self._module: Any = module
        self._tolerance = None if tolerance is None else ToleranceSchedule(module, tolerance)
        self._weight = penalty_weight
        self._own_weight = None if penalty_weight is None else check_weighted(module)
        self._adversaries: Sequence[Adversary] = ()
        self._course: Course | None = None
        self.values: dict[str, float] = {}  # the latest, by the key under which they are logged

    def start(self, trainer: Any, adversaries: Sequence[Adversary]) -> None:
        """Begin to follow the trainer's batches, also for the adversaries given."""
        self._adversaries = adversaries
        needed = self._tolerance is not None or self._weight is not None or bool(adversaries)
        self._course = Course(trainer) if needed else None

    def advance(self, trainer: Any, batch_idx: int) -> None:
        """Set every value for the next batch."""
        if self._course is None:
            return
        progress = self._course.progress(trainer, batch_idx)
        if self._weight is not None:
            self._module.penalty_weight = self._weight(progress)
            self.values["penalty_weight"] = float(self._module.penalty_weight)
        if self._tolerance is not None:
            tolerances = self._tolerance.advance(progress)
            self.values |= {f"tolerance/{key_of(name)}": value for name, value in tolerances.items()}
        for adversary in self._adversaries:
            adversary.advance(progress)
            self.values["adversary_strength"] = adversary.strength

    def put_tolerances_back(self) -> None:
        """Give every constraint its own tolerance, until the next batch of training."""
        if self._tolerance is not None:
            self._tolerance.put_back()

    def end(self) -> None:
        """Give the module its own tolerances and its own weight of penalties."""
        self.put_tolerances_back()
        if self._own_weight is not None:
            self._module.penalty_weight = self._own_weight
