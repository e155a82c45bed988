"""What the present remembers: the book, with one column per cell, and how it grows, fades and merges.

book                            see `fairlayer.fused.book`
weight                          of the newest sample in the sums of the book
borrowed                        the part of these sums that other replicas have told
labels, borrowed_labels, curve  counts of labels, the part of others, and the estimates made from them
shifts, prices                  the last solution, by "constraint/member" and by constraint
wait, next_refresh, solved      samples between solutions, and when the next is due and the last was
reference                       when the long means were last renewed
noise, unmet, guarded, cuts     of the guard; what was not met; how often the guard and a cut acted
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.fused.book import (
    COUNT,
    FAR,
    LABEL_BINS,
    LONG,
    NEXT_FAR,
    NEXT_LONG,
    RAW,
    ROWS,
    SOLVED_AWAY,
    SOLVED_COUNT,
    SOLVED_MEAN,
    SUMS,
)
from fairlayer.streaming.control.guard import Guards, guards_of
from fairlayer.streaming.counts.gather import gathered
from fairlayer.streaming.labels.estimates import LabelScale, curves
from fairlayer.streaming.policies.base import State

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine

__all__ = [
    "FIRST_WAIT",
    "MOST_MEMORIES",
    "Numbers",
    "begin",
    "grow",
    "guards",
    "heard",
    "lightened",
    "loaded",
    "merged",
    "numbers_of",
    "reads_labels",
    "scale",
    "taken_over",
]

FIRST_WAIT = 8.0
"""Samples before the first solution, and before the first after a start or a cut."""

MOST_MEMORIES = 60.0
"""Memories after which nothing of what was before counts; more would overflow."""

Numbers: TypeAlias = "memoryview[float]"
"""A book whose numbers are read and written one at a time, by row and cell."""

_HEAVY = 1e6  # weight of the newest sample at which sums are brought back to 1
_KEPT = ("shifts", "weight", "noise", "guarded", "cuts")  # where limits or constraints change


def begin() -> State:
    """Return the state before the first sample."""
    return {
        "book": np.zeros((ROWS, 0)),
        "borrowed": np.zeros((6, 0)),
        "labels": np.zeros((2, 0, 0)),
        "borrowed_labels": np.zeros((2, 0, 0)),
        "curve": np.zeros((0, 0)),
        "weight": 1.0,
        "shifts": {},
        "prices": {},
        "wait": FIRST_WAIT,
        "next_refresh": FIRST_WAIT,
        "solved": -math.inf,
        "reference": 0.0,
        "noise": 0.0,
        "unmet": 0.0,
        "guarded": 0.0,
        "cuts": 0.0,
    }


def numbers_of(book: FloatArray) -> Numbers:
    """Return the numbers of a book, in place: a step does little with each, and NumPy takes longest per number."""
    return cast(Numbers, book.data)


def grow(state: State, stream: Machine) -> State:
    """Return the state with cells that nothing is known of: they are not moved."""
    k = len(stream.history.cells)
    new = k - state["book"].shape[1]
    if new <= 0:
        return state
    columns = np.zeros((ROWS, new))
    columns[LONG : FAR + 1] = columns[NEXT_LONG : NEXT_FAR + 1] = math.inf
    bins = LABEL_BINS if reads_labels(stream) else 0
    more = np.zeros((2, new, bins))
    curve = np.tile(scale(stream).centres[:bins], (new, 1))
    return {
        **state,
        "book": np.ascontiguousarray(np.hstack([state["book"], columns])),
        "borrowed": np.hstack([state["borrowed"], np.zeros((6, new))]),
        "labels": np.concatenate([_of_width(state["labels"], bins), more], axis=1),
        "borrowed_labels": np.concatenate([_of_width(state["borrowed_labels"], bins), more], axis=1),
        "curve": np.ascontiguousarray(np.vstack([_of_width(state["curve"], bins), curve])),
        "wait": FIRST_WAIT,
        "next_refresh": min(state["next_refresh"], stream.samples + FIRST_WAIT),
    }


def loaded(state: State) -> State:
    """Return a saved state whose book has every row; what a solution knew and was not kept is solved for anew.

    Raises:
        ValueError: the book has rows that this version does not know.
    """
    lacking = ROWS - len(state["book"])
    if not lacking:
        return state
    if lacking < 0:
        raise ValueError(f"a book of {len(state['book'])} rows, where this version has {ROWS}")
    book = np.vstack([state["book"], np.zeros((lacking, state["book"].shape[1]))])
    book[SOLVED_MEAN:] = 0.0
    book[SOLVED_COUNT], book[SOLVED_AWAY] = book[COUNT], book[RAW]
    return {**state, "book": np.ascontiguousarray(book), "next_refresh": 0.0}


def taken_over(state: State, old: State, stream: Machine, rows: IntArray) -> State:
    """Go on with present sums, labels and curves; shifts are solved for anew, from the old ones."""
    if "book" not in old:
        return state
    k, bins = len(stream.history.cells), state["labels"].shape[2]
    sums, labels = gathered(old["book"][SUMS], rows, k), gathered(_of_width(old["labels"], bins), rows, k)
    return _with_sums({**state, **{name: old[name] for name in _KEPT}}, stream, sums, labels)


def merged(state: State, other: State, stream: Machine, rows: IntArray) -> State:
    """Add the other's present sums and labels."""
    k = len(stream.history.cells)
    share = state["weight"] / other["weight"]
    sums = state["book"][SUMS] + share * gathered(other["book"][SUMS], rows, k)
    bins = max(each["labels"].shape[-1] for each in (state, other))
    ours, theirs = (_of_width(each["labels"], bins) for each in (state, other))
    return _with_sums(state, stream, sums, ours + gathered(theirs, rows, k))


def heard(state: State, stream: Machine, others: list[tuple[Machine, IntArray]]) -> State:
    """Let what other replicas have counted themselves take the place of what they had told before.

    Shifts are solved from the sums of all: no replica adds a correction of its own to those of the others.
    """
    k = len(stream.history.cells)
    bins = max(each["labels"].shape[-1] for each in (state, *(other.own for other, _ in others)))
    labels, borrowed = (_of_width(state[name], bins) for name in ("labels", "borrowed_labels"))
    told, told_labels = np.zeros((6, k)), np.zeros_like(labels)
    for other, rows in others:
        own = (other.own["book"][SUMS] - other.own["borrowed"]) / other.own["weight"]
        told += gathered(own * state["weight"], rows, k)
        theirs, lent = (_of_width(other.own[name], bins) for name in ("labels", "borrowed_labels"))
        told_labels += gathered(theirs - lent, rows, k)
    sums = np.maximum(state["book"][SUMS] + told - state["borrowed"], 0.0)
    new = _with_sums(state, stream, sums, np.maximum(labels + told_labels - borrowed, 0.0))
    return {**new, "borrowed": told, "borrowed_labels": told_labels}


def lightened(state: State, stream: Machine) -> State:
    """Return the state with sums brought back to a weight of 1, where they have grown large."""
    weight = state["weight"]
    if weight <= _HEAVY:
        return state
    book = state["book"].copy()
    for rows in (SUMS, SOLVED_COUNT, SOLVED_AWAY):
        book[rows] /= weight
    return {**state, "book": book, "borrowed": state["borrowed"] / weight, "weight": 1.0}


def reads_labels(stream: Machine) -> bool:
    """Return whether some constraint reads labels."""
    found: bool | None = stream.scratch.get("labelled")
    if found is None:
        found = stream.scratch["labelled"] = any(constraint.needs_labels for constraint in stream.constraints)
    return found


def scale(stream: Machine) -> LabelScale:
    """Return the positions that estimates of labels are given at."""
    found: LabelScale | None = stream.scratch.get("scale")
    if found is None:
        found = stream.scratch["scale"] = LabelScale(stream.bounds)
    return found


def guards(state: State, stream: Machine) -> Guards:
    """Return the guards of the stream's cells, with the room that a transition leaves."""
    found: Guards | None = stream.scratch.get("guards")
    if found is None:
        found = stream.scratch["guards"] = roomy(guards_of(stream), state, stream)
    return found


def roomy(found: Guards, state: State, stream: Machine) -> Guards:
    """Return the guards with the room that a transition leaves now."""
    if stream.transition is None:
        return found if found.room is found.tolerance else replace(found, room=found.tolerance)
    excesses = found.raw_excesses(found.totals(state["book"][SUMS]))
    rooms = [
        tolerance + stream.transition.room(owner, stream.samples, excess)
        for owner, tolerance, excess in zip(found.owners, found.tolerance.tolist(), excesses, strict=True)
    ]
    return found.with_rooms(rooms)


def labels_told(state: State) -> FloatArray:
    """Return how many labels have come of each cell, and how many of them were 1, (2, cells)."""
    found = np.zeros((2, state["book"].shape[1]))
    if state["labels"].size:
        found[:] = state["labels"].sum(axis=2)
    return found


def _with_sums(state: Mapping[str, Any], stream: Machine, sums: FloatArray, labels: FloatArray) -> State:
    stream.scratch.clear()
    book = state["book"].copy()
    book[SUMS] = sums
    book[SOLVED_COUNT], book[SOLVED_AWAY] = book[COUNT], book[RAW] - book[SOLVED_MEAN] * book[COUNT]  # nothing since
    curve = curves(labels, scale(stream)) if labels.size else state["curve"]
    return {**state, "book": book, "labels": labels, "curve": curve, "next_refresh": 0.0}


def _of_width(counts: FloatArray, bins: int) -> FloatArray:
    """Return counts (..., cells, bins) as they are, or none where there were none before."""
    return counts if counts.shape[-1] == bins else np.zeros((*counts.shape[:-1], bins))
