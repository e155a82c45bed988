"""The steps of small batches under parity constraints, without building a program.

Where every constraint is a spread of plain group means, one sample's prediction is free in an interval: with the
other groups' means between `bottom` and `top`, its own group of N samples and sum S stays within the tolerance iff

    (top - tolerance) (N + 1) - S  <=  y  <=  (bottom + tolerance) (N + 1) - S

The hard step clips the target to the interval. The soft step (one spread of two groups) is pulled towards it with
stiffness k = rate * (samples / N) * n_h / N = rate * N_other / N, as n_h = N0 N1 / samples: outside,
y = (target + k * end) / (1 + k).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.constraints import Spread, Statement
from fairlayer.constraints.statements import as_float
from fairlayer.projection.assembly import assemble
from fairlayer.streaming.control.correction import Frame
from fairlayer.streaming.counts.history import batch_of

__all__ = ["SpreadSums", "clip"]


class _Spread:
    """Sums of the groups that one spread compares."""

    def __init__(self, member: list[int], members: int, tolerance: float) -> None:
        self.member, self.tolerance = member, tolerance  # member of each cell, -1 outside
        self.count = [0.0] * members
        self.total = [0.0] * members
        simple = members == 2 and member.count(0) == member.count(1) == 1
        self.pair = (member.index(0), member.index(1)) if simple else None  # two groups of one cell each

    def add_pair_if_held(
        self, first: int, second: int, counts: Sequence[float], totals: Sequence[float], slack: float
    ) -> bool:
        """Return the same as `SpreadSums.add_if_held`, for two groups of one cell each: the case of most streams."""
        n, m = self.count[0] + counts[first], self.count[1] + counts[second]
        s, t = self.total[0] + totals[first], self.total[1] + totals[second]
        if n and m:
            gap, width = s / n - t / m, self.tolerance + slack
            if (gap if gap > 0.0 else -gap) > (width if width > 0.0 else 0.0):
                return False
        self.count, self.total = [n, m], [s, t]
        return True


class SpreadSums:
    """Group sums of every spread, kept beside a history; rebuilt from it whenever it changed elsewhere."""

    def __init__(self, spreads: Sequence[_Spread], bounds: tuple[float | None, float | None]) -> None:
        self.spreads = tuple(spreads)
        self.low = -inf if bounds[0] is None else float(bounds[0])
        self.high = inf if bounds[1] is None else float(bounds[1])
        self.box = np.array(self.low), np.array(self.high)  # the same, as NumPy compares fastest

    @staticmethod
    def of(frame: Frame) -> SpreadSums | None:
        """Return the sums, or None where some constraint is not a spread of plain group means."""
        k = len(frame.history.cells)
        if frame.labelled or not k:
            return None
        batch = batch_of(frame.history, frame.vocabulary, np.arange(k), weights=np.ones(k))
        statements = assemble(frame.unlabelled, batch, on_empty="skip").statements
        if not all(_is_plain(statement) for statement in statements):
            return None
        sums = SpreadSums([_read(statement) for statement in statements], frame.bounds)
        count, emitted = frame.history.sums["count"], frame.history.sums["emitted"]
        for cell in range(k):
            sums.add(cell, float(count[cell]), float(emitted[cell]))
        return sums

    def add(self, cell: int, count: float, total: float) -> None:
        """Count emitted predictions."""
        for spread in self.spreads:
            member = spread.member[cell]
            if member >= 0:
                spread.count[member] += count
                spread.total[member] += total

    def add_if_held(self, counts: Sequence[float], totals: Sequence[float], slack: float) -> bool:
        """Count predictions, given per cell, after which every spread holds, and return whether they did."""
        if len(self.spreads) == 1 and self.spreads[0].pair:
            return self.spreads[0].add_pair_if_held(*self.spreads[0].pair, counts, totals, slack)
        after = []
        for spread in self.spreads:
            count, total, low, high = spread.count[:], spread.total[:], inf, -inf
            for member, more, sum_of in zip(spread.member, counts, totals):  # noqa: B905 - hot; counts may be longer
                if more and member >= 0:
                    count[member] += more
                    total[member] += sum_of
            for n, t in zip(count, total):  # noqa: B905 - hot
                if n:
                    mean = t / n
                    low = mean if mean < low else low
                    high = mean if mean > high else high
            width = spread.tolerance + slack
            if high - low > (width if width > 0.0 else 0.0):
                return False
            after.append((spread, count, total))
        for spread, count, total in after:
            spread.count, spread.total = count, total
        return True

    def interval(self, cell: int, slack: float) -> tuple[float, float] | None:
        """Return the predictions of the next sample that keep every spread.

        None where they have none in common, or other groups are already further apart than the tolerance.
        """
        low, high = -inf, inf
        for spread in self.spreads:
            member = spread.member[cell]
            if member < 0:
                continue
            top, bottom = _others(spread, member)
            if top < bottom:
                continue
            width = spread.tolerance + slack
            width = width if width > 0.0 else 0.0
            if top - bottom > width:
                return None
            n, total = spread.count[member] + 1.0, spread.total[member]
            least, most = (top - width) * n - total, (bottom + width) * n - total
            low, high = least if least > low else low, most if most < high else high
        return (low, high) if low <= high else None

    def stiffness(self, cell: int, rate: float) -> float | None:
        """Return k of the soft step where there is one spread of two groups, else None."""
        if len(self.spreads) != 1 or len(self.spreads[0].count) != 2:
            return None
        member = self.spreads[0].member[cell]
        if member < 0:
            return 0.0
        own, other = self.spreads[0].count[member] + 1.0, self.spreads[0].count[1 - member]
        return rate * other / own


def _others(spread: _Spread, member: int) -> tuple[float, float]:
    top, bottom = -inf, inf
    for other, count in enumerate(spread.count):
        if count > 0.0 and other != member:
            mean = spread.total[other] / count
            top = mean if mean > top else top
            bottom = mean if mean < bottom else bottom
    return top, bottom


def _is_plain(statement: Statement) -> bool:
    if not isinstance(statement, Spread) or statement.means.codes is None:
        return False
    matrix = statement.matrix
    picks_one = bool(((matrix == 0.0) | (matrix == 1.0)).all() and (matrix.sum(axis=1) == 1.0).all())
    return picks_one and statement.offset is None and statement.scale == 1.0


def _read(statement: Statement) -> _Spread:
    assert isinstance(statement, Spread)
    assert statement.means.codes is not None
    picked = statement.matrix.argmax(axis=1)
    of_row = np.full(statement.matrix.shape[1] + 1, -1)
    of_row[picked] = np.arange(len(picked))
    return _Spread(of_row[statement.means.codes].tolist(), len(picked), as_float(statement.tolerance))


def clip(values: FloatArray, bounds: tuple[float | None, float | None]) -> FloatArray:
    """Return the values within bounds of which either may be missing."""
    low, high = bounds
    values = values if low is None else np.maximum(values, low)
    return values if high is None else np.minimum(values, high)
