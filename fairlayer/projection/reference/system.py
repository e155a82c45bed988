"""All conditions of a task as arrays, each divided by its size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fairlayer._typing import FloatArray
from fairlayer.projection.reference.conditions import Condition, conditions_of
from fairlayer.projection.reference.task import Task, TaskInputs

__all__ = ["Conditions", "System"]


@dataclass(frozen=True)
class Conditions:
    """Conditions of one kind."""

    conditions: tuple[Condition, ...]
    n: int
    helpers: int
    blocks: int

    @cached_property
    def sizes(self) -> FloatArray:
        """(conditions,): what each condition was divided by."""
        return np.array([condition.size for condition in self.conditions], dtype=np.float64)

    @cached_property
    def matrix(self) -> FloatArray:
        """(conditions, n + helpers)."""
        matrix = np.zeros((len(self.conditions), self.n + self.helpers))
        for j, condition in enumerate(self.conditions):
            matrix[j, : self.n] = condition.weights
            for helper, weight in condition.helpers:
                matrix[j, self.n + helper] = weight
        return matrix / self.sizes[:, None]

    @cached_property
    def widens(self) -> FloatArray:
        """(conditions,): change of the right-hand side per unit of widening."""
        return np.array([condition.widens for condition in self.conditions]) / self.sizes

    def slopes(self, multipliers: FloatArray | None = None) -> FloatArray:
        """(conditions, blocks): change of the right side per unit of a tolerance; 0 for equalities without one."""
        known = np.zeros(len(self.conditions)) if multipliers is None else multipliers
        slopes = np.zeros((len(self.conditions), self.blocks))
        for j, condition in enumerate(self.conditions):
            slopes[j, condition.block] = condition.slope_at(float(known[j])) / self.sizes[j]
        return slopes

    def right(self, tolerances: Tensor, widening: float, multipliers: FloatArray | None = None) -> Tensor:
        """(conditions,): the right-hand side, differentiable in the tolerances."""
        constants = (
            np.array([condition.constant for condition in self.conditions]) / self.sizes + widening * self.widens
        )
        return torch.from_numpy(constants) + torch.from_numpy(self.slopes(multipliers)) @ tolerances


@dataclass(frozen=True)
class System:
    """All conditions of a task."""

    less: Conditions
    equal: Conditions

    @staticmethod
    def of(task: Task, *, equalities: bool = True) -> System:
        """State the statements of a task; without `equalities`, as inequalities only."""
        statements = task.assembly.statements
        conditions = [*conditions_of(statements, task.tolerances, equalities=equalities)]
        helpers = 1 + max((h for condition in conditions for h, _ in condition.helpers), default=-1)
        less, equal = (tuple(x for x in conditions if x.is_equality is kind) for kind in (False, True))
        return System(*(Conditions(kind, task.n, helpers, len(statements)) for kind in (less, equal)))

    def arguments(self, inputs: TaskInputs, widening: float, equal: FloatArray | None = None) -> list[Tensor]:
        """Return the parameters of the program, in its order, as functions of the inputs.

        Args:
            inputs: the inputs of the task.
            widening: by how much every limit is widened.
            equal: multipliers of the equalities, whose signs decide how a tolerance acts; needed for a gradient.
        """
        limits = self.less.right(inputs.tolerances, widening)
        targets = self.equal.right(inputs.tolerances, widening, equal)
        optional = (limits, targets, inputs.lower, inputs.upper)
        return [inputs.scores, *(each for each in optional if len(each)), *inputs.convex]
