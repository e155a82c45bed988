"""Squared distance on the probability simplex: class scores are shifted, then projected onto the simplex."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fairlayer.geometry.base import Geometry, library

__all__ = ["EuclideanSimplex"]


class EuclideanSimplex(Geometry):
    """Nearness by squared distance, on rows of class probabilities.

        d(y, x) = 1/2 |y - x|^2 over rows y >= 0 with sum 1;   y is the projection of x - q onto the simplex

        -dy/dq = dy/dx = diag(s) - s s' / sum(s),     s the support of the row

    Source: Duchi et al. (2008), "Efficient projections onto the l1-ball", figure 1, for the projection.

    Example:
        >>> import torch, fairlayer as fl
        >>> scores, groups = torch.tensor([[0.7, 0.3], [0.2, 0.8]]), {"sex": ["F", "M"]}
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> result = fl.project(scores, parity, sensitive_features=groups, bounds="simplex", geometry="euclidean")
        >>> [[round(share, 3) for share in row] for row in result.value.tolist()]
        [[0.5, 0.5], [0.4, 0.6]]
    """

    name = "euclidean"
    unit = "prediction units"
    loss = "squared_error"
    on_simplex = True
    smooth = False
    bounded = False
    takes_logits = False
    longest_step = float("inf")

    def coordinates(self, scores: torch.Tensor, *, from_logits: bool, margin: float) -> torch.Tensor:
        """Return the scores themselves."""
        return scores

    def step(self, x: Any, pull: Any, lower: Any, upper: Any) -> tuple[Any, Any]:
        """Return the projection of x - q onto the simplex, and the support of each row."""
        xp = library(x)
        moved = x if pull is None else x - pull
        value = (moved - _threshold(moved)).clip(0.0, None)
        value = value / value.sum(-1)[..., None]  # only rounding is divided away
        return value, (value > 0) * xp.ones_like(value)

    def weigh(self, value: Any, x: Any, free: Any, v: Any) -> Any:
        """Return v within the support, less its mean over the support."""
        inside = v * free
        return inside - free * (inside.sum(-1) / free.sum(-1))[..., None]

    def follow(self, value: Any, x: Any, free: Any, v: Any) -> Any:
        """Return the same as `weigh`."""
        return self.weigh(value, x, free, v)

    def slope(self, value: Any, x: Any) -> Any:
        """Return y - x."""
        return value - x

    def softness(self, value: Any, x: Any) -> Any:
        """Return 1."""
        return np.ones_like(value)

    def divergence(self, value: Any, x: Any, lower: Any, upper: Any) -> Any:
        """Return 1/2 |value - x|^2 of each row, less that of its projection where the domain counts."""
        return _half_square(value, x) if lower is None else _further(value, _bisected(x), x)

    def least(self, x: Any, pull: Any, lower: Any, upper: Any) -> Any:
        """Return the value at a point of the simplex, less what any other point could gain on it.

        f(y) >= f(p) + (p - x + q)'(y - p) >= f(p) + min_c (p - x + q)_c - (p - x + q)'p for every y of the simplex.
        """
        point = _bisected(x - pull)
        gradient = point - x + pull
        gain = gradient.min(-1)
        smallest = gain if not isinstance(x, torch.Tensor) else gain.values
        possible = (point * (gradient - smallest[..., None])).sum(-1)
        return _further(point, _bisected(x), x) + (pull * point).sum(-1) - possible


def _half_square(value: Any, x: Any) -> Any:
    return 0.5 * ((value - x) ** 2).sum(-1)


def _further(value: Any, other: Any, x: Any) -> Any:
    """Return 1/2 |value - x|^2 - 1/2 |other - x|^2, of which far scores cancel exactly."""
    return 0.5 * ((value - other) * ((value - x) + (other - x))).sum(-1)


def _threshold(moved: Any) -> Any:
    """Return tau with sum max(moved - tau, 0) = 1 for each row, from the sorted row."""
    xp = library(moved)
    if isinstance(moved, torch.Tensor):
        ordered = moved.sort(dim=-1, descending=True).values
        ranks = torch.arange(1, moved.shape[-1] + 1, dtype=moved.dtype, device=moved.device)
    else:
        ordered = -xp.sort(-moved, axis=-1)
        ranks = xp.arange(1.0, moved.shape[-1] + 1.0)
    tau = (ordered.cumsum(-1) - 1.0) / ranks
    size = (ordered > tau).sum(-1)[..., None] - 1
    return xp.take_along_dim(tau, size, -1) if xp is torch else xp.take_along_axis(tau, size, -1)


def _bisected(moved: Any) -> Any:
    """Return a point of the simplex near the projection, by bisection on the threshold instead of sorting."""
    xp = library(moved)
    top = moved.max(-1)
    top = (top.values if isinstance(moved, torch.Tensor) else top)[..., None]
    low, high = top - 1.0, top
    for _ in range(60):
        tau = 0.5 * (low + high)
        above = (moved - tau).clip(0.0, None).sum(-1)[..., None] > 1.0
        low, high = xp.where(above, tau, low), xp.where(above, high, tau)
    point = (moved - low).clip(0.0, None)
    return point / point.sum(-1)[..., None]
