"""Bounds on the predictions."""

from __future__ import annotations

from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairlayer._arrays import is_followed, without_derivatives
from fairlayer._numbers import is_number
from fairlayer.errors import InvalidBoundsError

__all__ = ["Bound", "Bounds", "Box", "plain_bounds"]

Bound = float | Tensor | None
Bounds = tuple[Bound, Bound] | None


class Box(NamedTuple):
    """Bounds on every prediction: what the solver reads, and the tensors that take a gradient."""

    lower: Any = None  # None, float, or float64 tensor (n,)
    upper: Any = None
    lower_tensor: Tensor | None = None
    upper_tensor: Tensor | None = None

    @staticmethod
    def read(bounds: Bounds, margin: float, scores: Tensor) -> Box:
        """Check bounds and margin, and move the bounds inwards by the margin."""
        if not (is_number(margin) and margin >= 0):
            raise InvalidBoundsError(f"margin must be a number >= 0, but is {margin!r}.")
        if bounds is None:
            if margin:
                raise InvalidBoundsError(f"margin={margin:g} needs bounds; give bounds=(lower, upper) or margin=0.")
            return Box()
        if isinstance(bounds, str) and bounds == "simplex":
            raise _refused_rows(bounds)
        if not isinstance(bounds, tuple | list) or len(bounds) != 2:
            raise InvalidBoundsError(f"bounds must be (lower, upper), each None or a number, but is {bounds!r}.")
        for side, bound in zip(("lower", "upper"), bounds, strict=True):
            if not isinstance(bound, Real | Tensor | np.ndarray | None) or isinstance(bound, bool):
                raise InvalidBoundsError(f"the {side} bound must be None, a number or a tensor, but is {bound!r}.")
        inner = (_moved(bounds[0], margin), _moved(bounds[1], -margin))
        lower, upper = _bound("lower", inner[0], scores), _bound("upper", inner[1], scores)
        if lower is not None and upper is not None and _any_above(lower, upper):
            raise InvalidBoundsError(
                f"bounds must have lower <= upper, but they are {bounds} with margin={margin:g}. "
                "Swap them, or give a smaller margin."
            )
        if isinstance(lower, Tensor) or isinstance(upper, Tensor):
            lower, upper = _as_vector(lower, scores), _as_vector(upper, scores)
        return Box(lower, upper, *(_differentiable(bound, scores) for bound in inner))


def plain_bounds(bounds: Bounds, margin: float) -> tuple[float | None, float | None]:
    """Return common bounds as numbers.

    Raises:
        InvalidBoundsError: they differ from sample to sample.
    """
    if bounds is None:
        return None, None
    if isinstance(bounds, str):
        raise _refused_rows(bounds)
    for bound in bounds:
        if isinstance(bound, Tensor | np.ndarray) and bound.ndim:
            raise InvalidBoundsError(
                "a stream, a table in chunks, or a model with fixed shifts needs bounds that are the same for all "
                "samples, but they are arrays. Give two numbers, or None."
            )
    low, high = (None if bound is None else float(bound) for bound in bounds)
    return None if low is None else low + margin, None if high is None else high - margin


def _refused_rows(bounds: str) -> InvalidBoundsError:
    return InvalidBoundsError(
        f"a stream, a table in chunks, or a model with fixed shifts needs bounds (lower, upper) or None, not "
        f"{bounds!r}; rows of class probabilities are for project, FairProjection and FairModel."
    )


def _moved(bound: Bound, by: float) -> Bound:
    if bound is None or by == 0:
        return bound
    return float(bound) + by if is_number(bound) else bound + by


def _bound(side: str, bound: Bound, scores: Tensor) -> Any:
    if bound is None:
        return None
    if is_number(bound):
        return float(bound)
    tensor = without_derivatives(torch.as_tensor(bound, dtype=torch.float64))
    if tensor.ndim > 1 or (tensor.ndim == 1 and len(tensor) != len(scores)):
        raise InvalidBoundsError(
            f"the {side} bound must be a number or have shape (n,) = ({len(scores)},), but has shape "
            f"{tuple(tensor.shape)}."
        )
    if is_followed(tensor):
        return tensor  # the values are read where the transform hands them over
    if not torch.isfinite(tensor).all():
        raise InvalidBoundsError(f"the {side} bound must be finite; use None for no bound.")
    return float(tensor) if tensor.ndim == 0 else tensor.to(scores.device)


def _any_above(lower: Any, upper: Any) -> bool:
    if any(isinstance(bound, Tensor) and is_followed(bound) for bound in (lower, upper)):
        return False
    above = lower > upper
    return above if isinstance(above, bool) else bool(above.any())


def _as_vector(bound: Any, scores: Tensor) -> Tensor | None:
    if bound is None or isinstance(bound, Tensor):
        return bound
    return torch.full((len(scores),), bound, dtype=torch.float64, device=scores.device)


def _differentiable(bound: Bound, scores: Tensor) -> Tensor | None:
    if isinstance(bound, Tensor):  # it may take a gradient, or carry a tangent that no flag shows
        return bound.to(device=scores.device, dtype=torch.float64)
    return None
