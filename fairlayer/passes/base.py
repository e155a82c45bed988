"""What passes over a batch take and give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from fairlayer._rows import GroupedRows
from fairlayer._typing import FloatArray, IntArray
from fairlayer.geometry import Geometry

__all__ = [
    "LEAST_FLOOR",
    "WHOLE",
    "Cells",
    "Passes",
    "Point",
    "WholeBatch",
    "as_array",
    "blocks",
    "least_product",
    "noise_of",
    "runs_of",
    "table_of",
]


LEAST_FLOOR = 1e-9
"""What a clipped sample counts at least, of a free one, where a search needs it to move."""

_FULL_UP_TO = 48  # statistics of several to a sample of which K is an array

WHOLE = slice(None)
"""The run of all samples."""


class Cells(NamedTuple):
    """The statistics of a batch: hard cells, then dense rows.

    Args:
        codes: cell of each sample, (n,); `len(counts)` marks samples in no cell. None where there are no cells.
        counts: samples per cell (>= 1 to divide by; an empty cell counts 1).
        dense: weights (d, n) of the dense rows, or None.
        covering: whether every sample is in some cell.
        weights: how many samples each row stands for, (n,), in sums and in the objective; None for one each. Dense
            rows are per unit of weight.
        classes: columns of a row of class probabilities; the statistics are then the cells of the first class, those
            of the second, and so on.
        dense_class: the class that each dense row speaks of, (d,); None for a single column.
    """

    codes: IntArray | None
    counts: FloatArray
    dense: Any  # an array or `GroupedRows`
    covering: bool = False
    weights: FloatArray | None = None
    classes: int = 1
    dense_class: IntArray | None = None

    @property
    def size(self) -> int:
        """Number of statistics."""
        return self.classes * len(self.counts) + (0 if self.dense is None else len(self.dense))

    @property
    def in_blocks(self) -> bool:
        """Whether K is kept as a block (classes, classes) per cell: it has no other entries, and would be large."""
        of_classes = self.classes > 1 and self.dense is None
        of_labels = self.classes == 1 and not len(self.counts) and isinstance(self.dense, GroupedRows)
        return (of_classes or of_labels) and self.size > _FULL_UP_TO


class Point:
    """Where the batch stands at one dual point: its statistics, and on demand how they curve and what is predicted.

    Args:
        value: (n,), or (n, k) on the simplex; float64, NumPy or torch. None where `emit` works it out on demand.
        free: which samples (or entries) the geometry can move there; None: all.
        statistics: B y, (s,).
        curvature: K = B W B', or what works it out.
        emit: works out value and free of a run of samples.
        held: how many samples are not free, where the sweep has counted them.
    """

    __slots__ = ("_curvature", "_emit", "_free", "_held", "_value", "statistics")

    def __init__(  # noqa: PLR0917 - a point
        self,
        value: Any,
        free: Any,
        statistics: FloatArray,
        curvature: FloatArray | Callable[[], FloatArray] | None = None,
        emit: Callable[[slice], tuple[Any, Any]] | None = None,
        held: int | None = None,
    ) -> None:
        self._value, self._free, self._emit, self._held = value, free, emit, held
        self.statistics, self._curvature = statistics, curvature

    @property
    def value(self) -> Any:
        """The predictions."""
        self._settle()
        return self._value

    @property
    def free(self) -> Any:
        """Which samples can move."""
        self._settle()
        return self._free

    @property
    def curvature(self) -> FloatArray:
        """K = B W B' with W = -dy/dq: (s,) where it is diagonal, else (s, s)."""
        if callable(self._curvature):
            self._curvature = self._curvature()
        assert self._curvature is not None
        return self._curvature

    @property
    def held(self) -> int:
        """How many samples the geometry cannot move; of a row of classes, those of which one class has everything."""
        if self._held is None:
            free = self.free
            held = None if free is None else ~free if free.ndim == 1 else free.sum(-1) <= 1
            self._held = 0 if held is None else int(held.sum())
        return self._held

    def counted(self, statistics: FloatArray, curvature: Callable[[], FloatArray]) -> Point:
        """Return the same predictions with other statistics and another K."""
        return Point(self._value, self._free, statistics, curvature, self._emit, self._held)

    def forget(self) -> None:
        """Let go of predictions that can be worked out again."""
        if self._emit is not None:
            self._value = self._free = None

    def piece(self, run: slice) -> tuple[Any, Any]:
        """Return value and free of a run of samples, and keep nothing of them."""
        if self._value is None and self._emit is not None:
            return self._emit(run)
        if run == WHOLE:
            return self._value, self._free
        return self._value[run], None if self._free is None else self._free[run]

    def _settle(self) -> None:
        if self._emit is not None and self._value is None:
            self._value, self._free = self._emit(WHOLE)


class WholeBatch(NamedTuple):
    """What decides which statistics are attainable, of all samples, wherever they are, as NumPy arrays."""

    codes: IntArray | None
    dense: FloatArray | None
    weights: FloatArray | None
    lower: Any  # -inf, a float or (n,)
    upper: Any
    n: int

    @staticmethod
    def of(cells: Cells, lower: Any, upper: Any, n: int) -> WholeBatch:
        """Build from what one process holds."""
        low = -np.inf if lower is None else as_array(lower)
        high = np.inf if upper is None else as_array(upper)
        dense = None if cells.dense is None else np.asarray(cells.dense)
        return WholeBatch(cells.codes, dense, cells.weights, low, high, n)

    @staticmethod
    def joined(parts: Sequence[WholeBatch]) -> WholeBatch:
        """Put the parts of several processes together."""

        def joined(arrays: list[Any], axis: int = 0) -> Any:
            return None if arrays[0] is None else np.concatenate(arrays, axis=axis)

        return WholeBatch(
            joined([part.codes for part in parts]),
            joined([part.dense for part in parts], axis=1),
            joined([part.weights for part in parts]),
            np.concatenate([np.broadcast_to(part.lower, part.n) for part in parts]),
            np.concatenate([np.broadcast_to(part.upper, part.n) for part in parts]),
            sum(part.n for part in parts),
        )


def as_array(bound: Any) -> Any:
    """Return a bound as a float or an array on the host."""
    return bound.cpu().numpy() if isinstance(bound, torch.Tensor) else bound


class Passes(Protocol):
    """What a solver needs of a batch; `at` is the hot one."""

    scores: Any  # in the coordinate of the geometry
    cells: Cells
    geometry: Geometry
    lower: Any
    upper: Any
    parts: int  # how many processes hold the batch together
    least_floor: float  # what a clipped sample counts at least, of a free one, where a search needs it to move

    @property
    def runs(self) -> Sequence[slice]:
        """The samples here, run after run: what is worked on at a time."""

    def at(self, nu: FloatArray | None) -> Point:
        """Return where the batch stands at the dual point nu (None: at zero): statistics, K, predictions."""

    def forget(self) -> None:
        """Let go of what can be worked out again, where no other pass is to be expected."""

    def pull(self, nu: FloatArray, run: slice = WHOLE) -> Any:
        """Return the pull of each sample, B' nu per unit of its weight."""

    def widest_metric(self) -> FloatArray:
        """Return K with W as large as the domain allows: where every sample is free to move."""

    def measure(self, value: Any, *, weighted: bool = True) -> FloatArray:
        """Return the statistics B y of any predictions; not `weighted`: of one sample per row."""

    def sums(self, value: Any, run: slice, *, weighted: bool = True) -> FloatArray:
        """Return what the predictions of a run of the samples here add to the statistics."""

    def together(self, statistics: FloatArray) -> FloatArray:
        """Return statistics of the samples here as those of all processes together."""

    def whole_batch(self) -> WholeBatch:
        """Return what decides which statistics are attainable, of all samples, wherever they are."""

    def magnitudes(self, point: Point) -> FloatArray:
        """Return how large the numbers are that each statistic adds up at a point: |B| of `geometry.magnitude`."""

    def lowest(self, nus: FloatArray) -> FloatArray:
        """Return the least `nu @ B y` over all predictions within the bounds, for each row of `nus`."""

    @property
    def size(self) -> float:
        """Return the largest absolute score; NaN or infinite if any score is."""

    @property
    def n(self) -> int:
        """Number of samples."""

    def total(self, sums: torch.Tensor) -> torch.Tensor:
        """Return sums over this part of the batch as sums over all, differentiably."""

    def export(self, point: Point, dtype: torch.dtype) -> torch.Tensor:
        """Return the predictions at a point as a new tensor, inside an open domain also after this cast."""

    def as_tensor(self, array: Any) -> torch.Tensor:
        """Return a value of this backend as a tensor that shares its memory."""

    def from_tensor(self, tensor: torch.Tensor) -> Any:
        """Return a tensor as a value of this backend."""


def runs_of(n: int, length: int) -> tuple[slice, ...]:
    """Cut n samples into runs of some length; a batch that is not much longer stays whole."""
    if n <= 2 * length:
        return (WHOLE,)
    return tuple(slice(start, min(start + length, n)) for start in range(0, n, length))


def blocks(diagonal: FloatArray, cross: FloatArray, dense: FloatArray) -> FloatArray:
    """Return K of hard cells and dense rows together."""
    return np.block([[np.diag(diagonal), cross.T], [cross, dense]])


def table_of(nu: FloatArray, cells: Cells) -> FloatArray:
    """Return the shift of each cell, and 0 for samples outside."""
    shift = nu / cells.counts
    return shift if cells.covering else np.append(shift, 0.0)


def noise_of(nu: FloatArray, cells: Cells) -> float:
    """Return the pull below which it is the rounding of one that cancels."""
    k = len(cells.counts)
    hard = float(np.abs(nu[:k] / cells.counts).max(initial=0.0))
    if cells.dense is None:
        return 1e-9 * hard
    size = np.zeros(cells.dense.shape[1])
    if isinstance(cells.dense, GroupedRows):
        size = np.abs(nu[k:]) @ np.abs(cells.dense)
    else:
        for price, row in zip(np.abs(nu[k:]).tolist(), cells.dense, strict=True):
            size += price * np.abs(row)
    return 1e-9 * (hard + float(size.max(initial=0.0)))


def least_product(pull: Any, bound: Any, noise: float) -> float:
    """Return the sum of pull * bound, where a missing bound is infinite on the side that pull points to."""
    if bound is None:
        return -np.inf if bool((abs(pull) > noise).any()) else 0.0
    if isinstance(bound, np.ndarray) and not np.isfinite(bound).all():
        bound = np.where(pull == 0.0, 0.0, bound)  # what is not pulled stays finite
    if isinstance(bound, float):
        return bound * float(pull.sum())
    return float((pull * bound).sum())
