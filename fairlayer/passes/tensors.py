"""Passes in torch, on the device of the scores."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch

from fairlayer._typing import FloatArray
from fairlayer.geometry import EUCLIDEAN, Geometry
from fairlayer.passes.base import (
    LEAST_FLOOR,
    WHOLE,
    Cells,
    Point,
    WholeBatch,
    blocks,
    least_product,
    noise_of,
    table_of,
)

__all__ = ["TorchPasses"]

_CHUNK = 16_384


class TorchPasses:
    """Passes in torch, on the device of the scores; the few statistics travel to the host."""

    parts, least_floor = 1, LEAST_FLOOR
    runs = (WHOLE,)  # a device is served by few large operations

    def __init__(
        self, scores: torch.Tensor, cells: Cells, lower: Any, upper: Any, geometry: Geometry = EUCLIDEAN
    ) -> None:
        self.scores, self.cells, self.geometry = scores, cells, geometry
        self.lower, self.upper = lower, upper
        place = scores.device
        self.codes = None if cells.codes is None else torch.from_numpy(cells.codes).to(place)
        self.dense = None if cells.dense is None else torch.from_numpy(np.asarray(cells.dense)).to(place)
        # Adding 1e6 numbers one after the other loses five digits; chunks keep the partial sums short.
        self.chunks = -(-len(scores) // _CHUNK)
        self.chunk_codes = None if self.codes is None else self._chunk_codes(self.codes)

    def at(self, nu: FloatArray | None) -> Point:
        """See `Passes.at`."""
        pull = None if nu is None else self.pull(nu)
        value, free = self.geometry.step(self.scores, pull, self.lower, self.upper)
        return Point(value, free, self.measure(value), curvature=lambda: self._metric(value, free))

    def forget(self) -> None:
        """See `Passes.forget`; there is nothing."""

    def pull(self, nu: FloatArray, run: slice = WHOLE) -> Any:
        """See `Passes.pull`."""
        k = len(self.cells.counts)
        place = self.scores.device
        rows = None if self.dense is None else torch.from_numpy(nu[k:]).to(place) @ self.dense
        if self.codes is None:
            return torch.zeros((), dtype=torch.float64, device=place) if rows is None else rows
        pull = torch.from_numpy(table_of(nu[:k], self.cells)).to(place).index_select(0, self.codes)
        return pull if rows is None else pull.add_(rows)

    def measure(self, value: torch.Tensor, *, weighted: bool = True) -> FloatArray:
        """See `Passes.measure`; these passes have no weights."""
        means = self._sums(value) / self.cells.counts
        return means if self.dense is None else np.append(means, (self.dense @ value).cpu().numpy())

    def sums(self, value: torch.Tensor, run: slice, *, weighted: bool = True) -> FloatArray:
        """See `Passes.sums`."""
        return self.measure(value, weighted=weighted)

    def together(self, statistics: FloatArray) -> FloatArray:
        """See `Passes.together`."""
        return statistics

    def _metric(self, value: torch.Tensor, free: Any) -> FloatArray:
        return self._metric_of(self.geometry.weigh(value, self.scores, free, torch.ones_like(self.scores)))

    def widest_metric(self) -> FloatArray:
        """See `Passes.widest_metric`."""
        return self._metric_of(torch.ones_like(self.scores))

    def _metric_of(self, weight: torch.Tensor) -> FloatArray:
        diagonal = self._sums(weight) / self.cells.counts**2
        if self.dense is None:
            return diagonal
        cross, square, masked = [], [], torch.empty_like(weight)
        for row in self.dense:  # one at a time: together they would be as large as the rows themselves
            torch.mul(row, weight, out=masked)
            cross.append(self._sums(masked) / self.cells.counts)
            square.append((self.dense @ masked).cpu().numpy())
        return blocks(diagonal, np.array(cross), np.array(square))

    def whole_batch(self) -> WholeBatch:
        """See `Passes.whole_batch`."""
        return WholeBatch.of(self.cells, self.lower, self.upper, self.n)

    def magnitudes(self, point: Point) -> FloatArray:
        """See `Passes.magnitudes`."""
        size = self.geometry.magnitude(point.value, self.scores, point.free)
        means = self._sums(size) / self.cells.counts
        if self.dense is None:
            return means
        room = torch.empty_like(size)
        return np.append(means, [float(torch.abs(row, out=room) @ size) for row in self.dense])

    def lowest(self, nus: FloatArray) -> FloatArray:
        """See `Passes.lowest`."""
        return np.array([self._lowest(nu) for nu in nus])

    def _lowest(self, nu: FloatArray) -> float:
        pull = self.pull(nu).expand_as(self.scores)
        bounded = self.lower is not None and self.upper is not None
        noise = 0.0 if bounded else noise_of(nu, self.cells)  # what a missing bound makes infinite
        return least_product(pull.clamp(min=0.0), self.lower, noise) + least_product(
            pull.clamp(max=0.0), self.upper, noise
        )

    def export(self, point: Point, dtype: torch.dtype) -> torch.Tensor:
        """See `Passes.export`."""
        value: torch.Tensor = self.geometry.inside(point.value.to(dtype, copy=True))
        return value

    @cached_property
    def size(self) -> float:
        """See `Passes.size`."""
        if not len(self.scores):
            return 0.0
        low, high = torch.aminmax(self.scores)
        return float(torch.maximum(high, -low))

    @property
    def n(self) -> int:
        """See `Passes.n`."""
        return len(self.scores)

    def total(self, sums: torch.Tensor) -> torch.Tensor:
        """See `Passes.total`."""
        return sums

    def as_tensor(self, array: Any) -> torch.Tensor:
        """See `Passes.as_tensor`."""
        return array if isinstance(array, torch.Tensor) else torch.from_numpy(array)

    def from_tensor(self, tensor: torch.Tensor) -> Any:
        """See `Passes.from_tensor`."""
        return tensor.double()

    def _sums(self, value: torch.Tensor) -> FloatArray:
        k = len(self.cells.counts)
        if self.chunk_codes is None:
            return np.zeros(k)
        sums = torch.bincount(self.chunk_codes, weights=value, minlength=self.chunks * (k + 1))
        return np.asarray(sums.reshape(self.chunks, k + 1).sum(dim=0).cpu().numpy()[:k])

    def _chunk_codes(self, codes: torch.Tensor) -> torch.Tensor:
        chunk = torch.arange(len(codes), device=codes.device).div_(_CHUNK, rounding_mode="floor")
        return chunk.mul_(len(self.cells.counts) + 1).add_(codes)
