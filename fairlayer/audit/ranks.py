"""Scores in order: the exact area under the curve, and its variance, for any groups of the cells.

For positives with weights u and negatives with weights v at the distinct scores s_1 < s_2 < ...

    AUC = sum_k u_k (V_<k + v_k / 2) / (U V)        V_<k: the weight of the negatives below s_k; a tie counts one half

The same sum over the bins of a histogram takes two scores in one bin for a tie, which is wrong by at most half the
weight of the pairs that share a bin: sum_k u_k v_k / (2 U V).

The variance is that of DeLong, DeLong and Clarke-Pearson (1988): with the placement of each positive,
p = (V_<k + v_k / 2) / V, and of each negative, q = (U_>k + u_k / 2) / U,  var = var(p) / m + var(q) / n.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.audit.slots import NEGATIVE, POSITIVE

__all__ = ["Area", "RankedRows", "area_under_curve", "areas_of_histograms", "areas_of_ranks"]


@dataclass(frozen=True)
class RankedRows:
    """The labelled rows of a table in the order of their scores.

    Args:
        scores: (m,) ascending.
        cells: (m,) the cell of each row.
        positive: (m,) whether the label is 1.
        weights: (m,) the weight of each row.
    """

    scores: FloatArray
    cells: IntArray
    positive: IntArray
    weights: FloatArray

    @staticmethod
    def of(scores: FloatArray, cells: IntArray, label_slots: IntArray, weights: FloatArray) -> RankedRows:
        """Put rows with a label of 0 or 1 into order."""
        labelled = np.flatnonzero((label_slots == NEGATIVE) | (label_slots == POSITIVE))
        order = labelled[np.argsort(scores[labelled], kind="stable")]
        return RankedRows(
            scores[order], cells[order], (label_slots[order] == POSITIVE).astype(np.int64), weights[order]
        )

    def joined(self, other: RankedRows, mine: IntArray, theirs: IntArray) -> RankedRows:
        """Return the rows of both, where cell c of each is now the cell mine[c], theirs[c]."""
        scores = np.concatenate([self.scores, other.scores])
        order = np.argsort(scores, kind="stable")
        return RankedRows(
            scores[order],
            np.concatenate([mine[self.cells], theirs[other.cells]])[order],
            np.concatenate([self.positive, other.positive])[order],
            np.concatenate([self.weights, other.weights])[order],
        )


class Area(NamedTuple):
    """An area under the curve with its sampling variance, and the most that the pairs in one bin can be wrong."""

    value: float
    variance: float
    doubt: float


def area_under_curve(positives: FloatArray, negatives: FloatArray, rows: tuple[float, float]) -> Area:
    """Return the area from the weights at distinct scores (or bins), in ascending order.

    Args:
        positives: (k,) the weight of the rows with label 1 at each score.
        negatives: (k,) the weight of the rows with label 0 at each score.
        rows: effective numbers of rows with label 1 and with label 0.

    Example:
        >>> import numpy as np
        >>> area_under_curve(np.array([0.0, 1.0, 1.0]), np.array([1.0, 0.0, 1.0]), (2.0, 2.0)).value
        0.625
    """
    up, down = positives.sum(), negatives.sum()
    if up <= 0 or down <= 0:
        return Area(float("nan"), float("nan"), float("nan"))
    p = (np.cumsum(negatives) - negatives / 2) / down
    q = (up - np.cumsum(positives) + positives / 2) / up
    value = float((positives * p).sum() / up)
    spread_p = (positives * (p - value) ** 2).sum() / up
    spread_q = (negatives * (q - value) ** 2).sum() / down
    m, n = rows
    variance = spread_p / max(m - 1, 1.0) + spread_q / max(n - 1, 1.0)
    return Area(value, float(variance), 0.0)


def areas_of_ranks(ranks: RankedRows, groups: IntArray, size: int, rows: FloatArray) -> list[Area]:
    """Return the exact area of each group, where groups[c] is the group of cell c, or -1.

    Args:
        rows: (size, 2) effective numbers of rows with label 0 and 1.
    """
    member = groups[ranks.cells]
    order = np.argsort(member, kind="stable")  # keeps the order of the scores within a group
    start = np.searchsorted(member[order], np.arange(size + 1))
    return [_area(ranks, order[start[g] : start[g + 1]], rows[g]) for g in range(size)]


def areas_of_histograms(histogram: FloatArray, rows: FloatArray) -> list[Area]:
    """Return the area of each group from its histogram (groups, 2 labels, bins), with the doubt that the bins leave."""
    found = []
    for (negatives, positives), (n, m) in zip(histogram, rows, strict=True):
        area = area_under_curve(positives, negatives, (m, n))
        pairs = positives.sum() * negatives.sum()
        doubt = float((positives * negatives).sum() / (2 * pairs)) if pairs > 0 else float("nan")
        found.append(area._replace(doubt=doubt))
    return found


def _area(ranks: RankedRows, chosen: IntArray, rows: FloatArray) -> Area:
    scores = ranks.scores[chosen]
    if not len(scores):
        return Area(float("nan"), float("nan"), float("nan"))
    new = np.concatenate([[0], np.cumsum(scores[1:] != scores[:-1])])
    positive, weights = ranks.positive[chosen], ranks.weights[chosen]
    ups = np.bincount(new, weights=weights * positive).astype(np.float64)
    downs = np.bincount(new, weights=weights * (1 - positive)).astype(np.float64)
    return area_under_curve(ups, downs, (rows[1], rows[0]))
