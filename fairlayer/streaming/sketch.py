"""The running distribution of raw scores in each cell: a histogram that grows its range and can forget."""

from __future__ import annotations

from typing import Any

import numpy as np

from fairlayer._typing import FloatArray, IntArray

__all__ = ["Sketch"]

_RESCALE = 1e12
_RARE = 0.02


class Sketch:
    """Histograms of equal bins over one common range, one row per cell. Scores outside count in the end bins.

    Args:
        low: lower end of the range; where more than 2 % of scores fall outside, it doubles and bins merge in pairs.
        high: upper end.
        bins: number of bins, even.
        half_life: samples after which a sample counts half; None to forget nothing.
    """

    def __init__(self, low: float = 0.0, high: float = 1.0, bins: int = 64, half_life: float | None = None) -> None:
        self.low, self.high, self.bins, self.half_life = low, high, bins, half_life
        self.counts = np.zeros((0, bins))
        self.seen, self.outside = 0, 0  # scores counted, and those outside since the range was last widened
        self.weight = 1.0  # of the next sample; grows instead of shrinking all counts

    def add(self, cells: IntArray, scores: FloatArray) -> None:
        """Count scores, one after the other."""
        chunk = len(scores) if self.half_life is None else max(1, int(10 * self.half_life))
        for start in range(0, len(scores), max(chunk, 1)):
            self._add(cells[start : start + chunk], scores[start : start + chunk])

    def _add(self, cells: IntArray, scores: FloatArray) -> None:
        """Count scores as if each came alone, so that nothing depends on when a journal of them is summed up."""
        while (end := self._until_too_many_outside(scores)) < len(scores):
            self._count(cells[:end], scores[:end])
            self._double(upwards=bool(scores[end] > self.high))
            self.outside = 0
            cells, scores = cells[end:], scores[end:]
        self._count(cells, scores)

    def _until_too_many_outside(self, scores: FloatArray) -> int:
        """Return the first score with which more than a few have been outside the range; all, where there is none."""
        if scores.max() <= self.high and scores.min() >= self.low:
            return len(scores)
        outside = (scores > self.high) | (scores < self.low)
        few = _RARE * (self.seen + np.arange(1, len(scores) + 1)) + 1
        too_many = np.flatnonzero(outside & (self.outside + np.cumsum(outside) > few))
        return int(too_many[0]) if len(too_many) else len(scores)

    def _count(self, cells: IntArray, scores: FloatArray) -> None:
        if not len(scores):
            return
        self.seen += len(scores)
        if scores.max() > self.high or scores.min() < self.low:
            self.outside += int(((scores > self.high) | (scores < self.low)).sum())
        flat = cells * self.bins + self._bin(scores)
        growth = None if self.half_life is None else np.exp2(np.arange(1, len(scores) + 1) / self.half_life)
        added = np.bincount(flat, weights=growth, minlength=self.counts.size)
        self.counts += self.weight * added.reshape(self.counts.shape)
        if growth is not None:
            self._advance(self.weight * growth[-1])

    def grow(self, cells: int) -> None:
        """Make room for more cells."""
        self.counts = np.vstack([self.counts, np.zeros((cells - len(self.counts), self.bins))])

    def total(self) -> float:
        """Return the number of scores that still count."""
        return float(self.counts.sum()) / self.weight

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
        while other.high - other.low > 1.5 * (self.high - self.low):
            self._double(upwards=other.high > self.high)
        np.add.at(self.counts, (rows[cell], self._bin(score)), sign * weight * self.weight)
        np.maximum(self.counts, 0.0, out=self.counts)

    def to_state(self) -> dict[str, Any]:
        """Return plain numbers and one array."""
        numbers = {name: getattr(self, name) for name in ("low", "high", "weight", "seen", "outside")}
        return {**numbers, "counts": self.counts.copy()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `to_state` returned."""
        self.low, self.high, self.weight = float(state["low"]), float(state["high"]), float(state["weight"])
        self.seen, self.outside = int(state["seen"]), int(state["outside"])
        self.counts = np.array(state["counts"], dtype=np.float64)
        self.bins = self.counts.shape[1]

    def _bin(self, scores: FloatArray) -> IntArray:
        position = (scores - self.low) * (self.bins / (self.high - self.low))
        return np.minimum(np.maximum(position, 0.0), self.bins - 1.0).astype(np.int64)

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
