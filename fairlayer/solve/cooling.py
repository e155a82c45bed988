"""Log-odds that lie far apart: the projections of cooler and cooler ones, each started from the one before.

The log-odds x / T answer a pull q as x does T q, but for the smoothing: at a high temperature T every sample moves a
little, and slopes say where to go. At T = 1 predictions of far log-odds are all but 0 or 1, slopes are all but zero,
and a search from nothing does not see the few samples that tie. So the multipliers at T, times T over the next
temperature, are where the next search starts. Source: Kosowsky, Yuille (1994), "The invisible hand algorithm: solving
the assignment problem with statistical physics".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fairlayer.errors import SolverError
from fairlayer.passes import NumpyPasses, Passes
from fairlayer.passes.simplex import SimplexPasses
from fairlayer.solve.counted import CountedPasses
from fairlayer.solve.newton import ROUNDING, accurate_enough, descend, optimality_error
from fairlayer.solve.quadratic import ClashingFaces
from fairlayer.solve.slabs import SlabSystem
from fairlayer.solve.solution import Solution

__all__ = ["coolable", "solve_cooling"]

_MILD = 8.0  # log-odds at the first temperature
_COOLER, _SLOWEST = 0.5, 0.98  # from one temperature to the next
_STEPS = 12  # of Newton's method at each temperature
_FINE = (2, 0, 1)  # how many steps of a search from nothing the first one is worth: each way is tried in turn


def coolable(passes: Passes) -> bool:
    """Whether a batch has log-odds that are far apart, and is held on the host by one process."""
    here = isinstance(passes.scores, np.ndarray) and passes.parts == 1
    return bool(here and passes.geometry.name == "entropic" and passes.size > _MILD)


def solve_cooling(passes: Passes, slabs: SlabSystem) -> Solution | None:
    """Return the projection by cooling, or None where that does not get there.

    Args:
        passes: a batch that is `coolable`.
        slabs: a feasible system with its accuracy.
    """
    for fine in _FINE:
        found = _cooled(passes, slabs, fine)
        if found is not None:
            return found
    return None


def _cooled(passes: Passes, slabs: SlabSystem, fine: int) -> Solution | None:
    temperature, factor = passes.size / _MILD, _COOLER
    found = _searched(passes, slabs, temperature, None, fine)
    while found is not None and factor < _SLOWEST:
        cooler = max(1.0, factor * temperature)
        after = _searched(passes, slabs, cooler, found.scaled(temperature / cooler), fine)
        if after is None:
            factor = math.sqrt(factor)
            continue
        if cooler == 1.0:
            return after
        temperature, found, factor = cooler, after, max(_COOLER, factor**2)
    return None


def _searched(
    passes: Passes, slabs: SlabSystem, temperature: float, near: Solution | None, fine: int
) -> Solution | None:
    """Return the projection at a temperature, or None where it is not reached from what is near."""
    warm: Any = passes if temperature == 1.0 else _at_temperature(passes, temperature)
    try:
        found = descend(warm, slabs, warm.at(None), _STEPS, near, fine)
    except (ClashingFaces, SolverError, np.linalg.LinAlgError):
        return None
    if isinstance(passes, CountedPasses) and temperature > 1.0:
        passes.count += found.passes
    if temperature == 1.0:
        return found if accurate_enough(passes, slabs, found) else None
    return found if optimality_error(found, slabs) <= ROUNDING else None


def _at_temperature(passes: Passes, temperature: float) -> Passes:
    scores = passes.scores / temperature
    if passes.geometry.on_simplex:
        return SimplexPasses(scores, passes.cells, passes.geometry, passes.device)  # type: ignore[attr-defined]
    return NumpyPasses(scores, passes.cells, passes.lower, passes.upper, passes.geometry)
