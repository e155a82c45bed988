"""A solved projection as a torch operation: its value is known before, its derivative comes from `Derivative`."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from fairlayer._arrays import transforming
from fairlayer.projection.derivative import Derivative

__all__ = ["SolvedProjection", "attach"]


class SolvedProjection(Protocol):
    """What the operation needs of a solved projection."""

    value: Tensor
    parts: int  # processes that share the batch
    smooth: bool

    @property
    def derivative(self) -> Derivative: ...
    def limits_by_tolerance(self, device: torch.device) -> Tensor: ...


class _Projection(torch.autograd.Function):
    """scores, lower, upper, tolerances -> value; the form that torch.func transforms accept."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        outcome: SolvedProjection = inputs[-1]
        return outcome.value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        scores, lower, upper, _, ctx.outcome = inputs
        ctx.bound_shapes = [None if bound is None else bound.shape for bound in (lower, upper)]
        ctx.input_dtype, ctx.output_dtype = scores.dtype, output.dtype
        if ctx.outcome.smooth:
            ctx.save_for_backward(output, scores)
            ctx.save_for_forward(output, scores)

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        outcome: SolvedProjection = ctx.outcome
        needs = ctx.needs_input_grad
        at_bounds = needs[1] or needs[2]
        d_scores, g, w = outcome.derivative.adjoint(upstreams[0], _place(ctx), ctx.input_dtype, at_bounds=at_bounds)
        if not any(needs[1:4]):
            return d_scores, None, None, None, None
        derivative = outcome.derivative
        d_lower = _bound_gradient(g, derivative.at_lower, ctx.bound_shapes[0]) if needs[1] else None
        d_upper = _bound_gradient(g, derivative.at_upper, ctx.bound_shapes[1]) if needs[2] else None
        # w is the same on all processes that share the batch; so that their gradients add up, each takes its share
        d_tolerance = outcome.limits_by_tolerance(w.device) @ w / outcome.parts if needs[3] else None
        return d_scores, d_lower, d_upper, d_tolerance, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        scores, lower, upper = (None if change is None else change.double() for change in tangents[:3])
        outcome: SolvedProjection = ctx.outcome
        limits = None
        if tangents[3] is not None:
            limits = tangents[3].double() @ outcome.limits_by_tolerance(tangents[3].device)
        return outcome.derivative.tangent(scores, lower, upper, limits, _place(ctx)).to(ctx.output_dtype)


class _EagerProjection(torch.autograd.Function):
    """The same outside torch.func transforms, where a combined forward has less overhead."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        outcome: SolvedProjection = inputs[-1]
        output = outcome.value.detach()
        _Projection.setup_context(ctx, inputs, output)
        return output

    backward = _Projection.backward
    jvp = _Projection.jvp


# `Function.apply` without its search for wrappers of torch.func, of which there are none here.
_apply_eagerly: Any = super(torch.autograd.Function, _EagerProjection).apply


def _place(ctx: Any) -> tuple[Tensor, Tensor] | None:
    """Return the value and the scores as autograd knows them, where the derivative depends on them and is followed."""
    if not ctx.outcome.smooth or not (torch.is_grad_enabled() or transforming()):
        return None
    value, scores = ctx.saved_tensors
    return _double(value), _double(scores)


def _double(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.double()


def _bound_gradient(g: Tensor | None, mask: Tensor | None, shape: torch.Size) -> Tensor:
    assert g is not None
    masked = g * 0.0 if mask is None else g * mask
    return masked.sum() if len(shape) == 0 else masked


def attach(
    scores: Tensor, lower: Tensor | None, upper: Tensor | None, tolerances: Tensor | None, outcome: SolvedProjection
) -> Tensor:
    """Return the value of a solved projection, with its derivative attached.

    Args:
        scores: (n,) or (n, k), floating, in the coordinate of the geometry; what was projected.
        lower: bound as a float64 tensor, 0-d or (n,), where it takes a gradient, else None.
        upper: likewise.
        tolerances: (t,) float64, those that take a gradient, or None.
        outcome: the solved projection of these.
    """
    if transforming():
        followed: Tensor = _Projection.apply(scores, lower, upper, tolerances, outcome)  # type: ignore[no-untyped-call]
        return followed
    value: Tensor = _apply_eagerly(scores, lower, upper, tolerances, outcome)
    return value
