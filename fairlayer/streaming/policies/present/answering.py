"""Predictions of the present, the guard on them, and their counting, in plain NumPy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.fused.book import BASE, COUNT, COUNT1, EMITTED, EMITTED1, RAW, RAW1, SLOPE, SUMS
from fairlayer.streaming.control.guard import Guards, Sample, within
from fairlayer.streaming.policies.base import State
from fairlayer.streaming.policies.present.changes import asks, run_short_mean, run_short_means
from fairlayer.streaming.policies.present.state import (
    MOST_MEMORIES,
    Numbers,
    guards,
    numbers_of,
    reads_labels,
    scale,
)

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine

__all__ = [
    "Added",
    "Block",
    "add_block",
    "add_one",
    "added_by",
    "answer_one",
    "estimates",
    "guarded",
    "shifted",
    "weight_after",
]

Block = tuple[IntArray, FloatArray, FloatArray]
"""Cells, raw scores and label estimates of samples that come together."""


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


def estimates(state: State, stream: Machine, cells: IntArray, raw: FloatArray) -> FloatArray:
    """Return the estimate of each label; 0 where no constraint reads labels."""
    return scale(stream).read(state["curve"], cells, raw) if reads_labels(stream) else np.zeros(len(raw))


def shifted(state: State, stream: Machine, block: Block) -> FloatArray:
    """Return the answers of a block before any guard."""
    cells, raw, estimate = block
    pulls = state["book"][BASE].take(cells)
    if reads_labels(stream):
        pulls = pulls + state["book"][SLOPE].take(cells) * estimate
    low, high = _box(stream)
    found = np.asarray(stream.geometry.answer(raw, pulls, low, high))
    return np.where(pulls == 0.0, np.clip(raw, low, high), found) if stream.geometry.bounded else found


def guarded(
    state: State, stream: Machine, block: Block, answers: FloatArray, limit: float | None
) -> tuple[FloatArray, int, Added]:
    """Return a block as it is where the guard then holds, else one after the other; how many were moved; its sums."""
    found, added = guards(state, stream), added_by(state, stream, block, answers)
    if limit is None or not found.owners:
        return answers, 0, added
    noise, past = state["noise"], state["book"][SUMS]
    if found.holds(found.totals(added.present), noise, added.weight):
        return answers, 0, added
    emitted, moved = _one_by_one(found, stream, block, answers, (found.totals(past).tolist(), added.weight, noise))
    return emitted, moved, added_by(state, stream, block, emitted)


def _one_by_one(
    found: Guards, stream: Machine, block: Block, answers: FloatArray, past: tuple[list[list[float]], float, float]
) -> tuple[FloatArray, int]:
    totals, weight, noise = past
    emitted, moved = answers.copy(), 0
    for i, (cell, z, p, y) in enumerate(zip(*(part.tolist() for part in (*block, answers)), strict=True)):
        sample = Sample(cell, weight, p, z, y)
        emitted[i] = new = found.allowed(totals, sample, noise, stream.bounds)[0]
        moved += abs(new - y) > 1e-12
        found.add(totals, sample._replace(emitted=new))
    return emitted, moved


def answer_one(state: State, stream: Machine, cell: int, raw: float, limit: float | None) -> tuple[Sample, float, bool]:
    """Return the answer to one sample, what it was before the guard, and whether the guard acted."""
    low, high = stream.bounds
    book, estimate = numbers_of(state["book"]), 0.0
    pull = book[BASE, cell]
    if reads_labels(stream):
        estimate = float(estimates(state, stream, np.array([cell]), np.array([raw]))[0])
        pull += book[SLOPE, cell] * estimate
    before = stream.geometry.answer_one(raw, pull, low, high) if pull else within(raw, low, high)
    weight = state["weight"] * math.exp(1.0 / (stream.memory or math.inf))
    sample, found = Sample(cell, weight, estimate, raw, before), guards(state, stream)
    if limit is None or not found.owners:
        return sample, before, False
    y, acts = found.allowed(found.totals(state["book"][SUMS]).tolist(), sample, state["noise"], stream.bounds)
    return sample._replace(emitted=y), before, acts


def add_one(book: Numbers, sample: Sample, labelled: bool) -> None:
    """Count one sample in the present sums and the short means."""
    cell, weight, estimate, raw, emitted = sample
    book[COUNT, cell] += weight
    book[EMITTED, cell] += weight * emitted
    book[RAW, cell] += weight * raw
    if labelled:
        positive = weight * estimate
        book[COUNT1, cell] += positive
        book[EMITTED1, cell] += positive * emitted
        book[RAW1, cell] += positive * raw
    run_short_mean(book, cell, raw)


def add_block(state: State, block: Block, added: Added) -> bool:
    """Count a block; return whether some cell of it asks for a solution at once."""
    weight = state["weight"] = added.weight  # type: ignore[index]
    state["book"][COUNT : COUNT + len(added.present)] = added.present
    book = numbers_of(state["book"])
    met = run_short_means(book, added.sums, block[0], block[1])
    return any(asks(book, cell, weight) for cell in met)


def added_by(state: State, stream: Machine, block: Block, emitted: FloatArray) -> Added:
    """Return what a block adds, all of whose samples weigh as much."""
    cells, raw, estimate = block
    k, rows = state["book"].shape[1], [None, emitted, raw]
    if reads_labels(stream):
        rows += [estimate, estimate * emitted, estimate * raw]
    sums = np.array([np.bincount(cells, row, k) for row in rows])
    weight = weight_after(state, stream, len(raw))
    return Added(sums, weight, state["book"][COUNT : COUNT + len(rows)] + weight * sums)


def _box(stream: Machine) -> tuple[Any, Any]:
    """Return the bounds as arrays without a dimension, which NumPy compares with fastest; None where there is none."""
    found = stream.scratch.get("box")
    if found is None:
        found = stream.scratch["box"] = tuple(None if end is None else np.array(float(end)) for end in stream.bounds)
    low, high = found
    return low, high


def weight_after(state: State, stream: Machine, n: int) -> float:
    """Return the weight of n samples that come together, all of which weigh as much."""
    return float(state["weight"] * math.exp(min(n / (stream.memory or math.inf), MOST_MEMORIES)))
