"""One pass over the batch: shift each sample by its cell's share, clip, and return the statistics.

This is the only place where a solver touches n numbers. Two implementations with the same four methods: NumPy
(small batches on the CPU, where call overhead decides) and torch (large batches, any device).
With statistics s = B y (B averages each hard cell, then come the dense rows) and dual nu:

    y = clip(z - B' nu),     s = B y,     K = B F B'   (F: the unclipped samples)
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from fairlayer._typing import FloatArray, IntArray

__all__ = ["Cells", "NumpyPasses", "Passes", "Point", "TorchPasses", "make_passes"]

_NUMPY_UP_TO = 50_000
_CHUNK = 16_384
_MEMBERSHIP_UP_TO = 4  # cells
_MEMBERSHIP_FROM = 1024  # samples


class Cells(NamedTuple):
    """The statistics of a batch: hard cells, then dense rows.

    Args:
        codes: cell of each sample, (n,); `len(counts)` marks samples in no cell. None where there are no cells.
        counts: samples per cell (>= 1 to divide by; an empty cell counts 1).
        dense: weights (d, n) of the dense rows, or None.
        covering: whether every sample is in some cell.
        weights: how many samples each row stands for, (n,), in sums and in the objective; None for one each.
    """

    codes: IntArray | None
    counts: FloatArray
    dense: FloatArray | None
    covering: bool = False
    weights: FloatArray | None = None

    @property
    def size(self) -> int:
        """Number of statistics."""
        return len(self.counts) + (0 if self.dense is None else len(self.dense))


class Point(NamedTuple):
    """Predictions at one dual point, and their statistics."""

    value: Any  # (n,) float64, NumPy or torch
    unclipped: Any  # (n,) bool, or None where there are no bounds
    statistics: FloatArray  # (s,)


class Passes(Protocol):
    """What a solver needs of a batch."""

    scores: Any
    cells: Cells
    lower: Any
    upper: Any

    def at(self, nu: FloatArray | None) -> Point:
        """Return the clipped predictions and statistics at the dual point nu (None: at zero)."""

    def pull(self, nu: FloatArray) -> Any:
        """Return B' nu, what is taken off each sample."""

    def small(self, array: FloatArray) -> Any:
        """Return an array over the statistics as `measure` returns them."""

    def metric(self, point: Point, floor: float = 0.0) -> FloatArray:
        """Return K = B W B', W = 1 for unclipped samples, else `floor`; (s,) where K is diagonal, else (s, s)."""

    def measure(self, value: Any) -> FloatArray:
        """Return the statistics B y of any predictions, in this backend's type."""

    def lowest(self, nu: FloatArray) -> float:
        """Return the least `nu @ B y` over all predictions within the bounds."""

    @property
    def size(self) -> float:
        """Return the largest absolute score; NaN or infinite if any score is."""

    def export(self, array: Any, dtype: torch.dtype) -> torch.Tensor:
        """Return a copy of a value of this backend as a tensor of some dtype."""

    def as_tensor(self, array: Any) -> torch.Tensor:
        """Return a value of this backend as a tensor that shares its memory."""

    def from_tensor(self, tensor: torch.Tensor) -> Any:
        """Return a tensor as a value of this backend."""


class NumpyPasses:
    """Passes in NumPy."""

    def __init__(self, scores: FloatArray, cells: Cells, lower: Any, upper: Any) -> None:
        self.scores, self.cells = scores, cells
        self.lower, self.upper = lower, upper
        self.bounded = lower is not None or upper is not None
        self.members = _members(cells)

    def at(self, nu: FloatArray | None) -> Point:
        """See `Passes.at`."""
        moved = self.scores if nu is None else self.scores - self.pull(nu)
        value = moved if self.lower is None else np.maximum(moved, self.lower)
        value = value if self.upper is None else np.minimum(value, self.upper)
        return Point(value, value == moved if self.bounded else None, self.measure(value))

    def pull(self, nu: FloatArray) -> Any:
        """See `Passes.pull`."""
        k = len(self.cells.counts)
        hard: Any = 0.0
        if self.members is not None:
            hard = (nu[:k] / self.cells.counts) @ self.members
        elif self.cells.codes is not None:
            hard = _table(nu[:k], self.cells)[self.cells.codes]
        return hard if self.cells.dense is None else hard + nu[k:] @ self.cells.dense

    def small(self, array: FloatArray) -> FloatArray:
        """See `Passes.small`."""
        return array

    def measure(self, value: FloatArray) -> FloatArray:
        """See `Passes.measure`."""
        means = self._sums(value) / self.cells.counts
        return means if self.cells.dense is None else np.append(means, self.cells.dense @ value)

    def metric(self, point: Point, floor: float = 0.0) -> FloatArray:
        """See `Passes.metric`."""
        free = np.ones(len(self.scores)) if point.unclipped is None else point.unclipped
        if floor:
            free = np.maximum(free, floor)
        diagonal: FloatArray = self._sums(free) / (self.cells.counts * self.cells.counts)
        if self.cells.dense is None:
            return diagonal
        masked = self.cells.dense * free
        cross = np.array([self._sums(row) / self.cells.counts for row in masked])
        return _blocks(diagonal, cross, masked @ self.cells.dense.T)

    def lowest(self, nu: FloatArray) -> float:
        """See `Passes.lowest`."""
        pull = self.pull(nu) if self.cells.weights is None else self.pull(nu) * self.cells.weights
        noise = _noise(nu, self.cells)
        return _product(np.maximum(pull, 0.0), self.lower, noise) + _product(np.minimum(pull, 0.0), self.upper, noise)

    @cached_property
    def size(self) -> float:
        """See `Passes.size`."""
        return float(max(self.scores.max(), -self.scores.min()))

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
        if self.cells.weights is not None:
            value = value * self.cells.weights
        if self.members is not None:
            return np.asarray(self.members @ value)
        k = len(self.cells.counts)
        if self.cells.codes is None:
            return np.zeros(k)
        sums: FloatArray = np.bincount(self.cells.codes, weights=value, minlength=k).astype(np.float64, copy=False)
        return sums if self.cells.covering else sums[:k]


class TorchPasses:
    """Passes in torch, on the device of the scores; the few statistics travel to the host."""

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
            table = torch.from_numpy(_table(nu[:k], self.cells)).to(self.scores.device)
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
        return _blocks(diagonal, cross, (masked @ self.dense.T).cpu().numpy())

    def lowest(self, nu: FloatArray) -> float:
        """See `Passes.lowest`."""
        pull, noise = self.pull(nu).expand_as(self.scores), _noise(nu, self.cells)
        return _product(pull.clamp(min=0.0), self.lower, noise) + _product(pull.clamp(max=0.0), self.upper, noise)

    def export(self, array: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """See `Passes.export`."""
        return array.to(dtype, copy=True)

    @cached_property
    def size(self) -> float:
        """See `Passes.size`."""
        low, high = torch.aminmax(self.scores)
        return float(torch.maximum(high, -low))

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


def make_passes(scores: torch.Tensor, cells: Cells, lower: Any, upper: Any) -> NumpyPasses | TorchPasses:
    """Choose the implementation for a copy of the scores, in float64; bounds are None, floats or tensors (n,)."""
    if cells.weights is not None or (scores.device.type == "cpu" and len(scores) <= _NUMPY_UP_TO):
        readable = scores if scores.dtype in (torch.float64, torch.float32) else scores.float()
        return NumpyPasses(readable.numpy().astype(np.float64), cells, _to_host(lower), _to_host(upper))
    return TorchPasses(scores.to(torch.float64, copy=True), cells, lower, upper)


def _to_host(bound: Any) -> Any:
    return bound.cpu().numpy() if isinstance(bound, torch.Tensor) else bound


def _blocks(diagonal: FloatArray, cross: FloatArray, dense: FloatArray) -> FloatArray:
    return np.block([[np.diag(diagonal), cross.T], [cross, dense]])


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


def _table(nu: FloatArray, cells: Cells) -> FloatArray:
    """Shift of each cell, and 0 for samples outside."""
    shift = nu / cells.counts
    return shift if cells.covering else np.append(shift, 0.0)


def _noise(nu: FloatArray, cells: Cells) -> float:
    """A pull below this is the rounding of one that cancels."""
    k = len(cells.counts)
    hard = float(np.abs(nu[:k] / cells.counts).max(initial=0.0))
    dense = 0.0 if cells.dense is None else float((np.abs(nu[k:]) @ np.abs(cells.dense)).max(initial=0.0))
    return 1e-9 * (hard + dense)


def _product(pull: Any, bound: Any, noise: float) -> float:
    """Sum of pull * bound, where a missing bound is infinite on the side that pull points to."""
    if bound is None:
        return -np.inf if bool((abs(pull) > noise).any()) else 0.0
    if isinstance(bound, np.ndarray) and not np.isfinite(bound).all():
        bound = np.where(pull == 0.0, 0.0, bound)  # what is not pulled stays finite
    return float((pull * bound).sum())
