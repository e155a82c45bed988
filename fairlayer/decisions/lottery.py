"""From probabilities to decisions, by systematic sampling.

With C_i the running sum of the probabilities in some order and an offset u in [0, 1),

    d_i = floor(C_i + u) - floor(C_(i-1) + u)

Any consecutive samples with total probability P then get more than P - 1 and fewer than P + 1 yeses, and for u uniform
each sample is selected with its own probability. The order is by cell, then by falling score: so the statement holds
for each cell, for each band of scores in it, and for the whole batch.
Source: Madow, Madow (1944), "On the theory of systematic sampling, I".
"""

from __future__ import annotations

import numpy as np

from fairlayer._typing import FloatArray, IntArray

__all__ = ["FIXED", "draw_decisions", "offset_of", "weigh_decisions", "whole_counts"]

FIXED = 0.5  # the offset where no lots are drawn: rounding to the nearest
_LARGEST = 1.0 - 1e-6  # below 1 by more than sums are rounded, so that a whole total is never exceeded


def offset_of(seed: int | None) -> float:
    """Return the offset that a seed stands for; None draws a fresh one."""
    return float(np.random.default_rng(seed).uniform(0.0, _LARGEST))


def draw_decisions(probabilities: FloatArray, cell_of: IntArray, scores: FloatArray, offset: float) -> IntArray:
    """Return a decision 0 or 1 for each sample (n,), equal scores of a cell in their order in the batch.

    Example:
        >>> draw_decisions(np.array([0.5, 1.0, 0.5]), np.zeros(3, int), np.array([0.2, 0.9, 0.2]), FIXED).tolist()
        [1, 1, 0]
    """
    order = np.lexsort((-scores, cell_of))
    total = np.floor(np.cumsum(probabilities[order]) + offset)
    decisions = np.empty(len(order), dtype=np.int64)
    decisions[order] = np.diff(total, prepend=np.floor(offset))
    return decisions


def weigh_decisions(probabilities: FloatArray, cell_of: IntArray, scores: FloatArray, weights: FloatArray) -> IntArray:
    """Return a decision 0 or 1 for each sample (n,), so that the weight selected in each cell is nearly its share.

    In the order of `draw_decisions`, a sample with a probability p between 0 and 1 is selected where what earlier ones
    left over and its own share, r + p w, make up its weight; then r <- r + p w - w, else r <- r + p w. So r stays in
    [0, largest w): a cell's weight never exceeds its share, and falls short of it by less than one sample's weight.

    Example:
        >>> half, weights = np.full(3, 0.5), np.array([1.0, 2.0, 1.0])
        >>> weigh_decisions(half, np.zeros(3, int), np.full(3, 0.2), weights).tolist()
        [0, 0, 1]
    """
    decisions = (probabilities >= 1.0).astype(np.int64)
    order = np.lexsort((-scores, cell_of))
    between = order[(probabilities[order] > 0.0) & (probabilities[order] < 1.0)]
    left, cell = 0.0, -1
    for i in between.tolist():
        left = left if cell_of[i] == cell else 0.0
        cell, left = int(cell_of[i]), left + probabilities[i] * weights[i]
        if left >= weights[i] - 1e-9 * (1.0 + weights[i]):
            decisions[i], left = 1, max(left - weights[i], 0.0)
    return decisions


def whole_counts(counts: FloatArray) -> IntArray:
    """Return whole numbers that differ from `counts` by less than 1 each, and so does any sum of consecutive ones.

    Their sum is at most a whole number that the sum of `counts` does not exceed.
    """
    return np.diff(np.floor(np.cumsum(counts) + FIXED + 1e-9), prepend=0.0).astype(np.int64)
