"""Relative entropy on the probability simplex: class logits are shifted, then a softmax is taken."""

from __future__ import annotations

from typing import Any

import torch

from fairlayer.geometry.base import Geometry, library
from fairlayer.geometry.probabilities import moved_inside

__all__ = ["EntropicSimplex"]


class EntropicSimplex(Geometry):
    """Nearness by relative entropy, on rows of class probabilities.

        d(y, x) = KL(y given softmax(x)) over the open simplex;   y = softmax(x - q), with x the logits of a row

    -dy/dq = dy/dx = diag(y) - y y'

    Example:
        >>> import torch, fairlayer as fl
        >>> scores, groups = torch.tensor([[0.7, 0.3], [0.2, 0.8]]), {"sex": ["F", "M"]}
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> result = fl.project(scores, parity, sensitive_features=groups, bounds="simplex", geometry="entropic")
        >>> [[round(share, 3) for share in row] for row in result.value.tolist()]
        [[0.484, 0.516], [0.384, 0.616]]
    """

    name = "entropic"
    unit = "log-odds"
    on_simplex = True

    def coordinates(self, scores: torch.Tensor, *, from_logits: bool, margin: float) -> torch.Tensor:
        """Return logits, one per class; a constant per row does not matter."""
        return scores.double() if from_logits else torch.log(moved_inside(scores, margin, most=False))

    def step(self, x: Any, pull: Any, lower: Any, upper: Any) -> tuple[Any, Any]:
        """Return softmax(x - q)."""
        xp = library(x)
        moved = x if pull is None else x - pull
        powers = xp.exp(moved - _top(moved))
        return powers / powers.sum(-1)[..., None], None

    def weigh(self, value: Any, x: Any, free: Any, v: Any) -> Any:
        """Return (diag(y) - y y') v of each row."""
        kept = value * v
        return kept - value * kept.sum(-1)[..., None]

    def follow(self, value: Any, x: Any, free: Any, v: Any) -> Any:
        """Return the same as `weigh`."""
        return self.weigh(value, x, free, v)

    def slope(self, value: Any, x: Any) -> Any:
        """Return log y - x, but for a constant per row."""
        return library(value).log(value) - x

    def softness(self, value: Any, x: Any) -> Any:
        """Return y."""
        return value

    def divergence(self, value: Any, x: Any, lower: Any, upper: Any) -> Any:
        """Return sum_c y_c log(y_c / z_c) - sum_c y_c + 1 of each row, with z = softmax(x).

        Where a cast leaves a row that sums to 1 + h, that costs h^2 / 2, as it should, and not some multiple of h.
        """
        xp = library(x)
        logs = xp.log(xp.where(value > 0, value, xp.ones_like(value)))
        return (value * (logs - (x - _log_sum(x)[..., None]))).sum(-1) - (value.sum(-1) - 1.0)

    def least(self, x: Any, pull: Any, lower: Any, upper: Any) -> Any:
        """Return -log sum_c z_c exp(-q_c), with z = softmax(x)."""
        return _log_sum(x) - _log_sum(x - pull)

    def inside(self, value: Any) -> Any:
        """Return the value, never exactly 0."""
        info = torch.finfo(value.dtype)
        return value.clamp(info.tiny, None)


def _top(x: Any) -> Any:
    top = x.max(-1)
    return (top.values if isinstance(x, torch.Tensor) else top)[..., None]


def _log_sum(x: Any) -> Any:
    top = _top(x)
    return top[..., 0] + library(x).log(library(x).exp(x - top).sum(-1))
