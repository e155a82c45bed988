"""Passes in NumPy: small batches on the CPU, where call overhead decides."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch

from fairlayer._typing import FloatArray
from fairlayer.geometry import EUCLIDEAN, Geometry
from fairlayer.passes.base import Cells, Point, WholeBatch, blocks, least_product, noise_of, table_of

__all__ = ["NumpyPasses"]

_MEMBERSHIP_UP_TO = 4  # cells
_MEMBERSHIP_FROM = 1024  # samples


class NumpyPasses:
    """Passes in NumPy."""

    parts = 1

    def __init__(
        self, scores: FloatArray, cells: Cells, lower: Any, upper: Any, geometry: Geometry = EUCLIDEAN
    ) -> None:
        self.scores, self.cells, self.geometry = scores, cells, geometry
        self.lower, self.upper = lower, upper
        self.members = _members(cells)

    def at(self, nu: FloatArray | None) -> Point:
        """See `Passes.at`."""
        pull = None if nu is None else self.pull(nu)
        value, free = self.geometry.step(self.scores, pull, self.lower, self.upper)
        return Point(value, free, self.measure(value))

    def pull(self, nu: FloatArray) -> Any:
        """See `Passes.pull`."""
        k = len(self.cells.counts)
        hard: Any = 0.0
        if self.members is not None:
            hard = (nu[:k] / self.cells.counts) @ self.members
        elif self.cells.codes is not None:
            hard = table_of(nu[:k], self.cells)[self.cells.codes]
        return hard if self.cells.dense is None else hard + nu[k:] @ self.cells.dense

    def small(self, array: FloatArray) -> FloatArray:
        """See `Passes.small`."""
        return array

    def measure(self, value: FloatArray, *, weighted: bool = True) -> FloatArray:
        """See `Passes.measure`."""
        whole = value if self.cells.weights is None or not weighted else value * self.cells.weights
        means = self._plain_sums(whole) / self.cells.counts
        return means if self.cells.dense is None else np.append(means, self.cells.dense @ whole)

    def metric(self, point: Point, floor: float = 0.0) -> FloatArray:
        """See `Passes.metric`."""
        weight = self.geometry.weigh(point.value, self.scores, point.free, np.ones(len(self.scores)))
        return self._metric_of(np.maximum(weight, floor) if floor else weight)

    def widest_metric(self) -> FloatArray:
        """See `Passes.widest_metric`."""
        return self._metric_of(np.ones(len(self.scores)))

    def _metric_of(self, weight: FloatArray) -> FloatArray:
        diagonal: FloatArray = self._sums(weight) / (self.cells.counts * self.cells.counts)
        if self.cells.dense is None:
            return diagonal
        cross, square = [], []
        for row in self.cells.dense:  # one at a time: together they would be as large as the rows themselves
            masked = row * weight
            cross.append(self._sums(masked) / self.cells.counts)
            weighted = masked if self.cells.weights is None else masked * self.cells.weights
            square.append(self.cells.dense @ weighted)
        return blocks(diagonal, np.array(cross), np.array(square))

    def whole(self) -> WholeBatch:
        """See `Passes.whole`."""
        return WholeBatch.of(self.cells, self.lower, self.upper, self.n)

    def magnitudes(self, point: Point) -> FloatArray:
        """See `Passes.magnitudes`."""
        size = self.geometry.magnitude(point.value, self.scores, point.free)
        means = self._sums(size) / self.cells.counts
        if self.cells.dense is None:
            return means
        weighted = size if self.cells.weights is None else size * self.cells.weights
        return np.append(means, [np.abs(row) @ weighted for row in self.cells.dense])

    def lowest(self, nus: FloatArray) -> FloatArray:
        """See `Passes.lowest`."""
        return np.array([self._lowest(nu) for nu in nus])

    def _lowest(self, nu: FloatArray) -> float:
        pull = self.pull(nu) if self.cells.weights is None else self.pull(nu) * self.cells.weights
        bounded = self.lower is not None and self.upper is not None
        noise = 0.0 if bounded else noise_of(nu, self.cells)  # what a missing bound makes infinite
        return least_product(np.maximum(pull, 0.0), self.lower, noise) + least_product(
            np.minimum(pull, 0.0), self.upper, noise
        )

    @cached_property
    def size(self) -> float:
        """See `Passes.size`."""
        return float(max(self.scores.max(), -self.scores.min())) if len(self.scores) else 0.0

    @property
    def n(self) -> int:
        """See `Passes.n`."""
        return len(self.scores)

    def total(self, sums: torch.Tensor) -> torch.Tensor:
        """See `Passes.total`."""
        return sums

    def export(self, array: FloatArray, dtype: torch.dtype) -> torch.Tensor:
        """See `Passes.export`."""
        return torch.from_numpy(array.astype(np.float64 if dtype == torch.float64 else np.float32))

    def as_tensor(self, array: Any) -> torch.Tensor:
        """See `Passes.as_tensor`."""
        return torch.from_numpy(array)

    def from_tensor(self, tensor: torch.Tensor) -> Any:
        """See `Passes.from_tensor`."""
        return tensor.numpy()

    def _sums(self, value: FloatArray) -> FloatArray:
        return self._plain_sums(value if self.cells.weights is None else value * self.cells.weights)

    def _plain_sums(self, value: FloatArray) -> FloatArray:
        if self.members is not None:
            return np.asarray(self.members @ value)
        k = len(self.cells.counts)
        if self.cells.codes is None:
            return np.zeros(k)
        sums: FloatArray = np.bincount(self.cells.codes, weights=value, minlength=k).astype(np.float64, copy=False)
        return sums if self.cells.covering else sums[:k]


def _members(cells: Cells) -> FloatArray | None:
    """Membership (cells, n) of few cells: products with it are faster than gathers and counts."""
    k = len(cells.counts)
    if cells.codes is None or not 0 < k <= _MEMBERSHIP_UP_TO or len(cells.codes) < _MEMBERSHIP_FROM:
        return None
    members = np.empty((k, len(cells.codes)))
    if k == 2 and cells.covering:  # codes are 0 or 1: their own membership
        members[1] = cells.codes
        np.subtract(1.0, members[1], out=members[0])
        return members
    for cell, row in enumerate(members):
        np.equal(cells.codes, cell, out=row)
    return members
