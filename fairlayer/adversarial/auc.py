"""The area under the ROC curve, and its sampling variance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairlayer._typing import BoolArray, FloatArray

__all__ = ["AUC", "area_under_curve", "mean_auc"]

NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class AUC:
    """An AUC with its 95 % interval, and the share of each sample in its error (n,)."""

    value: float
    influence: FloatArray

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return max(0.0, self.value - self._half)

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return min(1.0, self.value + self._half)

    @property
    def _half(self) -> float:
        return NORMAL_95 * float(np.sqrt((self.influence**2).sum()))


def area_under_curve(positive: BoolArray, score: FloatArray) -> AUC:
    """Return P(score of a positive > score of a negative), ties counting half.

        AUC = mean_i V_i = mean_j W_j,   V_i = share of negatives below positive i,  W_j = of positives above negative j
        variance = sum_i (V_i - AUC)^2 / (m (m - 1)) + sum_j (W_j - AUC)^2 / (n (n - 1))

    Args:
        positive: which of the samples are positive; at least two of either kind.
        score: the higher, the more likely positive.

    Source: DeLong, DeLong, Clarke-Pearson (1988).

    Example:
        >>> area_under_curve(np.array([True, True, False, False]), np.array([0.9, 0.4, 0.4, 0.1])).value
        0.875
    """
    above, below = np.sort(score[positive]), np.sort(score[~positive])
    m, n = len(above), len(below)
    V = _rank(below, score[positive]) / n
    W = 1.0 - _rank(above, score[~positive]) / m
    value = float(V.mean())
    influence = np.empty(len(score))
    influence[positive] = (V - value) / np.sqrt(m * (m - 1))
    influence[~positive] = (W - value) / np.sqrt(n * (n - 1))
    return AUC(value, influence)


def mean_auc(parts: Sequence[AUC]) -> AUC:
    """Return the mean of AUCs of the same samples; their errors are not independent, so they add per sample."""
    value = float(np.mean([part.value for part in parts]))
    return AUC(value, np.mean([part.influence for part in parts], axis=0))


def _rank(ordered: FloatArray, score: FloatArray) -> FloatArray:
    """Return how many of `ordered` lie below each score, ties counting half."""
    sides = np.searchsorted(ordered, score, side="left") + np.searchsorted(ordered, score, side="right")
    return np.asarray(sides / 2.0)
