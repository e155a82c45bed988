"""Passes in torch: large batches, on the device of the scores."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch

from fairlayer._typing import FloatArray
from fairlayer.passes.base import Cells, Point, blocks, least_product, noise_of, table_of

__all__ = ["TorchPasses"]

_CHUNK = 16_384


class TorchPasses:
    """Passes in torch, on the device of the scores; the few statistics travel to the host."""

    parts = 1

    def __init__(self, scores: torch.Tensor, cells: Cells, lower: Any, upper: Any) -> None:
        self.scores, self.cells = scores, cells
        self.lower, self.upper = lower, upper
        self.bounded = lower is not None or upper is not None
        place = scores.device
        self.codes = None if cells.codes is None else torch.from_numpy(cells.codes).to(place)
        self.dense = None if cells.dense is None else torch.from_numpy(cells.dense).to(place)
        # Adding 1e6 numbers one after the other loses five digits; chunks keep the partial sums short.
        self.chunks = -(-len(scores) // _CHUNK)
        self.chunk_codes = None if self.codes is None else self._chunk_codes(self.codes)

    def at(self, nu: FloatArray | None) -> Point:
        """See `Passes.at`."""
        moved = self.scores if nu is None else self.scores - self.pull(nu)
        value = moved.clamp(self.lower, self.upper) if self.bounded else moved
        return Point(value, value == moved if self.bounded else None, self.measure(value))

    def pull(self, nu: FloatArray) -> Any:
        """See `Passes.pull`."""
        k = len(self.cells.counts)
        pull = torch.zeros((), dtype=torch.float64, device=self.scores.device)
        if self.codes is not None:
            table = torch.from_numpy(table_of(nu[:k], self.cells)).to(self.scores.device)
            pull = table.index_select(0, self.codes)
        return pull if self.dense is None else pull + torch.from_numpy(nu[k:]).to(pull.device) @ self.dense

    def small(self, array: FloatArray) -> FloatArray:
        """See `Passes.small`."""
        return array

    def measure(self, value: torch.Tensor) -> FloatArray:
        """See `Passes.measure`."""
        means = self._sums(value) / self.cells.counts
        return means if self.dense is None else np.append(means, (self.dense @ value).cpu().numpy())

    def metric(self, point: Point, floor: float = 0.0) -> FloatArray:
        """See `Passes.metric`."""
        free = torch.ones_like(self.scores) if point.unclipped is None else point.unclipped.double()
        if floor:
            free = free.clamp(min=floor)
        diagonal = self._sums(free) / self.cells.counts**2
        if self.dense is None:
            return diagonal
        masked = self.dense * free
        cross = np.array([self._sums(row) / self.cells.counts for row in masked])
        return blocks(diagonal, cross, (masked @ self.dense.T).cpu().numpy())

    def lowest(self, nus: FloatArray) -> FloatArray:
        """See `Passes.lowest`."""
        return np.array([self._lowest(nu) for nu in nus])

    def _lowest(self, nu: FloatArray) -> float:
        pull, noise = self.pull(nu).expand_as(self.scores), noise_of(nu, self.cells)
        return least_product(pull.clamp(min=0.0), self.lower, noise) + least_product(
            pull.clamp(max=0.0), self.upper, noise
        )

    def export(self, array: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """See `Passes.export`."""
        return array.to(dtype, copy=True)

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

    def share(self, value: Any) -> FloatArray:
        """See `Passes.share`."""
        return self.measure(value)

    def gather(self, vector: FloatArray) -> FloatArray:
        """See `Passes.gather`."""
        return vector[None]

    def total(self, sums: torch.Tensor) -> torch.Tensor:
        """See `Passes.total`."""
        return sums

    def as_tensor(self, array: Any) -> torch.Tensor:
        """See `Passes.as_tensor`."""
        return array if isinstance(array, torch.Tensor) else torch.from_numpy(array)

    def from_tensor(self, tensor: torch.Tensor) -> Any:
        """See `Passes.from_tensor`."""
        return tensor

    def _sums(self, value: torch.Tensor) -> FloatArray:
        k = len(self.cells.counts)
        if self.chunk_codes is None:
            return np.zeros(k)
        sums = torch.bincount(self.chunk_codes, weights=value, minlength=self.chunks * (k + 1))
        return np.asarray(sums.reshape(self.chunks, k + 1).sum(dim=0).cpu().numpy()[:k])

    def _chunk_codes(self, codes: torch.Tensor) -> torch.Tensor:
        chunk = torch.arange(len(codes), device=codes.device).div_(_CHUNK, rounding_mode="floor")
        return chunk.mul_(len(self.cells.counts) + 1).add_(codes)
