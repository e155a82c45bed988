"""Passes over rows of class probabilities: the statistics are those of each class, one after the other.

With m cells and k classes, entry c m + g is the mean of class c in cell g, and the dense rows follow. A row of classes
moves as a whole, so K couples the classes of a cell.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from fairlayer._typing import FloatArray, IntArray
from fairlayer.geometry import Geometry
from fairlayer.passes.base import LEAST_FLOOR, WHOLE, Cells, Point, WholeBatch, as_array
from fairlayer.passes.class_metric import ClassMetric

__all__ = ["SimplexPasses"]

_NUMBERS = 400_000  # that are worked on at a time
_TAIL = 1e-12  # a smooth row never stops moving: what its tail is away from a limit is also what it can move by


class SimplexPasses:
    """Passes in NumPy over scores (n, k); scores on another device are brought to the host."""

    parts = 1
    runs = (WHOLE,)
    lower, upper = 0.0, 1.0

    def __init__(self, scores: FloatArray, cells: Cells, geometry: Geometry, device: torch.device) -> None:
        self.scores, self.cells, self.geometry, self.device = scores, cells, geometry, device
        self.classes = scores.shape[1]
        self.least_floor = _TAIL if geometry.smooth else LEAST_FLOOR

    def at(self, nu: FloatArray | None) -> Point:
        """See `Passes.at`."""
        value, free = self.geometry.step(self.scores, None if nu is None else self.pull(nu), None, None)
        return Point(value, free, self.measure(value), curvature=partial(self._metric, value, free))

    def forget(self) -> None:
        """See `Passes.forget`; there is nothing."""

    def pull(self, nu: FloatArray, run: slice = WHOLE) -> FloatArray:
        """See `Passes.pull`."""
        cells = self.cells
        m = len(cells.counts)
        table = np.zeros((m + 1, self.classes))
        table[:m] = (nu[: m * self.classes].reshape(self.classes, m) / cells.counts).T
        pull = np.zeros_like(self.scores) if cells.codes is None else table[cells.codes]
        for c, places, rows in self._dense:
            pull[:, c] += nu[m * self.classes :][places] @ rows
        return pull

    def measure(self, value: FloatArray, *, weighted: bool = True) -> FloatArray:
        """See `Passes.measure`."""
        whole = value if self.cells.weights is None or not weighted else value * self.cells.weights[:, None]
        means = [self._sums(column) / self.cells.counts for column in whole.T]
        return np.concatenate([*means, self._dense_sums(whole)])

    def sums(self, value: FloatArray, run: slice, *, weighted: bool = True) -> FloatArray:
        """See `Passes.sums`."""
        return self.measure(value, weighted=weighted)

    def together(self, statistics: FloatArray) -> FloatArray:
        """See `Passes.together`."""
        return statistics

    def _metric(self, value: FloatArray, free: Any) -> Any:
        return self.metric_of(value if free is None else free)  # W of either geometry is that of `share`

    def widest_metric(self) -> Any:
        """See `Passes.widest_metric`: W is the projector onto changes that keep the sum of a row."""
        return self._widest

    @cached_property
    def _widest(self) -> Any:
        return self.metric_of(np.ones(self.scores.shape))

    def metric_of(self, weight: FloatArray) -> Any:
        """Return K for rows that answer by a diagonal W (n, k) and keep their sums; of many cells by its blocks."""
        cells, k, m = self.cells, self.classes, len(self.cells.counts)
        blocks = np.zeros((m, k, k))
        if cells.codes is not None and m:
            whole = np.zeros((m + 1, k, k))
            for first in range(0, self.n, _NUMBERS // (k * k)):
                run = slice(first, first + _NUMBERS // (k * k))
                whole += self._squares(weight[run], run)
            blocks = whole[:m] / (cells.counts * cells.counts)[:, None, None]
        if cells.in_blocks:
            return ClassMetric(blocks)
        metric, cell = np.zeros((cells.size, cells.size)), np.arange(m)
        metric[: k * m, : k * m].reshape(k, m, k, m)[:, cell, :, cell] = blocks
        if cells.dense is not None and cells.dense_class is not None:
            self._add_dense(metric, weight)
        return metric

    def _squares(self, weight: FloatArray, run: slice) -> FloatArray:
        """Return the sums of W of the rows of a run over each cell, (cells + 1, k, k)."""
        k, whole = self.classes, weight.sum(axis=1)
        each = weight if self.cells.weights is None else weight * self.cells.weights[run, None]
        square = -each[:, :, None] * (weight / np.where(whole > 0, whole, 1.0)[:, None])[:, None, :]
        square.reshape(-1, k * k)[:, :: k + 1] += each
        assert self.cells.codes is not None
        codes = (self.cells.codes[run].astype(np.int64) * (k * k))[:, None] + np.arange(k * k)
        size = (len(self.cells.counts) + 1) * k * k
        sums = np.bincount(codes.ravel(), square.ravel(), size).astype(np.float64, copy=False)
        return np.asarray(sums.reshape(-1, k, k))

    def _add_dense(self, metric: FloatArray, weight: FloatArray) -> None:
        """Add the rows and columns of the dense rows."""
        cells, k, m = self.cells, self.classes, len(self.cells.counts)
        hard = k * m
        for d in range(k):
            column = self.geometry.share(weight, np.broadcast_to(np.eye(k)[d], weight.shape))
            weighted = column if cells.weights is None else column * cells.weights[:, None]
            products = cells.dense * weighted[:, cells.dense_class].T
            metric[hard:, d * m : (d + 1) * m] = self._sums_of_rows(products) / cells.counts
            metric[d * m : (d + 1) * m, hard:] = metric[hard:, d * m : (d + 1) * m].T
            for d2, places, rows in self._dense:
                if d2 == d:
                    metric[hard:, hard + places] = products @ rows.T

    def whole_batch(self) -> WholeBatch:
        """See `Passes.whole_batch`."""
        return WholeBatch.of(self.cells, self.lower, self.upper, self.n)

    def magnitudes(self, point: Point) -> FloatArray:
        """See `Passes.magnitudes`; no probability is larger than 1."""
        weights = np.ones(self.n) if self.cells.weights is None else self.cells.weights
        hard = np.ones(self.classes * len(self.cells.counts))
        return hard if self.cells.dense is None else np.append(hard, np.abs(self.cells.dense) @ weights)

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

    def export(self, point: Point, dtype: torch.dtype) -> torch.Tensor:
        """See `Passes.export`."""
        value = torch.from_numpy(np.array(point.value)).to(device=self.device, dtype=dtype)
        exported: torch.Tensor = self.geometry.inside(value)
        return exported

    def as_tensor(self, array: Any) -> torch.Tensor:
        """See `Passes.as_tensor`."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def from_tensor(self, tensor: torch.Tensor) -> Any:
        """See `Passes.from_tensor`."""
        return as_array(tensor.double())

    @cached_property
    def _dense(self) -> list[tuple[int, IntArray, FloatArray]]:
        """The dense rows of each class: their places among all dense rows, and their weights."""
        cells = self.cells
        if cells.dense is None or cells.dense_class is None:
            return []
        places = [(c, np.flatnonzero(cells.dense_class == c)) for c in range(self.classes)]
        return [(c, where, cells.dense[where]) for c, where in places if len(where)]

    def _dense_sums(self, whole: FloatArray) -> FloatArray:
        sums = np.zeros(0 if self.cells.dense is None else len(self.cells.dense))
        for c, places, rows in self._dense:
            sums[places] = rows @ whole[:, c]
        return sums

    def _sums_of_rows(self, rows: FloatArray) -> FloatArray:
        """Return the sums over each cell of each of several rows (r, n)."""
        m = len(self.cells.counts)
        if self.cells.codes is None:
            return np.zeros((len(rows), m))
        codes = (self.cells.codes + (m + 1) * np.arange(len(rows))[:, None]).ravel()
        sums = np.bincount(codes, weights=rows.ravel(), minlength=(m + 1) * len(rows)).reshape(len(rows), m + 1)
        return sums[:, :m].astype(np.float64, copy=False)

    def _sums(self, value: FloatArray) -> FloatArray:
        m = len(self.cells.counts)
        if self.cells.codes is None:
            return np.zeros(m)
        return np.bincount(self.cells.codes, weights=value, minlength=m + 1)[:m].astype(np.float64, copy=False)
