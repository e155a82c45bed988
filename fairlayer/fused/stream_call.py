"""A whole call of a stream under the policy "present": it reads scores and categories where tensors hold them, answers,
counts, writes the journal, and writes predictions where a tensor will hold them. Arrays are given by their addresses,
since each array that Python hands over costs a good part of what a step costs. The sizes are those of `fused.book`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from fairlayer.fused.book import (
    AT_BOOK,
    AT_CELLS,
    AT_COLUMN,
    AT_CURVE,
    AT_EMITTED,
    AT_JOINT,
    AT_KIND,
    AT_MEMBER,
    AT_RAW,
    AT_ROOM,
    AT_START,
    AT_TABLE,
    AT_TERMS,
    COLUMNS,
    GEOMETRY,
    LABEL_BINS,
    LOGITS,
    OF_BINS,
    OF_CELLS,
    OF_FEATURES,
    OF_GUARDS,
    OF_TABLE,
    PER_COLUMN,
    PLACES,
    ROWS,
    STRIDE,
    TERMS,
)
from fairlayer.fused.compiling import compiled, entry, float32_at, float64_at, int64_at
from fairlayer.fused.steps import EUCLIDEAN
from fairlayer.fused.stream_steps import CONTRADICTED, REFUSED, STEPPED, step_block, step_one

__all__ = ["call", "entrance", "takes"]

_LARGEST = 1e100
_ANY = 1 << 40  # entries of an array whose size nobody asks for


@compiled
def _read_cells(edge: Any, n: int, known: int, cells: Any) -> Any:
    """Write the cell of each sample; return whether all of them have been met."""
    features = edge[OF_FEATURES]
    if features == 0:
        given = numba.carray(int64_at(edge[COLUMNS]), n)
        for i in range(n):
            cells[i] = given[i]
            if cells[i] < 0 or cells[i] >= known:
                return False
        return True
    for i in range(n):
        cells[i] = 0
    for j in range(features):
        at = COLUMNS + PER_COLUMN * j
        column, size = numba.carray(int64_at(edge[at + AT_COLUMN]), n), edge[at + OF_TABLE]
        table, stride = numba.carray(int64_at(edge[at + AT_TABLE]), size), edge[at + STRIDE]
        for i in range(n):
            if column[i] < 0 or column[i] >= size:
                return False
            cells[i] += stride * table[column[i]]
    joint = numba.carray(int64_at(edge[AT_JOINT]), _ANY)
    for i in range(n):
        cells[i] = joint[cells[i]]
        if cells[i] >= known:
            return False
    return True


@compiled
def _read_scores(at: int, wide: bool, n: int, terms: Any, raw: Any) -> Any:
    """Write raw predictions in double precision; return whether all of them are numbers in the domain."""
    if wide:
        doubles = numba.carray(float64_at(at), n)
        for i in range(n):
            raw[i] = doubles[i]
    else:
        singles = numba.carray(float32_at(at), n)
        for i in range(n):
            raw[i] = singles[i]
    least, most = (0.0, 1.0) if terms[GEOMETRY] != EUCLIDEAN else (-_LARGEST, _LARGEST)
    if terms[LOGITS] > 0.0:
        for i in range(n):
            if not abs(raw[i]) <= _LARGEST:  # the sigmoid of what is no finite number would be one
                return False
            small = math.exp(-abs(raw[i]))
            raw[i] = 1.0 / (1.0 + small) if raw[i] >= 0.0 else small / (1.0 + small)
    inside = True
    for i in range(n):
        inside &= least <= raw[i] <= most
    return inside


@compiled
def takes(desk: int, edge_at: int, at: int, wide: bool, n: int, first: int) -> Any:
    """Return whether `call` will take these samples; nothing has changed."""
    places, edge = numba.carray(int64_at(desk), PLACES), numba.carray(int64_at(edge_at), _ANY)
    cells = numba.carray(int64_at(places[AT_CELLS]), first + n)[first:]
    raw = numba.carray(float64_at(places[AT_RAW]), first + n)[first:]
    terms = numba.carray(float64_at(places[AT_TERMS]), TERMS)
    return _read_cells(edge, n, places[OF_CELLS], cells) and _read_scores(at, wide, n, terms, raw)


@compiled
def call(desk: int, edge_at: int, at: int, wide: bool, n: int, first: int, weight: float, out: int) -> Any:
    """Answer and count the n samples of a call, and write them to the journal from the place `first` on.

    `desk` and `edge_at` are the addresses of the places of a stream, and of where the categories are (see `book`).
    Returns how it ended, how many samples the guard moved, and how far on average.
    """
    if not takes(desk, edge_at, at, wide, n, first):
        return REFUSED, 0, 0.0
    places = numba.carray(int64_at(desk), PLACES)
    k, guards = places[OF_CELLS], places[OF_GUARDS]
    book = numba.carray(float64_at(places[AT_BOOK]), (ROWS, k))
    curve = numba.carray(float64_at(places[AT_CURVE]), (k, places[OF_BINS]))
    member = numba.carray(int64_at(places[AT_MEMBER]), (guards, k))
    kind = numba.carray(int64_at(places[AT_KIND]), guards)
    start = numba.carray(int64_at(places[AT_START]), guards + 1)
    room = numba.carray(float64_at(places[AT_ROOM]), guards)
    terms = numba.carray(float64_at(places[AT_TERMS]), TERMS)
    cells = numba.carray(int64_at(places[AT_CELLS]), first + n)[first:]
    raw = numba.carray(float64_at(places[AT_RAW]), first + n)[first:]
    emitted = numba.carray(float64_at(places[AT_EMITTED]), first + n)[first:]
    if n == 1:
        y, correction, acts, ended = step_one(book, curve, member, kind, start, room, terms, weight, cells[0], raw[0])
        emitted[0], moved = y, 1 if acts else 0
    else:
        ended, moved, correction = step_block(
            book, curve, member, kind, start, room, terms, weight, cells, raw, emitted
        )
    if wide:
        doubles = numba.carray(float64_at(out), n)
        for i in range(n):
            doubles[i] = emitted[i]
    else:
        singles = numba.carray(float32_at(out), n)
        for i in range(n):
            singles[i] = emitted[i]
    return ended, moved, correction


def entrance() -> Callable[..., Any]:
    """Return `call` for arguments of exactly the kinds that `check` has run it with: int, bool and float."""
    return entry(call)


def check() -> None:
    """Compile, or load from the cache, what calls need, and run one: what is broken shows here."""
    member = np.array([[0, 1]])
    terms = np.array([0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    arrays = (
        np.zeros((ROWS, 2)),
        np.zeros((2, LABEL_BINS)),
        member,
        np.zeros(1, dtype=np.int64),
        np.array([0, 2]),
        np.array([0.1]),
        terms,
        np.empty(2, dtype=np.int64),
        np.empty(2),
        np.empty(2),
    )
    places = np.empty(PLACES, dtype=np.int64)
    places[: len(arrays)] = [array.ctypes.data for array in arrays]
    places[OF_CELLS], places[OF_BINS], places[OF_GUARDS] = 2, LABEL_BINS, 1
    table, column, scores, out = np.array([0, 1, 2, 2]), np.array([0, 1]), np.array([0.25, 0.5]), np.zeros(2)
    edge = np.array([1, table.ctypes.data, column.ctypes.data, table.ctypes.data, 4, 1])
    given = places.ctypes.data, edge.ctypes.data, scores.ctypes.data, True, 2, 0
    if not takes(*given) or call(*given, 1.0, out.ctypes.data)[0] not in {STEPPED, CONTRADICTED}:
        raise ArithmeticError("the compiled call of a stream refused the scores (0.25, 0.5)")
    if out.tolist() != [0.25, 0.5]:
        raise ArithmeticError(f"the compiled call of a stream gave {out.tolist()} for the scores (0.25, 0.5)")
