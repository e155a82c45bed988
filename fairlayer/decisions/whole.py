"""One threshold per cell: whole counts k_g near the best lottery.

Where the statements look at selection rates only, they see a lottery's expected counts, and rounding those to whole
numbers moves each by less than one. Where they look at labels, a count decides two numbers (how many of each label),
the best lottery need not lie near the curve, and a search over counts is left. It is a search, not a proof of the best.

Rounding may cost gain, in a small batch a lot. So where all counts can be tried, they are: the best of those that meet
the limits as they stand, without the allowance for rounding, replaces a rounded lottery that gains less.
"""

from __future__ import annotations

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.decisions.curves import Curve
from fairlayer.decisions.lottery import whole_counts
from fairlayer.decisions.problem import Problem
from fairlayer.decisions.program import Mixture, Optimum
from fairlayer.decisions.search import ATOL, Search, excess_of

__all__ = ["as_mixture", "choose_counts"]

_COMMON = 65  # common thresholds and rates tried as starts
_EVERY = 2**14  # combinations of counts up to which all are tried
_ROUNDED = 12  # counts between whole numbers up to which all roundings are tried
_WHOLE = 1e-9  # distance from a whole number that counts as none


def choose_counts(problem: Problem, optimum: Optimum) -> IntArray:
    """Return k_g for each cell.

    Raises:
        NeedsRandomisationError: no counts were found that meet the slabs, each widened by one sample per cell.
    """
    rounded = _rounded(problem, optimum)
    if np.prod([float(curve.size + 1) for curve in problem.curves]) > _EVERY:
        return rounded
    exact = Search(problem, [np.zeros_like(rounding) for rounding in problem.rounding])
    best = exact.of_all(rounded)
    met, gain = exact.judge(best)
    return best if met <= 0 and gain < exact.judge(rounded)[1] - ATOL else rounded


def _rounded(problem: Problem, optimum: Optimum) -> IntArray:
    """Return whole counts near the best lottery that meet the slabs, each widened by one sample per cell."""
    pairs = list(zip(optimum.mixtures, problem.curves, strict=True))
    if all(curve.mass_only for curve in problem.curves):
        return _least_excess(problem, np.array([_count(mixture, curve) for mixture, curve in pairs]))
    used = _constrained(problem)
    nearest = np.array([_nearest(mixture, curve, used[curve.touched]) for mixture, curve in pairs])
    search = Search(problem, problem.rounding)
    excess, gain = search.judge(nearest)
    if excess <= 0 and problem.batch.weights is None and optimum.gain + gain <= problem.worth:
        return nearest  # heavy rows make the allowance wide, and better counts may lie within it
    return search.run([nearest, *_common_starts(problem), *search.matched_starts()])


def _count(mixture: Mixture, curve: Curve) -> float:
    """Return the count, between whole ones, at which the curve has the mass that the lottery selects."""
    return float(np.interp(mixture.weights @ curve.mass[mixture.breaks], curve.mass, curve.counts))


def _least_excess(problem: Problem, counts: FloatArray) -> IntArray:
    """Return, of all ways to round each count within the capacity, that of least violation, then that of most gain.

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
    excess = excess_of(problem.blocks[:held], none[:held], statistics)
    excess[excess_of(problem.blocks[held:], none[held:], statistics) > 0] = np.inf
    best = int(np.where(excess <= excess.min() + ATOL, gains, -np.inf).argmax())
    return np.asarray(tried[best], dtype=np.int64)


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
    near = np.flatnonzero(distance <= distance.min() + ATOL)
    return int(near[gains[near].argmax()])


def _common_starts(problem: Problem) -> list[IntArray]:
    """Return the counts of one threshold for everybody, and those of one selection rate for everybody."""
    sizes = np.array([curve.size for curve in problem.curves])
    starts = [np.round(rate * sizes).astype(np.int64) for rate in np.linspace(0.0, 1.0, _COMMON)]
    for threshold in np.quantile(problem.scores, np.linspace(0.0, 1.0, _COMMON)):
        above = [np.searchsorted(-curve.values, -threshold, side="right") for curve in problem.curves]
        starts.append(np.array([curve.counts[j] for curve, j in zip(problem.curves, above, strict=True)]))
    return starts
