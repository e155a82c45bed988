"""Relative entropy on (0, 1): each sample's log-odds are shifted by its pull."""

from __future__ import annotations

import math
from typing import Any

import torch

from fairlayer.geometry.base import Geometry, library, stable_sigmoid
from fairlayer.geometry.probabilities import inside_unit_interval, moved_inside

__all__ = ["Entropic"]

_RESOLUTION = float(torch.finfo(torch.float64).eps)


class Entropic(Geometry):
    """Nearness by relative entropy from the raw score, on probabilities; shifts are in log-odds.

        d(y, x) = KL(y given sigmoid(x)) over 0 < y < 1;   y = sigmoid(x - q), with x the log-odds of the raw score

    It matches the cross-entropy in the sense of an information projection (Csiszar 1975), keeps the order within a
    cell strictly, and never reaches 0 or 1.

    Example:
        >>> import torch, fairlayer as fl
        >>> scores, groups = torch.tensor([0.9, 0.7, 0.2, 0.4]), {"sex": ["F", "F", "M", "M"]}
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> result = fl.project(scores, parity, sensitive_features=groups, bounds=(0.0, 1.0), geometry="entropic")
        >>> [round(value, 3) for value in result.value.tolist()]
        [0.772, 0.467, 0.399, 0.64]
    """

    name = "entropic"
    unit = "log-odds"

    def coordinates(self, scores: torch.Tensor, *, from_logits: bool, margin: float) -> torch.Tensor:
        """Return log-odds."""
        return scores.double() if from_logits else torch.logit(moved_inside(scores, margin))

    def step(self, x: Any, pull: Any, lower: Any, upper: Any) -> tuple[Any, Any]:
        """Return sigmoid(x - q)."""
        return stable_sigmoid(x if pull is None else x - pull), None

    def answer(self, scores: Any, pull: Any, lower: Any, upper: Any) -> Any:
        """Return z / (z + exp(q) (1 - z)), within the bounds."""
        z = scores.clip(_RESOLUTION, 1.0 - _RESOLUTION)
        y = z / (z + library(z).exp(pull.clip(-300.0, 300.0)) * (1.0 - z))
        return y if lower is None and upper is None else y.clip(lower, upper)

    def answer_one(self, score: float, pull: float, lower: float | None, upper: float | None) -> float:
        """Return z / (z + exp(q) (1 - z)), which is sigmoid(logit z - q)."""
        z = min(max(score, _RESOLUTION), 1.0 - _RESOLUTION)
        y = z / (z + math.exp(min(max(pull, -300.0), 300.0)) * (1.0 - z))
        y = y if lower is None or y > lower else lower
        return y if upper is None or y < upper else upper

    def weigh(self, value: Any, x: Any, free: Any, v: Any) -> Any:
        """Return y (1 - y) v."""
        return value * (1.0 - value) * v

    def follow(self, value: Any, x: Any, free: Any, v: Any) -> Any:
        """Return y (1 - y) v: a change of the log-odds acts like one of the pull."""
        return value * (1.0 - value) * v

    def magnitude(self, value: Any, x: Any, free: Any) -> Any:
        """Return y + y (1 - y) |x|: where a pull takes a far score back inside, x - q rounds like x."""
        return value + value * (1.0 - value) * abs(x)

    def slope(self, value: Any, x: Any) -> Any:
        """Return logit(y) - x."""
        xp = library(value)
        return xp.log(value) - xp.log1p(-value) - x

    def score_at(self, value: float, pull: Any) -> Any:
        """Return the x that a pull takes to a value in (0, 1): logit(y) + q."""
        return math.log(value) - math.log1p(-value) + pull

    def divergence(self, value: Any, x: Any, lower: Any, upper: Any) -> Any:
        """Return y log y + (1 - y) log(1 - y) - y x + log(1 + exp(x)), of which far log-odds cancel exactly."""
        xp = library(x)
        odds = xp.where(x >= 0, (1.0 - value) * x, -value * x) + xp.log1p(xp.exp(-abs(x)))
        return _times_log(value) + _times_log(1.0 - value) + odds

    def least(self, x: Any, pull: Any, lower: Any, upper: Any) -> Any:
        """Return -log(1 - z + z exp(-q)), with z = sigmoid(x)."""
        moved, xp = x - pull, library(x)
        same = (x >= 0) == (moved >= 0)
        far = xp.where(same, xp.where(x >= 0, pull + 0.0 * x, 0.0 * x), x.clip(0.0, None) - moved.clip(0.0, None))
        return far + xp.log1p(xp.exp(-abs(x))) - xp.log1p(xp.exp(-abs(moved)))

    def inside(self, value: Any) -> Any:
        """Return the value, never exactly 0 or 1."""
        return inside_unit_interval(value)


def _times_log(y: Any) -> Any:
    """Return y log y, which is 0 at 0."""
    xp = library(y)
    return y * xp.log(xp.where(y > 0, y, xp.ones_like(y)))
