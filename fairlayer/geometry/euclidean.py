"""Squared distance on a box, or on the whole line: each sample is shifted by its pull, then clipped."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fairlayer.geometry.base import Geometry, library

__all__ = ["Euclidean"]


class Euclidean(Geometry):
    """Nearness by squared distance, on any interval.

        d(y, x) = 1/2 (y - x)^2 over lower <= y <= upper;   y = clip(x - q)

    It matches the squared error: the nearest feasible predictions to the true means lose least of it.

    Example:
        >>> import torch, fairlayer as fl
        >>> scores, groups = torch.tensor([0.9, 0.7, 0.2, 0.4]), {"sex": ["F", "F", "M", "M"]}
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> result = fl.project(scores, parity, sensitive_features=groups, bounds=(0.0, 1.0), geometry="euclidean")
        >>> [round(value, 3) for value in result.value.tolist()]
        [0.7, 0.5, 0.4, 0.6]
    """

    name = "euclidean"
    unit = "prediction units"
    loss = "squared_error"
    smooth = False
    bounded = False
    takes_logits = False
    longest_step = float("inf")

    def coordinates(self, scores: torch.Tensor, *, from_logits: bool, margin: float) -> torch.Tensor:
        """Return the scores themselves."""
        return scores

    def step(self, x: Any, pull: Any, lower: Any, upper: Any) -> tuple[Any, Any]:
        """Return clip(x - q), and which samples were not clipped."""
        moved = x if pull is None else x - pull
        if lower is None and upper is None:
            return moved, None
        value = _clip(moved, lower, upper)
        return value, value == moved

    def answer(self, scores: Any, pull: Any, lower: Any, upper: Any) -> Any:
        """Return clip(z - q)."""
        return self.value(scores, pull, lower, upper)

    def value(self, x: Any, pull: Any, lower: Any, upper: Any) -> Any:
        """Return clip(x - q), in one array."""
        moved = np.subtract(x, pull)
        if lower is not None:
            np.maximum(moved, lower, out=moved)
        return moved if upper is None else np.minimum(moved, upper, out=moved)

    def answer_one(self, score: float, pull: float, lower: float | None, upper: float | None) -> float:
        """Return clip(z - q)."""
        y = score - pull
        y = y if lower is None or y > lower else lower
        return y if upper is None or y < upper else upper

    def weigh(self, value: Any, x: Any, free: Any, v: Any) -> Any:
        """Return v of the samples that were not clipped."""
        return v if free is None else v * free

    def follow(self, value: Any, x: Any, free: Any, v: Any) -> Any:
        """Return v of the samples that were not clipped."""
        return v if free is None else v * free

    def magnitude(self, value: Any, x: Any, free: Any) -> Any:
        """Return |y|, and |x| too where the sample is free: x - q rounds like x, a bound does not round."""
        return abs(value) + (abs(x) if free is None else abs(x) * free)

    def slope(self, value: Any, x: Any) -> Any:
        """Return y - x."""
        return value - x

    def score_at(self, value: float, pull: Any) -> Any:
        """Return the x that a pull takes to a value between the bounds: y + q."""
        return value + pull

    def divergence(self, value: Any, x: Any, lower: Any, upper: Any) -> Any:
        """Return 1/2 t^2 + (c - x) t with c = clip(x) and t = value - c, so that far outliers cancel exactly."""
        nearest = _clip(x, lower, upper)
        moved = value - nearest
        return 0.5 * moved**2 + (nearest - x) * moved

    def least(self, x: Any, pull: Any, lower: Any, upper: Any) -> Any:
        """Return q c + min_t 1/2 t^2 + (q + c - x) t over c + t within the bounds, with c = clip(x)."""
        xp = library(x)
        nearest = _clip(x, lower, upper)
        slope = pull + (nearest - x)
        best = -0.5 * slope**2
        for bound, sign in ((lower, 1.0), (upper, -1.0)):
            if bound is not None:
                end = bound - nearest
                best = xp.where(sign * (-slope - end) < 0, 0.5 * end**2 + slope * end, best)
        return pull * nearest + best


def _clip(moved: Any, lower: Any, upper: Any) -> Any:
    if lower is None and upper is None:
        return moved
    if isinstance(moved, torch.Tensor):
        return moved.clamp(lower, upper)
    xp = library(moved)
    value = moved if lower is None else xp.maximum(moved, lower)
    return value if upper is None else xp.minimum(value, upper)
