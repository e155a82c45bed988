"""Passes over rows of class probabilities: the statistics are those of each class, one after the other.

With m cells and k classes, entry c m + g is the mean of class c in cell g, and the dense rows follow. A row of classes
moves as a whole, so K couples the classes of a cell.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch

from fairlayer._typing import FloatArray
from fairlayer.geometry import Geometry
from fairlayer.passes.base import Cells, Point, WholeBatch

__all__ = ["SimplexPasses"]


class SimplexPasses:
    """Passes in NumPy over scores (n, k); scores on another device are brought to the host."""

    parts = 1
    lower, upper = 0.0, 1.0

    def __init__(self, scores: FloatArray, cells: Cells, geometry: Geometry, device: torch.device) -> None:
        self.scores, self.cells, self.geometry, self.device = scores, cells, geometry, device
        self.classes = scores.shape[1]

    def at(self, nu: FloatArray | None) -> Point:
        """See `Passes.at`."""
        value, free = self.geometry.step(self.scores, None if nu is None else self.pull(nu), None, None)
        return Point(value, free, self.measure(value))

    def pull(self, nu: FloatArray) -> FloatArray:
        """See `Passes.pull`."""
        cells = self.cells
        m = len(cells.counts)
        table = np.zeros((m + 1, self.classes))
        table[:m] = (nu[: m * self.classes].reshape(self.classes, m) / cells.counts).T
        pull = np.zeros_like(self.scores) if cells.codes is None else table[cells.codes]
        for row, weights, price in self._dense(nu[m * self.classes :]):
            pull[:, row] += price * weights
        return pull

    def small(self, array: FloatArray) -> FloatArray:
        """See `Passes.small`."""
        return array

    def measure(self, value: FloatArray, *, weighted: bool = True) -> FloatArray:
        """See `Passes.measure`."""
        whole = value if self.cells.weights is None or not weighted else value * self.cells.weights[:, None]
        means = [self._sums(column) / self.cells.counts for column in whole.T]
        dense = [row @ whole[:, c] for c, row, _ in self._dense()]
        return np.concatenate([*means, dense]) if dense else np.concatenate(means)

    def metric(self, point: Point, floor: float = 0.0) -> FloatArray:
        """See `Passes.metric`; K + floor (K of free samples - K)."""
        columns = (self.geometry.weigh(point.value, self.scores, point.free, unit) for unit in self._units())
        metric = self._metric_of(columns)
        return metric + floor * (self.widest_metric() - metric) if floor else metric

    def widest_metric(self) -> FloatArray:
        """See `Passes.widest_metric`: W is the projector onto changes that keep the sum of a row."""
        return self._widest

    @cached_property
    def _widest(self) -> FloatArray:
        return self._metric_of(unit - 1.0 / self.classes for unit in self._units())

    def _units(self) -> list[FloatArray]:
        return [np.broadcast_to(unit, self.scores.shape) for unit in np.eye(self.classes)]

    def _metric_of(self, columns: Any) -> FloatArray:
        """K, from the columns of W: (n, k) for each class."""
        cells, k, m = self.cells, self.classes, len(self.cells.counts)
        metric = np.zeros((cells.size, cells.size))
        cell = np.arange(m)
        for d, column in enumerate(columns):
            weighted = column if cells.weights is None else column * cells.weights[:, None]
            for c in range(k):
                metric[c * m + cell, d * m + cell] = self._sums(weighted[:, c]) / cells.counts**2
            for r, (c, row, _) in enumerate(self._dense(), start=k * m):
                product = row * weighted[:, c]
                metric[r, d * m + cell] = metric[d * m + cell, r] = self._sums(product) / cells.counts
                for r2, (d2, row2, _) in enumerate(self._dense(), start=k * m):
                    if d2 == d:
                        metric[r, r2] = product @ row2
        return metric

    def whole(self) -> WholeBatch:
        """See `Passes.whole`."""
        return WholeBatch.of(self.cells, self.lower, self.upper, self.n)

    def magnitudes(self, point: Point) -> FloatArray:
        """See `Passes.magnitudes`; no probability is larger than 1."""
        weights = np.ones(self.n) if self.cells.weights is None else self.cells.weights
        dense = [np.abs(row) @ weights for _, row, _ in self._dense()]
        return np.append(np.ones(self.classes * len(self.cells.counts)), dense)

    def lowest(self, nus: FloatArray) -> FloatArray:
        """See `Passes.lowest`."""
        weights = self.cells.weights
        least = (self.pull(nu).min(axis=1) for nu in nus)
        return np.array([float((each if weights is None else each * weights).sum()) for each in least])

    @cached_property
    def size(self) -> float:
        """See `Passes.size`."""
        return float(np.abs(self.scores).max()) if self.scores.size else 0.0

    @property
    def n(self) -> int:
        """See `Passes.n`."""
        return len(self.scores)

    def total(self, sums: torch.Tensor) -> torch.Tensor:
        """See `Passes.total`."""
        return sums

    def export(self, array: FloatArray, dtype: torch.dtype) -> torch.Tensor:
        """See `Passes.export`."""
        return torch.from_numpy(np.array(array)).to(device=self.device, dtype=dtype)

    def as_tensor(self, array: Any) -> torch.Tensor:
        """See `Passes.as_tensor`."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def from_tensor(self, tensor: torch.Tensor) -> Any:
        """See `Passes.from_tensor`."""
        return tensor.cpu().numpy()

    def _dense(self, prices: FloatArray | None = None) -> list[tuple[int, FloatArray, float]]:
        """Each dense row with its class and, if prices are given, its price."""
        cells = self.cells
        if cells.dense is None or cells.dense_class is None:
            return []
        given = np.zeros(len(cells.dense)) if prices is None else prices
        return list(zip(cells.dense_class.tolist(), cells.dense, given.tolist(), strict=True))

    def _sums(self, value: FloatArray) -> FloatArray:
        m = len(self.cells.counts)
        if self.cells.codes is None:
            return np.zeros(m)
        return np.bincount(self.cells.codes, weights=value, minlength=m + 1)[:m].astype(np.float64, copy=False)
