"""How accurately each row can be met: its own numbers decide, never those of another row."""

from __future__ import annotations

import math

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.passes import Passes, Point
from fairlayer.solve.slabs import SlabSystem

__all__ = ["accuracy_of", "gauged", "statistic_sizes"]


def accuracy_of(passes: Passes) -> float:
    """Return the accuracy of a row whose statistics are of size 1: sums of n numbers round like sqrt(n)."""
    return 1e-13 + 1e-15 * math.sqrt(passes.n)


def gauged(passes: Passes, slabs: SlabSystem, point: Point, base: float, nu: FloatArray | None = None) -> SlabSystem:
    """Return the slabs with the accuracy that the numbers of each row allow at a point.

    The size of a statistic is the mean over its samples of what made their predictions: a raw score far outside the
    bounds counts as the bound that holds it. Where a limit must be reached that is larger, it counts too.
    """
    sizes = statistic_sizes(passes, point, nu)
    for block in slabs.blocks:
        sizes = np.maximum(sizes, block.asked(point.statistics))
    return slabs.accurate_to(base, sizes)


def statistic_sizes(passes: Passes, point: Point, nu: FloatArray | None) -> FloatArray:
    """Return the size of each statistic at a point that is reached by the dual nu (None: by none).

    One sample of each cell may be about to become free, and it rounds like the pull that takes it there, which is no
    larger than the largest raw score and value together.
    """
    if nu is None and passes.cells.dense is None and _common(passes.lower) and _common(passes.upper):
        return np.full(len(point.statistics), max(abs(passes.lower), abs(passes.upper)))  # no sweep for the usual case
    sizes = np.maximum(passes.magnitudes(point), np.abs(point.statistics))
    if nu is None or passes.geometry.smooth or passes.cells.classes > 1:
        return sizes
    k, counts = len(passes.cells.counts), passes.cells.counts
    largest = passes.size + float(np.abs(point.statistics).max(initial=0.0))
    heaviest = 1.0 if passes.cells.weights is None else float(passes.cells.weights.max(initial=0.0))
    sizes[:k] += np.minimum(np.abs(nu[:k]) / counts, largest) * heaviest / counts
    return sizes


def _common(bound: object) -> bool:
    return isinstance(bound, float)
