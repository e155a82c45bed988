"""Passes over a batch whose samples hold each other: the answer to the pulls is one problem over all of it."""

from __future__ import annotations

import copy
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from fairlayer._typing import FloatArray
from fairlayer.geometry import Geometry
from fairlayer.passes.arrays import NumpyPasses
from fairlayer.passes.base import WHOLE, Cells, Point
from fairlayer.passes.pairs.clusters import Clusters
from fairlayer.passes.pairs.coupled import CoupledGeometry
from fairlayer.passes.pairs.graph import Pairs
from fairlayer.passes.pairs.problem import PairAnswer, PairProblem

__all__ = ["PairPasses"]


class PairPasses(NumpyPasses):
    """Passes in NumPy, on the host. All statistics are dense rows here, for pairs couple the cells.

    Args:
        scores: (n,) in the coordinate of the geometry.
        cells: the statistics; the weights of the samples become part of the rows and of the geometry.
        bounds: (lower, upper), each None, a float or (n,).
        geometry: the geometry of single samples.
        pairs: which samples hold each other.
        device: the device of the scores.
    """

    least_floor = 1e-4  # where samples hold each other firmly, prices would grow beyond all numbers with less

    def __init__(  # noqa: PLR0917 - a batch
        self,
        scores: torch.Tensor,
        cells: Cells,
        bounds: tuple[Any, Any],
        geometry: Geometry,
        pairs: Pairs,
        device: torch.device,
    ) -> None:
        host = scores.detach().cpu().double().numpy().astype(np.float64)
        lower, upper = (each.cpu().numpy() if isinstance(each, torch.Tensor) else each for each in bounds)
        rows = Cells(None, np.zeros(0), _rows_of(cells, len(host)))
        super().__init__(host, rows, lower, upper, CoupledGeometry(geometry, cells.weights))
        self.weights = cells.weights
        self.device, self.pairs, self.runs = device, pairs, (WHOLE,)
        self.problem = PairProblem(pairs, geometry, host, cells.weights, lower, upper)
        self._latest: tuple[Any, PairAnswer] | None = None
        self.rough = False

    def roughly(self) -> PairPasses:
        """Return passes whose answers are about right, at a fraction of the cost, and where exact ones then start."""
        other = copy.copy(self)
        other.rough = True
        return other

    def at_other(self, pairs: Pairs | None) -> PairPasses:
        """Return passes over the same batch with other limits of the pairs."""
        assert pairs is not None
        other = copy.copy(self)
        old = self.problem
        other.pairs, other._latest = pairs, None
        other.problem = PairProblem(pairs, old.geometry, old.x, self.weights, self.lower, self.upper)
        return other

    def at(self, nu: FloatArray | None) -> Point:
        """See `Passes.at`."""
        pull = np.zeros(self.n) if nu is None else self.pull(nu) + np.zeros(self.n)
        answer = self.problem.about(pull) if self.rough else self.problem.answer(pull)
        value, clusters = answer.value, answer.clusters
        point = Point(value, clusters, self.measure(value), curvature=partial(self._curvature, value, clusters))
        self._latest = point, answer
        return point

    def multipliers(self, point: Point, nu: FloatArray) -> FloatArray:
        """Return the multiplier of each pair at a point, where it is reached by nu."""
        if self._latest is None or self._latest[0] is not point:
            self.at(nu)
        assert self._latest is not None
        return self._latest[1].multipliers

    def _curvature(self, value: FloatArray, clusters: Clusters) -> FloatArray:
        """Return K, for samples held by a bound or by each other."""
        rows = self.cells.dense
        moved = np.array([self.geometry.weigh(value, self.scores, clusters, row) for row in rows])
        square = moved.reshape(rows.shape) @ rows.T
        return np.asarray(0.5 * (square + square.T))

    def widest_metric(self) -> FloatArray:
        """See `Passes.widest_metric`: every sample by itself."""
        return self._widest

    @cached_property
    def _widest(self) -> FloatArray:
        rows = self.cells.dense
        assert rows is not None
        return np.asarray((rows if self.weights is None else rows / self.weights) @ rows.T)

    @cached_property
    def size(self) -> float:
        """See `Passes.size`."""
        return float(np.abs(self.scores).max(initial=0.0))

    def as_tensor(self, array: Any) -> Any:
        """See `Passes.as_tensor`; what moves together is brought to torch too."""
        if isinstance(array, Clusters):
            return array.to_torch(self.device)
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def from_tensor(self, tensor: torch.Tensor) -> Any:
        """See `Passes.from_tensor`."""
        return tensor.detach().cpu().double().numpy()


def _rows_of(cells: Cells, n: int) -> FloatArray:
    """Return all statistics as rows over the samples, in the order of the cells and then of the dense rows."""
    weights = np.ones(n) if cells.weights is None else cells.weights
    parts = [np.zeros((0, n))]
    if cells.codes is not None:
        hard = np.zeros((len(cells.counts) + 1, n))
        hard[cells.codes, np.arange(n)] = weights
        parts.append(hard[:-1] / cells.counts[:, None])
    if cells.dense is not None:
        parts.append(np.asarray(cells.dense) * weights)
    return np.concatenate(parts)
