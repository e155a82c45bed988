"""The published online primal-dual on per-batch gaps, for reproduction.

    y_t = argmin |y - z|^2 + multiplier * n * gap(y)  within the bounds
    multiplier = max(0, multiplier + step / sqrt(t) * n * (gap(y_t) - tolerance))       of several, the largest excess

The penalised minimiser lies on the path of projections onto gap <= width: the width at which the price of the width
reaches `multiplier * n / 2` (for 1/2 |y - z|^2), found by bisection; width 0 where the price stays below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.constraints import Measured
from fairlayer.constraints.measure import headline, measure, tolerance_needed
from fairlayer.constraints.statements import as_float
from fairlayer.passes import NumpyPasses
from fairlayer.projection.assembly import Assembly, assemble
from fairlayer.solve import SlabSystem, solve
from fairlayer.solve.slabs import RowSlabs, SpreadSlabs
from fairlayer.streaming.correction import Frame
from fairlayer.streaming.history import batch_of
from fairlayer.streaming.policy import PerBatch

__all__ = ["PerBatchDual"]


class PerBatchDual:
    """The dual state: multiplier, step count, and the sample-weighted sum of per-batch gaps."""

    def __init__(self) -> None:
        self.multiplier = 0.0
        self.steps = 0.0
        self.samples = 0.0
        self.weighted_gaps = 0.0

    @property
    def average_gap(self) -> float:
        """Sample-weighted mean of the per-batch gaps."""
        return self.weighted_gaps / self.samples if self.samples else 0.0

    def step(self, frame: Frame, cells: IntArray, raw: FloatArray, policy: PerBatch) -> FloatArray:
        """Emit one batch and move the multiplier."""
        batch = batch_of(frame.history, frame.vocabulary, cells, weights=np.ones(len(cells)))
        assembly = assemble(frame.unlabelled, batch, on_empty="skip")
        passes = NumpyPasses(raw, assembly.cells, *frame.bounds)
        emitted = _penalised(passes, assembly, 0.5 * self.multiplier * len(cells))
        measured = [measure(constraint, batch, emitted) for constraint in frame.unlabelled]
        self.steps += 1.0
        self.samples += len(cells)
        self.weighted_gaps += len(cells) * (headline(measured) or 0.0)
        excess = max(map(_excess, measured), default=0.0)
        self.multiplier = max(0.0, self.multiplier + policy.step / self.steps**0.5 * len(cells) * excess)
        return emitted

    def to_state(self) -> dict[str, float]:
        """Return plain numbers."""
        return dict(vars(self))

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `to_state` returned."""
        for name, value in state.items():
            setattr(self, name, float(value))


def _excess(found: Measured) -> float:
    """A batch that compares nothing counts as a gap of 0, as in the published algorithm."""
    if found.excess is not None:
        return found.excess
    return 0.0 if found.at_least else -found.limit


def _penalised(passes: NumpyPasses, assembly: Assembly, price: float) -> FloatArray:
    start = passes.at(None)
    gap = tolerance_needed(assembly.statements, np.asarray(start.value))
    if gap is None or price <= 0.0:
        return np.asarray(start.value)
    narrow, wide, emitted = 0.0, max(gap, 0.0), np.asarray(start.value)
    for _ in range(50):
        width = 0.5 * (narrow + wide) if wide < gap or narrow > 0.0 else 0.0
        solution = solve(passes, _of_width(assembly.slabs, assembly, width), relax=True).solution
        emitted = np.asarray(solution.value)
        if float(solution.multipliers.sum()) > price:
            narrow = width
        else:
            wide = width
        if wide - narrow < 1e-12 or wide == 0.0:
            break
        narrow = max(narrow, 1e-300)
    return emitted


def _of_width(slabs: SlabSystem, assembly: Assembly, width: float) -> SlabSystem:
    """Return the slabs with every tolerance replaced by `width`."""
    blocks: list[RowSlabs | SpreadSlabs] = []
    for block, statement in zip(slabs.blocks, assembly.statements, strict=True):
        change = width - as_float(statement.tolerance)
        if isinstance(block, RowSlabs):
            scale = np.ones(len(block.matrix)) if block.scale is None else block.scale
            low, high = block.lower - change / scale, block.upper + change / scale
            blocks.append(block._replace(lower=low, upper=high))
        else:
            blocks.append(block._replace(width=width))
    return SlabSystem(blocks)
