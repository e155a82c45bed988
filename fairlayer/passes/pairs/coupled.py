"""A geometry whose samples hold each other: the answer to a pull is that of the cluster that a sample is in.

In a cluster C the predictions are y_i = t + o_i with fixed offsets, and t makes the slopes and pulls add up to zero. So
with h_i = weight_i d''(y_i, x_i) and a_i = -weight_i d^2 d / dy dx,

    -dy_i/dq_j = 1 / sum_C h,      dy_i/dx_j = a_j / sum_C h      for i, j in C, and 0 where a bound pins the cluster.
"""

from __future__ import annotations

from typing import Any

import torch

from fairlayer.geometry import Geometry
from fairlayer.geometry.base import library

__all__ = ["CoupledGeometry"]


class CoupledGeometry(Geometry):
    """Another geometry, in which `free` is a `Clusters` instead of a mask.

    Args:
        base: the geometry of single samples.
        weights: how many samples each row stands for, (n,), or None; they are part of the divergence here.
    """

    def __init__(self, base: Geometry, weights: Any) -> None:
        self.base, self.weights = base, weights
        self.name, self.unit, self.loss = base.name, base.unit, base.loss
        self.smooth, self.bounded, self.takes_logits = base.smooth, base.bounded, base.takes_logits
        self.longest_step = base.longest_step

    def coordinates(self, scores: torch.Tensor, *, from_logits: bool, margin: float) -> torch.Tensor:
        """Return the coordinates of the geometry of single samples."""
        return self.base.coordinates(scores, from_logits=from_logits, margin=margin)

    def step(self, x: Any, pull: Any, lower: Any, upper: Any) -> tuple[Any, Any]:
        """Refuse: what samples answer together is solved by `PairPasses`."""
        raise NotImplementedError("samples that hold each other have no answer of their own; see PairPasses.")

    def weigh(self, value: Any, x: Any, free: Any, v: Any) -> Any:
        """Return W v."""
        return free.moved(v, self._weighted(1.0 / self._answer(value, x)))

    def follow(self, value: Any, x: Any, free: Any, v: Any) -> Any:
        """Return (dy/dx)' v."""
        return self._lean(value, x) * self.weigh(value, x, free, v)

    def carry(self, value: Any, x: Any, free: Any, v: Any) -> Any:
        """Return (dy/dx) v."""
        return self.weigh(value, x, free, self._lean(value, x) * v)

    def magnitude(self, value: Any, x: Any, free: Any) -> Any:
        """Return what the geometry of single samples says, of samples that are all free."""
        return self.base.magnitude(value, x, None)

    def divergence(self, value: Any, x: Any, lower: Any, upper: Any) -> Any:
        """Return the divergence of single samples."""
        return self.base.divergence(value, x, lower, upper)

    def least(self, x: Any, pull: Any, lower: Any, upper: Any) -> Any:
        """Return that of single samples, which is a lower limit."""
        return self.base.least(x, pull, lower, upper)

    def inside(self, value: Any) -> Any:
        """Return the value inside an open domain."""
        return self.base.inside(value)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def _answer(self, value: Any, x: Any) -> Any:
        """Return -dy/dq of each sample by itself, per unit of its weight."""
        return self.base.weigh(value, x, None, library(value).ones_like(value))

    def _lean(self, value: Any, x: Any) -> Any:
        """Return a."""
        one = library(value).ones_like(value)
        return self._weighted(self.base.follow(value, x, None, one) / self._answer(value, x))

    def _weighted(self, values: Any) -> Any:
        if self.weights is None:
            return values
        like = torch.as_tensor(self.weights).to(values.device) if isinstance(values, torch.Tensor) else self.weights
        return values * like
