"""Slabs on samples that hold each other: Newton's method on the few prices, and a linear program where nothing fits.

The answer of the batch to given prices is exact (see `fairlayer.passes.pairs`), so that what is left is the dual of
the slabs, whose K is full. Where limits are clearly missed, answers that are about right first find about the prices:
they cost a fraction, and the exact ones start where they end. Only the slabs are widened by relaxing, never the pairs,
so that it is not offered here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fairlayer.errors import SolverError
from fairlayer.passes import Point
from fairlayer.passes.pairs import PairPasses
from fairlayer.solve.accuracy import accuracy_of, gauged
from fairlayer.solve.counted import CountedPasses
from fairlayer.solve.newton import descend, solve_newton
from fairlayer.solve.quadratic import ClashingFaces
from fairlayer.solve.slabs import SlabSystem
from fairlayer.solve.solution import Solution
from fairlayer.solve.solving import WidenedSolution
from fairlayer.solve.table import RowTable

__all__ = ["solve_coupled"]

_FIRST_STEPS = 25  # of Newton's method, before feasibility is looked into
_ROUGH_STEPS = 4  # likewise, on answers that are about right
_CLEARLY = 1e-2  # by how much limits are missed, per unit of the predictions' size, where rough answers tell it
_CLASHES = 1e-9  # by how much limits must be missed, in prediction units, to clash


def solve_coupled(passes: PairPasses, slabs: SlabSystem) -> WidenedSolution:
    """Project the scores onto the slabs, the pairs and the bounds.

    Raises:
        ClashingFaces: nothing meets all of them.
        SolverError: the accuracy was not reached.
    """
    counted, rough = (CountedPasses(each) for each in (passes, passes.roughly()))
    solution = _solved(counted, rough, slabs)
    return WidenedSolution(solution._replace(passes=counted.count + rough.count), slabs, 0.0)


def _solved(passes: Any, rough: Any, slabs: SlabSystem) -> Solution:
    if not slabs.blocks:
        return Solution.unmoved(passes.at(None))
    start = rough.at(None)
    near = _about(rough, slabs, start) if _clearly_missed(slabs, start) else None
    if near is None:
        start = passes.at(None)
    slabs = gauged(passes, slabs, start, accuracy_of(passes))
    if near is None and slabs.worst(start.statistics)[0] <= 1.0:
        return Solution.unmoved(start)
    try:
        return solve_newton(passes, slabs, start, most_steps=_FIRST_STEPS, near=near)
    except (SolverError, ClashingFaces):
        if least_widening(passes, slabs) > _CLASHES:
            raise ClashingFaces(()) from None
    return solve_newton(passes, slabs, passes.at(None))


def _clearly_missed(slabs: SlabSystem, start: Point) -> bool:
    """Return whether a rough answer tells that limits are missed."""
    return slabs.violation(start.statistics) > _CLEARLY * max(1.0, float(np.abs(start.value).max(initial=0.0)))


def _about(rough: Any, slabs: SlabSystem, start: Point) -> Solution | None:
    """Return about where the solution is, found by rough answers; None where they do not find it."""
    try:
        found = descend(rough, gauged(rough, slabs, start, 0.1 * _CLEARLY), start, _ROUGH_STEPS)
    except (SolverError, ClashingFaces):
        return None
    return found if len(found.faces) and np.isfinite(found.nu).all() else None


def least_widening(passes: PairPasses, slabs: SlabSystem) -> float:
    """Return by how much every row of the slabs misses its limits at least, in prediction units; 0 where all fit.

        minimise t >= 0   subject to   lower - t <= rows <= upper + t,   every pair, every bound

    Without SciPy, which solves it, 0 is returned and Newton's method says what it finds.
    """
    try:
        import scipy.optimize
        from scipy import sparse
    except ImportError:
        return 0.0
    table, pairs, n = RowTable.of(slabs), passes.pairs, passes.n
    levels, e = len(table.scale), len(pairs)
    assert passes.cells.dense is not None
    rows = np.asarray(table.matrix) @ passes.cells.dense  # (rows, n)
    own, tied = np.flatnonzero(~table.tied), np.flatnonzero(table.tied)
    level = np.zeros((len(table.level), levels))
    level[tied, table.level[tied]] = 1.0
    scale = np.append(table.scale, 1.0)[table.level][:, None]
    above = np.vstack([rows[own], scale[tied] * rows[tied]])
    below = np.vstack([rows[own], rows[tied]])
    of_level = np.vstack([level[own], level[tied]])
    limit = np.append(table.upper[own], table.width[table.level[tied]] - scale[tied, 0] * table.offset[tied])
    floor = np.append(table.lower[own], -table.offset[tied])
    ones = -np.ones((len(limit), 1))
    difference = sparse.csr_matrix(
        (np.tile([1.0, -1.0], e), (np.repeat(np.arange(e), 2), np.column_stack([pairs.first, pairs.second]).ravel())),
        shape=(e, n),
    )
    empty = sparse.csr_matrix((e, levels + 1))
    matrix = sparse.vstack(
        [
            sparse.hstack(
                [sparse.csr_matrix(np.hstack([above, -of_level]))[np.isfinite(limit)], ones[np.isfinite(limit)]]
            ),
            sparse.hstack(
                [sparse.csr_matrix(np.hstack([-below, of_level]))[np.isfinite(floor)], ones[np.isfinite(floor)]]
            ),
            sparse.hstack([difference, empty]),
            sparse.hstack([-difference, empty]),
        ]
    )
    right = np.concatenate([limit[np.isfinite(limit)], -floor[np.isfinite(floor)], pairs.limit, pairs.limit])
    ends = [
        np.broadcast_to(side if bound is None else bound, n)
        for bound, side in ((passes.lower, -np.inf), (passes.upper, np.inf))
    ]
    bounds = [*zip(*ends, strict=True), *[(None, None)] * levels, (0.0, None)]
    cost = np.append(np.zeros(n + levels), 1.0)
    found = scipy.optimize.linprog(cost, A_ub=matrix.tocsr(), b_ub=right, bounds=bounds, method="highs")
    return float(found.fun) if found.status == 0 else (np.inf if found.status == 2 else 0.0)
