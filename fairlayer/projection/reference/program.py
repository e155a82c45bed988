"""The program in cvxpy, and the cache of programs."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from fairlayer._typing import FloatArray
from fairlayer.errors import BackendError, require
from fairlayer.projection.reference.convex import Built, build
from fairlayer.projection.reference.system import System
from fairlayer.projection.reference.task import Task

__all__ = ["Program", "program_of"]


class Program:
    """A projection in cvxpy, whose numbers are parameters.

    Parameters in order, those without entries left out: scores, limits of the inequalities, targets of the
    equalities, lower, upper, then those of the convex constraints. Whoever sets them and reads what came out
    holds the `lock` in between.
    """

    def __init__(self, n: int, less: FloatArray, equal: FloatArray, bounded: tuple[bool, bool]) -> None:
        cp = require("cvxpy", "cvxpy")
        self.lock = threading.Lock()
        self.value = cp.Variable(n, name="prediction")
        self.helpers = cp.Variable(less.shape[1] - n) if less.shape[1] > n else None
        every = tuple(cp.Parameter(size) for size in (n, len(less), len(equal), n, n))
        self.scores, limits, targets, lower, upper = every
        self.less = [self.left(less) <= limits] if len(less) else []
        self.equal = [self.left(equal) == targets] if len(equal) else []
        self.bounds = [self.value >= lower] * bounded[0] + [self.value <= upper] * bounded[1]
        self.built: tuple[Built, ...] = ()
        used = (True, len(less) > 0, len(equal) > 0, *bounded)
        self.parameters = [parameter for parameter, use in zip(every, used, strict=True) if use]

    def add(self, built: Sequence[Built]) -> None:
        """Add convex constraints on `value`."""
        self.built += tuple(built)
        self.parameters += [parameter for each in built for parameter in each.parameters]

    def left(self, matrix: FloatArray) -> Any:
        """Return the left-hand side of conditions."""
        n = self.value.size
        return matrix[:, :n] @ self.value + (0 if self.helpers is None else matrix[:, n:] @ self.helpers)

    @property
    def rigid(self) -> list[Any]:
        """Everything that must hold and cannot be widened."""
        return [*self.equal, *self.bounds, *(c for built in self.built for c in built.constraints)]

    @cached_property
    def problem(self) -> Any:
        """The projection."""
        cp = require("cvxpy", "cvxpy")
        distance = 0.5 * cp.sum_squares(self.value - self.scores)
        return cp.Problem(cp.Minimize(distance), [*self.less, *self.rigid])

    @cached_property
    def layer(self) -> Any:
        """The projection as a differentiable layer."""
        module = require("cvxpylayers.torch", "cvxpy")
        require("diffcp", "cvxpy")
        try:
            return module.CvxpyLayer(self.problem, parameters=self.parameters, variables=[self.value])
        except (ValueError, NotImplementedError, RuntimeError) as error:
            raise BackendError(f"cvxpylayers cannot differentiate this program: {error}") from error

    def set(self, arguments: Sequence[Tensor]) -> None:
        """Give every parameter its value."""
        for parameter, argument in zip(self.parameters, arguments, strict=True):
            parameter.value = argument.numpy()

    def violation(self, value: FloatArray) -> float:
        """Return the largest violation of a convex constraint at some predictions."""
        if not self.built:  # perhaps shared with other threads: leave its value alone
            return -math.inf
        self.value.value = value
        violations = [float(np.max(c.violation())) for built in self.built for c in built.constraints]
        return max(violations, default=-math.inf)


@lru_cache(maxsize=8)
def _cached_program(n: int, width: int, less: bytes, equal: bytes, bounded: tuple[bool, bool]) -> Program:
    """Build a program for conditions given by content: groups and counts are its constants, so part of the key."""
    conditions = [np.frombuffer(content).reshape(-1, width) for content in (less, equal)]
    return Program(n, conditions[0], conditions[1], bounded)


def program_of(task: Task, system: System) -> Program:
    """Return the program of a task; convex constraints are built anew, for `build` may read anything."""
    less, equal = system.less.matrix, system.equal.matrix
    if not task.convex:
        return _cached_program(task.n, less.shape[1], less.tobytes(), equal.tobytes(), task.bounded)
    program = Program(task.n, less, equal, task.bounded)
    program.add([build(j, convex, program.value, task.batch) for j, convex in task.convex.items()])
    return program
