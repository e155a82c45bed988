"""A table summed up: how many rows of each signature have scores in which narrow bin, and their sum.

A shift moves all the scores of a signature alike, so the rows of one bin are as good as that many rows at their mean,
except where a bound cuts through the bin. The more closely the bins lie where the bounds cut, the less is lost; where
nothing is cut, nothing is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.groups import Vocabulary
from fairlayer.scoring.chunk import Chunk
from fairlayer.scoring.signatures import Signatures, united

__all__ = ["BinRows", "Grid", "TableSketch", "first_grid", "together"]

_FIRST_ROWS = 2**21
_FEWEST, _MOST = 64, 16_384  # bins per bound
_EMPTY = {"counts": 0.0, "sums": 0.0, "low": np.inf, "high": -np.inf}  # of a bin that holds nothing


class Grid(NamedTuple):
    """Where the bins lie: for each bound a window of `bins` bins, and one bin below, between and above them."""

    lows: FloatArray  # (bounds, signatures), or (bounds, 1) for the same in all
    steps: FloatArray
    bins: int

    @property
    def width(self) -> int:
        """Number of bins per signature."""
        return len(self.lows) * (self.bins + 1) + 1

    def place(self, scores: FloatArray, signatures: IntArray) -> IntArray:
        """Return the bin of each score; bins of one signature are intervals in increasing order."""
        position = np.zeros(len(scores), dtype=np.int64)
        for low, step in zip(self.lows, self.steps, strict=True):
            pick = slice(0, 1) if len(low) == 1 else signatures
            offset = np.floor((scores - low[pick]) / step[pick])
            position += np.clip(offset, -1, self.bins).astype(np.int64) + 1
        return position


def first_grid(bounds: Sequence[float], signatures: int) -> Grid:
    """Return bins around the bounds, as narrow as memory allows for so many signatures."""
    bins = min(max(_FIRST_ROWS // max(1, signatures * len(bounds)), _FEWEST), _MOST)
    reach = 0.5 * (bounds[1] - bounds[0]) if len(bounds) == 2 else 1.0
    reach = reach if reach > 0 else 1.0
    lows = np.array([[bound - reach] for bound in bounds]).reshape(-1, 1)
    return Grid(lows, np.full_like(lows, 2 * reach / bins), bins)


class BinRows(NamedTuple):
    """The bins that hold anything, each as one row that stands for `counts` rows."""

    signatures: IntArray
    counts: FloatArray
    scores: FloatArray  # their mean
    low: FloatArray
    high: FloatArray


class TableSketch:
    """The sums of the rows seen so far.

    Args:
        signatures: those met so far.
        grid: where the bins lie.
    """

    def __init__(self, signatures: Signatures, grid: Grid) -> None:
        self.signatures, self.grid = signatures, grid
        self.counts = np.zeros((0, grid.width))
        self.sums = np.zeros((0, grid.width))
        self.low = np.zeros((0, grid.width))
        self.high = np.zeros((0, grid.width))
        self.label_sums = np.zeros(0)
        self._grow()

    @property
    def samples(self) -> float:
        """Number of rows seen."""
        return float(self.counts.sum())

    def add(self, chunk: Chunk) -> None:
        """Count the rows of a chunk."""
        numbers = self.signatures.place(chunk)
        self._grow()
        flat = numbers * self.grid.width + self.grid.place(chunk.scores, numbers)
        size = self.counts.size
        self.counts += np.bincount(flat, minlength=size).reshape(self.counts.shape)
        self.sums += np.bincount(flat, weights=chunk.scores, minlength=size).reshape(self.sums.shape)
        np.minimum.at(self.low.reshape(-1), flat, chunk.scores)
        np.maximum.at(self.high.reshape(-1), flat, chunk.scores)
        if chunk.labels is not None:
            self.label_sums += np.bincount(numbers, weights=chunk.labels, minlength=len(self.label_sums))

    def rows(self) -> BinRows:
        """Return the bins that hold anything."""
        held = np.flatnonzero(self.counts)
        pick = [a.reshape(-1)[held] for a in (self.counts, self.sums, self.low, self.high)]
        means = np.clip(pick[1] / pick[0], pick[2], pick[3])
        return BinRows(held // self.grid.width, pick[0], means, pick[2], pick[3])

    def labels(self) -> FloatArray | None:
        """Return the label of each signature."""
        counts = self.counts.sum(axis=1)
        return self.signatures.labels(self.label_sums / np.where(counts > 0, counts, 1.0))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is empty: sketches travel between processes."""
        held = np.flatnonzero(self.counts)
        arrays = {name: getattr(self, name).reshape(-1)[held] for name in _EMPTY}
        return {"signatures": self.signatures, "grid": self.grid, "labels": self.label_sums, "held": held, **arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["signatures"], state["grid"])  # type: ignore[misc]
        self.label_sums = state["labels"]
        for name in _EMPTY:
            getattr(self, name).reshape(-1)[state["held"]] = state[name]

    def _grow(self) -> None:
        new = len(self.signatures) - len(self.counts)
        if new:
            for name, empty in _EMPTY.items():
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.full((new, self.grid.width), empty)]))
            self.label_sums = np.append(self.label_sums, np.zeros(new))


def together(sketches: Sequence[TableSketch], words: Vocabulary) -> TableSketch:
    """Return the sketch of all their rows, in the categories' and signatures' own order, whoever met them first.

    Args:
        sketches: the sketches of one view and one grid.
        words: the categories known before any of them.
    """
    words = united(words, [sketch.signatures for sketch in sketches])
    tables = [sketch.signatures.translated(words) for sketch in sketches]
    union = sorted({signature for table in tables for signature in table})
    signatures = Signatures(sketches[0].signatures.view, words, union)
    whole = TableSketch(signatures, sketches[0].grid)
    for sketch, table in zip(sketches, tables, strict=True):
        at = np.array([signatures.index[signature] for signature in table], dtype=np.int64)
        whole.counts[at] += sketch.counts
        whole.sums[at] += sketch.sums
        whole.low[at] = np.minimum(whole.low[at], sketch.low)
        whole.high[at] = np.maximum(whole.high[at], sketch.high)
        whole.label_sums[at] += sketch.label_sums
    return whole
