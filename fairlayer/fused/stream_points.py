"""Recent raw scores of a stream as a solution reads them, and what it then knows of each cell: compiled.

Points are the bins of the sketch, then the samples of a block that is learnt from before it is answered, then points of
almost no weight that tell what pull each cell has at the label estimates 0 and 1. What a solution knew of each cell
stays in the book, so that one that is due can be told from one that is worth while.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from fairlayer.fused.book import (
    AT_BOOK,
    HIGH,
    LABELLED,
    LOW,
    OF_CELLS,
    PLACES,
    ROWS,
    SCALE_LOW,
    SCALE_WIDTH,
    SOLVED_AWAY,
    SOLVED_COUNT,
    SOLVED_MEAN,
    SOLVED_SIZE,
    SOLVED_SPREAD,
)
from fairlayer.fused.book import COUNT as PRESENT
from fairlayer.fused.book import RAW as PRESENT_RAW
from fairlayer.fused.compiling import compiled, entry, float64_at, int64_at
from fairlayer.fused.stream_steps import estimated

__all__ = ["far_means", "gather", "means_now", "moved", "moved_quickly"]

_NEXT_TO_NOTHING = 1e-9  # of a weight: bins below it are empty, points of it only tell a pull


@compiled
def gather(counts: Any, totals: Any, unit: float, block_cells: Any, block_raw: Any, curve: Any, terms: Any) -> Any:
    """Return cells, scores, weights and label estimates of all points, their recent weight, and the spread.

    And, last, the spread of the scores as they are cut off at the bounds: of what predictions can be.
    """
    k, bins = counts.shape
    labelled = terms[LABELLED] > 0.0
    halves = 2 if labelled else 1
    most = k * bins + block_cells.shape[0] + halves * k
    cell, score, weight, estimate = np.empty(most, np.int64), np.empty(most), np.empty(most), np.zeros(most)
    n = 0
    for c in range(k):
        for b in range(bins):
            if counts[c, b] > _NEXT_TO_NOTHING * unit:
                cell[n], score[n], weight[n] = c, totals[c, b] / counts[c, b], counts[c, b] / unit
                n += 1
    for i in range(block_cells.shape[0]):
        cell[n], score[n], weight[n] = block_cells[i], block_raw[i], 1.0
        n += 1
    low, high = terms[LOW], terms[HIGH]
    recent, mean, square, inside, inner = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        recent += weight[i]
        mean += weight[i] * score[i]
        inside += weight[i] * min(max(score[i], low), high)
    mean, inside = (mean / recent, inside / recent) if recent > 0.0 else (0.0, 0.0)
    for i in range(n):
        square += weight[i] * (score[i] - mean) ** 2
        inner += weight[i] * (min(max(score[i], low), high) - inside) ** 2
        if labelled:
            estimate[i] = estimated(curve, cell[i], score[i], terms[SCALE_LOW], terms[SCALE_WIDTH])
    spread = math.sqrt(max(square / recent if recent > 0.0 else 0.0, 1e-12))
    inner = math.sqrt(max(inner / recent if recent > 0.0 else 0.0, 1e-12))
    for half in range(halves):
        for c in range(k):
            cell[n], score[n], weight[n], estimate[n] = c, mean, _NEXT_TO_NOTHING, float(half)
            n += 1
    return cell[:n], score[:n], weight[:n], estimate[:n], recent, spread, inner


@compiled
def far_means(counts: Any, totals: Any, borrowed: Any, unit: float, spread: float, numbers: Any, far: Any) -> None:
    """Write the long mean of each cell, and how far the short means may lie from it, of what came here.

    `numbers` are cut, the least share of the variance of all scores, how much more the long mean must hold, and for
    each short mean its samples and by how much more it must differ.
    """
    cut, least, older = numbers[0], numbers[1], numbers[2]
    k, bins = counts.shape
    for c in range(k):
        total, first, square = 0.0, 0.0, 0.0
        for repeat in range(2):
            mean = first / max(total, 1e-9)
            for b in range(bins):
                count = counts[c, b] - borrowed[0, c, b]
                if count > _NEXT_TO_NOTHING * unit:
                    score = (totals[c, b] - borrowed[1, c, b]) / count
                    if repeat == 0:
                        total += count / unit
                        first += count / unit * score
                    else:
                        square += count / unit * (score - mean) ** 2
        safe = max(total, 1e-9)
        sd = math.sqrt(max(square / safe, least * spread**2))
        far[0, c] = first / safe
        for i in range(2):
            samples, surely = numbers[3 + 2 * i], numbers[4 + 2 * i]
            sure = total > older * samples
            far[1 + i, c] = surely * cut * sd * math.sqrt(0.5 / samples + 0.5 / safe) if sure else np.inf


@compiled
def means_now(book: Any, cell: Any, score: Any, weight: Any, spread: float) -> None:
    """Write down what a solution knows of each cell: the mean and the number of its points, and the spread."""
    for c in range(book.shape[1]):
        book[SOLVED_MEAN, c], book[SOLVED_SIZE, c], book[SOLVED_SPREAD, c] = 0.0, 0.0, spread
    for i in range(cell.shape[0]):
        book[SOLVED_MEAN, cell[i]] += weight[i] * score[i]
        book[SOLVED_SIZE, cell[i]] += weight[i]
    for c in range(book.shape[1]):
        book[SOLVED_MEAN, c] /= max(book[SOLVED_SIZE, c], 1e-300)
        book[SOLVED_COUNT, c] = book[PRESENT, c]
        book[SOLVED_AWAY, c] = book[PRESENT_RAW, c] - book[SOLVED_MEAN, c] * book[PRESENT, c]


@compiled
def moved(book: Any, weight: float) -> Any:
    """Return by how many errors the raw means have moved since the last solution, squared, on average of samples."""
    total, samples = 0.0, 0.0
    for c in range(book.shape[1]):
        size, new = book[SOLVED_SIZE, c], (book[PRESENT, c] - book[SOLVED_COUNT, c]) / weight
        away = (book[PRESENT_RAW, c] - book[SOLVED_MEAN, c] * book[PRESENT, c] - book[SOLVED_AWAY, c]) / weight
        if size + new > 0.0:
            samples += size + new
            total += (away / max(book[SOLVED_SPREAD, c], 1e-12)) ** 2 * max(size, 1e-12) / (size + new)
    return total / max(samples, 1e-300)


@compiled
def moved_at(desk: int, weight: float) -> Any:
    """Return the same of the book of a call, see `stream_call.call`."""
    places = numba.carray(int64_at(desk), PLACES)
    return moved(numba.carray(float64_at(places[AT_BOOK]), (ROWS, places[OF_CELLS])), weight)


def moved_quickly() -> Callable[[int, float], float]:
    """Return `moved_at` for arguments of exactly the kinds that `check` has run it with: int and float."""
    return entry(moved_at)


def check() -> None:
    """Compile, or load from the cache, what solutions read, and run it once: what is broken shows here."""
    terms = np.array([0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
    counts, totals, book = np.eye(2), np.diag([0.25, 0.75]), np.zeros((ROWS, 2))
    none = np.zeros(0, dtype=np.int64), np.zeros(0)
    cell, score, weight, _, _, spread, _ = gather(counts, totals, 1.0, *none, np.zeros((2, 0)), terms)
    far_means(counts, totals, np.zeros((2, 2, 2)), 1.0, spread, np.ones(7), np.empty((3, 2)))
    means_now(book, cell, score, weight, spread)
    desk = np.zeros(PLACES, dtype=np.int64)
    desk[AT_BOOK], desk[OF_CELLS] = book.ctypes.data, book.shape[1]
    if not (score[:2].tolist() == [0.25, 0.75] and moved_at(desk.ctypes.data, 1.0) == 0.0):
        raise ArithmeticError(f"the compiled points of 0.25 and 0.75 were {score.tolist()}")
