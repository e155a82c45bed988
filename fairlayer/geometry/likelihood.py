"""Cross-entropy on (0, 1): the feasible predictions that are likeliest for labels drawn from the raw scores."""

from __future__ import annotations

from typing import Any

import torch

from fairlayer.geometry.base import Geometry, library
from fairlayer.geometry.probabilities import inside_unit_interval, moved_inside

__all__ = ["Likelihood"]

_LEAST, _MOST = 2.0**-1022, 1.0 - 2.0**-53  # nearer to the ends quotients overflow


class Likelihood(Geometry):
    """Nearness by excess log loss, on probabilities.

        d(y, z) = KL(z given y), the excess cross-entropy of y for labels of probability z, over 0 < y < 1

        y = 2z / (1 + q + r),     r = sqrt((1 + q)^2 - 4 q z) = 1 + q (1 - 2y)

    It matches the log loss: the nearest feasible predictions to the true probabilities lose least of it.

    Example:
        >>> import torch, fairlayer as fl
        >>> scores, groups = torch.tensor([0.9, 0.7, 0.2, 0.4]), {"sex": ["F", "F", "M", "M"]}
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> result = fl.project(scores, parity, sensitive_features=groups, bounds=(0.0, 1.0), geometry="likelihood")
        >>> [round(value, 3) for value in result.value.tolist()]
        [0.73, 0.485, 0.408, 0.606]
    """

    name = "likelihood"
    unit = "excess log loss per prediction unit"

    def coordinates(self, scores: torch.Tensor, *, from_logits: bool, margin: float) -> torch.Tensor:
        """Return probabilities."""
        return moved_inside(torch.sigmoid(scores.double()) if from_logits else scores, margin)

    def step(self, x: Any, pull: Any, lower: Any, upper: Any) -> tuple[Any, Any]:
        """Return the root of q y^2 - (1 + q) y + z = 0 that lies in (0, 1)."""
        if pull is None:
            return x, None
        xp = library(x)
        total = 1.0 + pull
        # (1 + q)^2 - 4 q z = (1 - |q|)^2 + 4 |q| (1 - z, or z for q < 0): a sum, in which nothing cancels.
        size = xp.where(pull > 0, pull, -pull)  # not abs(pull), whose derivative at 0 torch takes as 0
        near = 1.0 - size
        root = xp.sqrt(near * near + 4.0 * size * xp.where(pull > 0, 1.0 - x, x + 0.0 * size))
        # Of the two forms of the root each is taken where it does not cancel: for q <= -1 the first is 0 / 0 at z = 0.
        direct = total > 0
        top = xp.where(direct, 2.0 * x, root - total)
        bottom = xp.where(direct, total + root, -2.0 * (pull + 0.0 * x))
        return top / bottom, None

    def weigh(self, value: Any, x: Any, free: Any, v: Any) -> Any:
        """Return y (1 - y) / r v; with D = z (1 - y)^2 + (1 - z) y^2 that is (y (1 - y))^2 / D."""
        spread = value * (1.0 - value)
        return spread * spread / _curvature(value, x) * v

    def follow(self, value: Any, x: Any, free: Any, v: Any) -> Any:
        """Return 1 / r v = y (1 - y) / D v."""
        return value * (1.0 - value) / _curvature(value, x) * v

    def slope(self, value: Any, x: Any) -> Any:
        """Return (y - z) / (y (1 - y))."""
        return (value - x) / (value * (1.0 - value))

    def score_at(self, value: float, pull: Any) -> Any:
        """Return the z that a pull takes to a value in (0, 1): y + q y (1 - y)."""
        return value + pull * value * (1.0 - value)

    def divergence(self, value: Any, x: Any, lower: Any, upper: Any) -> Any:
        """Return z log(z / y) + (1 - z) log((1 - z) / (1 - y)), also of a y that has been rounded to an end."""
        xp, value = library(x), value.clip(_LEAST, _MOST)
        return x * xp.log(x / value) + (1.0 - x) * xp.log((1.0 - x) / (1.0 - value))

    def least(self, x: Any, pull: Any, lower: Any, upper: Any) -> Any:
        """Return the value at the minimiser, less what convexity allows around any error of that minimiser."""
        xp = library(x)
        # Newton's method from the root that `step` gives would be its code; bisection needs none of it.
        low, high = xp.zeros_like(x), xp.ones_like(x)
        for _ in range(60):
            y = inside_unit_interval(0.5 * (low + high))
            rising = (1.0 - x) / (1.0 - y) - x / y + pull > 0
            low, high = xp.where(rising, low, y), xp.where(rising, y, high)
        y = inside_unit_interval(0.5 * (low + high))
        slope = (1.0 - x) / (1.0 - y) - x / y + pull
        # y is within 2^-60 of the minimiser, and a convex function is above its tangent.
        return self.divergence(y, x, lower, upper) + pull * y - abs(slope) * (high - low)

    def inside(self, value: Any) -> Any:
        """Return the value, never exactly 0 or 1."""
        return inside_unit_interval(value)


def _curvature(value: Any, x: Any) -> Any:
    return x * (1.0 - value) ** 2 + (1.0 - x) * value**2
