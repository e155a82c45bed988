"""One step that lowers several losses at once, by TorchJD."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from fairlayer.edge import check_choice
from fairlayer.errors import ShapeError, require

__all__ = ["descend"]

_AGGREGATORS = {"mgda": "MGDA", "upgrad": "UPGrad", "mean": "Mean"}


def descend(losses: Sequence[Tensor], parameters: Iterable[Tensor], *, aggregator: str = "mgda") -> None:
    """Add to each parameter's `.grad` a direction against which, to first order, no loss rises.

        J = d losses / d parameters,      grad += aggregator(J)

    Call it in place of `loss.backward()`, before `optimizer.step()`. One backward pass for each loss. That no loss
    rises is so for small steps of plain gradient descent, and to half a percent of the largest gradient (torchjd
    regularises); optimisers that rescale the gradient, such as Adam, may lose it.

    Args:
        losses: scalars, two or more, of one graph.
        parameters: what to descend in; those that do not require a gradient take no part.
        aggregator: "mgda" (the shortest vector of the gradients' convex hull, so near the shortest gradient),
            "upgrad" (the mean of the gradients, each first projected so that it opposes none), or "mean" (ordinary
            descent on the mean of the losses). The first two stand still where the losses cannot be lowered
            together, a Pareto stationary point.

    Raises:
        ShapeError: a loss is not a scalar, or there are fewer than two.
        MissingExtraError: torchjd is not installed, or for "upgrad" its solver quadprog.

    Source: Quinton, Rey (2024), "Jacobian descent for multi-objective optimization" (UPGrad); Desideri (2012) (MGDA).

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 1.0], requires_grad=True)
        >>> descend([3 * x[0], 3 * x[1]], [x])  # the shortest vector between (3, 0) and (0, 3)
        >>> x.grad
        tensor([1.5000, 1.5000])
    """
    check_choice("aggregator", aggregator, tuple(_AGGREGATORS))
    if len(losses) < 2 or any(loss.numel() != 1 for loss in losses):
        raise ShapeError(
            f"descend() needs two or more scalar losses, but got {[tuple(loss.shape) for loss in losses]}."
        )
    autojac = require("torchjd.autojac", "methods")
    if aggregator == "upgrad":
        for solver in ("quadprog", "qpsolvers"):
            require(solver, "methods")
    combine = getattr(require("torchjd.aggregation", "methods"), _AGGREGATORS[aggregator])()
    taking_part = [parameter for parameter in parameters if parameter.requires_grad]
    scalars = [torch.squeeze(loss) for loss in losses]
    # one loss after the other: in parallel it would be vmap, which not every layer supports
    autojac.backward(scalars, inputs=taking_part, parallel_chunk_size=1)
    autojac.jac_to_grad(taking_part, combine)
