"""What is asked: one projection, on the host in float64."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlayer._typing import FloatArray
from fairlayer.constraints import Batch, Constraint, Convex
from fairlayer.edge import Box
from fairlayer.projection.assembly import Assembly

__all__ = ["Task", "TaskInputs"]


@dataclass(frozen=True)
class TaskInputs:
    """What a projection is differentiable in."""

    scores: Tensor  # (n,)
    tolerances: Tensor  # (blocks,)
    lower: Tensor  # (n,), or (0,) where there is no bound
    upper: Tensor
    convex: tuple[Tensor, ...]  # each parameter of each convex constraint

    @staticmethod
    def read(scores: Tensor, constraints: Sequence[Constraint], assembly: Assembly, box: Box) -> TaskInputs:
        """Bring what the caller gave to the host in float64, differentiably."""
        tolerances = [_plain(statement.tolerance) for statement in assembly.statements]
        return TaskInputs(
            scores=_plain(scores),
            tolerances=torch.stack(tolerances) if tolerances else _nothing(),
            lower=_bound(box.lower, box.lower_tensor, len(scores)),
            upper=_bound(box.upper, box.upper_tensor, len(scores)),
            convex=tuple(_plain(p) for c in constraints if isinstance(c, Convex) for p in c.parameters.values()),
        )

    @staticmethod
    def of(flat: Iterable[Tensor]) -> TaskInputs:
        """Read what `flat` wrote."""
        scores, tolerances, lower, upper, *convex = flat
        return TaskInputs(scores, tolerances, lower, upper, tuple(convex))

    def flat(self) -> tuple[Tensor, ...]:
        """Return all of them in a row."""
        return self.scores, self.tolerances, self.lower, self.upper, *self.convex


def _plain(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64, device="cpu")  # differentiable where it is a tensor


def _nothing() -> Tensor:
    return torch.zeros(0, dtype=torch.float64)


def _bound(number: Any, tensor: Tensor | None, n: int) -> Tensor:
    if number is None:
        return _nothing()
    return _plain(number if tensor is None else tensor).expand(n)


@dataclass(frozen=True)
class Task:
    """One projection in plain numbers; the assembly counts its owners among all constraints."""

    constraints: tuple[Constraint, ...]
    assembly: Assembly
    batch: Batch
    inputs: TaskInputs

    @staticmethod
    def of(constraints: Sequence[Constraint], assembly: Assembly, batch: Batch, inputs: TaskInputs) -> Task:
        """Detach the inputs, and let the assembly count the convex constraints too."""
        position = [j for j, constraint in enumerate(constraints) if not isinstance(constraint, Convex)]
        owners = tuple(position[owner] for owner in assembly.owners)
        counted = replace(assembly, owners=owners, constraints=len(constraints))
        return Task(tuple(constraints), counted, batch, TaskInputs.of(t.detach() for t in inputs.flat()))

    @property
    def n(self) -> int:
        """Number of predictions."""
        return len(self.inputs.scores)

    @property
    def bounded(self) -> tuple[bool, bool]:
        """Whether there is a lower and an upper bound."""
        return len(self.inputs.lower) > 0, len(self.inputs.upper) > 0

    @cached_property
    def scores(self) -> FloatArray:
        """(n,)."""
        return np.asarray(self.inputs.scores.numpy())

    @cached_property
    def tolerances(self) -> FloatArray:
        """(blocks,): one per statement."""
        return np.asarray(self.inputs.tolerances.numpy())

    @cached_property
    def convex(self) -> dict[int, Convex]:
        """The convex constraints, by their position."""
        return {j: c for j, c in enumerate(self.constraints) if isinstance(c, Convex)}

    def clip(self, value: FloatArray) -> FloatArray:
        """Take off what an interior point leaves outside the bounds: a log loss must not see -1e-13."""
        lower, upper = self._bounds()
        value = np.maximum(value, lower) if len(lower) else value
        return np.minimum(value, upper) if len(upper) else value

    def outside(self, value: FloatArray) -> float:
        """Return the largest distance of a prediction outside the bounds."""
        lower, upper = self._bounds()
        below = float((lower - value).max()) if len(lower) else 0.0
        above = float((value - upper).max()) if len(upper) else 0.0
        return max(0.0, below, above)

    def held(self, value: FloatArray) -> int:
        """Return how many predictions are at a bound."""
        lower, upper = self._bounds()
        ends = [bound.astype(np.float32) for bound in (lower, upper) if len(bound)]
        close = [np.abs(value - end) <= np.spacing(np.abs(end)) for end in ends]
        return int(np.logical_or.reduce(close).sum()) if close else 0

    def _bounds(self) -> tuple[FloatArray, FloatArray]:
        return self.inputs.lower.numpy(), self.inputs.upper.numpy()
