"""The returned column: its value, its certificate, and what the multipliers say about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from fairlayer._typing import FloatArray
from fairlayer.errors import BackendError
from fairlayer.projection.assembly import Assembly
from fairlayer.projection.certificate import Certificate
from fairlayer.projection.reference.certificate import certify, violation
from fairlayer.projection.reference.clarabel import failed
from fairlayer.projection.reference.ending import ACTIVE
from fairlayer.projection.reference.faces import faces_of
from fairlayer.projection.reference.solving import SolvedTask
from fairlayer.projection.reference.task import Task
from fairlayer.solve import Face

__all__ = ["ReferenceProblem"]


@dataclass
class ReferenceProblem:
    """A column solved by the reference backend; see `fairlayer.projection.result.SolvedProblem`."""

    assembly: Assembly
    value: Tensor
    solved: SolvedTask
    certificate: Certificate
    changed: bool
    clipped: int

    @staticmethod
    def of(task: Task, solved: SolvedTask, returned: Tensor) -> ReferenceProblem:
        """Judge the returned value.

        Raises:
            SolverError: it violates a constraint by more than the accuracy promised.
        """
        certificate = certify(task, solved, returned)
        if not certificate.holds:
            raise failed(f"the accuracy was not reached: {certificate}")
        changed = max(violation(task, solved, task.scores), task.outside(task.scores)) > 0.0
        held = task.held(returned.double().numpy())
        return ReferenceProblem(task.assembly, returned, solved, certificate, changed, held)

    def __getstate__(self) -> dict[str, Any]:
        raise BackendError(
            "a result of the reference backend holds a program of cvxpy, which can be neither copied nor pickled. Keep "
            'result.value and what it says (summary(), multipliers), or project with backend="exact".'
        )

    @property
    def widening(self) -> float:
        """By how much the limits of all statements were widened."""
        return self.solved.widening

    @property
    def passes(self) -> int:
        """Iterations of the interior-point solver."""
        return self.solved.ending.iterations

    @property
    def rows(self) -> int:
        """Samples."""
        return len(self.value)

    def prices(self) -> FloatArray:
        """Return one price per constraint, (constraints, 1)."""
        prices = np.zeros(self.assembly.constraints)
        per_block = np.zeros(len(self.assembly.statements))
        for conditions, multipliers in self.solved.held():
            per_block += multipliers @ conditions.slopes(multipliers)
        np.add.at(prices, np.array(self.assembly.owners, dtype=np.int64), per_block)
        for owner, _, multiplier in self.solved.ending.convex:
            prices[owner] += multiplier
        return prices[:, None]

    def shift(self) -> FloatArray:
        """Return one shift per statistic; NaN beside convex constraints, which move each sample on its own."""
        cells = self.assembly.cells
        if self.solved.program.built:
            return np.full(cells.size, np.nan)
        pull, dense = self._pulls()
        shift = np.zeros(len(cells.counts))
        if cells.codes is not None:
            inside = cells.codes < len(shift)
            shift[cells.codes[inside]] = -pull[inside]
        return np.append(shift, -dense)

    def _pulls(self) -> tuple[FloatArray, FloatArray]:
        """Return what the hard groups take off each sample, and the multiplier of each dense row."""
        pull = np.zeros(len(self.solved.value))
        statements = self.assembly.statements
        dense = {s.means.key: np.zeros(len(s.means)) for s in statements if s.means.codes is None}
        for condition, multiplier in self.solved.multipliers():
            statement = statements[condition.block]
            if statement.means.codes is not None:
                pull += multiplier * condition.weights
            elif condition.role != "width":
                sign = -1.0 if condition.role in {"lower", "low"} else 1.0
                dense[statement.means.key] += sign * multiplier * statement.matrix[condition.row]
        return pull, np.concatenate([np.zeros(0), *dense.values()])

    def active(self) -> list[tuple[int, int, str, float]]:
        """Return (constraint, column 0, statement, multiplier) of each statement that holds with equality."""
        found = [
            (self.assembly.owners[key[0]], 0, self.assembly.describe(Face(key, np.zeros(0), 0.0)), multiplier)
            for key, multiplier in faces_of(self.solved.multipliers())
        ]
        convex = self.solved.ending.convex
        return found + [(owner, 0, f"constraint {j}", dual) for owner, j, dual in convex if not dual <= ACTIVE]
