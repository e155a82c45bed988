"""A search along curves that are looked at: probabilities in the likelihood geometry, and rows of the simplex.

These curves cannot be read off (see `curves`): every look at them visits what they are made of, and counts for as many
passes. The search ends early at first, where the exact method most often finishes in two or three sweeps. Where cells
hardly answer that creeps, while the curves still say where to go: there the search goes on, to where the prices
themselves are exact.
"""

from __future__ import annotations

from collections.abc import Sequence

from fairlayer.passes import Passes, Point
from fairlayer.solve.barrier import BarrierCurves
from fairlayer.solve.counted import count
from fairlayer.solve.interior import polished
from fairlayer.solve.inward import InwardCurves, samples_of, thinned
from fairlayer.solve.newton import close_enough
from fairlayer.solve.slabs import SlabSystem
from fairlayer.solve.smooth import SmoothSearch
from fairlayer.solve.solution import Solution

__all__ = ["solve_along_curves", "solve_rows_along_curves"]

# Widths at which the exact method is tried, and what the limits may be missed by there.
_ENDS = ((1e-5, 1e-4), (1e-11, 1e-8), (1e-14, 1e-11))
_ENDS_OF_ROWS = ((1e-3, 1e-5),)
_WORTH = 0.5  # of the samples: with more points than that a search looks at the samples at once
_FINE, _FINE_OF_ROWS = 25, 10  # how many steps of a search from nothing the first one of the exact method is worth


def solve_along_curves(passes: Passes, slabs: SlabSystem, start: Point) -> Solution | None:
    """Return the projection; None where the search does not reach it.

    Args:
        passes: a batch of the likelihood geometry that is `sortable`.
        slabs: a feasible system with its accuracy.
        start: the point at nu = 0.
    """
    count(passes, 1)
    all_of_it, few = samples_of(passes), thinned(passes)
    each = [all_of_it] * len(_ENDS)
    if len(few.x) <= _WORTH * passes.n:
        each[0] = few
    curves = [InwardCurves(scores, passes.cells.counts, passes.geometry) for scores in each]
    return _searched(passes, slabs, start, curves, _ENDS, _FINE)


def solve_rows_along_curves(passes: Passes, slabs: SlabSystem, start: Point) -> Solution | None:
    """Return the projection; None where the search does not reach it.

    Args:
        passes: a batch of rows of the simplex that is `roomy`.
        slabs: a feasible system with its accuracy.
        start: the point at nu = 0.
    """
    curves = [BarrierCurves(passes)] * len(_ENDS_OF_ROWS)
    return _searched(passes, slabs, start, curves, _ENDS_OF_ROWS, _FINE_OF_ROWS)


def _searched(  # noqa: PLR0917 - a search
    passes: Passes,
    slabs: SlabSystem,
    start: Point,
    curves: Sequence[InwardCurves | BarrierCurves],
    ends: Sequence[tuple[float, float]],
    fine: int,
) -> Solution | None:
    """Search to one end after the other, along the curves for each, until the exact method finishes from there."""
    search = SmoothSearch(curves[0], slabs)
    for along, (end, met) in zip(curves, ends, strict=True):
        if along is not search.curves:
            search.over(along)
        before = along.visited
        near = search.near(end, met)
        count(passes, (along.visited - before) / passes.n)
        found = None if near is None else polished(passes, slabs, start, near, fine, close_enough)
        if near is None or found is not None:
            return found
    return None
