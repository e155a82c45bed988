"""The samples of a batch cell by cell, and by score within each, by whichever sort is quicker on this machine.

NumPy sorts numbers by wide instructions where the processor has them, and many times slower where it has none. A
compiled sweep lies between the two. All give the same numbers, so that one look at a clock may choose.
"""

from __future__ import annotations

from functools import lru_cache
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.fused import kernels
from fairlayer.passes.base import Cells

__all__ = ["SortedSamples", "sorted_by_cell"]

_IN_CACHE = 300_000  # samples that a sweep may put where they belong, one here and one there
_FINE, _COARSE = 2, 8192  # samples of a part that such a sweep fills; of more samples, the parts stay in the cache
_MANY_OF_A_CELL = 500  # samples from which such a sweep is quicker than a sort without wide instructions
_RUNS_LEFT = 64  # runs that such a sweep may leave to a general sort, beside whole cells
_TRIED, _TRIALS = 8192, 3  # numbers that are sorted to find out which way is quicker, and how often


class SortedSamples(NamedTuple):
    """The samples cell by cell, and by score within each.

    Args:
        scores: (n,).
        weights: (n,), or None for one each.
        starts: where each cell begins, at last the samples in no cell, and the end, (cells + 2,).
    """

    scores: FloatArray
    weights: FloatArray | None
    starts: IntArray


def sorted_by_cell(scores: FloatArray, cells: Cells) -> SortedSamples:
    """Sort samples by cell, and by score within each.

    Args:
        scores: (n,).
        cells: their cells, and how many samples each row stands for.
    """
    codes, k = cells.codes, len(cells.counts)
    assert codes is not None
    counts, compiled = np.bincount(codes, minlength=k + 1), kernels(len(codes))
    starts, weights = np.append(0, np.cumsum(counts)), None
    if compiled is not None and cells.weights is None:
        if len(codes) >= _MANY_OF_A_CELL * (k + 1) and not _sorts_by_wide_instructions():
            ordered, left = _swept(compiled, scores, codes, counts, starts)
        else:
            ordered, left = _arranged(compiled, scores, codes, counts, starts)
    else:  # numbers of 16 bits are sorted by their digits
        order = np.argsort(codes.astype(np.uint16) if k < 2**16 else codes, kind="stable")
        ordered, weights = scores[order], None if cells.weights is None else cells.weights[order]
        left = _whole_cells(starts)
    for run in (slice(first, last) for first, last in left.tolist()):
        if weights is None:
            ordered[run].sort()
        else:
            within = np.argsort(ordered[run])
            ordered[run], weights[run] = ordered[run][within], weights[run][within]
    return SortedSamples(ordered, weights, starts)


def _whole_cells(starts: IntArray) -> IntArray:
    return np.stack([starts[:-1], starts[1:]], axis=1)


def _arranged(
    compiled: Any, scores: FloatArray, codes: IntArray, counts: IntArray, starts: IntArray
) -> tuple[FloatArray, IntArray]:
    """Return the scores cell by cell, and the runs that are still to be sorted, which are the cells."""
    ordered = np.empty(len(codes))
    compiled.cells.arrange(scores, codes, counts, starts, ordered)
    return ordered, _whole_cells(starts)


def _swept(
    compiled: Any, scores: FloatArray, codes: IntArray, counts: IntArray, starts: IntArray
) -> tuple[FloatArray, IntArray]:
    """Return the scores cell by cell and by score, and the runs that a general sort is better for."""
    ordered, size = np.empty(len(codes)), _FINE if len(codes) <= _IN_CACHE else _COARSE
    left = np.empty((len(counts) + _RUNS_LEFT + len(codes) // _COARSE, 2), dtype=np.int64)
    return ordered, left[: compiled.cells.arrange_by_score(scores, codes, counts, size, starts, ordered, left)]


@lru_cache(maxsize=1)
def _sorts_by_wide_instructions() -> bool:
    """Return whether NumPy's sort of numbers is quicker here than the compiled sweep, which this tries once."""
    compiled = kernels(_TRIED)
    scores, codes = np.random.default_rng(0).random(_TRIED), np.zeros(_TRIED, dtype=np.int64)
    counts, starts = np.array([_TRIED, 0]), np.array([0, _TRIED, _TRIED])
    return compiled is None or _least_time(lambda: np.sort(scores)) < _least_time(
        lambda: _swept(compiled, scores, codes, counts, starts)
    )


def _least_time(work: Any) -> float:
    def once() -> float:
        start = perf_counter()
        work()
        return perf_counter() - start

    return min(once() for _ in range(_TRIALS))
