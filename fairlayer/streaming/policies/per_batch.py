"""The published online primal-dual on per-batch gaps, for reproduction.

    y_t = argmin |y - z|^2 + multiplier * n * gap(y)  within the bounds
    multiplier = max(0, multiplier + step / sqrt(t) * n * (gap(y_t) - tolerance))       of several, the largest excess

The penalised minimiser lies on the path of projections onto gap <= width: the width at which the price of the width
reaches `multiplier * n / 2` (for 1/2 |y - z|^2), found by bisection; width 0 where the price stays below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.constraints import Measured
from fairlayer.constraints.measure import headline, measure, tolerance_needed
from fairlayer.constraints.statements import as_float
from fairlayer.passes import NumpyPasses
from fairlayer.projection.assembly import Assembly, assemble
from fairlayer.solve import SlabSystem, solve
from fairlayer.solve.slabs import RowSlabs, SpreadSlabs
from fairlayer.streaming.counts.history import batch_of
from fairlayer.streaming.policies.base import Answer, Policy, State, check_numbers, register_policy

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine

__all__ = ["PerBatch"]


@register_policy
@dataclass(frozen=True)
class PerBatch(Policy):
    """The published primal-dual, for reproduction: it bounds the average *per-batch* gap, not the pooled one.

        y = argmin |y - z|^2 + multiplier * n * gap(y),     multiplier += step / sqrt(t) * n * (gap(y) - tolerance)

    A batch with one group counts as gap 0, so at batch size 1 nothing is ever moved.

    Args:
        step: first step size (eta0).

    Source: the fairness_training package, version 0.1.0 (ICML 2026), online inference.

    Example:
        >>> import torch, fairlayer as fl
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> stream = fl.InferenceState([parity], bounds=(0.0, 1.0), policy=PerBatch(step=0.5))
        >>> for _ in range(20):
        ...     emitted = stream.emit(torch.tensor([0.2, 0.8]), {"sex": ["F", "M"]})
        >>> bool(emitted[1] - emitted[0] < 0.2)
        True
    """

    name: ClassVar[str] = "per_batch"

    step: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self, at_least_zero=("step",), above_zero=())

    def begin(self) -> State:
        """Return the dual before the first batch: multiplier, step count, and the sum of per-batch gaps."""
        return {"multiplier": 0.0, "steps": 0.0, "samples": 0.0, "weighted_gaps": 0.0}

    def answer(self, state: State, stream: Machine, cells: IntArray, raw: FloatArray) -> Answer:
        """Emit one batch and move the multiplier."""
        frame, n = stream.frame, len(cells)
        batch = batch_of(stream.history, stream.vocabulary, cells, weights=np.ones(n))
        assembly = assemble(frame.unlabelled, batch, on_empty="skip")
        passes = NumpyPasses(raw, assembly.cells, *frame.bounds)
        emitted = _penalised(passes, assembly, 0.5 * state["multiplier"] * n)
        measured = [measure(constraint, batch, emitted) for constraint in frame.unlabelled]
        steps, excess = state["steps"] + 1.0, max(map(_excess, measured), default=0.0)
        after = {
            "multiplier": max(0.0, state["multiplier"] + self.step / steps**0.5 * n * excess),
            "steps": steps,
            "samples": state["samples"] + n,
            "weighted_gaps": state["weighted_gaps"] + n * (headline(measured) or 0.0),
        }
        return Answer(emitted, raw, state=after)

    def answer_large(
        self, state: State, stream: Machine, cells: IntArray, raw: FloatArray, projected: FloatArray
    ) -> Answer:
        """Return what was projected, which the multiplier does not see."""
        return Answer(projected, raw)

    def meters(self, state: State) -> dict[str, float]:
        """Return the whole dual."""
        return dict(state)

    def prices(self, state: State, stream: Machine) -> dict[str, float]:
        """Return the one multiplier, for every constraint."""
        return {constraint.name: state["multiplier"] for constraint in stream.constraints}


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
