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
_RATIO = 3.0  # of the width to the product of slack and price
_FASTEST = 1e-4  # to how much of the width a step may lead
_FAR = 0.02  # how much of the domain limits may be missed by for the width to fall
_MOST_STEPS = 40
_MOST_ROUNDS = 30
_SUMS = 1e-14  # of a row, beside 1


class BarrierCurves:
    """The mean of each statistic at any pull, of rows under a barrier.

    Args:
        passes: a batch of rows of the simplex.
    """

    wide, own = 1.0, 1.0
    ratio, fastest, far, most_steps = _RATIO, _FASTEST, _FAR, _MOST_STEPS

    def __init__(self, passes: Any) -> None:
        self.passes, self.geometry = passes, passes.geometry
        self.counts = np.ones(passes.cells.size)
        self.visited = 0
        x = passes.scores
        self.widest = self.own = _WIDEST * float((x.max(axis=1) - x.min(axis=1)).max(initial=1.0))
        self.lam: FloatArray | None = None

    def at(self, nu: FloatArray, width: float) -> CurvesAt:
        """Return the curves at a dual point."""
        self.visited += self.passes.n
        u = self.passes.scores - self.passes.pull(nu)
        y = self._answer(u, width)
        curve = 1.0 if self.geometry.name == "euclidean" else 1.0 / y
        give = 1.0 / (curve + width / (y * y))
        # dy/dw = give (1 / y - dlambda/dw), which keeps the sum of the row
        turn = self.geometry.share(give, width / y)
        return CurvesAt(self.passes.measure(y), self.passes.metric_of(give), self.passes.measure(turn))

    def _answer(self, u: FloatArray, w: float) -> FloatArray:
        k = u.shape[1]
        u = u - u.max(axis=1)[:, None]  # so that lambda is small, and rounds little
        flat = self.geometry.name == "euclidean"
        # The largest class between 1 / k and 1 at the least and the largest lambda.
        low, high = (w - 1.0, k * w - 1.0 / k) if flat else (w, k * w + np.log(k))
        lam = np.full(len(u), low) if self.lam is None else np.clip(self.lam, low, high)
        rounds = 0
        for _ in range(_MOST_ROUNDS):
            s = u - lam[:, None]
            rounds += 1
            if flat:
                root = np.sqrt(s * s + 4.0 * w)
                y = np.where(s > 0, 0.5 * (s + root), 2.0 * w / (root - s))
                slope = y / root
            else:
                y = w / _omega(np.log(w) - s)
                slope = y * y / (y + w)
            total = y.sum(axis=1)
            if np.abs(total - 1.0).max(initial=0.0) < _SUMS * k:
                break
            step = total * (total - 1.0) / slope.sum(axis=1)
            lam = np.clip(lam + step, low, high)
        self.lam = lam
        self.rounds = getattr(self, "rounds", 0) + rounds
        return y / total[:, None]


def _omega(z: FloatArray) -> FloatArray:
    """Return the v > 0 with v + log v = z, up to rounding."""
    far = np.maximum(z, 1.0)
    v = np.where(z < -2.0, np.exp(np.minimum(z, 0.0)), np.where(z < 1.0, np.exp(2.0 * (np.minimum(z,1.0) - 1.0) / 3.0), far - np.log(far) + np.log(far) / far))
    v = np.maximum(v, 1e-300)
    for _ in range(2):
        r = z - v - np.log(v)
        a = 1.0 + v
        b = a * (a + 2.0 * r / 3.0)
        v = v * (1.0 + r / a * (b - 0.5 * r) / (b - r))
    return v
