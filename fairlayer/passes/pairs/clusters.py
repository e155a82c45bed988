"""Samples that move together, because active pairs hold them at fixed distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fairlayer._typing import IntArray
from fairlayer.geometry.base import library
from fairlayer.passes.pairs.graph import strong_components

__all__ = ["Clusters"]


@dataclass(frozen=True)
class Clusters:
    """Which samples move together; all arrays NumPy's, or all torch's.

    It stands where other passes have a mask of free samples, and `~clusters` is the mask of those that are held.

    Args:
        codes: cluster of each sample, (n,).
        pinned: whether a bound holds a cluster, so that it cannot move, (clusters,).
    """

    codes: Any
    pinned: Any

    ndim = 1

    @property
    def count(self) -> int:
        """Number of clusters."""
        return len(self.pinned)

    def sums(self, values: Any) -> Any:
        """Return the sum of a number per sample over each cluster, differentiably."""
        if isinstance(values, torch.Tensor):
            return values.new_zeros(self.count).index_add(0, self.codes, values)
        return np.bincount(self.codes, values, self.count).astype(np.float64, copy=False)

    def spread(self, levels: Any) -> Any:
        """Return a number per cluster as a number per sample."""
        return levels[self.codes]

    def moved(self, force: Any, curvature: Any) -> Any:
        """Return how far each sample moves: clusters by the sum of their forces per curvature, pinned ones not."""
        level = self.sums(force) / self.sums(curvature)
        return self.spread(library(level).where(self.pinned, 0.0 * level, level))

    def of(self, members: Any) -> Clusters:
        """Return the clusters of samples, from those of what they are members of."""
        return Clusters(self.codes[members], self.pinned)

    def joined(self, tail: IntArray, head: IntArray) -> Clusters:
        """Return the clusters where each head can only move up with its tail: what closes a circle moves together."""
        _, whole = np.unique(strong_components(self.count, tail, head), return_inverse=True)
        held = np.zeros(int(whole.max()) + 1, dtype=bool)
        np.logical_or.at(held, whole, self.pinned)
        return Clusters(whole[self.codes], held)

    def to_torch(self, device: torch.device) -> Clusters:
        """Return the same in torch."""
        if isinstance(self.codes, torch.Tensor):
            return self
        return Clusters(torch.from_numpy(self.codes).to(device), torch.from_numpy(self.pinned).to(device))

    def all(self) -> bool:
        """Return whether every sample can move."""
        return not bool(self.pinned.any())

    def __invert__(self) -> Any:
        return self.pinned[self.codes]
