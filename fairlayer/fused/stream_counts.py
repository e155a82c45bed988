"""The journal of a stream, summed up: what `History`, `Sketch` and `Windows` count of it, each in one sweep."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fairlayer.fused.compiling import compiled

_MANY, _BEGINS = 64, 256  # scores that are worth a table of where to begin to look for their bins, and its size

__all__ = ["add_sums", "add_to_bucket", "add_to_sketch"]


@compiled
def add_sums(cells: Any, raw: Any, emitted: Any, count: Any, sum_emitted: Any, sum_raw: Any, moved: Any) -> None:
    """Add counts, predictions, raw scores and squared changes of each cell."""
    for i in range(cells.shape[0]):
        cell = cells[i]
        count[cell] += 1.0
        sum_emitted[cell] += emitted[i]
        sum_raw[cell] += raw[i]
        moved[cell] += (emitted[i] - raw[i]) ** 2


@compiled
def _first_above(edges: Any, z: float) -> Any:
    """Return the first edge above a score, by halves."""
    first, last = 0, edges.shape[0]
    while first < last:
        middle = (first + last) // 2
        if edges[middle] <= z:
            first = middle + 1
        else:
            last = middle
    return first


@compiled
def _begins(edges: Any, low: float, high: float) -> Any:
    """Return the first edge above each of many places from the lower to the upper end."""
    found, first = np.empty(_BEGINS + 1, dtype=np.int64), 0
    for place in range(_BEGINS + 1):
        while first < edges.shape[0] and edges[first] <= low + (high - low) * (place / _BEGINS):
            first += 1
        found[place] = first
    return found


@compiled
def _first_above_from(edges: Any, z: float, first: int) -> Any:
    """Return the first edge above a score, from one that is near: no jump of it is hard to foresee, as by halves."""
    while first > 0 and edges[first - 1] > z:
        first -= 1
    while first < edges.shape[0] and edges[first] <= z:
        first += 1
    return first


@compiled
def add_to_sketch(
    cells: Any,
    scores: Any,
    low: float,
    high: float,
    edges: Any,
    weight: float,
    memory: float,
    counts: Any,
    totals: Any,
    latest: Any,
    filled: Any,
) -> float:
    """Count scores one after the other, each a little heavier than the one before, and keep the latest of each cell.

    Returns the weight of the last; 0 where a score lies outside the range, and then nothing is counted.
    """
    n, length = cells.shape[0], latest.shape[1]
    for i in range(n):
        if not (low <= scores[i] <= high):
            return 0.0
    few, growth = n < _MANY or not 0.0 < high - low < np.inf, 1.0
    begins, scale = np.zeros(1, dtype=np.int64), 0.0
    if not few:
        begins, scale = _begins(edges, low, high), _BEGINS / (high - low)
    for i in range(n):
        cell, z = cells[i], scores[i]
        first = _first_above(edges, z) if few else _first_above_from(edges, z, begins[int((z - low) * scale)])
        growth = math.exp((i + 1.0) / memory)
        counts[cell, first] += weight * growth
        totals[cell, first] += weight * growth * z
        if length > 0:
            latest[cell, filled[cell] % length] = z
            filled[cell] += 1
    return weight * growth


@compiled
def add_to_bucket(cells: Any, raw: Any, emitted: Any, low: float, high: float, threshold: float, sums: Any) -> None:
    """Add counts, predictions, raw scores, and how many were moved, stand at a bound, or changed their decision."""
    for i in range(cells.shape[0]):
        cell, z, y = cells[i], raw[i], emitted[i]
        sums[0, cell] += 1.0
        sums[1, cell] += y
        sums[2, cell] += z
        sums[3, cell] += 1.0 if np.abs(y - z) > 1e-9 else 0.0
        sums[4, cell] += 1.0 if (y == low) | (y == high) else 0.0
        sums[5, cell] += 1.0 if (y >= threshold) != (z >= threshold) else 0.0


def check() -> None:
    """Compile, or load from the cache, what counting needs, and run it once: what is broken shows here."""
    cells, raw, sums = np.array([0, 1]), np.array([0.25, 0.5]), np.zeros((6, 2))
    counts, totals = np.zeros((2, 2)), np.zeros((2, 2))
    add_sums(cells, raw, raw, *(np.zeros(2) for _ in range(4)))
    ring = np.zeros((2, 4)), np.zeros(2, dtype=np.int64)
    add_to_sketch(cells, raw, 0.0, 1.0, np.array([0.5]), 1.0, np.inf, counts, totals, *ring)
    add_to_bucket(cells, raw, raw, 0.0, 1.0, 0.5, sums)
    if sums[2].tolist() != [0.25, 0.5] or totals.tolist() != [[0.25, 0.0], [0.0, 0.5]]:
        raise ArithmeticError(f"the compiled counts of (0.25, 0.5) gave {sums[2].tolist()} and {totals.tolist()}")
