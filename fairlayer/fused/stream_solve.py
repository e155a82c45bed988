"""The feed-forward of a stream under parities of plain means: `fairlayer.streaming.control.bands`, compiled.

Where labels matter, a point of `fairlayer.fused.stream_points` counts in a member of kind 1 by its estimate p, in one
of kind 2 by 1 - p.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fairlayer.fused.book import BASE, LABELLED, ROWS, SLOPE
from fairlayer.fused.compiling import compiled
from fairlayer.fused.steps import ENTROPIC, EUCLIDEAN
from fairlayer.fused.stream_points import gather, means_now
from fairlayer.fused.stream_steps import root

__all__ = ["refresh", "solve"]

_STEPS = np.array([1.0, 0.6, 0.3, 0.15, 0.08, 0.04, 0.02, 0.01, 0.005, 0.002, 0.0005])
_GRID = np.concatenate([-_STEPS, _STEPS[::-1]])
_TABLE, _LEVELS, _SWEEPS = len(_GRID) + 2, 33, 12
_RESTS, _RESTS_ALONE = 2e-5, 1e-3
_RESOLUTION = 2.0**-52


@compiled
def _coordinate(geometry: int, z: float, low: float, high: float) -> Any:
    if geometry == EUCLIDEAN:
        return z
    z = min(max(min(max(z, low), high), _RESOLUTION), 1.0 - _RESOLUTION)
    return math.log(z / (1.0 - z)) if geometry == ENTROPIC else z


@compiled
def _step(geometry: int, x: float, pull: float, low: float, high: float) -> Any:
    if geometry == EUCLIDEAN:
        return min(max(x - pull, low), high)
    if geometry == ENTROPIC:
        e = math.exp(-abs(x - pull))
        return 1.0 / (1.0 + e) if x >= pull else e / (1.0 + e)
    return root(x, pull)


@compiled
def _inverse(table: Any, v: Any, wanted: float) -> Any:
    """Return the shift at which falling values (t,) are the one wanted, the ends of the table beyond them."""
    last = v.shape[0] - 1
    if not wanted <= v[0]:
        return table[0]
    if wanted <= v[last]:
        return table[last]
    low, high = 0, last
    while high - low > 1:  # v[low] >= wanted > v[high]
        middle = (low + high) // 2
        if v[middle] >= wanted:
            low = middle
        else:
            high = middle
    if v[low] == wanted:
        return table[low]
    slope = (table[low + 1] - table[low]) / (v[low] - v[low + 1])
    return slope * (v[low] - wanted) + table[low]


@compiled
def _at_level(table: Any, v: Any, still: Any, level: float, tolerance: float, slack: Any, t: Any) -> None:
    """Write the least shifts; `still` are the values without any."""
    for g in range(t.shape[0]):
        upper = level + slack[g]
        lower = min(level - (tolerance + slack[g]), upper)
        if upper < still[g]:
            t[g] = max(_inverse(table[g], v[g], upper), 0.0)
        else:
            t[g] = min(_inverse(table[g], v[g], lower), 0.0) if lower > still[g] else 0.0


@compiled
def _balance(t: Any, unit: Any) -> Any:
    up, down = 0.0, 0.0
    for g in range(t.shape[0]):
        up += max(t[g] / unit[g], 0.0)
        down += min(t[g] / unit[g], 0.0)
    return up + down


@compiled
def _shifts(
    geometry: int,
    x: Any,
    rest: Any,
    place: Any,
    share: Any,
    weight: Any,
    unit: Any,
    now: Any,
    slack: Any,
    tolerance: float,
    limit: float,
    low: float,
    high: float,
) -> Any:
    """Return the shifts of one parity while the others rest; `place` is the member of each point, -1 for none."""
    members = now.shape[0]
    table, v = np.empty((members, _TABLE)), np.zeros((members, _TABLE))
    for g in range(members):
        for s in range(_TABLE - 2):
            table[g, s] = min(max(now[g] + limit * _GRID[s], -limit), limit)
        table[g, _TABLE - 2], table[g, _TABLE - 1] = now[g], 0.0
        table[g].sort()
    for i in range(x.shape[0]):
        g = place[i]
        if g < 0:
            continue
        for s in range(_TABLE):
            v[g, s] += weight[i] * share[i] * _step(geometry, x[i], rest[i] + table[g, s] * share[i], low, high)
    t, still = np.zeros(members), np.zeros(members)
    top, bottom = -np.inf, np.inf
    for g in range(members):
        for s in range(_TABLE):
            v[g, s] *= unit[g]
        still[g] = v[g, 0]
        for s in range(_TABLE):
            if table[g, s] == 0.0:
                still[g] = v[g, s]
                break
        top, bottom = max(top, still[g] - slack[g]), min(bottom, still[g] + (tolerance + slack[g]))
    if not bottom < top:
        return t
    first, last, before, after = bottom, top, 0.0, 0.0
    for _ in range(2):
        least, width = first, last - first
        below, above = 0, _LEVELS - 1  # the balance falls as the level grows: it is above 0 below, and not above
        _at_level(table, v, still, least, tolerance, slack, t)
        before = _balance(t, unit)
        _at_level(table, v, still, last, tolerance, slack, t)
        after = _balance(t, unit)
        while above - below > 1:
            middle = (below + above) // 2
            _at_level(table, v, still, least + width * (middle / (_LEVELS - 1.0)), tolerance, slack, t)
            balance = _balance(t, unit)
            if balance <= 0.0:
                above, after = middle, balance
            else:
                below, before = middle, balance
        first, last = least + width * (below / (_LEVELS - 1.0)), least + width * (above / (_LEVELS - 1.0))
    fall = before - after
    between = min(max(before / fall, 0.0), 1.0) if fall > 0.0 else 0.0
    _at_level(table, v, still, first + (last - first) * between, tolerance, slack, t)
    return t


@compiled
def solve(
    cell: Any,
    score: Any,
    weight: Any,
    estimate: Any,
    inner: float,
    told: Any,
    member: Any,
    kind: Any,
    needs_labels: Any,
    start: Any,
    tolerance: Any,
    before: Any,
    terms: Any,
    numbers: Any,
) -> Any:
    """Return the pulls of all points, the shifts and 1 / unit of all members, and by how much the worst is missed.

    `inner` is the spread of scores that are cut off at the bounds.
    `numbers` are doubt, trust, and the largest shift; `told` (2, cells) are labels that have come, and those of label
    1; `before` the shifts to begin from.
    """
    geometry, low, high = int(terms[0]), terms[1], terms[2]
    doubt, trust, limit = numbers[0], numbers[1], numbers[2]
    guards, points, members = member.shape[0], cell.shape[0], start[start.shape[0] - 1]
    x = np.empty(points)
    for i in range(points):
        x[i] = _coordinate(geometry, score[i], low, high)
    place, share = np.full((guards, points), -1), np.zeros((guards, points))
    mass, known, unit, t = np.zeros(members), np.zeros(members), np.zeros(members), before.copy()
    pulls, slack = np.zeros(points), np.empty(members)
    for j in range(guards):
        for i in range(points):
            g = member[j, cell[i]]
            share[j, i] = 1.0 if kind[j] == 0 else estimate[i] if kind[j] == 1 else 1.0 - estimate[i]
            if g < 0 or share[j, i] == 0.0:
                continue
            place[j, i] = g - start[j]
            mass[g] += weight[i] * share[j, i]
            pulls[i] += t[g] * share[j, i]
        for c in range(member.shape[1]):
            g = member[j, c]
            if g >= 0:
                known[g] += told[1, c] if kind[j] == 1 else told[0, c] - (told[1, c] if kind[j] == 2 else 0.0)
    for j in range(guards):
        for g in range(start[j], start[j + 1]):
            unit[g] = 1.0 / mass[g] if mass[g] > 0.0 else 1.0  # nobody has come of it
            size = min(mass[g], known[g] + trust * mass[g]) if needs_labels[j] > 0 else mass[g]
            slack[g] = doubt * inner / math.sqrt(size) if size > 1e-6 else np.inf
    rest = np.empty(points)
    for _ in range(_SWEEPS):
        most = 0.0
        for j in range(guards):
            a, b = start[j], start[j + 1]
            for i in range(points):
                rest[i] = pulls[i] - (t[a + place[j, i]] * share[j, i] if place[j, i] >= 0 else 0.0)
            new = _shifts(
                geometry,
                x,
                rest,
                place[j],
                share[j],
                weight,
                unit[a:b],
                t[a:b],
                slack[a:b],
                tolerance[j],
                limit,
                low,
                high,
            )
            for g in range(a, b):
                most = max(most, abs(new[g - a] - t[g]))
                t[g] = new[g - a]
            for i in range(points):
                if place[j, i] >= 0:
                    pulls[i] = rest[i] + t[a + place[j, i]] * share[j, i]
        if most <= (_RESTS if guards > 1 else _RESTS_ALONE) * limit:
            break
    unmet = 0.0
    for j in range(guards):
        a, b = start[j], start[j + 1]
        v, met = np.zeros(b - a), 0
        for i in range(points):
            if place[j, i] >= 0:
                v[place[j, i]] += weight[i] * share[j, i] * _step(geometry, x[i], pulls[i], low, high)
        top, bottom = -np.inf, np.inf
        for g in range(a, b):
            if slack[g] < np.inf:
                value = v[g - a] * unit[g]
                top, bottom, met = max(top, value - slack[g]), min(bottom, value + slack[g]), met + 1
        if met > 1:
            unmet = max(unmet, top - bottom - tolerance[j])
    return pulls, t, mass, unmet


@compiled
def refresh(
    counts: Any,
    totals: Any,
    unit: float,
    block_cells: Any,
    block_raw: Any,
    curve: Any,
    told: Any,
    member: Any,
    kind: Any,
    needs_labels: Any,
    start: Any,
    tolerance: Any,
    before: Any,
    terms: Any,
    numbers: Any,
    book: Any,
) -> Any:
    """Solve, and write pulls and what was known into the book.

    `numbers` are doubt, trust, and the largest shift; where the last is 0 it is the spread, or as in `numbers[3]`.
    Returns the shifts of all members, what each parity is paid per sample, by how much the worst is missed, and the
    spreads of scores, and of scores cut off at the bounds.
    """
    cell, score, mass_of, estimate, recent, spread, inner = gather(
        counts, totals, unit, block_cells, block_raw, curve, terms
    )
    given = np.array([numbers[0], numbers[1], numbers[2] if numbers[2] > 0.0 else max(numbers[3], spread)])
    pulls, t, mass, unmet = solve(
        cell, score, mass_of, estimate, inner, told, member, kind, needs_labels, start, tolerance, before, terms, given
    )
    k = book.shape[1]
    last = pulls.shape[0] - (2 if terms[LABELLED] > 0.0 else 1) * k
    for c in range(k):
        book[BASE, c] = pulls[last + c]
        book[SLOPE, c] = pulls[last + k + c] - pulls[last + c] if terms[LABELLED] > 0.0 else 0.0
    means_now(book, cell[:last], score[:last], mass_of[:last], spread)
    paid = np.zeros(member.shape[0])
    for j in range(member.shape[0]):
        for g in range(start[j], start[j + 1]):
            paid[j] += max(t[g], 0.0) * mass[g] / max(recent, 1e-9)
    return t, paid, unmet, spread, inner


def check() -> None:
    """Compile, or load from the cache, what solutions need, and run it once: what is broken shows here."""
    member = np.zeros((1, 2), dtype=np.int64)
    member[0, 1] = 1
    nobody, terms = np.zeros(2), np.array([0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
    counts, totals, curve = np.eye(2), np.diag([0.25, 0.75]), np.zeros((2, 0))
    none = np.zeros(0, dtype=np.int64), np.zeros(0)
    *points, _, _, inner = gather(counts, totals, 1.0, *none, curve, terms)
    numbers, zero = np.array([0.0, 0.0, 1.0]), np.zeros(1, dtype=np.int64)
    told, ends, book = np.zeros((2, 2)), np.array([0, 2]), np.zeros((ROWS, 2))
    asked = told, member, zero, zero, ends, np.array([0.1]), nobody, terms
    t = solve(*points, inner, *asked, numbers)[1]
    again = refresh(counts, totals, 1.0, *none, curve, *asked, np.array([0.0, 0.0, 1.0, 0.0]), book)[0]
    if not (abs(t[0] + 0.2) < 1e-3 and abs(t[1] - 0.2) < 1e-3 and (t == again).all()):
        raise ArithmeticError(f"the compiled shifts of 0.25 and 0.75 to means 0.1 apart were {t.tolist()}")
