"""The solver as a torch operation: values from the solver, derivatives from `Derivative`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fairlayer._arrays import is_batched, transforming
from fairlayer.errors import BackendError
from fairlayer.passes import Passes
from fairlayer.projection.derivative import Derivative
from fairlayer.solve.solve import Solved

__all__ = ["Job", "differentiable_solve"]


class Job:
    """A projection about to run: `solve` is called on plain scores, once, and its outcome is kept.

    Args:
        solve: from scores (n,) and the bounds given as tensors, all without gradient, to (value, passes, solved).
        blocks: for each tolerance that takes a gradient, the block of slabs that it widens.
    """

    def __init__(
        self,
        solve: Callable[[Tensor, Tensor | None, Tensor | None], tuple[Tensor, Passes, Solved]],
        blocks: Sequence[int],
    ) -> None:
        self._solve = solve
        self.blocks = blocks
        self._derivative: Derivative | None = None
        self.passes: Passes
        self.solved: Solved

    def run(self, scores: Tensor, lower: Tensor | None, upper: Tensor | None) -> Tensor:
        """Solve and keep what the derivative needs."""
        if is_batched(scores):
            raise BackendError(
                "torch.vmap over scores was asked, but each batch is a problem of its own. Give independent scores as "
                "columns (n, k), or loop over the batches."
            )
        value, self.passes, self.solved = self._solve(scores, lower, upper)
        return value

    @property
    def derivative(self) -> Derivative:
        """The derivative at the solution."""
        if self._derivative is None:
            self._derivative = Derivative(self.passes, self.solved)
        return self._derivative

    def faces_of_tolerance(self, like: Tensor) -> Tensor:
        """Return the matrix (tolerances, faces) of d limit / d tolerance.

        Only faces with a multiplier count: an equality without one does not open on either side.
        """
        faces, active = self.derivative.faces, len(self.solved.solution.faces)
        slopes = [1.0 / face.scale if j < active else 0.0 for j, face in enumerate(faces)]
        table = [[s * (f.key[0] == block) for s, f in zip(slopes, faces, strict=True)] for block in self.blocks]
        return torch.tensor(table, dtype=torch.float64, device=like.device).reshape(len(self.blocks), len(faces))


class _Projection(torch.autograd.Function):
    """scores, lower, upper, tolerances -> projection; the form that torch.func transforms accept."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        job: Job = inputs[-1]
        return job.run(*inputs[:3])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        scores, lower, upper, tolerances, ctx.job = inputs
        ctx.only_scores = lower is None and upper is None and tolerances is None
        if not ctx.only_scores:
            ctx.bound_shapes = [None if bound is None else bound.shape for bound in (lower, upper)]
        ctx.input_dtype, ctx.output_dtype = scores.dtype, output.dtype

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        derivative: Derivative = ctx.job.derivative
        upstream = upstreams[0] if upstreams[0].dtype == torch.float64 else upstreams[0].double()
        if ctx.only_scores:
            d_scores = derivative.adjoint_of_scores(upstream)
            d_scores = d_scores if ctx.input_dtype == torch.float64 else d_scores.to(ctx.input_dtype)
            return d_scores, None, None, None, None
        d_scores, g, w = derivative.adjoint(upstream)
        d_scores = d_scores.to(ctx.input_dtype)
        needs = ctx.needs_input_grad
        d_lower = _bound_gradient(g, derivative.at_lower, ctx.bound_shapes[0]) if needs[1] else None
        d_upper = _bound_gradient(g, derivative.at_upper, ctx.bound_shapes[1]) if needs[2] else None
        # w is the same on all processes that share the batch; so that their gradients add up, each takes its share
        d_tolerance = ctx.job.faces_of_tolerance(w) @ w / ctx.job.passes.parts if needs[3] else None
        return d_scores, d_lower, d_upper, d_tolerance, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        scores, lower, upper = (None if change is None else change.double() for change in tangents[:3])
        limits = None
        if tangents[3] is not None:
            limits = tangents[3].double() @ ctx.job.faces_of_tolerance(tangents[3])
        derivative: Derivative = ctx.job.derivative
        return derivative.tangent(scores, lower, upper, limits).to(ctx.output_dtype)


class _EagerProjection(torch.autograd.Function):
    """The same outside torch.func transforms, where a combined forward has less overhead."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        output = _Projection.forward(*inputs)
        _Projection.setup_context(ctx, inputs, output)
        return output

    backward = _Projection.backward
    jvp = _Projection.jvp


# `Function.apply` without its search for wrappers of torch.func, of which there are none here.
_apply_eagerly: Any = super(torch.autograd.Function, _EagerProjection).apply


def _bound_gradient(g: Tensor, mask: Tensor | None, shape: torch.Size) -> Tensor:
    masked = g * 0.0 if mask is None else g * mask
    return masked.sum() if len(shape) == 0 else masked


def differentiable_solve(
    scores: Tensor, lower: Tensor | None, upper: Tensor | None, tolerances: Tensor | None, job: Job
) -> Tensor:
    """Run the job on the scores, with the derivative of the projection attached.

    Args:
        scores: (n,), floating.
        lower: bound as a float64 tensor, 0-d or (n,), where it takes a gradient, else None.
        upper: likewise.
        tolerances: (t,) float64, those that take a gradient, or None.
        job: what to solve.
    """
    if transforming():
        followed: Tensor = _Projection.apply(scores, lower, upper, tolerances, job)  # type: ignore[no-untyped-call]
        return followed
    value: Tensor = _apply_eagerly(scores, lower, upper, tolerances, job)
    return value
