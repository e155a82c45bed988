"""Passes in compiled sweeps, over samples that lie cell by cell: many samples or many cells on the CPU."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from fairlayer._typing import FloatArray, IntArray
from fairlayer.fused import kernels
from fairlayer.geometry import Entropic, Euclidean, Geometry, Likelihood
from fairlayer.passes.arrays import NumpyPasses
from fairlayer.passes.base import LEAST_FLOOR, WHOLE, Cells, Point, WholeBatch

__all__ = ["NUMBERS", "CompiledPasses"]

_FROM = 2048  # samples: fewer are as fast in NumPy
_FAR = 600.0  # log-odds
_RUN = 32_768  # samples that are worked on at a time where NumPy takes part

NUMBERS: dict[Geometry, int] = {Euclidean(): 0, Entropic(): 1, Likelihood(): 2}
"""The geometries as compiled sweeps know them."""


class _Arranged(NamedTuple):
    """The scores as the sweeps take them, exp(-score) in the entropic geometry: as they came, and cell by cell."""

    given: FloatArray
    scores: FloatArray
    starts: IntArray  # of each cell, of those in none, and the end


class CompiledPasses:
    """Passes in compiled sweeps: sums and curvature of each cell at once, the predictions when they are asked for.

    Args:
        scores: (n,), in the coordinate of the geometry; not to be changed while the passes live.
        cells: hard cells, without weights.
        lower: None or a float.
        upper: likewise.
        geometry: one of the box.
    """

    parts, least_floor = 1, LEAST_FLOOR

    def __init__(self, scores: FloatArray, cells: Cells, lower: Any, upper: Any, geometry: Geometry) -> None:
        self._sweeps = kernels(len(scores)).cells  # type: ignore[union-attr]  # `serve` has seen them
        self.cells, self.geometry = cells, geometry
        self.lower, self.upper = lower, upper
        self._number = NUMBERS[geometry]
        self._ends = (-np.inf if lower is None else lower), (np.inf if upper is None else upper)
        self.scores = scores
        self._arranged: _Arranged | None = None

    @staticmethod
    def serve(scores: torch.Tensor, cells: Cells, lower: Any, upper: Any, geometry: Geometry) -> bool:
        """Return whether compiled sweeps are there for such a batch."""
        plain = all(isinstance(bound, float | None) for bound in (lower, upper))
        hard = cells.codes is not None and cells.dense is None and cells.weights is None and cells.classes == 1
        known = geometry in NUMBERS and scores.device.type == "cpu" and plain
        return hard and known and len(scores) >= _FROM and kernels(len(scores)) is not None

    @property
    def _by_cell(self) -> _Arranged:
        """The samples cell by cell."""
        if self._arranged is None:
            k, n = len(self.cells.counts), len(self.scores)
            counts = np.bincount(self.cells.codes, minlength=k + 1)  # type: ignore[arg-type]
            given = self.scores
            if self._number == NUMBERS[Entropic()]:
                with np.errstate(over="ignore"):  # so far from the others that no sweep will read it
                    given = np.exp(-given)
            found = _Arranged(given, np.empty(n), np.zeros(k + 2, dtype=np.int64))
            self._sweeps.arrange(given, self.cells.codes, counts, found.starts, found.scores)
            self._arranged = found
        return self._arranged

    def forget(self) -> None:
        """See `Passes.forget`."""
        self._arranged = None

    @cached_property
    def _plain(self) -> NumpyPasses:
        """The same passes in NumPy, for what is asked for rarely."""
        return NumpyPasses(self.scores, self.cells, self.lower, self.upper, self.geometry)

    @property
    def runs(self) -> tuple[slice, ...]:
        """See `Passes.runs`."""
        return self._plain.runs

    def at(self, nu: FloatArray | None) -> Point:
        """See `Passes.at`; K comes with it."""
        counts, pulls = self.cells.counts, self._pulls(nu)
        if self._too_far(pulls):
            return self._plain.at(nu)
        sums, frees = np.empty(len(pulls)), np.empty(len(pulls))
        batch = self._by_cell
        self._sweeps.sweep(self._number, batch.scores, batch.starts, pulls, *self._ends, sums, frees)
        curvature = frees[:-1] / (counts * counts)
        held = self.n - int(frees.sum()) if self._number == NUMBERS[Euclidean()] else 0

        def emit(run: slice) -> tuple[Any, Any]:
            return self._emit(pulls) if run == WHOLE else self._step(pulls, run)

        return Point(None, None, sums[:-1] / counts, curvature, emit, held)

    def _pulls(self, nu: FloatArray | None) -> FloatArray:
        """Return the pull of each cell, and at last of the samples outside."""
        return np.append(np.zeros(len(self.cells.counts)) if nu is None else nu / self.cells.counts, 0.0)

    def _too_far(self, pulls: FloatArray) -> bool:
        """Whether exp(-x) and exp(-q) by themselves would leave the range of float64."""
        return self._number == NUMBERS[Entropic()] and self.size + float(np.abs(pulls).max()) > _FAR

    def _emit(self, pulls: FloatArray) -> tuple[FloatArray, Any]:
        value = np.empty(self.n)
        euclidean = self._number == NUMBERS[Euclidean()]
        free = np.empty(self.n if euclidean else 0, dtype=np.bool_)
        self._sweeps.emit(self._number, self._by_cell.given, self.cells.codes, pulls, *self._ends, value, free)
        return value, free if euclidean and (self.lower, self.upper) != (None, None) else None

    def _step(self, pulls: FloatArray, run: slice) -> tuple[FloatArray, Any]:
        pull = pulls[self.cells.codes[run]]  # type: ignore[index]  # there are cells
        return self.geometry.step(self.scores[run], pull, self.lower, self.upper)

    def tally(self, nu: FloatArray, threshold: float) -> tuple[float, FloatArray] | None:
        """Return the sum of d(y, z) at nu, and how many y of each cell, and of none, reach a threshold.

        None for log-odds too far for these sweeps.
        """
        pulls = self._pulls(nu)
        if self._too_far(pulls):
            return None
        batch, yes = self._by_cell, np.zeros(len(pulls))
        if self._number != NUMBERS[Likelihood()]:
            far = np.zeros(len(pulls))
            self._sweeps.tally(self._number, batch.scores, batch.starts, pulls, *self._ends, threshold, far, yes)
            return float(far.sum()), yes
        distance, length = 0.0, min(_RUN, self.n)
        up, down = np.empty(length), np.empty(length)
        for first in range(0, self.n, length):
            z = batch.scores[first : first + length]
            above, below = up[: len(z)], down[: len(z)]
            self._sweeps.excess(batch.scores, batch.starts, pulls, threshold, first, above, below, yes)
            above, below = np.log1p(above, out=above), np.log1p(below, out=below)
            distance += float(z @ above) + float(below.sum()) - float(z @ below)
        return distance, yes

    def widest_metric(self) -> FloatArray:
        """See `Passes.widest_metric`."""
        rows = np.diff(self._by_cell.starts)[:-1].astype(np.float64)
        return rows / (self.cells.counts * self.cells.counts)

    def pull(self, nu: FloatArray, run: slice = WHOLE) -> Any:
        """See `Passes.pull`."""
        return self._plain.pull(nu, run)

    def measure(self, value: FloatArray, *, weighted: bool = True) -> FloatArray:
        """See `Passes.measure`."""
        return self._plain.measure(value, weighted=weighted)

    def sums(self, value: FloatArray, run: slice, *, weighted: bool = True) -> FloatArray:
        """See `Passes.sums`."""
        return self._plain.sums(value, run, weighted=weighted)

    def together(self, statistics: FloatArray) -> FloatArray:
        """See `Passes.together`."""
        return statistics

    def whole_batch(self) -> WholeBatch:
        """See `Passes.whole_batch`."""
        return self._plain.whole_batch()

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

    def export(self, point: Point, dtype: torch.dtype) -> torch.Tensor:
        """See `Passes.export`."""
        value = torch.from_numpy(point.piece(WHOLE)[0])
        exported: torch.Tensor = self.geometry.inside(value.to(dtype))
        return exported

    def as_tensor(self, array: Any) -> torch.Tensor:
        """See `Passes.as_tensor`."""
        return torch.from_numpy(array)

    def from_tensor(self, tensor: torch.Tensor) -> Any:
        """See `Passes.from_tensor`."""
        return tensor.double().numpy()
