"""The policy "present": what callers say, and what the machine calls."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.errors import ConstraintDefinitionError
from fairlayer.fused import stream_loaded
from fairlayer.fused.book import BASE, SLOPE
from fairlayer.streaming.labels.estimates import curves
from fairlayer.streaming.policies.base import (
    Answer,
    Call,
    CompiledCall,
    Labelled,
    Policy,
    State,
    check_numbers,
    register_policy,
)
from fairlayer.streaming.policies.present import changes, solving
from fairlayer.streaming.policies.present import state as remembered
from fairlayer.streaming.policies.present.answering import steps_of
from fairlayer.streaming.policies.present.quick import REFUSED, quick_of, ready
from fairlayer.streaming.policies.present.state import FIRST_WAIT, reads_labels, scale

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine

__all__ = ["Present"]


@register_policy
@dataclass(frozen=True)
class Present(Policy):
    """A policy that holds the gap of recent predictions within tolerance and stated noise, in any geometry on a box.

        y = y(z, q),     q = a + b p        a, b per cell; p the label estimate, where a constraint reads labels

    The shifts project the raw scores of about the last `memory` samples. A clear change of a cell's scores cuts its
    older ones off. Each group is given a slack of `doubt * sd / sqrt(N_g)` by its own recent count, so that few people
    are not moved for noise. A guard keeps single answers from taking the present gap beyond tolerance, noise and raw
    gap (docs/streaming.md says what is proved, and where it is not).

    Args:
        doubt: slack of a group's mean, in standard errors; 0 acts on noise.
        guard: how far beyond noise the present gap may exceed tolerance and raw gap before an answer is moved, in
            standard errors; None for no guard.
        repair: samples over which an old gap is repaid, within the tolerance only, and only what gaps inside buckets
            have made; None to repay nothing.
        cut: standard errors by which a short mean must differ from the long one for a change to be clear.
        trust: how much an estimated label counts beside a real one; 0 moves nobody before labels have come.

    Source: the design of this package.

    Example:
        >>> import torch, fairlayer as fl
        >>> stream = fl.InferenceState([fl.DemographicParity("sex", tolerance=0.0)], policy=fl.Present(doubt=0.0))
        >>> for _ in range(200):
        ...     y = stream.emit(torch.tensor([0.4, 0.6]), {"sex": ["F", "M"]})
        >>> bool((y[0] - y[1]).abs() < 1e-3)
        True
    """

    name: ClassVar[str] = "present"
    geometries: ClassVar[tuple[str, ...] | None] = None
    holds_windows: ClassVar[bool] = True
    default_memory: ClassVar[float | None] = 1000.0
    latest: ClassVar[int] = 128

    doubt: float = 0.25
    guard: float | None = 2.0
    repair: float | None = None
    cut: float = 4.5
    trust: float = 0.0

    def __post_init__(self) -> None:
        check_numbers(self, at_least_zero=("doubt", "trust"), above_zero=("cut",))
        for name in ("guard", "repair"):
            if getattr(self, name) is not None:
                check_numbers(self, at_least_zero=(name,), above_zero=())
        if self.repair == 0:
            raise ConstraintDefinitionError("Present was given repair=0; it must be a number of samples > 0, or None.")

    # ---- what it remembers

    def begin(self) -> State:
        """Return the state before the first sample; see `present.state`."""
        return remembered.begin()

    def grow(self, state: State, stream: Machine) -> State:
        """Return the state with cells that nothing is known of: they are not moved."""
        known, new = state["book"].shape[1], len(stream.history.cells)
        if new > known and stream.samples >= self.settle:
            stream.note("category added", f"{new - known} combinations of categories that the stream had not met")
        return remembered.grow(state, stream)

    def loaded(self, state: State, stream: Machine) -> State:
        """Return the state from what was saved, also by a version that kept less of the last solution."""
        return remembered.loaded(state)

    def taken_over(self, state: State, old: State, stream: Machine, rows: IntArray) -> State:
        """Go on with present sums, labels and curves; shifts are solved for anew, from the old ones."""
        return remembered.taken_over(state, old, stream, rows)

    def merged(self, state: State, other: State, stream: Machine, rows: IntArray) -> State:
        """Add the other's present sums and labels."""
        return remembered.merged(state, other, stream, rows)

    def heard(self, state: State, stream: Machine, others: list[tuple[Machine, IntArray]]) -> State:
        """Let what other replicas have counted themselves take the place of what they had told before."""
        return remembered.heard(state, stream, others)

    # ---- solving

    def rests(self, state: State, stream: Machine) -> bool:
        """Return whether a solution that is due can wait once more, as raw means have hardly moved; see `resting`."""
        return (ready(state, stream) or steps_of(self, state, stream)).rests(state, stream)

    def prepare(self, state: State, stream: Machine, cells: IntArray, raw: FloatArray) -> State:
        """Solve anew where that is due: often after a start or a cut, then every sixteenth of the memory.

        A call as large as the wait is learnt from before it is answered.
        """
        large = len(raw) >= state["wait"]
        if stream.samples < state["next_refresh"] and not large:
            return state
        if not large and self.rests(state, stream):
            state["next_refresh"] = stream.samples + state["wait"]  # type: ignore[index]
            return state
        if state["next_refresh"] == 0.0:
            changes.fade_strays(state, stream)
        quick = quick_of(self, state, stream)
        if quick is None or quick.steps.contradicted(state["book"]):
            state = changes.without_the_past(state, stream)
        return solving.solved(self, state, stream, (cells, raw) if large else None)

    # ---- answering and counting

    def estimate_labels(self, state: State, stream: Machine, cells: IntArray, raw: FloatArray) -> FloatArray:
        """Return the curve of each cell at its raw score; 0 where no constraint reads labels."""
        found = steps_of(self, state, stream).estimates(cells, raw)
        return np.zeros(len(raw)) if found is None else found

    def answer(self, state: State, stream: Machine, cells: IntArray, raw: FloatArray) -> Answer:
        """Return the shifted scores, and where the guard would not hold, those that it allows."""
        steps = steps_of(self, state, stream)
        block = (cells, raw, steps.estimates(cells, raw))
        before = steps.shifted(block)
        emitted, moved, _ = steps.held(state, block, before)
        after = {**state, "guarded": state["guarded"] + moved} if moved else None
        return Answer(emitted, before, state["unmet"], after)

    def answer_large(
        self, state: State, stream: Machine, cells: IntArray, raw: FloatArray, projected: FloatArray
    ) -> Answer:
        """Return the batch as it was projected by itself: it is a present of its own."""
        return Answer(projected, projected)

    def compiled(self, state: State, stream: Machine) -> CompiledCall | None:
        """Return the kernels with what they need of the state, where they are loaded."""
        found = ready(state, stream)
        return found if found is not None or stream_loaded() is None else quick_of(self, state, stream)

    def answer_one(self, state: State, stream: Machine, cell: int, raw: float) -> tuple[float, float, float]:
        """Answer and count one sample in plain numbers, or by one compiled call."""
        steps = steps_of(self, state, stream)
        quick = None if steps.only else quick_of(self, state, stream)
        if quick is not None:
            weight = state["weight"] * quick.growth
            emitted, correction, acts, ended = quick.one(cell, raw, weight)
            state["weight"] = weight  # type: ignore[index]
        else:
            sample, before, acts, ended = steps.one(state, cell, raw)
            emitted, correction = sample.emitted, abs(sample.emitted - before)
        if acts:
            state["guarded"] += 1.0  # type: ignore[index]
        if ended:
            state["next_refresh"] = 0.0  # type: ignore[index]
        return emitted, correction, state["unmet"]

    def answer_many(self, state: State, stream: Machine, call: Call, emitted: FloatArray) -> tuple[float, float] | None:
        """Answer and count a block in plain NumPy, or by one compiled call."""
        cells, raw = call
        steps = steps_of(self, state, stream)
        quick = None if steps.only else quick_of(self, state, stream, len(raw))
        found: tuple[int, int, float] | None
        if quick is None:
            found = steps.block(state, call, emitted)
            if found is None:
                return None
            ended, moved, correction = found
        else:
            weight = quick.weight_after(state, len(raw))
            ended, moved, correction = quick.block(cells, raw, weight, emitted)
            if ended == REFUSED:
                return None
            state["weight"] = weight  # type: ignore[index]
        if moved:
            state["guarded"] += moved  # type: ignore[index]
        if ended:
            state["next_refresh"] = 0.0  # type: ignore[index]
        return correction, state["unmet"]

    def count(self, state: State, stream: Machine, cells: IntArray, raw: FloatArray, emitted: FloatArray) -> State:
        """Count a call in the present sums and the short means."""
        steps = steps_of(self, state, stream)
        block = (cells, raw, steps.estimates(cells, raw))
        if steps.count(state, block, steps.added(state, block, emitted)):
            state["next_refresh"] = 0.0  # type: ignore[index]
        return state

    def count_labels(self, state: State, stream: Machine, labelled: Labelled) -> State:
        """Learn from labels: the curve, and the present sums that were counted with estimates."""
        memory, n = stream.memory or math.inf, len(labelled.labels)
        if not reads_labels(stream):
            return state
        fade, places = math.exp(-n / (4.0 * memory)), scale(stream)
        labels = state["labels"] * fade
        where = (labelled.cells, places.bins(labelled.raw))
        np.add.at(labels[0], where, 1.0)
        np.add.at(labels[1], where, np.clip(labelled.labels, 0.0, 1.0))
        few = labels[0].sum() < 2 * FIRST_WAIT
        return {
            **state,
            "labels": labels,
            "borrowed_labels": state["borrowed_labels"] * fade,
            "curve": curves(labels, places) if _grown(state["labels"], labels) else state["curve"],
            "next_refresh": 0.0 if few else state["next_refresh"],
        }

    # ---- what it tells

    def shifts(self, state: State, stream: Machine) -> FloatArray:
        """Return the pull of each cell at an estimate of one half, where labels matter."""
        return np.asarray(state["book"][BASE] + 0.5 * state["book"][SLOPE])

    def prices(self, state: State, stream: Machine) -> dict[str, float]:
        """Return the prices of the last solution: minus the derivative of the mean distance by the limit."""
        return {constraint.name: float(state["prices"].get(constraint.name, 0.0)) for constraint in stream.constraints}

    def meters(self, state: State) -> dict[str, float]:
        """Return how often the guard acted."""
        return {"guarded": state["guarded"]}


def _grown(before: FloatArray, after: FloatArray) -> bool:
    """Return whether labels are few, or have passed one more sixteenth part of a doubling."""
    last, total = float(before[0].sum()), float(after[0].sum())
    return total < 64.0 or math.floor(16.0 * math.log2(total)) != math.floor(16.0 * math.log2(max(last, 1.0)))
