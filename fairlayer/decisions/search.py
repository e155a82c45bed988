"""A search over whole counts of all cells: two cells at a time, first by violation, then by gain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, product
from typing import NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.decisions.errors import NeedsRandomisationError
from fairlayer.decisions.problem import Block, Problem
from fairlayer.solve import SpreadSlabs

__all__ = ["ATOL", "Search", "excess_of"]

_PAIRS = 100  # pairs of cells tried per sweep
_COMBINED = 300_000  # combinations of counts tried per sweep
_GRID = 64  # counts of a cell tried at least, besides its neighbours
_SWEEPS = 5
_LINE = 4096  # counts tried along a line on which a statistic agrees
ATOL = 1e-12


class _Table(NamedTuple):
    """What each count of a cell, 0, ..., n_g, contributes."""

    touched: IntArray
    statistics: FloatArray
    gains: FloatArray


class Search:
    """Descent over counts: two cells at a time, first by violation, then by gain.

    Args:
        problem: what was asked.
        allowance: how far each row of each block may be off.
    """

    def __init__(self, problem: Problem, allowance: Sequence[FloatArray]) -> None:
        self.problem, self.allowance = problem, allowance
        self.tables = [_Table(curve.touched, *curve.at(np.arange(curve.size + 1))) for curve in problem.curves]

    def run(self, starts: Sequence[IntArray]) -> IntArray:
        ranked = sorted(starts, key=self.judge)
        best = min((self._descend(start) for start in (ranked[0], starts[0])), key=self.judge)
        excess = self.judge(best)[0]
        if excess > 0:
            names = " and ".join(constraint.name for constraint in self.problem.constraints)
            raise NeedsRandomisationError(
                f"no single threshold per cell was found that meets {names}: the best counts found exceed a limit by "
                f"{excess:.3g}, after allowing for one sample per cell. Use randomised=True, or a larger tolerance."
            )
        return best

    def matched_starts(self) -> list[IntArray]:
        """Return the counts at which one statistic of all cells agrees, or differs by a limit: the best ones for each.

        Where rates within labels are compared, counts that keep the limits lie along the line on which the rates of one
        label agree; those at which the others agree as well are few, and a grid over counts passes them by.
        """
        tables = self.tables
        kinds = {len(table.touched) for table in tables}
        if len(tables) < 2 or len(kinds) > 1:
            return []
        largest = max(range(len(tables)), key=lambda g: len(tables[g].gains))
        ks = np.unique(np.linspace(0, len(tables[largest].gains) - 1, _LINE).astype(np.int64))
        starts = []
        for j in range(kinds.pop()):
            rate = tables[largest].statistics[ks, j]
            for side, apart in product((-1, 0, 1), self._widths()):
                lines = [np.searchsorted(table.statistics[:, j], rate + apart - ATOL) for table in tables]
                counts = np.stack(
                    [
                        ks if g == largest else np.clip(line + side, 0, len(tables[g].gains) - 1)
                        for g, line in enumerate(lines)
                    ]
                )
                statistics, gains = np.zeros((len(ks), self.problem.statistics)), np.zeros(len(ks))
                for k, table in zip(counts, tables, strict=True):
                    statistics[:, table.touched] += table.statistics[k]
                    gains += table.gains[k]
                excess = excess_of(self.problem.blocks, self.allowance, statistics)
                best = int(np.where(excess <= excess.min() + ATOL, gains, -np.inf).argmax())
                starts.append(counts[:, best])
        return starts

    def _widths(self) -> list[float]:
        widths = {block.width for block in self.problem.blocks if isinstance(block, SpreadSlabs) and block.scale == 1.0}
        return sorted({0.0, *widths, *(-width for width in widths)})

    def of_all(self, counts: IntArray) -> IntArray:
        """Return the best of all counts."""
        return self._best(counts, range(len(counts)), [np.arange(len(table.gains)) for table in self.tables])

    def judge(self, counts: IntArray) -> tuple[float, float]:
        """Return (violation beyond the allowance, minus the gain)."""
        statistics, gain = self._total(counts, range(len(counts)))
        return float(excess_of(self.problem.blocks, self.allowance, statistics[None, :])[0]), -gain

    def _total(self, counts: IntArray, cells: Iterable[int]) -> tuple[FloatArray, float]:
        """Return statistics and gain of the best counts of some cells."""
        statistics, gain = np.zeros(self.problem.statistics), 0.0
        for g in cells:
            table = self.tables[g]
            statistics[table.touched] += table.statistics[counts[g]]
            gain += float(table.gains[counts[g]])
        return statistics, gain

    def _descend(self, counts: IntArray) -> IntArray:
        pairs = list(combinations(range(len(counts)), 2)) or [(0, 0)]
        random = np.random.default_rng(0)
        most = _COMBINED // min(len(pairs), _PAIRS)
        for sweep in range(_SWEEPS):
            before = counts
            tried = random.permutation(len(pairs))[:_PAIRS] if len(pairs) > _PAIRS else range(len(pairs))
            for pair in (pairs[move] for move in tried):
                counts = self._improve(counts, pair if sweep % 2 else pair[::-1], most)
            if (counts == before).all():
                break
        return counts

    def _improve(self, counts: IntArray, pair: tuple[int, ...], most: int) -> IntArray:
        """Return the best counts that differ in the cells of the pair only, out of about `most` combinations.

        Those are as many counts of the last cell as there may be, and for the first what is left.
        """
        cells = list(dict.fromkeys(pair))
        sizes = [len(self.tables[g].gains) - 1 for g in cells]
        options = [_options(sizes[-1], int(counts[cells[-1]]), most // _GRID)]
        if len(cells) == 2:
            options.insert(0, _options(sizes[0], int(counts[cells[0]]), most // len(options[0])))
        fresh = self._best(counts, cells, options)
        return fresh if self.judge(fresh) < self.judge(counts) else counts

    def _best(self, counts: IntArray, cells: Sequence[int], options: Sequence[IntArray]) -> IntArray:
        """Return the best counts that differ in some cells only, each of them having its options."""
        rest, gain = self._total(counts, (g for g in range(len(counts)) if g not in cells))
        statistics, gains = rest[None, :], np.array([gain])
        for g, ks in zip(cells, options, strict=True):
            table = self.tables[g]
            wide = np.zeros((len(ks), len(rest)))
            wide[:, table.touched] = table.statistics[ks]
            statistics = (statistics[:, None, :] + wide).reshape(len(statistics) * len(ks), len(rest))
            gains = (gains[:, None] + table.gains[ks]).reshape(-1)
        excess = excess_of(self.problem.blocks, self.allowance, statistics)
        best = int(np.where(excess <= excess.min() + ATOL, gains, -np.inf).argmax())
        fresh = counts.copy()
        chosen = np.unravel_index(best, [len(ks) for ks in options])
        fresh[list(cells)] = [ks[i] for ks, i in zip(options, chosen, strict=True)]
        return fresh


def _options(size: int, count: int, most: int) -> IntArray:
    """Return the counts to try: all, or an even grid and the neighbours at distances 1, 2, 4, ..."""
    steps = 2 ** np.arange(int(np.log2(size)) + 1)
    grid = np.linspace(0, size, min(max(most, _GRID), size + 1)).astype(np.int64)
    options = np.concatenate([[count], count - steps, count + steps, grid])
    return np.unique(options[(options >= 0) & (options <= size)])


def excess_of(blocks: Sequence[Block], allowance: Sequence[FloatArray], statistics: FloatArray) -> FloatArray:
    """Return by how much statistics (m, s) violate blocks, beyond an allowance for each of their rows; 0 for none."""
    worst = np.zeros(len(statistics))
    for block, rounding in zip(blocks, allowance, strict=True):
        v = statistics @ block.matrix.T
        if isinstance(block, SpreadSlabs):
            v = v if block.offset is None else v + block.offset
            excess = block.scale * (v - rounding).max(axis=1) - (v + rounding).min(axis=1) - block.width
        else:
            excess = (np.maximum(v - block.upper, block.lower - v) - rounding).max(axis=1)
        worst = np.maximum(worst, excess)
    return np.where(worst > ATOL, worst, 0.0)
