"""Passes in NumPy, over runs of the batch that stay in the processor's cache.

A batch of one run keeps its predictions from sweep to sweep. Of a longer one nothing is kept but the scores and the
cells: predictions are worked out again, run by run, when they are asked for, so that no sweep needs another array as
long as the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import torch

from fairlayer._rows import GroupedRows, reach_of
from fairlayer._typing import FloatArray
from fairlayer.geometry import EUCLIDEAN, Geometry
from fairlayer.passes.base import (
    LEAST_FLOOR,
    WHOLE,
    Cells,
    Point,
    WholeBatch,
    as_array,
    blocks,
    least_product,
    noise_of,
    runs_of,
    table_of,
)
from fairlayer.passes.class_metric import ClassMetric

__all__ = ["NumpyPasses"]

_MEMBERSHIP_UP_TO = 4  # cells
_MEMBERSHIP_FROM = 1024  # samples
_RUN = 32_768  # samples
_FULL_UP_TO = 100_000  # entries of grouped rows that are faster as an array


class NumpyPasses:
    """Passes in NumPy.

    Args:
        scores: (n,), in the coordinate of the geometry.
        cells: the statistics.
        lower: None, a float or (n,).
        upper: likewise.
        geometry: how a sample answers a pull.
        device: where exported predictions go.
    """

    parts, least_floor = 1, LEAST_FLOOR

    def __init__(  # noqa: PLR0917 - a batch
        self,
        scores: FloatArray,
        cells: Cells,
        lower: Any,
        upper: Any,
        geometry: Geometry = EUCLIDEAN,
        device: torch.device | str = "cpu",
    ) -> None:
        self.scores, self.cells, self.device = scores, cells, torch.device(device)
        self.geometry: Any = geometry
        self.lower, self.upper = lower, upper
        self.runs = runs_of(len(scores), _RUN)
        self.dense = cells.dense
        if isinstance(self.dense, GroupedRows) and self.dense.shape[0] * len(scores) <= _FULL_UP_TO:
            self.dense = np.asarray(self.dense)
        self.members = _members(cells) if len(self.runs) == 1 else None

    def at(self, nu: FloatArray | None) -> Point:
        """See `Passes.at`."""
        if len(self.runs) == 1:
            value, free = self._step(nu, WHOLE)
            return Point(value, free, self.measure(value), curvature=partial(self._metric, value, free))
        sums, diagonal, held = np.zeros(self.cells.size), np.zeros(len(self.cells.counts)), 0
        for run in self.runs:
            value, free = self._step(nu, run)
            sums = sums + self.sums(value, run)
            held += 0 if free is None else len(free) - int(np.count_nonzero(free))
            if self.dense is None:
                diagonal = diagonal + self._diagonal(self._weight(value, free, run), run)
        curvature: Any = diagonal if self.dense is None else partial(self._metric_again, nu)
        return Point(None, None, sums, curvature=curvature, emit=partial(self._step, nu), held=held)

    def forget(self) -> None:
        """See `Passes.forget`; there is nothing."""

    def pull(self, nu: FloatArray, run: slice = WHOLE) -> Any:
        """See `Passes.pull`."""
        k = len(self.cells.counts)
        hard: Any = 0.0
        if self.members is not None:
            hard = (nu[:k] / self.cells.counts) @ self.members
        elif self.cells.codes is not None:
            hard = table_of(nu[:k], self.cells)[self.cells.codes[run]]
        return hard if self.dense is None else hard + nu[k:] @ self.dense[:, run]

    def measure(self, value: FloatArray, *, weighted: bool = True) -> FloatArray:
        """See `Passes.measure`."""
        return sum((self.sums(value[run], run, weighted=weighted) for run in self.runs), np.zeros(self.cells.size))

    def sums(self, value: FloatArray, run: slice, *, weighted: bool = True) -> FloatArray:
        """See `Passes.sums`."""
        whole = self._weighted(value, run) if weighted else value
        means = self._cell_sums(whole, run) / self.cells.counts
        return means if self.dense is None else np.append(means, self.dense[:, run] @ whole)

    def together(self, statistics: FloatArray) -> FloatArray:
        """See `Passes.together`."""
        return statistics

    def widest_metric(self) -> FloatArray:
        """See `Passes.widest_metric`."""
        return self._widest

    @cached_property
    def _widest(self) -> FloatArray:
        return self._added(lambda run: np.ones(len(self.scores[run])))

    def metric_of(self, weight: FloatArray) -> FloatArray:
        """Return K for any W (n,), diagonal."""
        return self._added(lambda run: weight[run])

    def whole_batch(self) -> WholeBatch:
        """See `Passes.whole_batch`."""
        return WholeBatch.of(self.cells, self.lower, self.upper, self.n)

    def magnitudes(self, point: Point) -> FloatArray:
        """See `Passes.magnitudes`."""
        found = np.zeros(self.cells.size)
        for run in self.runs:
            value, free = point.piece(run)
            size = self._weighted(self.geometry.magnitude(value, self.scores[run], free), run)
            means = self._cell_sums(size, run) / self.cells.counts
            found += means if self.dense is None else np.append(means, reach_of(self.dense[:, run], size))
        return found

    def lowest(self, nus: FloatArray) -> FloatArray:
        """See `Passes.lowest`."""
        return np.array([sum(self._lowest(nu, run) for run in self.runs) for nu in nus])

    def _lowest(self, nu: FloatArray, run: slice) -> float:
        pull = self._weighted(self.pull(nu, run), run)
        bounded = self.lower is not None and self.upper is not None
        noise = 0.0 if bounded else noise_of(nu, self.cells)  # what a missing bound makes infinite
        return least_product(np.maximum(pull, 0.0), _of(self.lower, run), noise) + least_product(
            np.minimum(pull, 0.0), _of(self.upper, run), noise
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

    def export(self, point: Point, dtype: torch.dtype) -> torch.Tensor:
        """See `Passes.export`."""
        exact = np.float64 if dtype == torch.float64 else np.float32
        out = np.empty(self.n, dtype=exact)
        for run in self.runs:
            out[run] = point.piece(run)[0]
        value: torch.Tensor = self.geometry.inside(torch.from_numpy(out))
        return value.to(self.device)

    def as_tensor(self, array: Any) -> torch.Tensor:
        """See `Passes.as_tensor`."""
        return torch.from_numpy(array).to(self.device)

    def from_tensor(self, tensor: torch.Tensor) -> Any:
        """See `Passes.from_tensor`."""
        return as_array(tensor.double())

    def _step(self, nu: FloatArray | None, run: slice) -> tuple[FloatArray, Any]:
        pull = None if nu is None else self.pull(nu, run)
        value, free = self.geometry.step(self.scores[run], pull, _of(self.lower, run), _of(self.upper, run))
        return value, free

    def _weight(self, value: FloatArray, free: Any, run: slice) -> FloatArray:
        return np.asarray(self.geometry.weigh(value, self.scores[run], free, np.ones(len(value))))

    def _weighted(self, value: Any, run: slice) -> Any:
        return value if self.cells.weights is None else value * self.cells.weights[run]

    def _metric(self, value: FloatArray, free: Any) -> FloatArray:
        return self._metric_of(self._weight(value, free, WHOLE), WHOLE)

    def _metric_again(self, nu: FloatArray | None) -> FloatArray:
        return self._added(lambda run: self._weight(*self._step(nu, run), run))

    def _added(self, weight: Callable[[slice], FloatArray]) -> FloatArray:
        """Return K for weights W that are given run by run."""
        parts = (self._metric_of(weight(run), run) for run in self.runs)
        metric = next(parts)
        for part in parts:
            metric = metric + part
        return metric

    def _diagonal(self, weight: FloatArray, run: slice) -> FloatArray:
        return self._cell_sums(self._weighted(weight, run), run) / (self.cells.counts * self.cells.counts)

    def _metric_of(self, weight: FloatArray, run: slice) -> FloatArray:
        diagonal = self._diagonal(weight, run)
        if self.dense is None:
            return diagonal
        weighted = self._weighted(weight, run)
        rows = self.dense[:, run]
        if isinstance(rows, GroupedRows):
            if not len(diagonal) and (len(rows.strata) == 1 or self.cells.in_blocks):
                found = rows.blocks(weighted)
                metric = found.ravel() if len(rows.strata) == 1 else ClassMetric(found, by_cell=True)
                return cast("FloatArray", metric)  # which does what an array does
            codes = self.cells.codes
            cross = rows.cross(weighted, None if codes is None else codes[run], len(diagonal)) / self.cells.counts
            return blocks(diagonal, cross, rows.square(weighted))
        masked = rows * weighted
        cross = np.array([self._cell_sums(row, run) for row in masked]).reshape(len(rows), -1) / self.cells.counts
        return blocks(diagonal, cross, masked @ rows.T)

    def _cell_sums(self, value: FloatArray, run: slice) -> FloatArray:
        if self.members is not None:
            return np.asarray(self.members @ value)
        k = len(self.cells.counts)
        if self.cells.codes is None:
            return np.zeros(k)
        codes = self.cells.codes[run]
        sums: FloatArray = np.bincount(codes, weights=value, minlength=k).astype(np.float64, copy=False)
        return sums if len(sums) == k else sums[:k]


def _of(bound: Any, run: slice) -> Any:
    """Return the part of a bound that belongs to a run of samples."""
    return bound[run] if isinstance(bound, np.ndarray) else bound


def _members(cells: Cells) -> FloatArray | None:
    """Return the membership (cells, n) of few cells: products with it are faster than gathers and counts."""
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
