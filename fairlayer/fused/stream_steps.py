"""The step of a stream under the policy "present": answers, the guard, and the counting, in one call.

The formulas are those of `fairlayer.streaming.policies.present` and `fairlayer.streaming.control.guard`, which stay
and serve where numba is absent; tests hold the two equal. A guard is one row of `member` (guards, cells): which
member each cell belongs to, -1 for none; its members are those from `start[j]` to `start[j + 1]`, and `kind` says
whom it counts: 0 everybody, 1 those of label 1, 2 those of label 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fairlayer.fused.book import (
    BASE,
    COUNT,
    COUNT1,
    EMITTED,
    EMITTED1,
    FAR,
    FIRST,
    GEOMETRY,
    GUARDED,
    HIGH,
    LABEL_BINS,
    LABELLED,
    LEAST_SHARE,
    LONG,
    LOW,
    NEAR,
    NOISE,
    RAW,
    RAW1,
    ROWS,
    SCALE_LOW,
    SCALE_WIDTH,
    SECOND,
    SEEN,
    SHORT,
    SLOPE,
    SOLVED_AWAY,
    SOLVED_COUNT,
    SOLVED_MEAN,
    SOLVED_SIZE,
    SOLVED_SPREAD,
    STRAYS,
    SURE,
    SURELY_STRAYS,
)
from fairlayer.fused.compiling import compiled
from fairlayer.fused.steps import ENTROPIC, EUCLIDEAN

__all__ = ["contradicted", "step_block", "step_one"]

STEPPED, CONTRADICTED, REFUSED = 0, 1, 2
"""How a step ended: counted; counted, and shifts are to be solved anew at once; a sample that it cannot take."""

_RESOLUTION = 2.0**-52
_LARGEST = 1e100
_SHORT, _LONGER = SHORT


@compiled
def root(z: float, pull: float) -> Any:
    """Return the root of q y^2 - (1 + q) y + z = 0 in (0, 1)."""
    whole = 1.0 + pull
    square = math.sqrt(max(whole * whole - 4.0 * pull * z, 0.0))
    return 2.0 * z / (whole + square) if whole > 0.0 else (square - whole) / (-2.0 * pull)


@compiled
def _answer(z: float, pull: float, terms: Any) -> Any:
    geometry = int(terms[GEOMETRY])
    if geometry == EUCLIDEAN:
        y = z - pull
    elif pull == 0.0:
        y = z
    else:
        z = min(max(z, _RESOLUTION), 1.0 - _RESOLUTION)
        if geometry == ENTROPIC:
            y = z / (z + math.exp(min(max(pull, -300.0), 300.0)) * (1.0 - z))
        else:
            y = root(z, pull)
    return min(max(y, terms[LOW]), terms[HIGH])


@compiled
def estimated(curve: Any, cell: int, z: float, low: float, width: float) -> Any:
    """Return the estimate of a label from the curve of a cell."""
    if width > 0.0:
        at = math.asin(math.sqrt(min(max((z - low) / width, 0.0), 1.0))) * (2.0 / math.pi * LABEL_BINS)
    else:
        at = (0.5 + math.atan(z) / math.pi) * LABEL_BINS
    at = min(max(at - 0.5, 0.0), LABEL_BINS - 1.0)
    left = min(int(at), LABEL_BINS - 2)
    first = curve[cell, left]
    return first + (at - left) * (curve[cell, left + 1] - first)


@compiled
def _share(kind: int, estimate: float) -> Any:
    return 1.0 if kind == 0 else estimate if kind == 1 else 1.0 - estimate


@compiled
def _totals(book: Any, member: Any, kind: Any, members: int) -> Any:
    """Return present counts, predictions and raw scores of all members, (3, members)."""
    found = np.zeros((3, members))
    for j in range(member.shape[0]):
        for cell in range(member.shape[1]):
            g = member[j, cell]
            if g < 0:
                continue
            for row in range(3):
                value = book[(COUNT1 if kind[j] == 1 else COUNT) + row, cell]
                found[row, g] += value - book[COUNT1 + row, cell] if kind[j] == 2 else value
    return found


@compiled
def _add_block(totals: Any, block: Any, weight: float, member: Any, kind: Any) -> None:
    for j in range(member.shape[0]):
        for cell in range(member.shape[1]):
            g = member[j, cell]
            if g < 0 or block[0, cell] == 0.0:
                continue
            for row in range(3):
                value = block[(3 if kind[j] == 1 else 0) + row, cell]
                totals[row, g] += weight * (value - block[3 + row, cell] if kind[j] == 2 else value)


@compiled
def _holds(totals: Any, start: Any, room: Any, noise: float, weight: float) -> Any:
    """Return whether every pair of members of every guard is within what it allows."""
    for j in range(start.shape[0] - 1):
        top, bottom, most, known = -np.inf, np.inf, 0.0, 0
        for g in range(start[j], start[j + 1]):
            if totals[0, g] > 0.0:
                mean = totals[1, g] / totals[0, g]
                top, bottom, most, known = max(top, mean), min(bottom, mean), max(most, totals[0, g]), known + 1
        if known < 2 or top - bottom <= room[j] + noise * math.sqrt(2.0 * weight / most):
            continue
        for g in range(start[j], start[j + 1]):
            for h in range(start[j], start[j + 1]):
                if totals[0, g] > 0.0 and totals[0, h] > 0.0:
                    gap = totals[1, g] / totals[0, g] - totals[1, h] / totals[0, h]
                    raw = totals[2, g] / totals[0, g] - totals[2, h] / totals[0, h]
                    tau = room[j] + noise * math.sqrt(weight * (1.0 / totals[0, g] + 1.0 / totals[0, h]))
                    if not gap <= max(tau, raw) + 1e-12:
                        return False
    return True


@compiled
def _allowed(
    totals: Any,
    member: Any,
    kind: Any,
    start: Any,
    room: Any,
    cell: int,
    weight: float,
    estimate: float,
    z: float,
    y: float,
    terms: Any,
) -> Any:
    """Return the prediction nearest to y that every guard allows (between them where they clash), and if one acts."""
    least, most, acts = -np.inf, np.inf, False
    noise = terms[NOISE] * math.sqrt(weight)
    for j in range(member.shape[0]):
        g = member[j, cell]
        share = _share(kind[j], estimate)
        if g < 0 or (kind[j] != 0 and share < LEAST_SHARE):
            continue
        w = weight * share
        n = totals[0, g] + w
        mean, raw = (totals[1, g] + w * y) / n, (totals[2, g] + w * z) / n
        for h in range(start[j], start[j + 1]):
            count = totals[0, h]
            if h == g or count <= 0.0:
                continue
            gap = mean - totals[1, h] / count
            if -room[j] <= gap <= room[j]:
                continue
            tau = room[j] + noise * math.sqrt(1.0 / n + 1.0 / count)
            if -tau <= gap <= tau:
                continue
            raw_gap = raw - totals[2, h] / count
            if gap > max(tau, raw_gap):
                most, acts = min(most, y - (gap - max(tau, raw_gap)) * n / w), True
            elif gap < min(-tau, raw_gap):
                least, acts = max(least, y + (min(-tau, raw_gap) - gap) * n / w), True
    if not acts:
        return y, False
    least, most = min(max(least, terms[LOW]), terms[HIGH]), min(max(most, terms[LOW]), terms[HIGH])
    return (0.5 * (least + most) if least > most else min(max(y, least), most)), True


@compiled
def _run_short_mean(book: Any, cell: int, z: float) -> None:
    seen = book[SEEN, cell] + 1.0
    book[SEEN, cell] = seen
    book[FIRST, cell] += (z - book[FIRST, cell]) / min(seen, _SHORT)
    book[SECOND, cell] += (z - book[SECOND, cell]) / min(seen, _LONGER)


@compiled
def _contradicted(book: Any, cell: int) -> Any:
    first, second = abs(book[FIRST, cell] - book[LONG, cell]), abs(book[SECOND, cell] - book[LONG, cell])
    return book[SEEN, cell] > SURE and (first > book[NEAR, cell] or second > book[FAR, cell])


@compiled
def contradicted(book: Any) -> Any:
    """Return whether the short means of some cell lie far from its long one."""
    found = False
    for cell in range(book.shape[1]):
        found |= _contradicted(book, cell)
    return found


@compiled
def _strayed(book: Any, cell: int, weight: float) -> Any:
    """Return whether what has come of a cell since the last solution has moved its raw mean, by more than noise."""
    if not book[SEEN, cell] > SURE:
        return False
    away = (book[RAW, cell] - book[SOLVED_MEAN, cell] * book[COUNT, cell] - book[SOLVED_AWAY, cell]) / weight
    size, new = book[SOLVED_SIZE, cell], (book[COUNT, cell] - book[SOLVED_COUNT, cell]) / weight
    return away * away > book[SOLVED_SPREAD, cell] ** 2 * max(STRAYS**2 * size, SURELY_STRAYS**2 * new)


@compiled
def _asks(book: Any, block: Any, weight: float) -> Any:
    """Return whether some cell of a block asks for a solution."""
    found = False
    for cell in range(book.shape[1]):
        if block[0, cell] > 0.0:
            found |= _contradicted(book, cell) or _strayed(book, cell, weight)
    return found


@compiled
def step_one(
    book: Any, curve: Any, member: Any, kind: Any, start: Any, room: Any, terms: Any, weight: float, cell: int, z: float
) -> Any:
    """Answer and count one sample: (prediction, how far the guard moved it, whether it acted, how it ended)."""
    labelled = terms[LABELLED] > 0.0
    estimate = estimated(curve, cell, z, terms[SCALE_LOW], terms[SCALE_WIDTH]) if labelled else 0.0
    shifted = _answer(z, book[BASE, cell] + book[SLOPE, cell] * estimate, terms)
    y, acts = shifted, False
    if terms[GUARDED] > 0.0:
        totals = _totals(book, member, kind, start[start.shape[0] - 1])
        y, acts = _allowed(totals, member, kind, start, room, cell, weight, estimate, z, shifted, terms)
    book[COUNT, cell] += weight
    book[EMITTED, cell] += weight * y
    book[RAW, cell] += weight * z
    if labelled:
        book[COUNT1, cell] += weight * estimate
        book[EMITTED1, cell] += weight * estimate * y
        book[RAW1, cell] += weight * estimate * z
    _run_short_mean(book, cell, z)
    ended = _contradicted(book, cell) or _strayed(book, cell, weight)
    return y, abs(y - shifted), acts, CONTRADICTED if ended else STEPPED


@compiled
def step_block(
    book: Any,
    curve: Any,
    member: Any,
    kind: Any,
    start: Any,
    room: Any,
    terms: Any,
    weight: float,
    cells: Any,
    raw: Any,
    emitted: Any,
) -> Any:
    """Answer and count a block, all of whose samples weigh as much.

    Returns how it ended, how many samples the guard moved, and how far on average.
    """
    n, k = cells.shape[0], book.shape[1]
    for i in range(n):
        if not (0 <= cells[i] < k and abs(raw[i]) < _LARGEST):
            return REFUSED, 0, 0.0
    labelled = terms[LABELLED] > 0.0
    block, estimates = np.zeros((6, k)), np.zeros(n if labelled else 0)
    for i in range(n):
        cell, z, p = cells[i], raw[i], 0.0
        if labelled:
            p = estimated(curve, cell, z, terms[SCALE_LOW], terms[SCALE_WIDTH])
            estimates[i] = p
        y = _answer(z, book[BASE, cell] + book[SLOPE, cell] * p, terms)
        emitted[i] = y
        block[0, cell] += 1.0
        block[1, cell] += y
        block[2, cell] += z
        if labelled:
            block[3, cell] += p
            block[4, cell] += p * y
            block[5, cell] += p * z
    moved, correction = 0, 0.0
    if terms[GUARDED] > 0.0 and member.shape[0] > 0:
        totals = _totals(book, member, kind, start[start.shape[0] - 1])
        _add_block(totals, block, weight, member, kind)
        if not _holds(totals, start, room, terms[NOISE], weight):
            totals = _totals(book, member, kind, start[start.shape[0] - 1])
            for i in range(n):
                cell, z, p = cells[i], raw[i], estimates[i] if labelled else 0.0
                shifted = emitted[i]
                y, _ = _allowed(totals, member, kind, start, room, cell, weight, p, z, shifted, terms)
                if y != shifted:
                    emitted[i] = y
                    block[1, cell] += y - shifted
                    block[4, cell] += p * (y - shifted)
                    correction += abs(y - shifted)
                    moved += 1 if abs(y - shifted) > 1e-12 else 0
                for j in range(member.shape[0]):
                    g = member[j, cell]
                    if g >= 0:
                        w = weight * _share(kind[j], p)
                        totals[0, g] += w
                        totals[1, g] += w * y
                        totals[2, g] += w * z
    for row in range(6 if labelled else 3):
        for cell in range(k):
            book[COUNT + row, cell] += weight * block[row, cell]
    _run_short_means(book, block, cells, raw)
    return CONTRADICTED if _asks(book, block, weight) else STEPPED, moved, correction / max(n, 1)


@compiled
def _run_short_means(book: Any, block: Any, cells: Any, raw: Any) -> None:
    """Let the short means go on: one by one while a cell has few samples, then by the mean of its block."""
    k = book.shape[1]
    few = np.zeros(k)
    for cell in range(k):
        if block[0, cell] > 0.0 and book[SEEN, cell] < _LONGER:
            few[cell] = 1.0
    for i in range(cells.shape[0]):
        if few[cells[i]] > 0.0:
            _run_short_mean(book, cells[i], raw[i])
    for cell in range(k):
        n = block[0, cell]
        if n > 0.0 and few[cell] == 0.0:
            mean = block[2, cell] / n
            book[SEEN, cell] += n
            book[FIRST, cell] += (1.0 - (1.0 - 1.0 / _SHORT) ** n) * (mean - book[FIRST, cell])
            book[SECOND, cell] += (1.0 - (1.0 - 1.0 / _LONGER) ** n) * (mean - book[SECOND, cell])


def check() -> None:
    """Compile, or load from the cache, what steps need, and run it once: what is broken shows here."""
    member = np.zeros((1, 2), dtype=np.int64)
    member[0, 1] = 1
    guards = (member, np.zeros(1, dtype=np.int64), np.array([0, 2]), np.array([0.1]))
    given = (
        np.zeros((ROWS, 2)),
        np.zeros((2, LABEL_BINS)),
        *guards,
        np.array([0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0]),
    )
    emitted = np.empty(2)
    ended = step_block(*given, 1.0, np.array([0, 1]), np.array([0.25, 0.5]), emitted)[0]
    y = step_one(*given, 1.0, 1, 2.0)[0]
    contradicted(given[0])
    if (ended, y, emitted.tolist()) != (STEPPED, 1.0, [0.25, 0.5]):
        raise ArithmeticError(f"the compiled step of a stream gave {emitted.tolist()} and {y}")
