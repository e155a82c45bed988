"""Both sides of many limits: how much room each leaves, and what a unit of it is worth.

Two methods move both at once, with the product of the two falling from step to step: the interior-point method over
samples (see `interior`) and the search along smooth curves of the cells (see `smooth`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fairlayer._typing import BoolArray, FloatArray
from fairlayer.passes import Point
from fairlayer.solve.slabs import SlabSystem
from fairlayer.solve.solution import Solution
from fairlayer.solve.table import RowTable, faces_of_prices

__all__ = ["Side", "first_levels", "priced_solution"]

_ONE_SIDED = 1e-6  # what one side of a spread bears, of the other, where it does not hold


@dataclass(frozen=True)
class Side:
    """One side of many limits.

    Args:
        slack: how much room each leaves, > 0.
        price: what a unit of it is worth, > 0; 0 where there is no limit.
        there: where there is a limit.
    """

    slack: FloatArray
    price: FloatArray
    there: BoolArray

    @staticmethod
    def of(room: FloatArray, least: FloatArray | float, there: Any) -> Side:
        """Build from the room that there is, or should be at least; without prices."""
        there = np.broadcast_to(there, room.shape)
        return Side(np.where(there, np.maximum(room, least), 1.0), np.zeros(room.shape), there)

    def priced(self, price: FloatArray | float) -> Side:
        """Return the side with other prices."""
        return replace(self, price=np.where(self.there, price, 0.0))

    @property
    def stiffness(self) -> FloatArray:
        """By how much a price rises for each unit of slack that is used up."""
        return self.price / self.slack

    def asked(self, mu: FloatArray | float, missed: FloatArray | float) -> FloatArray:
        """Return by how much the price must rise where the room does not change, but for what the slack misses."""
        return np.where(self.there, mu / self.slack - self.price - self.stiffness * missed, 0.0)

    def change(self, mu: FloatArray | float, slack: FloatArray) -> Side:
        """Return the change of both that goes with one of the slack."""
        slack = np.where(self.there, slack, 0.0)
        return Side(slack, self.asked(mu, slack), self.there)

    def longest(self, change: Side) -> float:
        """Return the share of a change at which the first slack or price is used up."""
        shares = [
            np.divide(-now, by, out=np.full(now.shape, np.inf), where=by < 0)
            for now, by in ((self.slack, change.slack), (self.price, change.price))
        ]
        return min(float(share.min(initial=np.inf)) for share in shares)

    def moved(self, share: float, change: Side) -> Side:
        """Return the side after a share of a change."""
        return Side(self.slack + share * change.slack, self.price + share * change.price, self.there)

    def product(self) -> FloatArray:
        """Return slack times price; 0 where there is no limit."""
        return np.where(self.there, self.slack * self.price, 0.0)

    def binding(self, wide: float) -> FloatArray:
        """Return the prices of limits whose price is large beside their slack."""
        most = float(self.price.max(initial=0.0))
        return np.where(self.price * wide > most * self.slack, self.price, 0.0)


def first_levels(table: RowTable, value: FloatArray) -> FloatArray:
    """Return levels half-way between where the lowest and the highest member of each spread would have them."""
    tied = table.tied
    value = (value + table.offset)[tied]
    low, high = np.full(len(table.scale), np.inf), np.full(len(table.scale), -np.inf)
    np.minimum.at(low, table.level[tied], value)
    np.maximum.at(high, table.level[tied], value)
    return np.asarray(0.5 * (low + table.scale * high - table.width))


def priced_solution(slabs: SlabSystem, table: RowTable, high: FloatArray, low: FloatArray, passes: int) -> Solution:
    """Return prices of upper and lower limits as a place to start from.

    Args:
        slabs: the system of the rows.
        table: its rows.
        high: price of each row's upper limit, >= 0.
        low: price of each row's lower limit, >= 0.
        passes: what it took to find them.
    """
    count, scale = len(table.scale), np.append(table.scale, 1.0)[table.level]
    at = np.where(table.tied, table.level, count)
    # A spread holds where it does so on both sides.
    above, below = (np.bincount(at, price, count + 1)[:count] for price in (high / scale, low))
    both = np.minimum(above, below) > _ONE_SIDED * np.maximum(above, below)
    held = np.append(both, True)[table.level]
    high, low = np.where(held, high, 0.0), np.where(held, low, 0.0)
    faces, multipliers = faces_of_prices(slabs, table, high / scale, low)
    nu = (high - low) @ table.matrix
    return Solution(Point(None, None, np.zeros(len(nu))), nu, faces, multipliers, passes)
