"""What keeps raw scores meaningful in a training loop whose constraint reads labels.

Where labels are shown, a constraint on residuals moves every group to the labels' mean, whatever its raw level is. The
loss of the emitted scores then says nothing about that level, the raw scores drift, and in use, without labels, nobody
moves them back. So the backward pass gives the raw scores, beside the exact derivative of the projection,

    r (raw_i - q_i),        r = anchor * median_i |dL/dq_i| / median_i |q_i - y_i|

with q the emitted scores. r is the secant slope of the caller's own loss (2/n for a mean squared error), so that the
pull is what `+ anchor * loss(raw, y)` would add in the free direction, whatever the reduction or scale of the loss. It
is 0 where the layer moves nothing. Medians, because a few predictions near 0 or 1 have slopes of any size.

In second order r counts as a constant. Under torch.func transforms and in forward mode it is refused by name, because
an added pull is the derivative of nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fairlayer._arrays import transforming
from fairlayer._numbers import is_number
from fairlayer.errors import BackendError, ParameterError

__all__ = ["anchored", "check_anchor"]


def check_anchor(anchor: float) -> float:
    """Return a number >= 0.

    Raises:
        ParameterError: it is none.
    """
    if is_number(anchor) and anchor >= 0:
        return float(anchor)
    raise ParameterError(f"anchor must be a number >= 0 (0 for the exact derivative alone), but is {anchor!r}.")


def anchored(value: Tensor, raw: Tensor, labels: Tensor, anchor: float) -> Tensor:
    """Return the value unchanged, whose backward pass also pulls the raw scores towards it.

    Args:
        value: emitted scores, as predictions.
        raw: raw scores, as predictions; of the same shape.
        labels: the labels, of the same shape.
        anchor: share of the pull.

    Raises:
        BackendError: under a torch.func transform, or in forward mode.

    Example:
        >>> raw = torch.tensor([0.0, 1.0], requires_grad=True)
        >>> q = anchored((raw - 1.0).detach(), raw, torch.tensor([1.0, 2.0]), 1.0)
        >>> (q - torch.tensor([1.0, 2.0])).square().mean().backward()
        >>> raw.grad.tolist()
        [1.0, 1.0]
    """
    dual = forward_ad._current_level >= 0 and (_tangent(value) is not None or _tangent(raw) is not None)
    if transforming() or dual:
        raise BackendError(
            f"a layer in training mode whose constraint reads labels adds anchor={anchor:g} to its backward pass, "
            "which torch.func transforms and forward mode cannot follow. Use anchor=0, evaluation mode, or "
            "fairlayer.project."
        )
    if not (torch.is_grad_enabled() and raw.requires_grad):
        return value
    held: Tensor = _Anchored.apply(value, raw, labels, anchor)  # type: ignore[no-untyped-call]
    return held


def _tangent(of: Tensor) -> Tensor | None:
    tangent: Tensor | None = forward_ad.unpack_dual(of).tangent  # type: ignore[no-untyped-call]
    return tangent


class _Anchored(torch.autograd.Function):
    """value, raw, labels -> value."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, raw: Tensor, labels: Tensor, anchor: float) -> Tensor:
        ctx.save_for_backward(value, raw, labels)
        ctx.anchor = anchor
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        [upstream], (value, raw, labels) = upstreams, ctx.saved_tensors
        with torch.no_grad():
            slope = ctx.anchor * _median(upstream) / _median(value - labels).clamp_min(1e-12)
        return upstream, (slope * (raw - value)).to(raw.dtype), None, None


def _median(of: Tensor) -> Tensor:
    """Return the median size of the entries that are not 0; 0 where all are."""
    size = of.detach().abs().flatten()
    size = size[size > 0]
    return size.median() if size.numel() else of.new_zeros(())
