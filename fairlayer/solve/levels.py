"""The levels at which the prices of spreads cancel, for units that answer a price in proportion."""

from __future__ import annotations

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.solve.units import Units

__all__ = ["level_of"]

_LEAST = 1e-290  # a metric at which prices and what they add up to are still finite numbers
_CLOSE = 4e-16


def level_of(
    units: Units,
    centre: FloatArray,
    metric: FloatArray,
    domain: tuple[FloatArray, FloatArray],
    near: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Return the levels and prices of units that answer a price in proportion: value = centre - metric * price.

    Newton's method on a piecewise linear, rising function of each level, within a bracket, from `near` on.
    """

    metric = np.maximum(metric, _LEAST)

    def priced(c: FloatArray) -> FloatArray:
        lower, upper = units.ends(c)
        return np.asarray((centre - np.minimum(np.maximum(centre, lower), upper)) / metric)

    if not len(units.scale):
        return np.zeros(0), priced(np.zeros(0))
    at = units.inside
    own = units.level[at]
    low, high = np.full(len(units.scale), np.inf), np.full(len(units.scale), -np.inf)
    np.minimum.at(low, own, centre[at] + units.offset[at])
    np.maximum.at(high, own, units.scale[own] * (centre[at] + units.offset[at]) - units.width[own])
    low, high = np.minimum(low, high), np.maximum(low, high)
    low, high = np.clip(low, *domain), np.clip(high, *domain)
    c = 0.5 * (low + high) if near is None else np.clip(near, low, high)
    settled = np.zeros(len(low), dtype=bool)
    for _ in range(200):
        above, below = units.shares(priced(c), c)
        # At a greater level upper prices fall by 1 / (metric scale^2) each, lower ones rise by 1 / metric.
        force = units.add(below - above)
        slope = units.add((above > 0) / (metric * units.scales**2) + (below > 0) / metric)
        high, low = np.where(force >= 0, c, high), np.where(force <= 0, c, low)
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = c - force / slope
        inside = (newton >= low) & (newton <= high) & (slope > 0)
        after = np.where(inside, newton, 0.5 * (low + high))
        room = _CLOSE * np.maximum(np.abs(low), np.abs(high))
        # What has settled stays: by rounding it would go to and fro for as long as the others move.
        settled |= (after == c) | (high - low <= room) | (inside & (np.abs(after - c) <= room))
        if settled.all():
            break
        c = np.where(settled, c, after)
    return c, priced(c)
