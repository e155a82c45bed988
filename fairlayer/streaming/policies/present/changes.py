"""When the scores of a cell have changed, and what is then forgotten.

Two short means of a cell, over its own latest 16 and 80 samples, are compared with its long one. Where one lies farther
from it than noise explains, the older scores of the cell are cut off.

What has come of a cell since the last solution is compared with what that knew. Where it lies farther away than noise
most often explains, shifts are solved anew at once. Of a cell of which too few scores are known for a cut, what was
known then counts half.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.fused.book import (
    COUNT,
    FADED,
    FAR,
    FIRST,
    LONG,
    NEAR,
    NEXT_FAR,
    NEXT_LONG,
    NEXT_NEAR,
    RAW,
    SECOND,
    SEEN,
    SHORT,
    SOLVED_AWAY,
    SOLVED_COUNT,
    SOLVED_MEAN,
    SOLVED_SIZE,
    SOLVED_SPREAD,
    STRAYS,
    SURE,
    SURELY_STRAYS,
)
from fairlayer.streaming.policies.base import State
from fairlayer.streaming.policies.present.state import FIRST_WAIT, Numbers, numbers_of

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine

__all__ = [
    "LEAST_SPREAD",
    "OLDER",
    "SURELY",
    "asks",
    "column_of",
    "contradicts",
    "fade_strays",
    "far_means",
    "renew",
    "renewed",
    "run_short_mean",
    "run_short_means",
    "since_solved",
    "strayed",
    "without_the_past",
]

OLDER = 1.2
"""How much more samples the long mean must hold than a short one, for both to be compared."""

SURELY = (1.4, 1.0)
"""How much more the short means must differ than noise explains, as few skewed scores have no normal mean."""

LEAST_SPREAD = 0.25
"""Of the variance of all scores, that the variance of a cell counts as at least."""

Column: TypeAlias = list[float]
"""The numbers of a cell, by the row of the book: to read a list takes least."""

_STRAYS, _SURELY_STRAYS = STRAYS**2, SURELY_STRAYS**2
_SHORT_MEANS = tuple((row, length, 1.0 - 1.0 / length) for row, length in zip((FIRST, SECOND), SHORT, strict=True))
_SUSPECT = 0.65  # share of the distance that is clear for the other cells, once one has changed
_REFERENCE = 0.25  # of the memory: how old a long mean is before short ones are compared with it


def run_short_mean(book: Numbers, cell: int, score: float) -> None:
    """Let the short means of a cell go on by one sample."""
    seen = book[SEEN, cell] = book[SEEN, cell] + 1.0
    for row, length, _ in _SHORT_MEANS:
        before = book[row, cell]
        book[row, cell] = before + (score - before) / (seen if seen < length else length)


def run_short_means(book: FloatArray, sums: FloatArray, block: tuple[IntArray, FloatArray], weight: float) -> bool:
    """Let the short means of each cell of a block go on, by the mean of its samples; return whether one asks.

    While a cell has few samples they go on one by one.

    Args:
        book: the book, with the block in its present sums.
        sums: (3 or more, cells) samples, predictions and raw scores of the block.
        block: cells and raw scores.
        weight: of the newest sample.
    """
    asked, numbers = False, numbers_of(book)
    for cell, (n, total, column) in enumerate(zip(sums[0].tolist(), sums[2].tolist(), book.T.tolist(), strict=True)):
        if not n:
            continue
        if column[SEEN] < SHORT[1]:
            cells, raw = block
            for score in raw[cells == cell].tolist():
                run_short_mean(numbers, cell, score)
            asked = asked or asks(column_of(book, cell), weight)
            continue
        column[SEEN] = numbers[SEEN, cell] = column[SEEN] + n
        mean = total / n
        for row, _, kept in _SHORT_MEANS:
            before = column[row]
            column[row] = numbers[row, cell] = before + (1.0 - kept**n) * (mean - before)
        asked = asked or asks(column, weight)
    return asked


def column_of(book: FloatArray, cell: int) -> Column:
    """Return the numbers of a cell, to be read: by the row of the book."""
    found: Column = book[:, cell].tolist()
    return found


def contradicts(column: Column) -> bool:
    """Return whether the short means of one cell lie too far from its long one."""
    if not column[SEEN] > SURE:
        return False
    long = column[LONG]
    return abs(column[FIRST] - long) > column[NEAR] or abs(column[SECOND] - long) > column[FAR]


def since_solved(column: Column, weight: float) -> tuple[float, float, float]:
    """Return the samples of a cell that the last solution knew, those since, and their sum of distances.

    Distances are from the mean that the solution knew, so that `away / (size + new)` is how far the mean has moved.
    """
    count = column[COUNT]
    away = (column[RAW] - column[SOLVED_MEAN] * count - column[SOLVED_AWAY]) / weight
    return column[SOLVED_SIZE], (count - column[SOLVED_COUNT]) / weight, away


def strayed(column: Column, weight: float) -> bool:
    """Return whether what has come of a cell since the last solution has moved its raw mean by more than noise.

    A cell of few recent samples learns much from each new one, long before a solution is due by the count of all.
    """
    if not column[SEEN] > SURE:
        return False
    size, new, away = since_solved(column, weight)
    spread = column[SOLVED_SPREAD]
    return away * away > spread * spread * max(_STRAYS * size, _SURELY_STRAYS * new)


def asks(column: Column, weight: float) -> bool:
    """Return whether one cell asks for a solution at once."""
    return contradicts(column) or strayed(column, weight)


def far_means(stream: Machine, spread: float, cut: float) -> FloatArray:
    """Return the long mean of each cell, and how far from it the short means may lie, (3, cells), of what came here."""
    score, weight = stream.history.sketch.rows(own=True)
    total = np.add.reduce(weight, axis=1)
    safe = np.maximum(total, 1e-9)
    mean = np.add.reduce(weight * score, axis=1) / safe
    score -= mean[:, None]
    score *= score
    score *= weight
    square = np.add.reduce(score, axis=1) / safe
    sd = np.sqrt(np.maximum(square, LEAST_SPREAD * spread**2))
    far = [
        np.where(total > OLDER * s, surely * cut * sd * np.sqrt(0.5 / s + 0.5 / safe), np.inf)
        for s, surely in zip(SHORT, SURELY, strict=True)
    ]
    return np.stack([mean, *far])


def renewed(state: State, stream: Machine) -> bool:
    """Return whether the long means are to be renewed.

    They are looked at once they are a quarter of the memory old, so that a change cannot hide in what it is
    compared with.
    """
    age = min(stream.samples, stream.memory or math.inf) * _REFERENCE
    return bool(stream.samples - state["reference"] >= max(age, FIRST_WAIT))


def renew(book: FloatArray, new: FloatArray) -> None:
    """Let the long means that waited come into force, and those of now wait."""
    book[FADED] = 0.0
    book[LONG : FAR + 1] = book[NEXT_LONG : NEXT_FAR + 1]
    book[NEXT_LONG : NEXT_FAR + 1] = new


def fade_strays(state: State, stream: Machine) -> None:
    """Let the scores of each cell that has strayed count half, where so few are known that nothing can be cut off.

    What comes then weighs twice as much beside them. One that strays twice the same way has changed, and what has
    changed one cell may have changed the others too.
    """
    book, sketch, weight = state["book"], stream.history.sketch, state["weight"]
    for cell, column in enumerate(book.T.tolist()):
        if column[SOLVED_SIZE] > OLDER * SHORT[1] or not strayed(column, weight):
            continue
        sketch.fade(cell, 0.5)
        way = math.copysign(1.0, since_solved(column, weight)[2])
        if column[FADED] == way:
            book[NEAR : FAR + 1] *= _SUSPECT
        book[FADED, cell] = 0.0 if column[FADED] == way else way


def without_the_past(state: State, stream: Machine) -> State:
    """Forget the older scores of each cell whose short means contradict them."""
    cells = [cell for cell, column in enumerate(state["book"].T.tolist()) if contradicts(column)]
    if not cells:
        return state
    book = state["book"].copy()
    book[NEAR : FAR + 1] *= _SUSPECT  # what has changed one cell may have changed the others too
    for cell in cells:
        keep = _since_change(stream.history.sketch.newest(cell), float(book[LONG, cell]))
        book[NEAR : FAR + 1, cell] = book[NEXT_NEAR : NEXT_FAR + 1, cell] = math.inf
        stream.history.sketch.restart(cell, keep)
        book[SEEN, cell] = min(book[SEEN, cell], float(keep))
    names = ", ".join(map(str, cells))
    stream.note("sudden change", f"older scores of the cells {names} were cut off")
    stream.rule.unsettled_until = stream.samples + 0.2 * (stream.memory or 1e3)
    soon = stream.samples - _REFERENCE * (stream.memory or 1e3) + 2.0 * SHORT[0]
    return {
        **state,
        "book": book,
        "reference": min(state["reference"], soon),
        "wait": FIRST_WAIT,
        "cuts": state["cuts"] + len(cells),
    }


def _since_change(newest: FloatArray, before: float) -> int:
    """Return since how many samples a cell has changed: where the sum of distances to the mean before is clearest."""
    if len(newest) <= SURE:
        return len(newest)
    n = np.arange(1, len(newest) + 1)
    clear = np.abs(np.cumsum(newest - before)) / np.sqrt(n)
    return int(SURE) + int(clear[int(SURE) - 1 :].argmax())
