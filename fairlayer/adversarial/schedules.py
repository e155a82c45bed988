"""Schedules of the reversal strength: progress of training in [0, 1] -> strength."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from fairlayer.adversarial.errors import ScheduleError

__all__ = ["Schedule", "constant", "dann", "linear", "strength_at"]

Schedule = Callable[[float], float]


def constant(strength: float) -> Schedule:
    """Return the same strength throughout.

    Example:
        >>> constant(0.5)(0.9)
        0.5
    """
    return partial(_linear, strength, strength)


def linear(start: float = 0.1, end: float = 1.0) -> Schedule:
    """Go from start to end in a straight line: start + (end - start) p.

    Example:
        >>> linear(0.1, 1.0)(0.5)
        0.55
    """
    return partial(_linear, start, end)


def dann(end: float = 1.0, gamma: float = 10.0) -> Schedule:
    """Go from 0 along a sigmoid towards `end`: end * (2 / (1 + exp(-gamma p)) - 1).

    Source: Ganin et al. (2016), section 5.2.2, with end 1 and gamma 10.

    Example:
        >>> schedule = dann()
        >>> [round(schedule(p), 3) for p in (0.0, 0.1, 0.5, 1.0)]
        [0.0, 0.462, 0.987, 1.0]
    """
    return partial(_dann, end, gamma)


def strength_at(schedule: Schedule, progress: float) -> float:
    """Return the strength of a schedule at some progress, checked.

    Raises:
        ScheduleError: the progress is outside [0, 1], or the strength negative or not finite.
    """
    if not 0.0 <= progress <= 1.0:
        raise ScheduleError(
            f"the progress of training must lie in [0, 1], but is {progress!r}. Pass steps done / steps in all."
        )
    strength = float(schedule(progress))
    if not (math.isfinite(strength) and strength >= 0.0):
        raise ScheduleError(
            f"the schedule gave the reversal strength {strength!r} at progress {progress:g}; it must be finite and "
            ">= 0 (a negative one would make the model help its adversary)."
        )
    return strength


def _linear(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress


def _dann(end: float, gamma: float, progress: float) -> float:
    # 2 / (1 + exp(-g p)) - 1 = tanh(g p / 2)
    return end * math.tanh(gamma * progress / 2.0)
