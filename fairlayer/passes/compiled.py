"""Passes in compiled sweeps, over samples that lie cell by cell: many samples or many cells on the CPU."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch

from fairlayer._typing import FloatArray
from fairlayer.fused import kernels
from fairlayer.geometry import Entropic, Euclidean, Geometry, Likelihood
from fairlayer.passes.arrays import NumpyPasses
from fairlayer.passes.base import Cells, Point, WholeBatch

__all__ = ["CompiledPasses"]

_FROM = 2048  # samples: fewer are as fast in NumPy
_FAR = 600.0  # log-odds
_NUMBERS: dict[Geometry, int] = {Euclidean(): 0, Entropic(): 1, Likelihood(): 2}


class CompiledPasses:
    """Passes in compiled sweeps: sums and curvature of each cell at once, the predictions when they are asked for.

    Args:
        scores: (n,), in the coordinate of the geometry, on the host.
        cells: hard cells, without weights.
        lower: None or a float.
        upper: likewise.
        geometry: one of the box.
    """

    parts = 1

    def __init__(self, scores: torch.Tensor, cells: Cells, lower: Any, upper: Any, geometry: Geometry) -> None:
        self._sweeps = kernels(len(scores)).cells  # type: ignore[union-attr]  # `serve` has seen them
        self.cells, self.geometry = cells, geometry
        self.lower, self.upper = lower, upper
        self._number = _NUMBERS[geometry]
        self._ends = (-np.inf if lower is None else lower), (np.inf if upper is None else upper)
        self.scores: FloatArray = np.array(scores.numpy(), dtype=np.float64)  # a copy: the caller's may change
        k, n = len(cells.counts), len(scores)
        counts = np.bincount(cells.codes, minlength=k + 1)  # type: ignore[arg-type]
        self._starts, self._order = np.zeros(k + 2, dtype=np.int64), np.empty(n, dtype=np.int32)
        self._sorted = np.empty(n)
        logits = self._number == _NUMBERS[Entropic()]
        self._sweeps.arrange(self.scores, cells.codes, counts, logits, self._starts, self._order, self._sorted)

    @staticmethod
    def serve(scores: torch.Tensor, cells: Cells, lower: Any, upper: Any, geometry: Geometry) -> bool:
        """Whether compiled sweeps are there for such a batch."""
        plain = all(isinstance(bound, float | None) for bound in (lower, upper))
        hard = cells.codes is not None and cells.dense is None and cells.weights is None and cells.classes == 1
        known = geometry in _NUMBERS and scores.device.type == "cpu" and plain
        return hard and known and _FROM <= len(scores) < 2**31 and kernels(len(scores)) is not None

    @cached_property
    def _plain(self) -> NumpyPasses:
        """The same passes in NumPy, for what is asked for rarely."""
        return NumpyPasses(self.scores, self.cells, self.lower, self.upper, self.geometry)

    def at(self, nu: FloatArray | None) -> Point:
        """See `Passes.at`; K comes with it."""
        counts = self.cells.counts
        pulls = np.append(np.zeros(len(counts)) if nu is None else nu / counts, 0.0)  # the last for samples outside
        if self._number == _NUMBERS[Entropic()] and self.size + float(np.abs(pulls).max()) > _FAR:
            return self._plain.at(nu)  # exp(-x) and exp(-q) by themselves would leave the range of float64
        sums, frees = np.empty(len(pulls)), np.empty(len(pulls))
        self._sweeps.sweep(self._number, self._sorted, self._starts, pulls, *self._ends, sums, frees)
        curvature = frees[:-1] / (counts * counts)
        return Point(None, None, sums[:-1] / counts, curvature, lambda: self._emit(pulls))

    def _emit(self, pulls: FloatArray) -> tuple[FloatArray, Any]:
        value = np.empty(self.n)
        euclidean = self._number == _NUMBERS[Euclidean()]
        free = np.empty(self.n if euclidean else 0, dtype=np.bool_)
        self._sweeps.emit(self._number, self._sorted, self._starts, self._order, pulls, *self._ends, value, free)
        return value, free if euclidean and (self.lower, self.upper) != (None, None) else None

    def metric(self, point: Point, floor: float = 0.0) -> FloatArray:
        """See `Passes.metric`."""
        if floor or point.curvature is None:
            return self._plain.metric(point, floor)
        return point.curvature

    def widest_metric(self) -> FloatArray:
        """See `Passes.widest_metric`."""
        rows = np.diff(self._starts)[:-1].astype(np.float64)
        return rows / (self.cells.counts * self.cells.counts)

    def pull(self, nu: FloatArray) -> Any:
        """See `Passes.pull`."""
        return self._plain.pull(nu)

    def small(self, array: FloatArray) -> FloatArray:
        """See `Passes.small`."""
        return array

    def measure(self, value: FloatArray, *, weighted: bool = True) -> FloatArray:
        """See `Passes.measure`."""
        return self._plain.measure(value, weighted=weighted)

    def whole(self) -> WholeBatch:
        """See `Passes.whole`."""
        return self._plain.whole()

    def magnitudes(self, point: Point) -> FloatArray:
        """See `Passes.magnitudes`."""
        return self._plain.magnitudes(point)

    def lowest(self, nus: FloatArray) -> FloatArray:
        """See `Passes.lowest`."""
        return self._plain.lowest(nus)

    @cached_property
    def size(self) -> float:
        """See `Passes.size`."""
        return self._plain.size

    @property
    def n(self) -> int:
        """See `Passes.n`."""
        return len(self.scores)

    def total(self, sums: torch.Tensor) -> torch.Tensor:
        """See `Passes.total`."""
        return sums

    def export(self, array: FloatArray, dtype: torch.dtype) -> torch.Tensor:
        """See `Passes.export`."""
        return self._plain.export(array, dtype)

    def as_tensor(self, array: Any) -> torch.Tensor:
        """See `Passes.as_tensor`."""
        return torch.from_numpy(array)

    def from_tensor(self, tensor: torch.Tensor) -> Any:
        """See `Passes.from_tensor`."""
        return tensor.numpy()
