"""Curves of rows of the simplex, smoothed by a barrier.

With a barrier -w sum_c log y_c beside the divergence, a row x under a pull q answers by

    y = argmin  d(y, x) + q'y - w sum_c log y_c    over sum_c y_c = 1

At a large w every class of every row lies well inside, and says where to go; far out an answer falls as w / |t|, slowly
enough to be seen from anywhere. At w = 0 a row answers as it does. Each class answers s = x - q - lambda by itself:

    Euclidean   y - w / y = s,        y = (s + sqrt(s^2 + 4 w)) / 2,        dy/ds = y^2 / (y^2 + w)
    entropic    log y - w / y = s,    y = w / omega(log w - s),             dy/ds = y^2 / (y + w)

with Wright's omega(z) + log omega(z) = z, and lambda such that the row sums to 1. A look visits each row once: what is
iterated stays within it. Source of omega: Lawrence, Corless, Jeffrey (2012), "Algorithm 917: complex double-precision
evaluation of the Wright omega function".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.solve.curves import CurvesAt

__all__ = ["BarrierCurves"]

_WIDEST = 0.1  # of the range of a row
_RATIO = 10.0  # of the width to the product of slack and price
_FASTEST = 1e-4  # to how much of the width a step may lead
_FAR = 0.02  # how much of the domain limits may be missed by for the width to fall
_MOST_STEPS, _PATIENCE = 40, 3
_MOST_ROUNDS = 30  # within a row; about five are usual
_SUMS = 1e-14  # of a row, beside 1, per class
_LEAST = 1e-300


class BarrierCurves:
    """The mean of each statistic at any pull, of rows under a barrier.

    Args:
        passes: a batch of rows of the simplex.
    """

    wide = 1.0
    ratio, fastest, far = _RATIO, _FASTEST, _FAR
    most_steps, patience = _MOST_STEPS, _PATIENCE

    def __init__(self, passes: Any) -> None:
        self.passes, self.geometry, self.visited = passes, passes.geometry, 0
        dense = passes.cells.dense
        self.counts = np.tile(passes.cells.counts, passes.cells.classes)
        if dense is not None:
            most = np.abs(dense).max(axis=1, initial=0.0)
            self.counts = np.append(self.counts, 1.0 / np.where(most > 0, most, 1.0))
        self.flat = not self.geometry.smooth
        x = passes.scores
        self.widest = self.own = _WIDEST * float((x.max(axis=1) - x.min(axis=1)).max(initial=1.0))
        self.level: FloatArray | None = None  # lambda of each row, where it was looked at last

    def at(self, nu: FloatArray, width: float) -> CurvesAt:
        """Return the curves at a dual point, with w = `width`.

        dy/dw = dy/ds (1 / y - dlambda/dw), which keeps the sum of the row.
        """
        self.visited += self.passes.n
        y = self._answer(self.passes.scores - self.passes.pull(nu), width)
        give = y * y / ((y * y if self.flat else y) + width)
        turn = self.geometry.share(give, width / y)
        return CurvesAt(self.passes.measure(y), self.passes.metric_of(give), self.passes.measure(turn))

    def _answer(self, u: FloatArray, w: float) -> FloatArray:
        """Return the y of rows x - q, by Newton's method on 1 / sum_c y_c = 1, which is nearly linear in lambda."""
        k = u.shape[1]
        u = u - u.max(axis=1)[:, None]  # so that lambda is small, and rounds little
        # The largest class is 1 at the least lambda, and 1 / k at the greatest.
        least, most = (w - 1.0, k * w - 1.0 / k) if self.flat else (w, k * w + np.log(k))
        level = np.full(len(u), least) if self.level is None else np.clip(self.level, least, most)
        for _ in range(_MOST_ROUNDS):
            y, slope = self._classes(u - level[:, None], w)
            total = y.sum(axis=1)
            if float(np.abs(total - 1.0).max(initial=0.0)) < _SUMS * k:
                break
            level = np.clip(level + total * (total - 1.0) / slope.sum(axis=1), least, most)
        self.level = level
        return np.asarray(np.maximum(y / total[:, None], _LEAST))

    def _classes(self, s: FloatArray, w: float) -> tuple[FloatArray, FloatArray]:
        """Return y and dy/ds of each class."""
        if not self.flat:
            y = w / _omega(np.log(w) - s)
            return y, y * y / (y + w)
        root = np.sqrt(s * s + 4.0 * w)
        y = np.where(s > 0, 0.5 * (s + root), 2.0 * w / (root - np.minimum(s, 0.0)))
        return y, y / root


def _omega(z: FloatArray) -> FloatArray:
    """Return the v > 0 with v + log v = z, up to rounding."""
    above, below = np.maximum(z, 1.0), np.minimum(z, 1.0)
    v = np.where(z < -2.0, np.exp(below), np.exp(2.0 * (below - 1.0) / 3.0))
    v = np.maximum(np.where(z < 1.0, v, above - np.log(above) + np.log(above) / above), _LEAST)
    for _ in range(2):  # of an error of fourth order
        left, one = z - v - np.log(v), 1.0 + v
        both = one * (one + 2.0 * left / 3.0)
        v = v * (1.0 + left / one * (both - 0.5 * left) / (both - left))
    return np.asarray(v)
