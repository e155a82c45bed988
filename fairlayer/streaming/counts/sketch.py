"""The running distribution of raw scores in each cell: a histogram that can grow its range, and forget."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.fused import stream_loaded

__all__ = ["Sketch"]

_RESCALE = 1e12
_RARE = 0.02
_SHORT = 2**15


class Sketch:
    """Histograms over one common range, one row per cell. Scores outside it count as its ends.

    Each bin keeps the mean of its scores, so that the mean of a cell is exact. Between two bounds the bins are even in
    `asin(sqrt(.))` of the range, finer near its ends, where predictions are cut off; otherwise they are equal.

    Args:
        low: lower end of the range; where more than 2 % of scores fall outside, it doubles and bins merge in pairs.
        high: upper end.
        bins: number of bins, even.
        memory: samples that count as recent: one counts `exp(-k / memory)` after k others; None to forget nothing.
        arcsine: whether the bins are even in `asin(sqrt(.))`, as long as few scores fall outside.
        latest: how many of the latest scores of each cell are kept as they are, for `restart`.
    """

    def __init__(
        self,
        low: float = 0.0,
        high: float = 1.0,
        bins: int = 64,
        memory: float | None = None,
        *,
        arcsine: bool = False,
        latest: int = 0,
    ) -> None:
        self.low, self.high, self.bins, self.memory, self.arcsine = low, high, bins, memory, arcsine
        self.edges = self._edges()
        self.counts, self.totals = np.zeros((0, bins)), np.zeros((0, bins))
        self.borrowed = np.zeros((2, 0, bins))  # the part of both that other replicas have told
        self.latest, self.filled = np.zeros((0, latest)), np.zeros(0, np.int64)
        self.seen, self.outside = 0, 0  # scores counted, and those outside since the range was last widened
        self.weight = 1.0  # of the next sample; grows instead of shrinking all counts
        self._growth = np.zeros(0)  # of the weights of scores that are counted together

    def add(self, cells: IntArray, scores: FloatArray) -> None:
        """Count scores, one after the other."""
        if self._added_quickly(cells, scores):
            return
        chunk = len(scores) if self.memory is None else max(1, int(10 * self.memory))
        for start in range(0, len(scores), max(chunk, 1)):
            self._add(cells[start : start + chunk], scores[start : start + chunk])
        if self.latest.shape[1]:
            self._keep_latest(cells, scores)

    def _added_quickly(self, cells: IntArray, scores: FloatArray) -> bool:
        """Count scores by one compiled call, where there is one and all of them are inside the range."""
        quick, memory = stream_loaded(), np.inf if self.memory is None else self.memory
        if quick is None or len(scores) > 10.0 * memory:
            return False
        given = (cells, scores, self.low, self.high, self.edges, self.weight, memory)
        weight = quick.stream_counts.add_to_sketch(*given, self.counts, self.totals, self.latest, self.filled)
        if weight > 0.0:
            self.seen += len(scores)
            self._advance(weight)
        return bool(weight > 0.0)

    def _add(self, cells: IntArray, scores: FloatArray) -> None:
        """Count scores as if each came alone, so that nothing depends on when a journal of them is summed up."""
        while not (inside := self._all_inside(scores)):
            end = self._until_too_many_outside(scores)
            if end == len(scores):
                break
            self._count_within(cells[:end], scores[:end])
            self._double(upwards=bool(scores[end] > self.high))
            self.outside = 0
            cells, scores = cells[end:], scores[end:]
        (self._count if inside else self._count_within)(cells, scores)

    def _all_inside(self, scores: FloatArray) -> bool:
        return not len(scores) or bool(np.maximum.reduce(scores) <= self.high and np.minimum.reduce(scores) >= self.low)

    def _until_too_many_outside(self, scores: FloatArray) -> int:
        """Return the first score with which more than a few have been outside the range; all, where there is none."""
        outside = (scores > self.high) | (scores < self.low)
        few = _RARE * (self.seen + np.arange(1, len(scores) + 1)) + 1
        too_many = np.flatnonzero(outside & (self.outside + np.cumsum(outside) > few))
        return int(too_many[0]) if len(too_many) else len(scores)

    def _count_within(self, cells: IntArray, scores: FloatArray) -> None:
        """Count scores of which those outside count as the ends of the range."""
        if not self._all_inside(scores):
            self.outside += int(((scores > self.high) | (scores < self.low)).sum())
            scores = np.clip(scores, self.low, self.high)
        self._count(cells, scores)

    def _count(self, cells: IntArray, scores: FloatArray) -> None:
        n, size, shape = len(scores), self.counts.size, self.counts.shape
        if not n:
            return
        self.seen += n
        flat = cells * self.bins + self._bin(scores)
        growth = None if self.memory is None else self._growth_over(n, self.memory)
        weights = scores if growth is None else scores * growth
        self.counts += self.weight * np.bincount(flat, growth, size).reshape(shape)
        self.totals += self.weight * np.bincount(flat, weights, size).reshape(shape)
        if growth is not None:
            self._advance(self.weight * growth[-1])

    def _growth_over(self, n: int, memory: float) -> FloatArray:
        """Return how much each of n scores weighs over the one before them."""
        if len(self._growth) < n:
            self._growth = np.exp(np.arange(1, n + 1) / memory)
        return self._growth[:n]

    def _keep_latest(self, cells: IntArray, scores: FloatArray) -> None:
        """Write scores to the ring of each cell, at the place of the oldest."""
        length, counts = self.latest.shape[1], np.bincount(cells, None, len(self.filled))
        short = np.int16 if len(counts) < _SHORT else np.int64  # of short numbers NumPy sorts the digits
        order = cells.astype(short).argsort(kind="stable")
        cell = cells[order]
        age = counts.cumsum()[cell] - np.arange(len(order))  # 1 is the newest score of its cell
        kept = age <= length
        cell = cell[kept]
        self.filled += counts
        self.latest[cell, (self.filled[cell] - age[kept]) % length] = scores[order[kept]]

    def grow(self, cells: int) -> None:
        """Make room for more cells."""
        new = cells - len(self.counts)
        empty = np.zeros((new, self.bins))
        self.counts, self.totals = np.vstack([self.counts, empty]), np.vstack([self.totals, empty])
        self.borrowed = np.concatenate([self.borrowed, np.zeros((2, new, self.bins))], axis=1)
        self.latest = np.vstack([self.latest, np.zeros((new, self.latest.shape[1]))])
        self.filled = np.append(self.filled, np.zeros(new, np.int64))

    def shrink(self, cells: int) -> None:
        """Drop the last cells, in which nothing was counted."""
        self.counts, self.totals, self.borrowed = self.counts[:cells], self.totals[:cells], self.borrowed[:, :cells]
        self.latest, self.filled = self.latest[:cells], self.filled[:cells]

    def total(self) -> float:
        """Return the number of scores that still count."""
        return float(self.counts.sum()) / self.weight

    def points(self) -> tuple[IntArray, FloatArray, FloatArray]:
        """Return (cell, mean score, weight) of every bin that holds anything; the newest sample has weight 1."""
        return _points(self.counts, self.totals, self.weight)

    def own_points(self) -> tuple[IntArray, FloatArray, FloatArray]:
        """Return the same of what was counted here, without what other replicas have told."""
        if not self.borrowed.any():
            return self.points()
        return _points(self.counts - self.borrowed[0], self.totals - self.borrowed[1], self.weight)

    def rows(self, more: int = 0, *, own: bool = False) -> tuple[FloatArray, FloatArray]:
        """Return mean scores and weights (cells, bins) of all bins, 0 where one is empty.

        Args:
            more: empty columns after the bins.
            own: of what was counted here only, see `own_points`.
        """
        counts, totals = self.counts, self.totals
        if own and self.borrowed.any():
            counts, totals = counts - self.borrowed[0], totals - self.borrowed[1]
        score, weight = np.zeros((2, len(counts), self.bins + more))
        held = counts > 1e-9 * self.weight
        np.divide(totals, counts, out=score[:, : self.bins], where=held)
        np.divide(counts, self.weight, out=weight[:, : self.bins], where=held)
        return score, weight

    def newest(self, cell: int) -> FloatArray:
        """Return the latest raw scores of a cell that are kept, newest first."""
        length = self.latest.shape[1]
        kept = int(min(length, self.filled[cell]))
        return np.asarray(self.latest[cell, (self.filled[cell] - 1 - np.arange(kept)) % max(length, 1)])

    def restart(self, cell: int, keep: int) -> None:
        """Forget all scores of a cell but the latest `keep` of them."""
        scores = np.clip(self.newest(cell)[:keep], self.low, self.high)
        bins = self._bin(scores)
        self.counts[cell] = self.weight * np.bincount(bins, minlength=self.bins)
        self.totals[cell] = self.weight * np.bincount(bins, scores, minlength=self.bins)
        self.borrowed[:, cell] = 0.0

    def fade(self, cell: int, kept: float) -> None:
        """Let all scores of a cell count less from now on, by this share."""
        self.counts[cell] *= kept
        self.totals[cell] *= kept
        self.borrowed[:, cell] *= kept

    def merge(self, other: Sketch, rows: IntArray) -> None:
        """Add the counts of another sketch, whose row i is this one's `rows[i]`."""
        counts, totals = self._placed(other, other.points(), rows)
        self.counts += counts
        self.totals += totals

    def take_over(self, other: Sketch, rows: IntArray) -> None:
        """Add the counts of another sketch, and go on with its clock; `latest` only of cells that were not joined."""
        self.merge(other, rows)
        self.seen, self.outside = other.seen, other.outside
        single = np.bincount(rows, minlength=len(self.counts)) == 1
        if self.latest.shape == other.latest.shape or self.latest.shape[1:] == other.latest.shape[1:]:
            kept = np.flatnonzero(single[rows]) if len(rows) else rows
            self.latest[rows[kept]], self.filled[rows[kept]] = other.latest[kept], other.filled[kept]

    def hear(self, others: Iterable[tuple[Sketch, IntArray]]) -> None:
        """Let what other replicas have counted themselves take the place of what they had told before."""
        found = np.zeros_like(self.borrowed)
        for other, rows in others:
            found += np.stack(self._placed(other, other.own_points(), rows))
        self.counts += found[0] - self.borrowed[0]
        self.totals += found[1] - self.borrowed[1]
        np.maximum(self.counts, 0.0, out=self.counts)
        self.borrowed = found

    def to_state(self) -> dict[str, Any]:
        """Return plain numbers and arrays."""
        numbers = {name: float(getattr(self, name)) for name in _NUMBERS}
        return {**numbers, **{name: getattr(self, name).copy() for name in _ARRAYS}}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `to_state` returned."""
        self.low, self.high, self.weight = float(state["low"]), float(state["high"]), float(state["weight"])
        self.seen, self.outside, self.arcsine = int(state["seen"]), int(state["outside"]), bool(state["arcsine"])
        for name in ("counts", "totals", "borrowed", "latest"):
            setattr(self, name, np.array(state[name], dtype=np.float64))
        self.filled = np.array(state["filled"], dtype=np.int64)
        self.bins = self.counts.shape[1]
        self.edges = self._edges()

    def _placed(
        self, other: Sketch, points: tuple[IntArray, FloatArray, FloatArray], rows: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return counts and totals of points of another sketch, in bins and weights of this one."""
        while other.high - other.low > 1.5 * (self.high - self.low):
            self._double(upwards=other.high > self.high)
        counts, totals = np.zeros_like(self.counts), np.zeros_like(self.totals)
        cell, score, weight = points
        if len(cell):
            place = (rows[cell], self._bin(score))
            np.add.at(counts, place, self.weight * weight)
            np.add.at(totals, place, self.weight * weight * score)
        return counts, totals

    def _bin(self, scores: FloatArray) -> IntArray:
        return self.edges.searchsorted(scores, side="right")

    def _edges(self) -> FloatArray:
        """Return where bins meet, (bins - 1,): a score of a bin is at least its lower edge."""
        share = np.arange(1, self.bins) / self.bins
        if self.arcsine:
            share = np.sin(0.5 * np.pi * share) ** 2
        return np.asarray(self.low + (self.high - self.low) * share)

    def _advance(self, weight: float) -> None:
        self.weight = float(weight)
        if self.weight > _RESCALE:
            self.counts, self.totals = self.counts / self.weight, self.totals / self.weight
            self.borrowed = self.borrowed / self.weight
            self.weight = 1.0

    def _double(self, *, upwards: bool) -> None:
        if self.arcsine:
            self._make_even()
        width = self.high - self.low
        self.counts, self.totals = _paired(self.counts, upwards=upwards), _paired(self.totals, upwards=upwards)
        self.borrowed = np.stack([_paired(part, upwards=upwards) for part in self.borrowed])
        self.low, self.high = (self.low, self.high + width) if upwards else (self.low - width, self.high)
        self.edges = self._edges()

    def _make_even(self) -> None:
        """Move what was counted into bins of equal width."""
        self.arcsine = False
        self.edges = self._edges()
        parts = [(self.counts, self.totals), (self.borrowed[0], self.borrowed[1])]
        moved = []
        for counts, totals in parts:
            new = np.zeros((2, *counts.shape))
            cell, score, weight = _points(counts, totals, 1.0)
            place = (cell, self._bin(score))
            np.add.at(new[0], place, weight)
            np.add.at(new[1], place, weight * score)
            moved.append(new)
        (self.counts, self.totals), self.borrowed = moved[0], moved[1]


_NUMBERS = ("low", "high", "weight", "seen", "outside", "arcsine")
_ARRAYS = ("counts", "totals", "borrowed", "latest", "filled")


def _points(counts: FloatArray, totals: FloatArray, unit: float) -> tuple[IntArray, FloatArray, FloatArray]:
    cell, position = (part.astype(np.int64, copy=False) for part in np.nonzero(counts > 1e-9 * unit))
    held = counts[cell, position]
    return cell, totals[cell, position] / held, held / unit


def _paired(array: FloatArray, *, upwards: bool) -> FloatArray:
    """Return bins merged in pairs, beside as many empty ones."""
    pairs = array.reshape(len(array), array.shape[1] // 2, 2).sum(axis=2)
    empty = np.zeros_like(pairs)
    return np.hstack([pairs, empty] if upwards else [empty, pairs])
