"""Where the prices and levels of ranges lie, from a sorted batch: two nested searches, each inside a bracket.

At the level c of its spread a unit ends at the nearest point of its limits to where it starts, and its price is the one
that takes it there:

    price(c) = the p with v(p) = clip(v(0), limits at c)

v falls with the price, and what the prices of a spread add up to rises with c. So c is bracketed between two levels,
and each price between those that it has at the two: what is left to search shrinks with both. Steps alternate between
the middle and the secant. Where a level jumps from one price to another, the share between the two that lets the prices
cancel is taken. Nothing here depends on slopes, which say nothing where scores lie far apart.
"""

from __future__ import annotations

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.solve.sorted import SortedBatch
from fairlayer.solve.units import Units

__all__ = ["place_of"]

_MOST_LEVELS, _MOST_PRICES = 120, 160
_CLOSE = 4e-16


def place_of(units: Units, batch: SortedBatch, domain: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Return the level of each spread, and the price of each unit.

    Args:
        units: the rows, none of which shares a statistic with another.
        batch: the samples.
        domain: the range of each level.
    """
    search = _Prices(units, batch)
    if not len(units.scale):
        return np.zeros(0), search.at(np.zeros(0), search.least, search.most)
    at, own = units.inside, units.level[units.inside]
    start = search.start[at] + units.offset[at]
    low, high = np.full(len(units.scale), np.inf), np.full(len(units.scale), -np.inf)
    np.minimum.at(low, own, start)
    np.maximum.at(high, own, units.scale[own] * start - units.width[own])
    low, high = (np.clip(end, *domain) for end in (np.minimum(low, high), np.maximum(low, high)))
    at_low, at_high = (search.at(c, search.least, search.most) for c in (low, high))
    force_low, force_high = (units.balance(price, c)[0] for price, c in ((at_low, low), (at_high, high)))
    for step in range(_MOST_LEVELS):
        open_still = (high - low > _CLOSE * np.maximum(np.abs(low), np.abs(high))) & (force_low > 0) & (force_high < 0)
        if not open_still.any():
            break
        share = np.full(len(low), 0.5)
        if step % 2:
            with np.errstate(divide="ignore", invalid="ignore"):
                share = np.clip(np.nan_to_num(force_low / (force_low - force_high), nan=0.5), 0.01, 0.99)
        c = low + share * (high - low)
        price = search.at(c, at_high, at_low)
        force, size = units.balance(price, c)
        force = np.where(np.abs(force) <= 1e-13 * size, 0.0, force)
        up, down = open_still & (force >= 0), open_still & (force <= 0)
        low, force_low = np.where(up, c, low), np.where(up, force, force_low)
        high, force_high = np.where(down, c, high), np.where(down, force, force_high)
        at_low = np.where(search.of_spread(up), price, at_low)
        at_high = np.where(search.of_spread(down), price, at_high)
    across = np.where((force_low > 0) & (force_high < 0), force_low - force_high, 1.0)
    share = np.where(force_low <= 0, 0.0, np.where(force_high >= 0, 1.0, force_low / across))
    part = search.spread_of_units(share)
    return low + share * (high - low), (1.0 - part) * at_low + part * at_high


class _Prices:
    """The price that takes each unit to a target."""

    def __init__(self, units: Units, batch: SortedBatch) -> None:
        self.units, self.batch = units, batch
        matrix = units.matrix
        slightest = np.full(len(units.level), np.inf)
        np.minimum.at(slightest, matrix.rows, np.abs(matrix.data) / batch.cells.counts[matrix.columns])
        self.most = batch.furthest / slightest
        self.least = -self.most
        # How near a value counts as reached: the sums of far scores round, and only the passes decide in the end.
        self.near = 0.1 * units.atol + 1e-15 * (1.0 if batch.geometry.bounded else batch.furthest)
        self.start = self.value(np.zeros(len(units.level)))

    def value(self, price: FloatArray) -> FloatArray:
        """Return each unit's value at its price."""
        return np.asarray(self.units.matrix @ self.batch.means(price @ self.units.matrix))

    def of_spread(self, which: FloatArray) -> FloatArray:
        """Return for each unit what is true of its spread; False without one."""
        return np.append(which, False)[self.units.level]

    def spread_of_units(self, share: FloatArray) -> FloatArray:
        """Return for each unit the number of its spread; 0 without one."""
        return np.append(share, 0.0)[self.units.level]

    def at(self, c: FloatArray, least: FloatArray, most: FloatArray) -> FloatArray:
        """Return the prices at levels c, which lie between two others; 0 for a unit that may stay."""
        lower, upper = self.units.ends(c)
        target = np.minimum(np.maximum(self.start, lower), upper)
        moved = target != self.start
        low, high = np.where(target < self.start, np.maximum(least, 0.0), least), most
        high = np.where(target > self.start, np.minimum(high, 0.0), high)
        low, high = np.where(moved, low, 0.0), np.where(moved, np.maximum(high, low), 0.0)
        v_low, v_high = np.maximum(self.value(low), target), np.minimum(self.value(high), target)
        found, reached = low, np.zeros(len(low), dtype=bool)
        for step in range(_MOST_PRICES):
            wide = ~reached & (high - low > _CLOSE * np.maximum(np.abs(low), np.abs(high)))
            if not wide.any():
                break
            share = np.full(len(low), 0.5)
            if step % 2:
                with np.errstate(divide="ignore", invalid="ignore"):
                    share = np.clip(np.nan_to_num((v_low - target) / (v_low - v_high), nan=0.5), 0.0, 1.0)
            price = np.where(wide, low + share * (high - low), low)
            value = self.value(price)
            short, far = wide & (value >= target), wide & (value <= target)
            stuck = (price == low) & short & ~far | (price == high) & far & ~short  # at an end already
            low, v_low = np.where(short, price, low), np.where(short, value, v_low)
            high, v_high = np.where(far, price, high), np.where(far, value, v_high)
            met = wide & (np.abs(value - target) <= self.near)
            found, reached = np.where(met, price, found), reached | met
            if step % 2 == 0 and stuck[wide].all():
                break
        return np.where(reached, found, 0.5 * (low + high))
