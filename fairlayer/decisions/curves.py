"""What a threshold does: for each cell, the counts, statistics and gain of selecting its best k.

A cell is one combination of the sensitive features, which is all that is known of a person when the decision is made.
Within it only the order of the scores counts, so a deterministic decision is a point on a curve

    k  ->  (k, statistics of the best k, gain of the best k),       k = 0, ..., n_g

and a lottery between thresholds is a point of its convex hull. A threshold cannot part equal scores: its points, the
*breaks*, are the ends of runs of equal scores; in between, the curve is their straight line (members of the run drawn
at random).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.errors import ConstraintDefinitionError
from fairlayer.groups import Groups
from fairlayer.passes import Cells

__all__ = ["Curve", "Partition", "draw_curves"]


class Partition(NamedTuple):
    """The cells: one per combination of categories that occurs, in the order of their codes.

    Args:
        features: names of the sensitive features.
        codes: (cells, features), -1 where unknown.
        cell_of: (n,) cell of each sample.
    """

    features: tuple[str, ...]
    codes: IntArray
    cell_of: IntArray

    @staticmethod
    def of(groups: Groups, features: Sequence[str], n: int) -> Partition:
        """Read the cells of n samples.

        Raises:
            ConstraintDefinitionError: a feature is a soft membership.
        """
        keys = np.zeros(n, dtype=np.int64)
        for name in features:
            codes = groups.column(name).codes
            if codes is None:
                raise ConstraintDefinitionError(
                    f"decisions need a category per sample, but the sensitive feature '{name}' is a soft membership. "
                    "Take the most likely category."
                )
            size = len(groups.vocabulary.categories[name]) + 1
            keys = np.unique(keys * size + codes + 1, return_inverse=True)[1] if len(features) > 1 else codes + 1
        _, first, cell_of = np.unique(keys, return_index=True, return_inverse=True)
        table = [groups.column(name).codes for name in features]
        codes = np.array([column[first] for column in table if column is not None], dtype=np.int64)
        return Partition(tuple(features), codes.reshape(len(features), len(first)).T, cell_of)


@dataclass(frozen=True)
class Curve:
    """The curve of one cell, at its breaks.

    Args:
        members: (n_g,) samples of the cell, highest score first, equal scores in their order in the batch.
        values: (runs,) distinct scores, falling.
        counts: (runs + 1,) k at each break: 0, ..., n_g.
        touched: (t,) the statistics that this cell contributes to.
        mass: (runs + 1,) weight of the samples selected at each break; k where samples have no weights.
        statistics: (runs + 1, t) its contribution at each break.
        gains: (runs + 1,) utility gained over selecting nobody, a share of the whole batch.
    """

    members: IntArray
    values: FloatArray
    counts: IntArray
    mass: FloatArray
    touched: IntArray
    statistics: FloatArray
    gains: FloatArray

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(self.members)

    @property
    def mass_only(self) -> bool:
        """Whether the weight selected, without weights the count, alone decides the statistics."""
        straight = np.outer(self.mass / (self.mass[-1] or 1.0), self.statistics[-1])
        return bool(np.abs(self.statistics - straight).max(initial=0.0) <= 1e-12)

    def at(self, k: FloatArray | IntArray) -> tuple[FloatArray, FloatArray]:
        """Return statistics (len(k), t) and gains (len(k),) of the best k, between breaks too."""
        run = np.clip(np.searchsorted(self.counts, k, side="right") - 1, 0, len(self.values) - 1)
        part = ((k - self.counts[run]) / (self.counts[run + 1] - self.counts[run]))[:, None]
        statistics = self.statistics[run] + part * (self.statistics[run + 1] - self.statistics[run])
        gains = self.gains[run] + part[:, 0] * (self.gains[run + 1] - self.gains[run])
        return statistics, gains


def draw_curves(
    scores: FloatArray, partition: Partition, measured: Cells, gain: FloatArray, weights: FloatArray | None
) -> list[Curve]:
    """Return the curve of each cell.

    Args:
        scores: (n,).
        partition: the cells.
        measured: the statistics of the batch.
        gain: (n,) utility gained by selecting each sample, a share of the whole batch.
        weights: (n,) how many samples each row stands for; None for one each.
    """
    mass = np.ones(len(scores)) if weights is None else weights
    order = np.lexsort((-scores, partition.cell_of))
    sizes = np.bincount(partition.cell_of, minlength=len(partition.codes))
    parts = np.split(order, np.cumsum(sizes)[:-1])
    return [_curve(members, scores, measured, gain, mass) for members in parts]


def _curve(members: IntArray, scores: FloatArray, measured: Cells, gain: FloatArray, mass: FloatArray) -> Curve:
    ordered = scores[members]
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, len(members))
    touched, contributions = contributions_of(members, measured)
    return Curve(
        members,
        ordered[ends - 1],
        np.append(0, ends),
        _running(mass[members][:, None], ends)[:, 0],
        touched,
        _running(contributions, ends),
        _running(gain[members][:, None], ends)[:, 0],
    )


def contributions_of(members: IntArray, measured: Cells) -> tuple[IntArray, FloatArray]:
    """Return the statistics that some samples contribute to, and how much each does (samples, statistics)."""
    k = len(measured.counts)
    parts: list[FloatArray] = []
    touched: list[IntArray] = []
    if measured.codes is not None:
        codes = measured.codes[members]
        present = np.unique(codes)
        present = present[present < k]
        touched.append(present)
        one = 1.0 if measured.weights is None else measured.weights[members][:, None]
        parts.append((codes[:, None] == present) * one / measured.counts[present])
    if measured.dense is not None:
        dense = measured.dense[:, members]
        present = np.flatnonzero(dense.any(axis=1))
        touched.append(k + present)
        parts.append(dense[present].T)
    if not parts:
        return np.zeros(0, dtype=np.int64), np.zeros((len(members), 0))
    return np.concatenate(touched), np.hstack(parts)


def _running(values: FloatArray, ends: IntArray) -> FloatArray:
    return np.vstack([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)[ends - 1]])
