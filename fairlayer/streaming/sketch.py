"""The running distribution of raw scores in each cell: a histogram that grows its range and can forget."""

from __future__ import annotations

from typing import Any

import numpy as np

from fairlayer._typing import FloatArray, IntArray

__all__ = ["Sketch"]

_RESCALE = 1e12


class Sketch:
    """Histograms of equal bins over one common range, one row per cell.

    Args:
        low: lower end of the range; a score outside doubles the range and merges bins in pairs.
        high: upper end.
        bins: number of bins, even.
        half_life: samples after which a sample counts half; None to forget nothing.
    """

    def __init__(self, low: float = 0.0, high: float = 1.0, bins: int = 64, half_life: float | None = None) -> None:
        self.low, self.high, self.bins, self.half_life = low, high, bins, half_life
        self.counts = np.zeros((0, bins))
        self.weight = 1.0  # of the next sample; grows instead of shrinking all counts
        self.growth = 1.0 if half_life is None else 2.0 ** (1.0 / half_life)

    def add(self, cells: IntArray, scores: FloatArray) -> None:
        """Count scores, one after the other."""
        while scores.min() < self.low or scores.max() > self.high:
            self._double(upwards=bool(scores.max() > self.high))
        weights = self.weight * self.growth ** np.arange(1, len(scores) + 1)
        np.add.at(self.counts, (cells, self._bin(scores)), weights)
        self._advance(weights[-1])

    def add_one(self, cell: int, score: float) -> None:
        """Count one score; `add` without arrays."""
        while not self.low <= score <= self.high:
            self._double(upwards=score > self.high)
        position = int((score - self.low) * self.bins / (self.high - self.low))
        weight = self.weight * self.growth
        self.counts[cell, position if position < self.bins else self.bins - 1] += weight
        self._advance(weight)

    def grow(self, cells: int) -> None:
        """Make room for more cells."""
        self.counts = np.vstack([self.counts, np.zeros((cells - len(self.counts), self.bins))])

    def points(self) -> tuple[IntArray, FloatArray, FloatArray]:
        """Return (cell, score, weight) of every bin that holds anything; the newest sample has weight 1."""
        cell, position = (part.astype(np.int64, copy=False) for part in np.nonzero(self.counts))
        width = (self.high - self.low) / self.bins
        score = np.asarray(self.low + (position + 0.5) * width, dtype=np.float64)
        return cell, score, self.counts[cell, position] / self.weight

    def merge(self, other: Sketch, rows: IntArray, sign: float = 1.0) -> None:
        """Add the counts of another sketch, whose row i is this one's `rows[i]` (take them off, for sign -1)."""
        cell, score, weight = other.points()
        if not len(cell):
            return
        while score.min() < self.low or score.max() > self.high:
            self._double(upwards=bool(score.max() > self.high))
        np.add.at(self.counts, (rows[cell], self._bin(score)), sign * weight * self.weight)
        np.maximum(self.counts, 0.0, out=self.counts)

    def to_state(self) -> dict[str, Any]:
        """Return plain numbers and one array."""
        return {"low": self.low, "high": self.high, "weight": self.weight, "counts": self.counts.copy()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `to_state` returned."""
        self.low, self.high, self.weight = float(state["low"]), float(state["high"]), float(state["weight"])
        self.counts = np.array(state["counts"], dtype=np.float64)
        self.bins = self.counts.shape[1]

    def _bin(self, scores: FloatArray) -> IntArray:
        position = ((scores - self.low) * (self.bins / (self.high - self.low))).astype(np.int64)
        return np.minimum(position, self.bins - 1)

    def _advance(self, weight: float) -> None:
        self.weight = float(weight)
        if self.weight > _RESCALE:
            self.counts /= self.weight
            self.weight = 1.0

    def _double(self, *, upwards: bool) -> None:
        pairs = self.counts.reshape(len(self.counts), self.bins // 2, 2).sum(axis=2)
        empty = np.zeros_like(pairs)
        width = self.high - self.low
        self.counts = np.hstack([pairs, empty] if upwards else [empty, pairs])
        self.low, self.high = (self.low, self.high + width) if upwards else (self.low - width, self.high)
