"""Whether any predictions of the domain meet the slabs, and by how little the slabs must be widened until some do.

Hard cell means can be anything in a box, whatever the samples, so the question is a small program over the cells. Dense
rows share samples with the cells, and then it is one over the samples.
"""

from __future__ import annotations

import numpy as np

from fairlayer._typing import BoolArray, FloatArray
from fairlayer.passes import Passes
from fairlayer.solve.elastic_program import (
    BoxSpec,
    Elastic,
    SimplexSpec,
    box_of_means,
    box_of_samples,
    least_widening,
    minimal_clash,
    simplex_of_means,
    simplex_of_samples,
)
from fairlayer.solve.quadratic import ClashingFaces
from fairlayer.solve.slabs import RowSlabs, SlabSystem

__all__ = ["attainable", "clash_of", "lone_clash", "surely_feasible", "widening_of"]

_OPEN = 1e-12  # how far an open simplex stays from its edges
_PLAIN = (float, type(None))  # bounds that are the same for all samples


def attainable(passes: Passes) -> tuple[FloatArray, FloatArray]:
    """Return the range of each statistic, by itself, over all predictions of the domain."""
    if passes.cells.dense is None and isinstance(passes.lower, _PLAIN) and isinstance(passes.upper, _PLAIN):
        low = -np.inf if passes.lower is None else passes.lower
        high = np.inf if passes.upper is None else passes.upper
        if passes.cells.weights is None:
            return np.full(passes.cells.size, low), np.full(passes.cells.size, high)
        held = _held(passes)
        return np.where(held, low, 0.0), np.where(held, high, 0.0)
    units = np.eye(passes.cells.size)
    ends = passes.lowest(np.concatenate([units, -units]))
    return ends[: len(units)], -ends[len(units) :]


def _held(passes: Passes) -> BoolArray:
    """Return which statistics of cells have any weight, (s,); the others are zero, whatever the predictions."""
    return np.asarray(passes.measure(np.ones_like(passes.scores)) > 0.0)


def surely_feasible(passes: Passes, slabs: SlabSystem, near: FloatArray) -> bool:
    """Return whether the slabs are feasible for a reason that needs no program; False says nothing.

    Args:
        passes: the batch.
        slabs: what must hold.
        near: any statistics, (s,).
    """
    common = isinstance(passes.lower, _PLAIN) and isinstance(passes.upper, _PLAIN)
    if passes.cells.dense is not None:
        return False
    if common and slabs.holds_for_constants:
        return True  # equal predictions are attainable, and meet any such slabs
    if passes.geometry.on_simplex:
        return passes.cells.weights is None and _met_by_equal_rows(slabs, near, passes.cells.classes)
    low, high = attainable(passes)
    centre = np.minimum(np.maximum(near, low), high)
    level = np.minimum(np.maximum(np.full_like(near, centre.mean() if len(centre) else 0.0), low), high)
    return bool(slabs.worst(level)[0] <= 1.0 or slabs.worst(centre)[0] <= 1.0)


def lone_clash(passes: Passes, slabs: SlabSystem, misses: float) -> ClashingFaces | None:
    """Return a face that no predictions within the bounds meet, whatever the others ask for; None says nothing.

    A floor above the upper bound needs no program. Of several such rows it is the one that is missed by most.

    Args:
        passes: the batch.
        slabs: what must hold, with its accuracy.
        misses: by how many accuracies a row may lie out of reach and still count as met.
    """
    if passes.cells.dense is not None or passes.geometry.on_simplex:
        return None
    low, high = attainable(passes)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None
    worst, found = 0.0, None
    for place, block in enumerate(slabs.blocks):
        if not isinstance(block, RowSlabs):
            continue
        middle, reach = block.matrix @ (0.5 * (low + high)), np.abs(block.matrix) @ (0.5 * (high - low))
        allowed = 0.0 if block.atol is None else misses * block.atol
        unit = 1.0 if block.scale is None else block.scale
        for sign, short in ((-1, block.lower - (middle + reach)), (1, (middle - reach) - block.upper)):
            missed = np.where(short > allowed, short * unit, 0.0)
            row = int(missed.argmax())
            if missed[row] > worst:
                worst, found = float(missed[row]), (place, row, sign)
    return None if found is None else ClashingFaces([slabs.face(found)])


def _met_by_equal_rows(slabs: SlabSystem, near: FloatArray, classes: int) -> bool:
    """Return whether the slabs hold where all cells have the same probabilities: those near, or all classes alike."""
    average = near.reshape(classes, -1).mean(axis=1)
    shares = (average, np.full(classes, 1.0 / classes))
    inside = (each for each in shares if each.min() > _OPEN)
    return any(slabs.worst(np.repeat(each, len(near) // classes))[0] <= 0.0 for each in inside)


def widening_of(passes: Passes, slabs: SlabSystem) -> Elastic:
    """Return the least widening of the slabs under which some predictions of the domain meet them, with its proof."""
    return least_widening(slabs.blocks, _domain(passes))


def clash_of(passes: Passes, slabs: SlabSystem, elastic: Elastic) -> ClashingFaces:
    """Return the faces that clash, none of whose blocks could be left out."""
    keys = minimal_clash(slabs.blocks, _domain(passes), elastic)
    return ClashingFaces([slabs.face(key) for key in keys])


def _domain(passes: Passes) -> BoxSpec | SimplexSpec:
    cells, on_simplex = passes.cells, passes.geometry.on_simplex
    floor = _OPEN if on_simplex and passes.geometry.bounded else 0.0
    if cells.dense is None and on_simplex:
        m = len(cells.counts)
        if cells.weights is None:
            return simplex_of_means(m, cells.classes, floor)
        held = _held(passes)[:m].astype(float)
        return simplex_of_samples(np.arange(m), np.ones(m), None, None, cells.classes, m, held, floor)
    if cells.dense is None:
        return box_of_means(*attainable(passes))
    codes, dense, weights, lower, upper, n = passes.whole_batch()
    if on_simplex:
        return simplex_of_samples(codes, cells.counts, dense, cells.dense_class, cells.classes, n, weights, floor)
    return box_of_samples(codes, cells.counts, dense, lower, upper, n, weights)
