"""How far one worker of several may move the pooled means between two exchanges: its share of an allowed excess.

After an exchange the cell c has N_c predictions with the mean M_c, known to all. The worker w then emits n of its own,
e_i, and keeps

    abs(sum_i (e_i - M_c)) <= share / 2 * (N_c + n)                                                               (1)

With the counts n_w of all workers, the mean of everything leaves M_c by

    abs(sum_w sum_i (e_i - M_c)) / (N_c + sum_w n_w) <= sum_w share_w / 2

as N_c + n_w <= N_c + sum_w n_w. So the difference of two cells leaves the common one by at most the sum of the shares,
however long nobody hears of anybody. (1) can always be kept: e = M_c moves its left side by nothing. A cell that no
exchange has seen has no M_c, and nothing is said of it. Steps that were taken while an exchange was under way kept to
the share before; where they have used up more than the new one, what follows lies between what was asked and M_c. What
some worker had published and another not yet heard at its last exchange comes on top.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.streaming.counts.history import History

__all__ = ["Lease"]


@dataclass(frozen=True)
class Lease:
    """One worker's share, since an exchange.

    Args:
        share: the share, in units of the score.
        counts: (cells,) predictions at the exchange.
        sums: (cells,) sums of what was emitted.
    """

    share: float
    counts: FloatArray
    sums: FloatArray

    @classmethod
    def begin(cls, share: float, history: History) -> Lease:
        """Return a share of which nothing is used."""
        history.flush()
        return cls(share, history.sums["count"].copy(), history.sums["emitted"].copy())

    def kept(self, history: History, cells: IntArray, emitted: FloatArray) -> FloatArray:
        """Return predictions (n,) of these cells, moved towards the common mean where the share is used up."""
        history.flush()
        kept = emitted.copy()
        for cell in np.unique(cells).tolist():
            if cell < len(self.counts) and self.counts[cell] > 0:
                inside = np.flatnonzero(cells == cell)
                kept[inside] = self._cell(history, cell, emitted[inside])
        return kept

    def _cell(self, history: History, cell: int, emitted: FloatArray) -> FloatArray:
        before, mean = self.counts[cell], self.sums[cell] / self.counts[cell]
        n = history.sums["count"][cell] - before
        moved = history.sums["emitted"][cell] - self.sums[cell] - n * mean
        kept = np.empty_like(emitted)
        for i, value in enumerate(emitted.tolist()):
            n += 1.0
            room = 0.5 * self.share * (before + n)
            low, high = min(mean - moved - room, mean), max(mean - moved + room, mean)
            kept[i] = min(max(value, low), high)
            moved += kept[i] - mean
        return kept
