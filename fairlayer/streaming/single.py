"""The step for small batches under parity constraints, without building a program.

Where every constraint is a spread of plain group means, one sample's prediction is free in an interval: with the
other groups' means between `bottom` and `top`, its own group of N samples and sum S stays within the tolerance iff

    (top - tolerance) (N + 1) - S  <=  y  <=  (bottom + tolerance) (N + 1) - S

The hard step clips the target to the interval. The soft step (one spread of two groups) is pulled towards it with
stiffness k = rate * (samples / N) * n_h / N, n_h = N0 N1 / (N0 + N1): outside, y = (target + k * end) / (1 + k).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.assembly import assemble
from fairlayer.constraints import Spread, Statement
from fairlayer.constraints.statements import as_float
from fairlayer.streaming.correction import Frame
from fairlayer.streaming.history import batch_of

__all__ = ["SpreadSums"]


class _Spread:
    """Sums of the groups that one spread compares."""

    def __init__(self, member: list[int], members: int, tolerance: float) -> None:
        self.member, self.tolerance = member, tolerance
        self.count = [0.0] * members
        self.total = [0.0] * members


class SpreadSums:
    """Group sums of every spread, kept beside a history; rebuilt from it whenever it changed elsewhere."""

    def __init__(self, spreads: Sequence[_Spread], bounds: tuple[float | None, float | None]) -> None:
        self.spreads = tuple(spreads)
        self.low = -np.inf if bounds[0] is None else bounds[0]
        self.high = np.inf if bounds[1] is None else bounds[1]

    @staticmethod
    def of(frame: Frame) -> SpreadSums | None:
        """Return the sums, or None where some constraint is no spread of plain group means."""
        k = len(frame.history.cells)
        if frame.labelled or not k:
            return None
        batch = batch_of(frame.history, frame.vocabulary, np.arange(k), weights=np.ones(k))
        statements = assemble(frame.unlabelled, batch, on_empty="skip").statements
        if not all(_is_plain(statement) for statement in statements):
            return None
        sums = SpreadSums([_read(statement) for statement in statements], frame.bounds)
        for cell in range(k):
            sums.add(cell, frame.history.sums["count"][cell], frame.history.sums["emitted"][cell])
        return sums

    def add(self, cell: int, count: float, total: float) -> None:
        """Count emitted predictions."""
        for spread in self.spreads:
            member = spread.member[cell]
            if member >= 0:
                spread.count[member] += count
                spread.total[member] += total

    def interval(self, cell: int, slack: float) -> tuple[float, float] | None:
        """Return the predictions of the next sample that keep every spread, None where they have none in common.

        Where the other groups are already further apart than the tolerance, the spread must not grow.
        """
        low, high = -np.inf, np.inf
        for spread in self.spreads:
            member = spread.member[cell]
            if member < 0:
                continue
            top, bottom = _others(spread, member)
            if top < bottom:
                continue
            width = max(spread.tolerance + slack, 0.0, top - bottom)
            n, total = spread.count[member] + 1.0, spread.total[member]
            low, high = max(low, (top - width) * n - total), min(high, (bottom + width) * n - total)
        return (low, high) if low <= high else None

    def hold(self, cells: IntArray, values: FloatArray, slack: float) -> bool:
        """Return whether every spread holds after these predictions."""
        for spread in self.spreads:
            members = np.array(spread.member)[cells]
            inside = members >= 0
            k = len(spread.count)
            count = np.array(spread.count) + np.bincount(members[inside], minlength=k)
            total = np.array(spread.total) + np.bincount(members[inside], weights=values[inside], minlength=k)
            means = total[count > 0] / count[count > 0]
            if len(means) and means.max() - means.min() > max(spread.tolerance + slack, 0.0):
                return False
        return True

    def stiffness(self, cell: int, rate: float) -> float | None:
        """Return k of the soft step where there is one spread of two groups, else None."""
        if len(self.spreads) != 1 or len(self.spreads[0].count) != 2:
            return None
        member = self.spreads[0].member[cell]
        if member < 0:
            return 0.0
        own, other = self.spreads[0].count[member] + 1.0, self.spreads[0].count[1 - member]
        return rate * (own + other) / own * (other / (own + other))


def _others(spread: _Spread, member: int) -> tuple[float, float]:
    top, bottom = -np.inf, np.inf
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
