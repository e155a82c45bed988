"""Sweeps over a batch whose samples lie cell by cell, so that each cell is one run of numbers with one pull.

A counting sort brings the samples into that order once. Each sweep then gives the sums of y and of W = -dy/dq of every
cell, and writes nothing; the predictions are written at the end, in the order of the batch, where reads and writes
follow each other in memory however many cells there are. The formulas are those of `fairlayer.fused.steps`; the
entropic geometry takes e = exp(-x) instead of the log-odds x.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fairlayer.fused.compiling import compiled
from fairlayer.fused.steps import ENTROPIC, EUCLIDEAN, discriminant, odds

__all__ = [
    "arrange",
    "arrange_by_score",
    "check",
    "emit",
    "excess",
    "moments",
    "read_off",
    "sweep",
    "tally",
    "weigh",
]

_AT_A_TIME = 64  # samples whose polynomials are worked out together
_NARROW = 1e-300  # a range whose parts could not be told apart
_MANY_IN_A_PART = 48  # samples of a part of a cell that are left to a general sort


@compiled
def arrange(z: Any, codes: Any, counts: Any, starts: Any, ordered: Any) -> None:
    """Sort samples by cell: `starts` (cells + 2), and their scores."""
    cells = counts.shape[0]
    starts[0] = 0
    for cell in range(cells):
        starts[cell + 1] = starts[cell] + counts[cell]
    place = starts[:cells].copy()
    for i in range(codes.shape[0]):
        cell = codes[i]
        at = place[cell]
        place[cell] = at + 1
        ordered[at] = z[i]


@compiled
def arrange_by_score(z: Any, codes: Any, counts: Any, size: int, starts: Any, ordered: Any, left: Any) -> int:
    """Sort samples by cell, and by score within each; return how many runs (first, last) are `left` to be sorted.

    Equal parts of the range of a cell, of about `size` samples each, are filled in two sweeps. Small ones are then
    sorted one by one, large ones are left to a general sort; where `left` has no place for one, its whole cell is.
    """
    n, cells = codes.shape[0], counts.shape[0]
    low, high = np.full(cells, np.inf), np.full(cells, -np.inf)
    for i in range(n):
        cell = codes[i]
        low[cell], high[cell] = min(low[cell], z[i]), max(high[cell], z[i])
    parts, first_part = np.empty(cells), np.zeros(cells + 1, dtype=np.int64)
    starts[0] = 0
    for cell in range(cells):
        starts[cell + 1] = starts[cell] + counts[cell]
        many = max(counts[cell] // size, 1)
        first_part[cell + 1] = first_part[cell] + many
        wide = high[cell] - low[cell]
        parts[cell] = many / wide if wide > _NARROW else 0.0
    part_of = np.empty(n, dtype=np.int32)
    place = np.zeros(first_part[cells] + 1, dtype=np.int64)
    for i in range(n):
        cell = codes[i]
        part = first_part[cell] + int((z[i] - low[cell]) * parts[cell])
        part = min(part, first_part[cell + 1] - 1)
        part_of[i] = part
        place[part + 1] += 1
    for part in range(first_part[cells]):
        place[part + 1] += place[part]
    for i in range(n):
        at = place[part_of[i]]
        place[part_of[i]] = at + 1
        ordered[at] = z[i]
    many = 0
    for cell in range(cells):  # now `place` holds the ends of the parts
        last = starts[cell]
        for part in range(first_part[cell], first_part[cell + 1]):
            first, last = last, place[part]
            if last - first > _MANY_IN_A_PART:
                whole = many + cells - cell > left.shape[0]
                left[many, 0], left[many, 1] = (starts[cell] if whole else first), (starts[cell + 1] if whole else last)
                many += 1
                if whole:
                    break
                continue
            for at in range(first + 1, last):
                value, free = ordered[at], at
                while free > first and ordered[free - 1] > value:
                    ordered[free] = ordered[free - 1]
                    free -= 1
                ordered[free] = value
    return many


@compiled
def _place(scores: Any, first: int, last: int, value: float, after: bool) -> Any:
    """Return where a value stands among sorted scores: before those that are equal to it, or after them."""
    while first < last:
        middle = (first + last) // 2
        if scores[middle] < value or (after and scores[middle] == value):
            first = middle + 1
        else:
            last = middle
    return first


@compiled
def read_off(
    scores: Any, starts: Any, weights: Any, so_far: Any, pulls: Any, lower: float, upper: float, sums: Any, frees: Any
) -> None:
    """Write the sums of clip(x - q) and of W of each cell at several pulls, from sums so far over sorted scores.

    `so_far` and `weights` begin anew in each cell, with a 0 before it; no weights stand for one each.
    """
    weighted = weights.shape[0] > 0
    for point in range(pulls.shape[0]):
        for cell in range(pulls.shape[1]):
            first, last, pull = starts[cell], starts[cell + 1], pulls[point, cell]
            below = _place(scores, first, last, lower + pull, False) if lower > -np.inf else first
            above = _place(scores, below, last, upper + pull, True) if upper < np.inf else last
            at_low = weights[below + cell] if weighted else float(below - first)
            at_high = weights[above + cell] if weighted else float(above - first)
            total = so_far[above + cell] - so_far[below + cell] - pull * (at_high - at_low)
            if below > first:
                total += lower * at_low
            if above < last:
                total += upper * ((weights[last + cell] if weighted else float(last - first)) - at_high)
            sums[point, cell], frees[point, cell] = total, at_high - at_low


@compiled
def moments(unit: Any, weights: Any, starts: Any, found: Any) -> None:
    """Write the sums of Chebyshev's polynomials over runs of samples in (-1, 1), times weights where there are any."""
    before, last = np.empty(_AT_A_TIME), np.empty(_AT_A_TIME)
    for run in range(found.shape[0]):
        for first in range(starts[run], starts[run + 1], _AT_A_TIME):
            u = unit[first : min(first + _AT_A_TIME, starts[run + 1])]
            for i in range(u.shape[0]):
                before[i] = weights[first + i] if weights.shape[0] else 1.0
                last[i] = u[i] * before[i]
            for j in range(found.shape[1]):
                total = 0.0
                for i in range(u.shape[0]):
                    total += before[i]
                    after = 2.0 * u[i] * last[i] - before[i]
                    before[i] = last[i]
                    last[i] = after
                found[run, j] += total


@compiled
def _euclidean(z: Any, pull: float, lower: float, upper: float) -> Any:
    total, free = 0.0, 0.0
    for i in range(z.shape[0]):
        moved = z[i] - pull
        total += min(max(moved, lower), upper)
        free += 1.0 if (moved >= lower) & (moved <= upper) else 0.0
    return total, free


@compiled
def _entropic(e: Any, pull: float) -> Any:
    a, b = odds(pull)
    total, free = 0.0, 0.0
    for i in range(e.shape[0]):
        y = a / (a + b * e[i])
        total += y
        free += y * (1.0 - y)
    return total, free


@compiled
def _root(z: float, pull: float) -> Any:
    """Return the root of q y^2 - (1 + q) y + z = 0 in (0, 1)."""
    whole = 1.0 + pull
    root = discriminant(z, pull)
    return 2.0 * z / (whole + root) if whole > 0.0 else (root - whole) / (-2.0 * pull)


@compiled
def _likelihood(z: Any, pull: float) -> Any:
    total, free = 0.0, 0.0
    for i in range(z.shape[0]):
        y = _root(z[i], pull)
        spread = y * (1.0 - y)
        total += y
        free += spread * spread / (z[i] * (1.0 - y) * (1.0 - y) + (1.0 - z[i]) * y * y)
    return total, free


@compiled
def weigh(geometry: int, z: Any, weights: Any, starts: Any, pulls: Any, sums: Any, frees: Any) -> None:
    """Write the weighted sums of y and of W of each cell at several pulls."""
    for point in range(pulls.shape[0]):
        for cell in range(pulls.shape[1]):
            pull, total, free = pulls[point, cell], 0.0, 0.0
            if geometry == ENTROPIC:
                a, b = odds(pull)
                for i in range(starts[cell], starts[cell + 1]):
                    y = a / (a + b * z[i])
                    total += weights[i] * y
                    free += weights[i] * (y * (1.0 - y))
            else:
                for i in range(starts[cell], starts[cell + 1]):
                    y = _root(z[i], pull)
                    spread = y * (1.0 - y)
                    total += weights[i] * y
                    free += weights[i] * spread * spread / (z[i] * (1.0 - y) * (1.0 - y) + (1.0 - z[i]) * y * y)
            sums[point, cell], frees[point, cell] = total, free


@compiled
def sweep(geometry: int, z: Any, starts: Any, pulls: Any, lower: float, upper: float, sums: Any, frees: Any) -> None:
    """Write the sums of y and of W of each cell at its pull."""
    for cell in range(pulls.shape[0]):
        part, pull = z[starts[cell] : starts[cell + 1]], pulls[cell]
        if geometry == EUCLIDEAN:
            sums[cell], frees[cell] = _euclidean(part, pull, lower, upper)
        elif geometry == ENTROPIC:
            sums[cell], frees[cell] = _entropic(part, pull)
        else:
            sums[cell], frees[cell] = _likelihood(part, pull)


@compiled
def _euclidean_tally(z: Any, pull: float, lower: float, upper: float, threshold: float) -> Any:
    distance, yes = 0.0, 0.0
    for i in range(z.shape[0]):
        y = min(max(z[i] - pull, lower), upper)
        distance += 0.5 * (y - z[i]) * (y - z[i])
        yes += 1.0 if y >= threshold else 0.0
    return distance, yes


@compiled
def _entropic_tally(e: Any, pull: float, threshold: float) -> Any:
    """Sum d = log((1 + exp(x)) / (1 + exp(x - q))) - q y; a logarithm of many factors at once."""
    a, b = odds(pull)
    total, yes, logs, product = 0.0, 0.0, 0.0, 1.0
    for i in range(e.shape[0]):
        below = a + b * e[i]
        y = a / below
        total += y
        yes += 1.0 if y >= threshold else 0.0
        product *= b * (1.0 + e[i]) / below
        if product > 1e30 or product < 1e-30:
            logs += math.log(product)
            product = 1.0
    return logs + math.log(product) - pull * total, yes


@compiled
def tally(
    geometry: int, z: Any, starts: Any, pulls: Any, lower: float, upper: float, threshold: float, far: Any, yes: Any
) -> None:
    """Write the sums of d(y, z) of each cell at its pull, and how many y reach a threshold."""
    for cell in range(pulls.shape[0]):
        part, pull = z[starts[cell] : starts[cell + 1]], pulls[cell]
        if geometry == EUCLIDEAN:
            far[cell], yes[cell] = _euclidean_tally(part, pull, lower, upper, threshold)
        else:
            far[cell], yes[cell] = _entropic_tally(part, pull, threshold)


@compiled
def excess(z: Any, starts: Any, pulls: Any, threshold: float, first: int, up: Any, down: Any, yes: Any) -> None:
    """Write z / y - 1 = q (1 - y) and (1 - z) / (1 - y) - 1 = -q y of a run of samples; add who reaches a threshold.

    With them d = z log(z / y) + (1 - z) log((1 - z) / (1 - y)); the logarithms are left to NumPy, which is faster.
    """
    last = first + up.shape[0]
    for cell in range(pulls.shape[0]):
        pull = pulls[cell]
        for at in range(max(starts[cell], first), min(starts[cell + 1], last)):
            y = _root(z[at], pull)
            yes[cell] += 1.0 if y >= threshold else 0.0
            up[at - first] = max(pull * (1.0 - y), z[at] - 1.0)
            down[at - first] = max(-pull * y, -z[at])


@compiled
def emit(geometry: int, z: Any, codes: Any, pulls: Any, lower: float, upper: float, value: Any, free: Any) -> None:
    """Write the predictions of samples in the order of the batch; on a box also which of them no bound holds."""
    n, cells = codes.shape[0], pulls.shape[0]
    if geometry == EUCLIDEAN:
        for i in range(n):
            moved = z[i] - pulls[codes[i]]
            y = min(max(moved, lower), upper)
            free[i] = y == moved
            value[i] = y
    elif geometry == ENTROPIC:
        up, down = np.empty(cells), np.empty(cells)
        for cell in range(cells):
            up[cell], down[cell] = odds(pulls[cell])
        for i in range(n):
            a = up[codes[i]]
            value[i] = a / (a + down[codes[i]] * z[i])
    else:
        for i in range(n):
            value[i] = _root(z[i], pulls[codes[i]])


def check() -> None:
    """Compile, or load from the cache, what passes over cells need, and run it once: what is broken shows here."""
    scores, codes, counts = np.array([3.0, 1.0, 5.0]), np.array([1, 0, 1]), np.array([1, 2, 0])
    starts, ordered = np.zeros(4, dtype=np.int64), np.empty(3)
    arrange(scores, codes, counts, starts, ordered)
    pulls, sums, frees, value = np.array([-1.0, 1.0, 0.0]), np.empty(3), np.empty(3), np.empty(3)
    arrange_by_score(scores, codes, counts, 2, starts, ordered, np.empty((4, 2), dtype=np.int64))
    sweep(EUCLIDEAN, ordered, starts, pulls, -np.inf, np.inf, sums, frees)
    emit(EUCLIDEAN, scores, codes, pulls, -np.inf, np.inf, value, np.empty(3, dtype=np.bool_))
    if sums.tolist() != [2.0, 6.0, 0.0] or value.tolist() != [2.0, 2.0, 4.0]:
        raise ArithmeticError(f"the compiled sweep of two cells gave {sums.tolist()} and {value.tolist()}")
