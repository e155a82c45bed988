"""Predictions without any bound in the elastic program: as few coordinates as the faces can tell apart.

Entries that may lie anywhere move the values of the faces' rows, M B_free x_free, through a whole linear space. With
M B_free = P S V', the coordinates u of x_free = V S^-1 u move them by P u: few free numbers that are alike in size,
whatever the units and the overlaps of the features. Without them each entry waits for its turn at a large number, and
where columns are nearly dependent, the equations of the method lose their digits to these numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.solve.elastic_domain import BoxDomain
from fairlayer.solve.elastic_samples import SampleMap
from fairlayer.solve.elastic_search import ElasticResult
from fairlayer.solve.slabs import RowSlabs, SpreadSlabs

__all__ = ["FreeEntries"]

_DEPENDENT = 1e-13  # of the largest singular value: directions below it are rounding
_RUN = 4096  # columns that are factorised at a time
_REFINED = 3  # times that a point is corrected


@dataclass(frozen=True)
class FreeEntries:
    """A box in which coordinates stand for the free entries.

    Args:
        free: entries without any bound, (n,).
        samples: the map B from all entries to statistics.
        rows: M, the rows of all blocks, each divided by its size.
        basis: P, (rows, coordinates).
        values: S, (coordinates,).
        moved: L, (statistics, coordinates), each statistic in the unit of its row.
        unit: the unit of each statistic, (statistics,): what L and the bounded entries add up.
        lower: the bounds of all entries, (n,).
        upper: likewise.
    """

    free: BoolArray
    samples: SampleMap
    rows: FloatArray
    basis: FloatArray
    values: FloatArray
    moved: FloatArray
    unit: FloatArray
    lower: FloatArray
    upper: FloatArray

    @staticmethod
    def of(
        blocks: Sequence[RowSlabs | SpreadSlabs], samples: SampleMap, lower: FloatArray, upper: FloatArray
    ) -> FreeEntries | None:
        """Return the box with coordinates; None where every entry has a bound."""
        free = np.isneginf(lower) & np.isposinf(upper)
        rows = np.concatenate([block.matrix for block in blocks]) if blocks else np.zeros((0, 1))
        if not free.any() or not len(rows):
            return None
        if len(samples.unit):
            rows[:, -len(samples.unit) :] *= samples.unit
        size = np.abs(rows).max(axis=1, initial=0.0)
        rows /= np.where(size > 0.0, size, 1.0)[:, None]
        basis, values, _ = np.linalg.svd(_triangle(samples.only(free), rows).T)
        rank = int((values > _DEPENDENT * values.max(initial=0.0)).sum())
        basis, values = basis[:, :rank], values[:rank]
        pulls = (basis / values**2).T @ rows
        moved = np.array([samples.measure(np.where(free, samples.pull(pull), 0.0)) for pull in pulls])
        moved = moved.reshape(rank, rows.shape[1]).T
        unit = np.abs(moved).sum(axis=1) + samples.only(~free).absolute.measure(np.ones(int((~free).sum())))
        unit = np.where(unit > 0.0, unit, 1.0)
        return FreeEntries(free, samples, rows, basis, values, moved / unit[:, None], unit, lower, upper)

    @property
    def users_unit(self) -> FloatArray:
        """The unit of each statistic in that of the user, (statistics,)."""
        unit, dense = self.unit.copy(), self.samples.unit
        unit[len(unit) - len(dense) :] *= dense
        return unit

    def domain(self, near: FloatArray | None, reach: float) -> BoxDomain:
        """Return the box of the coordinates and of the entries with bounds, at a start."""
        coordinates, bounded = np.zeros(len(self.values)), ~self.free
        start = np.zeros(len(self.free)) if near is None else np.asarray(near, float)
        if near is not None:
            coordinates = self.basis.T @ (self.rows @ self.samples.measure(np.where(self.free, start, 0.0)))
        joined = _Joined(self.moved, self.unit, self.samples.only(bounded))
        nowhere = np.full(len(self.values), np.inf)
        lower, upper = np.append(-nowhere, self.lower[bounded]), np.append(nowhere, self.upper[bounded])
        return BoxDomain(joined, lower, upper, np.append(coordinates, start[bounded]), reach)

    def _entries(self, coordinates: FloatArray) -> FloatArray:
        """Return V S^-1 u, the entries without any bound, among zeros."""
        pull = (self.basis @ (coordinates / self.values**2)) @ self.rows
        return np.where(self.free, self.samples.pull(pull), 0.0)

    def proved(self, proof: ElasticResult) -> ElasticResult:
        """Return a proof about the coordinates as one about the entries; a free entry has no bound to depend on."""
        rank = len(self.values)
        x = self._entries(proof.point[:rank])
        x[~self.free] = proof.point[rank:]
        for _ in range(_REFINED):
            missing = self.rows @ (self.unit * proof.statistics - self.samples.measure(x))
            x += self._entries(self.basis.T @ missing)
        lower, upper = (self._of_entries(by) for by in (proof.by_lower, proof.by_upper))
        return proof._replace(point=x, statistics=self.samples.measure(x), by_lower=lower, by_upper=upper)

    def _of_entries(self, by: FloatArray | None) -> FloatArray | None:
        if by is None:
            return None
        whole = np.zeros(len(self.free))
        whole[~self.free] = by[len(self.values) :]
        return whole


def _triangle(samples: SampleMap, rows: FloatArray) -> FloatArray:
    """Return R of (M B)' = Q R, worked out in runs of entries."""
    found = np.zeros((0, len(rows)))
    for first in range(0, samples.count, _RUN):
        run = np.arange(first, min(first + _RUN, samples.count))
        columns = samples.columns(rows, run, np.zeros(len(run), int))
        found = np.asarray(np.linalg.qr(np.concatenate([found, columns.T]), mode="r"))
    return found


class _Joined(SampleMap):
    """The map from coordinates and from entries with bounds to the statistics in their units: L u + B x / unit."""

    def __init__(self, moved: FloatArray, unit: FloatArray, rest: SampleMap) -> None:
        super().__init__()
        self.moved, self.each, self.rest = moved, unit, rest
        self.rank = moved.shape[1]

    def measure(self, x: FloatArray) -> FloatArray:
        """See `SampleMap.measure`."""
        return self.moved @ x[: self.rank] + self.rest.measure(x[self.rank :]) / self.each

    def pull(self, q: FloatArray) -> FloatArray:
        """See `SampleMap.pull`."""
        return np.append(q @ self.moved, self.rest.pull(q / self.each))

    def columns(self, normals: FloatArray, entries: IntArray, classes: IntArray) -> FloatArray:
        """See `SampleMap.columns`."""
        free = entries < self.rank
        found = np.zeros((len(normals), len(entries)))
        found[:, free] = normals @ self.moved[:, entries[free]]
        found[:, ~free] = self.rest.columns(normals / self.each, entries[~free] - self.rank, classes[~free])
        return found

    def norms(self, n: int) -> FloatArray:
        """See `SampleMap.norms`."""
        return np.append(np.abs(self.moved).sum(axis=0), self.rest.absolute.pull(1.0 / self.each))

    def sizes(self, x: FloatArray, s: FloatArray) -> FloatArray:
        """See `SampleMap.sizes`."""
        bounded = x[self.rank :]
        rest = self.rest.sizes(bounded, self.rest.measure(bounded)) / self.each
        return np.abs(self.moved) @ np.abs(x[: self.rank]) + rest
