"""The gradient: the value that Clarabel found, with the derivative that cvxpylayers finds there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlayer.errors import require
from fairlayer.projection.reference.clarabel import ACCURACIES, failed
from fairlayer.projection.reference.solving import SolvedTask
from fairlayer.projection.reference.task import TaskInputs

__all__ = ["differentiable"]


def differentiable(solved: SolvedTask, inputs: TaskInputs) -> Tensor:
    """Return the solved value (n,), float64, as a function of the inputs.

    Backwards, it raises a SolverError where the layer does not find the same value.
    """
    value: Tensor = _Differentiable.apply(solved, *inputs.flat())  # type: ignore[no-untyped-call]
    return value


class _Differentiable(torch.autograd.Function):
    """The solved value, with the derivative of the layer."""

    @staticmethod
    def forward(ctx: Any, solved: SolvedTask, *inputs: Tensor) -> Tensor:
        ctx.solved = solved
        ctx.save_for_backward(*inputs)
        return torch.from_numpy(solved.value.copy())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad[1:]
        inputs = [t.detach().requires_grad_(need) for t, need in zip(ctx.saved_tensors, needs, strict=True)]
        size = float(upstream.abs().max())
        if size == 0.0:
            return None, *(torch.zeros_like(t) if t.requires_grad else None for t in inputs)
        # diffcp takes an upstream below 1e-8 for zero: hand it one of size 1.
        value = _through_layer(ctx.solved, inputs)
        wanted = [t for t in inputs if t.requires_grad]
        found = iter(torch.autograd.grad(value, wanted, upstream / size, allow_unused=True))
        return None, *(_scaled(next(found), size) if t.requires_grad else None for t in inputs)


def _scaled(gradient: Tensor | None, size: float) -> Tensor | None:
    return None if gradient is None else gradient * size


def _through_layer(solved: SolvedTask, inputs: Sequence[Tensor]) -> Tensor:
    """Solve again through the layer, with predictions of size 1: conditions scale, convex constraints may not.

    Raises:
        SolverError: it found another solution; diffcp does not report the status of Clarabel.
    """
    diffcp_failed = require("diffcp.cone_program", "cvxpy").SolverError
    options = {"solve_method": "Clarabel", "mode": "lsmr", **ACCURACIES[0]}
    largest = max(1.0, float(np.abs(solved.value).max()))
    unit = 1.0 if solved.program.built else largest
    try:
        with torch.enable_grad(), solved.program.lock:
            arguments = solved.system.arguments(TaskInputs.of(inputs), solved.widening, solved.ending.equal)
            scaled = [argument / unit for argument in arguments]
            value: Tensor = unit * solved.program.layer(*scaled, solver_args=options)[0]
    except diffcp_failed as error:
        raise failed(f"the gradient was not found: {error}") from error
    off = float((value.detach() - torch.from_numpy(solved.value)).abs().max())
    if not off <= 1e-4 * largest:
        raise failed(f"the gradient was not found: cvxpylayers solved to within {off:g} only")
    return value
