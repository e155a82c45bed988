"""Whether any predictions within the bounds meet the slabs: a question about statistics alone.

Hard cell means can be anything in a box, whatever the samples, so the question is a tiny program over the cells
and is decided exactly. Dense rows share samples with the cells: for them the box is only necessary, and the
solver's own dual ray decides the rest.
"""

from __future__ import annotations

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.passes import Passes
from fairlayer.solve.quadratic import ClashingFaces, solve_quadratic
from fairlayer.solve.slabs import RowSlabs, SlabSystem

__all__ = ["attainable", "check_feasible", "smallest_widening"]


def attainable(passes: Passes) -> tuple[FloatArray, FloatArray]:
    """Return the range of each statistic, by itself, over all predictions within the bounds."""
    units = np.eye(passes.cells.size)
    ends = passes.lowest(np.concatenate([units, -units]))
    return ends[: len(units)], -ends[len(units) :]


def check_feasible(slabs: SlabSystem, low: FloatArray, high: FloatArray, near: FloatArray) -> None:
    """Return where some statistics in the box [low, high] meet the slabs.

    Args:
        slabs: what must hold.
        low: lowest attainable statistics, (s,), may be -inf.
        high: highest attainable statistics, (s,), may be inf.
        near: any point, (s,); one close to feasible makes the test cheaper.

    Raises:
        ClashingFaces: there are none; the faces of the box carry the block number `len(slabs.blocks)`.
    """
    centre = np.minimum(np.maximum(near, low), high)
    level = np.minimum(np.maximum(np.full_like(near, centre.mean() if len(centre) else 0.0), low), high)
    if slabs.worst(level)[0] <= 1.0 or slabs.worst(centre)[0] <= 1.0:
        return
    box = RowSlabs(np.eye(len(near)), low, high).accurate_to(1e-13, np.abs(centre))
    solve_quadratic(centre, np.ones(len(near)), SlabSystem([*slabs.blocks, box]), atol=1.0)


def smallest_widening(slabs: SlabSystem, low: FloatArray, high: FloatArray, near: FloatArray) -> float:
    """Return the least w such that the slabs, every limit widened by w, are feasible; 1e-9 more, to leave room."""

    def feasible(by: float) -> bool:
        try:
            check_feasible(slabs.widened(by), low, high, near)
        except ClashingFaces:
            return False
        return True

    wide = 1e-12
    while not feasible(wide):
        wide *= 4.0
    narrow = 0.0
    while wide - narrow > 1e-12 * max(1.0, wide):
        middle = 0.5 * (narrow + wide)
        narrow, wide = (narrow, middle) if feasible(middle) else (middle, wide)
    return wide + 1e-9 * max(1.0, wide)
