"""One threshold per cell: whole counts k_g near the best lottery.

Where the statements look at selection rates only, they see a lottery's expected counts, and rounding those to whole
numbers moves each by less than one. Where they look at labels, a count decides two numbers (how many of each label),
the best lottery need not lie near the curve, and a search over counts is left. It is a search, not a proof of the best.

Rounding may cost gain, in a small batch a lot. So where all counts can be tried, they are: the best of those that meet
the limits as they stand, without the allowance for rounding, replaces a rounded lottery that gains less.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.decisions.curves import Curve
from fairlayer.decisions.errors import NeedsRandomisationError
from fairlayer.decisions.lottery import whole_counts
from fairlayer.decisions.problem import Block, Problem
from fairlayer.decisions.program import Mixture, Optimum
from fairlayer.solve import SpreadSlabs

__all__ = ["as_mixture", "choose_counts"]

_COMMON = 65  # common thresholds and rates tried as starts
_PAIRS = 100  # pairs of cells tried per sweep
_COMBINED = 300_000  # combinations of counts tried per sweep
_GRID = 64  # counts of a cell tried at least, besides its neighbours
_SWEEPS = 5
_LINE = 4096  # counts tried along a line on which a statistic agrees
_EVERY = 2**14  # combinations of counts up to which all are tried
_ROUNDED = 12  # counts between whole numbers up to which all roundings are tried
_WHOLE = 1e-9  # distance from a whole number that counts as none
_ATOL = 1e-12


def choose_counts(problem: Problem, optimum: Optimum) -> IntArray:
    """Return k_g for each cell.

    Raises:
        NeedsRandomisationError: no counts were found that meet the slabs, each widened by one sample per cell.
    """
    rounded = _rounded(problem, optimum)
    if np.prod([float(curve.size + 1) for curve in problem.curves]) > _EVERY:
        return rounded
    exact = _Search(problem, [np.zeros_like(rounding) for rounding in problem.rounding])
    best = exact.of_all(rounded)
    met, gain = exact.judge(best)
    return best if met <= 0 and gain < exact.judge(rounded)[1] - _ATOL else rounded


def _rounded(problem: Problem, optimum: Optimum) -> IntArray:
    """Whole counts near the best lottery that meet the slabs, each widened by one sample per cell."""
    pairs = list(zip(optimum.mixtures, problem.curves, strict=True))
    if all(curve.mass_only for curve in problem.curves):
        return _least_excess(problem, np.array([_count(mixture, curve) for mixture, curve in pairs]))
    used = _constrained(problem)
    nearest = np.array([_nearest(mixture, curve, used[curve.touched]) for mixture, curve in pairs])
    search = _Search(problem, problem.rounding)
    if search.judge(nearest)[0] <= 0 and problem.batch.weights is None:
        return nearest  # heavy rows make the allowance wide, and better counts may lie within it
    return search.run([nearest, *_common_starts(problem), *search.matched_starts()])


def _count(mixture: Mixture, curve: Curve) -> float:
    """Return the count, between whole ones, at which the curve has the mass that the lottery selects."""
    return float(np.interp(mixture.weights @ curve.mass[mixture.breaks], curve.mass, curve.counts))


def _least_excess(problem: Problem, counts: FloatArray) -> IntArray:
    """Of the ways to round each count up or down, within the capacity, that of least violation, then of most gain.

    Rounding all down moves a spread by less than 1/n_g of one group, so the least violation is no more than that.
    """
    down = np.floor(counts + _WHOLE)
    between = np.flatnonzero(counts - down > _WHOLE)
    if len(between) > _ROUNDED:
        return whole_counts(counts) if problem.batch.weights is None else down.astype(np.int64)
    tried = np.tile(down, (2 ** len(between), 1))
    tried[:, between] += np.arange(len(tried))[:, None] >> np.arange(len(between)) & 1
    statistics, gains = np.zeros((len(tried), problem.statistics)), np.zeros(len(tried))
    for k, curve in zip(tried.T, problem.curves, strict=True):
        contribution, gain = curve.at(k)
        statistics[:, curve.touched] += contribution
        gains += gain
    held = len(problem.assembly.slabs.blocks)
    none = [np.zeros_like(rounding) for rounding in problem.rounding]
    excess = _excess(problem.blocks[:held], none[:held], statistics)
    excess[_excess(problem.blocks[held:], none[held:], statistics) > 0] = np.inf
    best = int(np.where(excess <= excess.min() + _ATOL, gains, -np.inf).argmax())
    return np.asarray(tried[best], dtype=np.int64)


def _excess(blocks: Sequence[Block], allowance: Sequence[FloatArray], statistics: FloatArray) -> FloatArray:
    """Violation of blocks, beyond an allowance for each of their rows, by statistics (m, s); 0 where there is none."""
    worst = np.zeros(len(statistics))
    for block, rounding in zip(blocks, allowance, strict=True):
        v = statistics @ block.matrix.T
        if isinstance(block, SpreadSlabs):
            v = v if block.offset is None else v + block.offset
            excess = block.scale * (v - rounding).max(axis=1) - (v + rounding).min(axis=1) - block.width
        else:
            excess = (np.maximum(v - block.upper, block.lower - v) - rounding).max(axis=1)
        worst = np.maximum(worst, excess)
    return np.where(worst > _ATOL, worst, 0.0)


def as_mixture(curve: Curve, count: int) -> Mixture:
    """Return the lottery that selects the best `count`; a real one only among equal scores."""
    run = min(int(np.searchsorted(curve.counts, count, side="right")) - 1, len(curve.values) - 1)
    part = (count - curve.counts[run]) / (curve.counts[run + 1] - curve.counts[run])
    weights = np.array([1.0 - part, part])
    used = weights > 0
    return Mixture(np.array([run, run + 1])[used], weights[used])


def _constrained(problem: Problem) -> FloatArray:
    """Return which statistics any statement looks at."""
    used = np.zeros(problem.statistics, dtype=bool)
    for block in problem.blocks[: len(problem.assembly.slabs.blocks)]:
        used |= (block.matrix != 0).any(axis=0)
    return used


def _nearest(mixture: Mixture, curve: Curve, used: FloatArray) -> int:
    """Return the count whose statistics are nearest to those of the lottery; of equally near ones the best."""
    statistics, gains = curve.at(np.arange(curve.size + 1))
    if not used.any():
        return int(gains.argmax())
    distance = np.abs(statistics - mixture.of(curve)[1])[:, used].max(axis=1)
    near = np.flatnonzero(distance <= distance.min() + _ATOL)
    return int(near[gains[near].argmax()])


def _common_starts(problem: Problem) -> list[IntArray]:
    """Counts of one threshold for everybody, and of one selection rate for everybody."""
    sizes = np.array([curve.size for curve in problem.curves])
    starts = [np.round(rate * sizes).astype(np.int64) for rate in np.linspace(0.0, 1.0, _COMMON)]
    for threshold in np.quantile(problem.scores, np.linspace(0.0, 1.0, _COMMON)):
        above = [np.searchsorted(-curve.values, -threshold, side="right") for curve in problem.curves]
        starts.append(np.array([curve.counts[j] for curve, j in zip(problem.curves, above, strict=True)]))
    return starts


class _Table(NamedTuple):
    """What each count of a cell, 0, ..., n_g, contributes."""

    touched: IntArray
    statistics: FloatArray
    gains: FloatArray


class _Search:
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
        """Counts at which one statistic of all cells agrees, the best of them for each statistic.

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
            for side in (-1, 0, 1):
                lines = [np.searchsorted(table.statistics[:, j], rate - _ATOL) for table in tables]
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
                excess = _excess(self.problem.blocks, self.allowance, statistics)
                best = int(np.where(excess <= excess.min() + _ATOL, gains, -np.inf).argmax())
                starts.append(counts[:, best])
        return starts

    def of_all(self, counts: IntArray) -> IntArray:
        """Return the best of all counts."""
        return self._best(counts, range(len(counts)), [np.arange(len(table.gains)) for table in self.tables])

    def judge(self, counts: IntArray) -> tuple[float, float]:
        """Return (violation beyond the allowance, minus the gain)."""
        statistics, gain = self._total(counts, range(len(counts)))
        return float(_excess(self.problem.blocks, self.allowance, statistics[None, :])[0]), -gain

    def _total(self, counts: IntArray, cells: Iterable[int]) -> tuple[FloatArray, float]:
        """Statistics and gain of the best counts of some cells."""
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
        excess = _excess(self.problem.blocks, self.allowance, statistics)
        best = int(np.where(excess <= excess.min() + _ATOL, gains, -np.inf).argmax())
        fresh = counts.copy()
        chosen = np.unravel_index(best, [len(ks) for ks in options])
        fresh[list(cells)] = [ks[i] for ks, i in zip(options, chosen, strict=True)]
        return fresh


def _options(size: int, count: int, most: int) -> IntArray:
    """Counts to try: all, or an even grid and the neighbours at distances 1, 2, 4, ..."""
    steps = 2 ** np.arange(int(np.log2(size)) + 1)
    grid = np.linspace(0, size, min(max(most, _GRID), size + 1)).astype(np.int64)
    options = np.concatenate([[count], count - steps, count + steps, grid])
    return np.unique(options[(options >= 0) & (options <= size)])
