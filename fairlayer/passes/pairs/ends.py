"""Predictions near the ends of an open domain, (0, 1), where curvature has no limit and log-odds are known badly."""

from __future__ import annotations

import numpy as np

from fairlayer._typing import FloatArray

__all__ = [
    "FIRST",
    "LAST",
    "ROUNDING",
    "START",
    "STEEP",
    "STEEPEST",
    "bent_step",
    "nearer_to_end",
    "within_those_alone",
]

START = 0.01  # from either end, where a search begins: nearer to it next to nothing answers
FIRST, LAST = 1e-300, 1.0 - 2.0**-53  # the numbers next to the ends
ROUNDING = 8.0 * float(np.spacing(1.0))  # of a prediction: nearer than that, it may as well be at the end
STEEP = 1e12  # curvature per weight, from which levels are halved to: Newton's method creeps away from an end
STEEPEST = 1e18  # curvature that equations are made of: beside more, the others are lost to rounding


def bent_step(y: FloatArray, step: FloatArray, share: float) -> FloatArray:
    """Return the predictions after a share of a step.

    The way bends before an end, so that a prediction near one holds back no other:

        room' = room / (1 + share |step| / room)          room: what is left of the domain before a prediction
    """
    room = np.where(step > 0.0, 1.0 - y, y)
    left = 1.0 / (1.0 + share * np.abs(step) / np.maximum(room, FIRST))
    return np.where(step > 0.0, 1.0 - room * left, room * left).clip(FIRST, LAST)


def within_those_alone(y: FloatArray, alone: FloatArray) -> FloatArray:
    """Return predictions moved in by what rounding has put them beyond those without any pair.

    Pairs only draw predictions towards each other, so that none lies beyond all of those.
    """
    return y.clip(max(float(alone.min()), FIRST), min(float(alone.max()), LAST))


def nearer_to_end(y: FloatArray, by: float) -> FloatArray:
    """Return predictions moved towards the end that is nearer, where curvature is larger."""
    return np.where(y < 0.5, y - by, y + by).clip(FIRST, LAST)
