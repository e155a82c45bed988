"""All lines of a task as arrays, each divided by its size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fairlayer._typing import FloatArray
from fairlayer.projection.reference.lines import Line, lines_of
from fairlayer.projection.reference.task import Inputs, Task

__all__ = ["Lines", "System"]


@dataclass(frozen=True)
class Lines:
    """Lines of one kind."""

    lines: tuple[Line, ...]
    n: int
    helpers: int
    blocks: int

    @cached_property
    def sizes(self) -> FloatArray:
        """(lines,): what each line was divided by."""
        return np.array([line.size for line in self.lines], dtype=np.float64)

    @cached_property
    def matrix(self) -> FloatArray:
        """(lines, n + helpers)."""
        matrix = np.zeros((len(self.lines), self.n + self.helpers))
        for j, line in enumerate(self.lines):
            matrix[j, : self.n] = line.weights
            for helper, weight in line.helpers:
                matrix[j, self.n + helper] = weight
        return matrix / self.sizes[:, None]

    @cached_property
    def widens(self) -> FloatArray:
        """(lines,): change of the right-hand side per unit of widening."""
        return np.array([line.widens for line in self.lines]) / self.sizes

    def slopes(self, multipliers: FloatArray | None = None) -> FloatArray:
        """(lines, blocks): change of the right-hand side per unit of each tolerance; 0 for equalities unmultiplied."""
        known = np.zeros(len(self.lines)) if multipliers is None else multipliers
        slopes = np.zeros((len(self.lines), self.blocks))
        for j, line in enumerate(self.lines):
            slopes[j, line.block] = line.slope_at(float(known[j])) / self.sizes[j]
        return slopes

    def right(self, tolerances: Tensor, widening: float, multipliers: FloatArray | None = None) -> Tensor:
        """(lines,): the right-hand side, differentiable in the tolerances."""
        constants = np.array([line.constant for line in self.lines]) / self.sizes + widening * self.widens
        return torch.from_numpy(constants) + torch.from_numpy(self.slopes(multipliers)) @ tolerances


@dataclass(frozen=True)
class System:
    """All lines of a task."""

    less: Lines
    equal: Lines

    @staticmethod
    def of(task: Task, *, equalities: bool = True) -> System:
        """State the statements of a task; without `equalities`, as inequalities only."""
        statements = task.assembly.statements
        lines = [*lines_of(statements, task.tolerances, equalities=equalities)]
        helpers = 1 + max((h for line in lines for h, _ in line.helpers), default=-1)
        less, equal = (tuple(x for x in lines if x.is_equality is kind) for kind in (False, True))
        return System(*(Lines(kind, task.n, helpers, len(statements)) for kind in (less, equal)))

    def arguments(self, inputs: Inputs, widening: float, equal: FloatArray | None = None) -> list[Tensor]:
        """Return the parameters of the program, in its order, as functions of the inputs.

        Args:
            inputs: of the task.
            widening: by how much every limit is widened.
            equal: multipliers of the equalities, whose signs decide how a tolerance acts; needed for a gradient.
        """
        limits = self.less.right(inputs.tolerances, widening)
        targets = self.equal.right(inputs.tolerances, widening, equal)
        optional = (limits, targets, inputs.lower, inputs.upper)
        return [inputs.scores, *(each for each in optional if len(each)), *inputs.convex]
