"""Where Clarabel ended: the predictions, and the multiplier of each condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from fairlayer._typing import FloatArray
from fairlayer.projection.reference.clarabel import minimise
from fairlayer.projection.reference.program import Program

__all__ = ["ACTIVE", "ClarabelEnding", "dual", "ending_of"]

ACTIVE = 1e-8  # a multiplier above this share of the largest is no rounding


@dataclass(frozen=True)
class ClarabelEnding:
    """What Clarabel returned, with multipliers in the units of the scaled conditions."""

    value: FloatArray
    less: FloatArray
    equal: FloatArray
    convex: tuple[tuple[int, int, float], ...]  # (owner, position in its list, multiplier)
    gap: float
    iterations: int


def ending_of(program: Program, arguments: Sequence[Tensor]) -> tuple[str, ClarabelEnding | None]:
    """Solve the projection; the ending is None unless Clarabel calls it solved, to 1e-9 at least."""
    with program.lock:
        program.set(arguments)
        status, raw = minimise(program.problem)
        if not status.startswith("optimal"):
            return status, None
        less, equal = _without_noise(dual(program.less), dual(program.equal))
        convex = tuple(each for built in program.built for each in built.duals())
        gap = abs(raw.obj_val - raw.obj_val_dual)
        return status, ClarabelEnding(program.value.value, less, equal, convex, gap, raw.iterations)


def dual(conditions: Sequence[Any]) -> FloatArray:
    """Return the multipliers of the one cvxpy constraint that holds all conditions of a kind, if there are any."""
    return np.atleast_1d(np.asarray(conditions[0].dual_value, dtype=np.float64)) if conditions else np.zeros(0)


def _without_noise(*multipliers: FloatArray) -> list[FloatArray]:
    """Set what an interior point leaves on inactive conditions to zero; unit rows make a multiplier a distance."""
    least = ACTIVE * max(1.0, *(float(np.abs(each).max(initial=0.0)) for each in multipliers))
    return [np.where(np.abs(each) > least, each, 0.0) for each in multipliers]
