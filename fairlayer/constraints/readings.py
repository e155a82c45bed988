"""What a statement says about some means: a number, its limit, and how far the one lies beyond the other."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np

from fairlayer._typing import BoolArray, FloatArray, IntArray

__all__ = ["BoundedNumber", "StatementNumbers", "StatementReading", "miss"]


class StatementReading(NamedTuple):
    """What a statement says about some means.

    Args:
        value: the number that the statement bounds; None where nothing is compared (too few members present), and for
            a ratio whose highest mean is not above 0.
        limit: what the number is held to.
        excess: by how much the inequality fails, <= 0 where it holds; None where nothing is compared.
        at_least: whether the limit is a lower one.
        worst: names of the members that make the number: the highest and the lowest of a spread, the one row of rows.
    """

    value: float | None
    limit: float
    excess: float | None
    at_least: bool
    worst: tuple[str, ...]


class StatementNumbers(NamedTuple):
    """What statements that are alike but for their limits say, each about means of its own: arrays (t,).

    Args:
        value: the numbers, as in `StatementReading`; NaN where there is none.
        limit: what each is held to.
        excess: by how much each inequality fails; NaN where nothing is compared.
        at_least: whether each limit is a lower one.
        row: which row makes the number; of a spread the highest member.
    """

    value: FloatArray
    limit: FloatArray
    excess: FloatArray
    at_least: BoolArray
    row: IntArray

    @property
    def row_of_first(self) -> int:
        """Which row makes the number of the first statement."""
        return int(self.row[0])

    def reading_of_first(self, worst: tuple[str, ...]) -> StatementReading:
        """Return what the first statement says, of members with such names."""
        value, excess = float(self.value[0]), float(self.excess[0])
        known = None if math.isnan(value) and not math.isnan(excess) else value
        return StatementReading(known, float(self.limit[0]), excess, bool(self.at_least[0]), worst)

    @property
    def miss(self) -> FloatArray:
        """How far each number lies beyond its limit, by which they are ranked; -inf where nothing is compared."""
        beyond = np.where(self.at_least, self.limit - self.value, self.value - self.limit)
        beyond = np.where(np.isnan(self.value), self.excess, beyond)
        return np.where(np.isnan(self.excess), -np.inf, beyond)


class BoundedNumber(Protocol):
    """A number beside its limit."""

    @property
    def value(self) -> float | None: ...
    @property
    def limit(self) -> float: ...
    @property
    def excess(self) -> float | None: ...
    @property
    def at_least(self) -> bool: ...


def miss(reading: BoundedNumber) -> float:
    """Return how far a number lies beyond its limit, by which they are ranked; -inf where nothing is compared."""
    if reading.excess is None:
        return -np.inf
    if reading.value is None:
        return reading.excess
    return reading.limit - reading.value if reading.at_least else reading.value - reading.limit
