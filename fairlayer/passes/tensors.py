"""Passes in torch, on the device of the scores."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

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
    noise_of,
    table_of,
)
from fairlayer.passes.lanes import Lanes

__all__ = ["TorchPasses"]

_RUN = 65_536  # samples whose dense rows are weighted at a time


class _Latest(NamedTuple):
    """What came back with the statistics of the latest pass."""

    point: Point
    magnitudes: FloatArray
    nu: FloatArray | None
    lowest: float | None


class TorchPasses:
    """Passes in torch, on the device of the scores: one small table goes there for each pass, and one comes back."""

    parts, least_floor = 1, LEAST_FLOOR
    runs = (WHOLE,)  # a device is served by few large operations

    def __init__(
        self, scores: torch.Tensor, cells: Cells, lower: Any, upper: Any, geometry: Geometry = EUCLIDEAN
    ) -> None:
        self.scores, self.cells, self.geometry = scores, cells, geometry
        self.lower, self.upper = lower, upper
        self.codes, self.dense, self.weights = (
            None if each is None else torch.from_numpy(np.asarray(each)).to(scores.device)
            for each in (cells.codes, cells.dense, cells.weights)
        )
        self._latest: _Latest | None = None
        self.lanes = None if self.codes is None else Lanes.of(self.codes, len(cells.counts))

    def at(self, nu: FloatArray | None) -> Point:
        """See `Passes.at`; K and the magnitudes come with it, as they would else travel by themselves."""
        pull = None if nu is None else self.pull(nu)
        value, free = self.geometry.step(self.scores, pull, self.lower, self.upper)
        weight = self.geometry.weigh(value, self.scores, free, torch.ones_like(self.scores))
        held = value.new_zeros(1) if free is None else (~free).sum(dtype=torch.float64)[None]
        sizes = self._magnitude_parts(value, free)
        parts = [held, *self._parts(self._weighted(value)), *sizes, *self._metric_parts(weight)]
        judged = self.dense is not None and nu is not None  # whether the direction of nu is looked at, too
        parts.append(self._lowest_parts(nu, pull) if judged and nu is not None else value.new_zeros(2))
        arrived = torch.cat([part.reshape(-1) for part in parts]).cpu().numpy()
        sums, there, metric, ends = np.split(arrived[1:], [self.cells.size, 2 * self.cells.size, len(arrived) - 3])
        point = Point(value, free, self._means(sums), self._assembled(metric), held=int(arrived[0]))
        self._latest = _Latest(point, self._means(there), nu, self._added_up(ends) if judged else None)
        return point

    def forget(self) -> None:
        """See `Passes.forget`; there is nothing."""

    def pull(self, nu: FloatArray, run: slice = WHOLE) -> Any:
        """See `Passes.pull`."""
        k = len(self.cells.counts)
        place = self.scores.device
        table = torch.from_numpy(np.append(table_of(nu[:k], self.cells), nu[k:])).to(place)
        rows = None if self.dense is None else table[len(table) - len(self.dense) :] @ self.dense
        if self.codes is None:
            return torch.zeros((), dtype=torch.float64, device=place) if rows is None else rows
        pull = table.index_select(0, self.codes)
        return pull if rows is None else pull.add_(rows)

    def measure(self, value: torch.Tensor, *, weighted: bool = True) -> FloatArray:
        """See `Passes.measure`."""
        return self._means(torch.cat(self._parts(self._weighted(value) if weighted else value)).cpu().numpy())

    def sums(self, value: torch.Tensor, run: slice, *, weighted: bool = True) -> FloatArray:
        """See `Passes.sums`."""
        return self.measure(value, weighted=weighted)

    def together(self, statistics: FloatArray) -> FloatArray:
        """See `Passes.together`."""
        return statistics

    def widest_metric(self) -> FloatArray:
        """See `Passes.widest_metric`."""
        return self._widest

    @cached_property
    def _widest(self) -> FloatArray:
        parts = self._metric_parts(torch.ones_like(self.scores))
        return self._assembled(torch.cat([part.reshape(-1) for part in parts]).cpu().numpy())

    def _weighted(self, value: torch.Tensor) -> torch.Tensor:
        return value if self.weights is None else value * self.weights

    def _parts(self, whole: torch.Tensor) -> list[torch.Tensor]:
        """Return the sums over the cells, and those of the dense rows, still on the device."""
        return [self._sums(whole), *([] if self.dense is None else [self.dense @ whole])]

    def _means(self, sums: FloatArray) -> FloatArray:
        k = len(self.cells.counts)
        return np.append(sums[:k] / self.cells.counts, sums[k:]) if self.dense is not None else sums / self.cells.counts

    def _metric_parts(self, weight: torch.Tensor) -> list[torch.Tensor]:
        """The sums that K is made of, still on the device."""
        whole = self._weighted(weight)
        parts = [self._sums(whole)]
        if self.dense is not None:
            parts += [self._sums(row * whole) for row in self.dense]  # one at a time: together they are as large as all
            square = whole.new_zeros((len(self.dense), len(self.dense)))
            for start in range(0, len(whole), _RUN):
                rows = self.dense[:, start : start + _RUN]
                square = square + (rows * whole[start : start + _RUN]) @ rows.T
            parts.append(square)
        return parts

    def _assembled(self, sums: FloatArray) -> FloatArray:
        """Return K of the numbers of its parts."""
        k, counts = len(self.cells.counts), self.cells.counts
        diagonal = sums[:k] / (counts * counts)
        if self.dense is None:
            return diagonal
        d = len(self.dense)
        cross = sums[k : k + d * k].reshape(d, k) / counts
        return blocks(diagonal, cross, sums[k + d * k :].reshape(d, d))

    def whole_batch(self) -> WholeBatch:
        """See `Passes.whole_batch`."""
        return WholeBatch.of(self.cells, self.lower, self.upper, self.n)

    def magnitudes(self, point: Point) -> FloatArray:
        """See `Passes.magnitudes`."""
        if self._latest is not None and self._latest.point is point:
            return self._latest.magnitudes
        return self._means(torch.cat(self._magnitude_parts(point.value, point.free)).cpu().numpy())

    def _magnitude_parts(self, value: torch.Tensor, free: Any) -> list[torch.Tensor]:
        size = self._weighted(self.geometry.magnitude(value, self.scores, free))
        return [self._sums(size), *([] if self.dense is None else [(row.abs() @ size)[None] for row in self.dense])]

    def lowest(self, nus: FloatArray) -> FloatArray:
        """See `Passes.lowest`."""
        return np.array([self._lowest(nu) for nu in nus])

    def _lowest(self, nu: FloatArray) -> float:
        latest = self._latest
        if latest is not None and latest.lowest is not None and latest.nu is not None and np.array_equal(latest.nu, nu):
            return latest.lowest
        return self._added_up(self._lowest_parts(nu, self.pull(nu)).cpu().numpy())

    def _lowest_parts(self, nu: FloatArray, pull: Any) -> torch.Tensor:
        """Return what both bounds add to the least `nu @ B y`, and how many samples a missing bound lets go."""
        pull = self._weighted(pull.expand_as(self.scores))
        bounded = self.lower is not None and self.upper is not None
        noise = 0.0 if bounded else noise_of(nu, self.cells)  # what a missing bound makes infinite
        parts = []
        for part, bound in ((pull.clamp(min=0.0), self.lower), (pull.clamp(max=0.0), self.upper)):
            product = (part.abs() > noise).double() if bound is None else torch.where(part == 0.0, 0.0, part * bound)
            parts.append(product.sum())
        return torch.stack(parts)

    def _added_up(self, parts: FloatArray) -> float:
        ends = zip(parts.tolist(), (self.lower, self.upper), strict=True)
        return sum((part if bound is not None else -np.inf if part else 0.0) for part, bound in ends)

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

    def _sums(self, value: torch.Tensor) -> torch.Tensor:
        return value.new_zeros(len(self.cells.counts)) if self.lanes is None else self.lanes.sums(value)
