"""Rows of weight 0: they count nowhere, and are moved as one more row of their cell would be.

A row of weight 0 in a cell of others has their pull. In a cell where nothing counts its pull is that of the prices of
the groups it belongs to. Where the statements that hold depend on each other there are many such prices, alike for
every row that counts; the smallest are taken then, in a unit that depends on no score. So a row of weight 0 is a
function of the scores that is differentiable wherever the projection is, and its derivative is that function's.
"""

from __future__ import annotations

from fairlayer.passes import Passes
from fairlayer.solve import HeldRows, WidenedSolution

__all__ = ["held_rows", "with_least_prices"]

_MOST_ROWS = 1_000  # above, the prices of dependent statements are those that the solver ends with


def held_rows(passes: Passes, solved: WidenedSolution) -> HeldRows:
    """Return the rows that hold a solution, so that they pull rows of weight 0 by the smallest prices."""
    held = HeldRows(solved.solution, solved.slabs)
    weights = passes.cells.weights
    if weights is None or not 1 < len(held) <= _MOST_ROWS or (passes.parts == 1 and bool((weights > 0).all())):
        return held
    return held.with_least_prices(passes.widest_metric()) or held


def with_least_prices(passes: Passes, solved: WidenedSolution) -> WidenedSolution:
    """Return the solution with rows of weight 0 where the smallest prices pull them; no other row moves."""
    if passes.cells.weights is None or not solved.solution.faces:
        return solved
    held = held_rows(passes, solved)
    if not held.least:
        return solved
    nu = held.price @ held.matrix
    return solved._replace(solution=solved.solution._replace(point=passes.at(nu), nu=nu))
