"""Predictions of the present, the guard on them, and their counting, in plain NumPy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.fused import stream_refused
from fairlayer.fused.book import BASE, COUNT, COUNT1, EMITTED, EMITTED1, RAW, RAW1, SLOPE
from fairlayer.streaming.control.guard import Sample, within
from fairlayer.streaming.policies.base import LARGEST_SQUARE, Call, State
from fairlayer.streaming.policies.present.changes import asks, column_of, run_short_mean, run_short_means
from fairlayer.streaming.policies.present.resting import has_hardly_moved, rest_until
from fairlayer.streaming.policies.present.state import MOST_MEMORIES, guards, numbers_of, reads_labels, scale

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine
    from fairlayer.streaming.policies.present.policy import Present

__all__ = ["Block", "Steps", "steps_of"]

Block = tuple[IntArray, FloatArray, FloatArray | None]
"""Cells and raw scores of samples that come together, and estimates of their labels where a constraint reads labels."""


class Added(NamedTuple):
    """What a block adds to the present: counts, predictions and raw scores, then those of label 1 where labels matter.

    Args:
        sums: (3 or 6, cells) of the block itself.
        weight: the weight of each of its samples.
        present: (3 or 6, cells) the present sums with it.
    """

    sums: FloatArray
    weight: float
    present: FloatArray


class Steps:
    """What plain steps read of a state, as long as its book and its curve last; see `steps_of`."""

    def __init__(self, policy: Present, state: State, stream: Machine) -> None:
        self.policy, self.book, self.curve = policy, state["book"], state["curve"]
        self.numbers = numbers_of(self.book)
        self.labelled, self.rest_until = reads_labels(stream), rest_until(policy, state, stream)
        self.base, self.slope = self.book[BASE], self.book[SLOPE]
        self.sums = self.book[COUNT : RAW1 + 1] if self.labelled else self.book[COUNT : RAW + 1]
        self.cells = self.book.shape[1]
        self.guards = guards(state, stream)
        self.guarded = policy.guard is not None and bool(self.guards.owners)
        self.geometry, self.bounds, self.memory = stream.geometry, stream.bounds, stream.memory or math.inf
        # Arrays without a dimension are what NumPy compares with fastest.
        self.low, self.high = (None if end is None else np.array(float(end)) for end in stream.bounds)
        self.only = stream_refused()  # whether there will be no compiled steps
        self.scale = scale(stream) if self.labelled else None
        self.n, self.growth = 1, math.exp(1.0 / self.memory)  # samples of the last call, and how their weight grew

    def rests(self, state: State, stream: Machine) -> bool:
        """Return whether a solution that is due can wait once more; see `resting`."""
        if stream.rule.samples > self.rest_until or state["next_refresh"] == 0.0 or stream.transition is not None:
            return False
        return has_hardly_moved(self.policy, state)

    # ---- a block

    def block(self, state: State, call: Call, emitted: FloatArray) -> tuple[int, int, float] | None:
        """Answer and count a block: whether a cell asks for a solution, how many the guard moved, and how far.

        None, and nothing has changed, where a score is not finite, or a cell has not been met.
        """
        cells, raw = call
        if not raw.dot(raw) < LARGEST_SQUARE:
            return None
        try:
            block = (cells, raw, self.estimates(cells, raw))
            before = self.shifted(block)
        except IndexError:
            return None
        emitted[:], moved, added = self.held(state, block, before)
        correction = float(np.abs(emitted - before).mean()) if moved else 0.0
        return self.count(state, block, added), moved, correction

    def estimates(self, cells: IntArray, raw: FloatArray) -> FloatArray | None:
        """Return the estimate of each label; None where no constraint reads labels."""
        return None if self.scale is None else self.scale.read(self.curve, cells, raw)

    def shifted(self, block: Block) -> FloatArray:
        """Return the answers of a block before any guard."""
        cells, raw, estimate = block
        pulls = self.base.take(cells)
        if estimate is not None:
            pulls += self.slope.take(cells) * estimate
        found: FloatArray = self.geometry.answer(raw, pulls, self.low, self.high)
        if self.geometry.bounded:  # the coordinates of probabilities and back would round what is not moved
            return np.clip(np.where(pulls == 0.0, raw, found), self.low, self.high)
        return found

    def held(self, state: State, block: Block, answers: FloatArray) -> tuple[FloatArray, int, Added]:
        """Return a block as the guard lets it be, one after the other where it must; how many were moved; its sums."""
        found, added = self.guards, self.added(state, block, answers)
        if not self.guarded or found.holds(found.totals(added.present), state["noise"], added.weight):
            return answers, 0, added
        emitted, moved = self._one_by_one(state, block, answers, added.weight)
        return emitted, moved, self.added(state, block, emitted)

    def added(self, state: State, block: Block, emitted: FloatArray) -> Added:
        """Return what a block adds, all of whose samples weigh as much."""
        cells, raw, estimate = block
        rows: tuple[Any, ...] = (None, emitted, raw)
        if estimate is not None:
            rows = (*rows, estimate, estimate * emitted, estimate * raw)
        sums = np.array([np.bincount(cells, row, self.cells) for row in rows])
        n = len(raw)
        if n != self.n:
            self.n, self.growth = n, math.exp(min(n / self.memory, MOST_MEMORIES))
        weight = float(state["weight"] * self.growth)
        present = weight * sums
        present += self.sums
        return Added(sums, weight, present)

    def count(self, state: State, block: Block, added: Added) -> bool:
        """Count a block; return whether some cell of it asks for a solution at once."""
        state["weight"] = added.weight  # type: ignore[index]
        self.sums[:] = added.present
        return run_short_means(self.book, added.sums, block[:2], added.weight)

    def _one_by_one(self, state: State, block: Block, answers: FloatArray, weight: float) -> tuple[FloatArray, int]:
        found, noise, (cells, raw, estimate) = self.guards, state["noise"], block
        totals, emitted, moved = found.totals(self.sums).tolist(), answers.copy(), 0
        parts = (cells, raw, np.zeros(len(raw)) if estimate is None else estimate, answers)
        for i, (cell, z, p, y) in enumerate(zip(*(part.tolist() for part in parts), strict=True)):
            sample = Sample(cell, weight, p, z, y)
            emitted[i] = new = found.allowed(totals, sample, noise, self.bounds)[0]
            moved += abs(new - y) > 1e-12
            found.add(totals, sample._replace(emitted=new))
        return emitted, moved

    # ---- one sample

    def one(self, state: State, cell: int, raw: float) -> tuple[Sample, float, bool, bool]:
        """Answer and count one sample: it, its answer before the guard, whether that acted, whether a cell asks."""
        book, estimate, (low, high) = self.numbers, 0.0, self.bounds
        pull = book[BASE, cell]
        if self.scale is not None:
            estimate = float(self.scale.read(self.curve, np.array([cell]), np.array([raw]))[0])
            pull += book[SLOPE, cell] * estimate
        before = within(self.geometry.answer_one(raw, pull, low, high) if pull else raw, low, high)
        weight = state["weight"] = state["weight"] * math.exp(1.0 / self.memory)  # type: ignore[index]
        sample, acts = Sample(cell, weight, estimate, raw, before), False
        if self.guarded:
            found = self.guards
            y, acts = found.allowed(found.totals(self.sums).tolist(), sample, state["noise"], self.bounds)
            sample = Sample(cell, weight, estimate, raw, y)
        self._count_one(sample)
        return sample, before, acts, asks(column_of(self.book, cell), weight)

    def _count_one(self, sample: Sample) -> None:
        book, (cell, weight, estimate, raw, emitted) = self.numbers, sample
        book[COUNT, cell] += weight
        book[EMITTED, cell] += weight * emitted
        book[RAW, cell] += weight * raw
        if self.labelled:
            positive = weight * estimate
            book[COUNT1, cell] += positive
            book[EMITTED1, cell] += positive * emitted
            book[RAW1, cell] += positive * raw
        run_short_mean(book, cell, raw)


def steps_of(policy: Present, state: State, stream: Machine) -> Steps:
    """Return the plain steps of a state, made anew where it has another book or another curve than the last one."""
    found: Steps | None = stream.scratch.get("steps")
    if found is None or found.book is not state["book"] or found.curve is not state["curve"]:
        found = stream.scratch["steps"] = Steps(policy, state, stream)
    return found
