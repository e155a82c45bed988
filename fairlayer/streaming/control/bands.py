"""The feed-forward of the present: the nearest shifts of recent raw scores that bring every group into its band.

A statement compares members g, each linear in the predictions: v_g = sum_i a_gi y_i + b_g. A point i (a bin of the
sketch, of weight h_i) belongs to one member of a statement, and answers its pull

    q_i = sum over statements of t_g k_i,       k_i = a_gi / h_i over its largest,      y_i = y(x_i, q_i)

so v_g falls as t_g grows. With slack s_g the bands are

    spread     r M - tolerance - s_g  <=  v_g  <=  M + s_g          for some M; r is 1, or the ratio
    rows       lower_g - s_g  <=  v_g  <=  upper_g + s_g

and t_g is the least shift that brings v_g into its band. Of a spread, M is where its own multiplier vanishes:
sum_g nu_g+ = r sum_g nu_g-, with nu_g = t_g / (largest a_gi / h_i), which falls as M grows. Several statements take
turns, each solved exactly while the others rest: ascent in blocks of the dual, which for finite scores cannot fail.

Shifts are looked up in a table of v_g at shifts around the last ones, between which it is taken to be linear; it is
made anew until the shifts rest.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.constraints import Rows, Spread, Statement
from fairlayer.constraints.statements import as_float

__all__ = [
    "RESTS",
    "RESTS_ALONE",
    "SWEEPS",
    "Band",
    "Solved",
    "at_balance",
    "bands_of",
    "falling_of",
    "solve_bands",
    "table_around",
]

SWEEPS = 12
"""Most turns of all statements."""

RESTS = 2e-5
"""Change of a shift, as a share of the largest, below which it rests."""

RESTS_ALONE = 1e-3
"""The same for a single statement, whose table is exact enough this near."""

_STEPS = np.array([1.0, 0.6, 0.3, 0.15, 0.08, 0.04, 0.02, 0.01, 0.005, 0.002, 0.0005])
_GRID = np.concatenate([-_STEPS, [0.0], _STEPS[::-1]])
_LEVELS = 33


@dataclass(frozen=True)
class Band:
    """One statement about recent scores.

    Args:
        owner: the name of its constraint.
        names: the names of the members.
        points: (p,) which points belong to a member, sorted by member.
        member: (p,) the member of each.
        starts: (members,) where each member's points begin.
        share: (p,) k of each.
        weight: (p,) h k of each.
        unit: (members,) the largest a_gi / h_i.
        offset: (members,) b_g.
        size: (members,) how many recent samples each member stands for.
        lower: (members,) lower limits of rows; None for a spread.
        upper: (members,) upper limits of rows; None for a spread.
        tolerance: the tolerance of a spread.
        ratio: the ratio of a spread.
        slack: (members,) s_g.
        debt: (members,) how much lower (above 0) or higher (below 0) each is to aim within its band.
    """

    owner: str
    names: tuple[str, ...]
    points: IntArray
    member: IntArray
    starts: IntArray
    share: FloatArray
    weight: FloatArray
    unit: FloatArray
    offset: FloatArray
    size: FloatArray
    lower: FloatArray | None
    upper: FloatArray | None
    tolerance: float
    ratio: float
    slack: FloatArray
    debt: FloatArray

    def with_room(self, slack: FloatArray, room: float, debt: FloatArray | None = None) -> Band:
        """Return the band with this slack, wider by a room, and aiming by a debt."""
        lower = None if self.lower is None else self.lower - room
        upper = None if self.upper is None else self.upper + room
        debt = self.debt if debt is None else debt
        tolerance = max(self.tolerance + room, 0.0) if self.lower is None else self.tolerance
        return replace(self, slack=slack, lower=lower, upper=upper, tolerance=tolerance, debt=debt)

    @cached_property
    def alike(self) -> bool:
        """Whether a shift of a member moves all of its points by as much."""
        return bool((self.share == 1.0).all())

    def values(self, answers: FloatArray) -> FloatArray:
        """Return v (members, ...) of predictions (p, ...) of its points."""
        weights = self.weight if answers.ndim == 1 else self.weight[:, None]
        sums = np.add.reduceat(weights * answers, self.starts, axis=0)
        unit, offset = (self.unit, self.offset) if answers.ndim == 1 else (self.unit[:, None], self.offset[:, None])
        return np.asarray(sums * unit + offset)

    def outside(self, v: FloatArray) -> float:
        """Return by how much the values lie outside their bands, 0 inside."""
        if self.lower is not None and self.upper is not None:
            away = np.maximum(v - self.upper - self.slack, self.lower - self.slack - v)
            return float(np.maximum(away, 0.0).max(initial=0.0))
        here = np.isfinite(self.slack)
        if here.sum() < 2:
            return 0.0
        top, bottom = (v - self.slack)[here].max(), (v + self.slack)[here].min()
        return max(float(self.ratio * top - bottom - self.tolerance), 0.0)


class Solved(NamedTuple):
    """What `solve_bands` found.

    Args:
        pulls: (points,) the pull of each point.
        shifts: the shifts of each band, t (members,).
        unmet: by how much the worst band is not reached, in prediction units.
    """

    pulls: FloatArray
    shifts: tuple[FloatArray, ...]
    unmet: float


def bands_of(owner: str, statement: Statement, weights: FloatArray) -> list[Band]:
    """Return the bands of a statement about points of these weights; several where members share points."""
    functionals = statement.matrix @ statement.means.as_weights()
    present = statement.present & (functionals != 0.0).any(axis=1)
    if not present.any():
        return []
    if ((functionals[present] != 0.0).sum(axis=0) <= 1).all():
        found = _band(owner, statement, functionals, np.flatnonzero(present), weights)
        return [] if found is None else [found]
    rows = _as_rows(statement, functionals, present)
    singles = [_band(owner, rows, rows.matrix, np.array([i]), weights) for i in range(len(rows.matrix))]
    return [band for band in singles if band is not None]


def solve_bands(
    bands: Sequence[Band],
    answer: Callable[[IntArray, FloatArray], FloatArray],
    points: int,
    *,
    limit: float,
    before: Mapping[str, float],
    sweeps: int = SWEEPS,
) -> Solved:
    """Return the least shifts that bring every member into its band, as far as shifts within the limit can.

    Args:
        bands: what must hold.
        answer: a function from points (p,) and pulls (p, k) to predictions (p, k).
        points: how many there are.
        limit: the largest shift.
        before: the shifts of an earlier solution by "owner/member", to begin from.
        sweeps: most turns of all bands.
    """
    pulls = np.zeros(points)
    shifts = [np.array([before.get(f"{band.owner}/{name}", 0.0) for name in band.names]) for band in bands]
    for band, t in zip(bands, shifts, strict=True):
        np.add.at(pulls, band.points, t[band.member] * band.share)
    for _ in range(sweeps):
        moved = 0.0
        for j, band in enumerate(bands):
            rest = pulls[band.points] - shifts[j][band.member] * band.share
            t = _shifts(band, rest, shifts[j], answer, limit)
            moved = max(moved, float(np.abs(t - shifts[j]).max(initial=0.0)))
            shifts[j] = t
            pulls[band.points] = rest + t[band.member] * band.share
        if moved <= (RESTS if len(bands) > 1 else RESTS_ALONE) * limit:
            break
    unmet = [band.outside(band.values(answer(band.points, pulls[band.points][:, None])[:, 0])) for band in bands]
    return Solved(pulls, tuple(shifts), max(unmet, default=0.0))


def _shifts(
    band: Band,
    rest: FloatArray,
    now: FloatArray,
    answer: Callable[[IntArray, FloatArray], FloatArray],
    limit: float,
) -> FloatArray:
    """Return the shifts of one band while the others rest."""
    table = table_around(now, limit)
    pulls = table.take(band.member, axis=0)
    if not band.alike:
        pulls *= band.share[:, None]
    pulls += rest[:, None]
    v = band.values(answer(band.points, pulls))
    falling = falling_of(table, v)
    if band.lower is not None and band.upper is not None:
        upper, lower = band.upper + band.slack, band.lower - band.slack
        return np.array(
            [line.least(*ends) for line, *ends in zip(falling, lower.tolist(), upper.tolist(), strict=True)]
        )
    slack, debt = band.slack.tolist(), band.debt.tolist()
    above = [s - max(d, 0.0) for s, d in zip(slack, debt, strict=True)]
    below = [band.tolerance + s + min(d, 0.0) for s, d in zip(slack, debt, strict=True)]
    return np.array(at_balance(falling, above, below, band.unit.tolist(), band.ratio))


def table_around(now: FloatArray, limit: float) -> FloatArray:
    """Return shifts around those of now, rising, 0 among them: (members, table)."""
    table = np.zeros((len(now), len(_GRID) + 1))
    around = table[:, 1:]
    np.add(now[:, None], limit * _GRID, out=around)
    np.minimum(np.maximum(around, -limit, out=around), limit, out=around)
    table.sort(axis=1)
    return table


def falling_of(table: FloatArray, v: FloatArray) -> list[_Falling]:
    """Return the values of each member at the shifts of a table (members, table)."""
    return [_Falling(*lines) for lines in zip(table.tolist(), (-v).tolist(), strict=True)]


class _Falling:
    """The values of a member, which fall as its shift grows, and are linear between those of a table.

    Args:
        shifts: rising, 0 among them.
        negated: minus the value at each.
    """

    __slots__ = ("negated", "shifts", "still")

    def __init__(self, shifts: list[float], negated: list[float]) -> None:
        self.shifts, self.negated = shifts, negated
        self.still = -negated[bisect_left(shifts, 0.0)]  # the value without a shift

    def least(self, lower: float, upper: float) -> float:
        """Return the least shift that brings the value between two limits, the ends of the table beyond them."""
        if upper < self.still:
            return max(self.at(upper), 0.0)
        return min(self.at(lower), 0.0) if lower > self.still else 0.0

    def at(self, value: float) -> float:
        """Return the shift at which a value is reached, the ends of the table beyond them."""
        shifts, negated = self.shifts, self.negated
        right = bisect_right(negated, -value)
        if right == 0:
            return shifts[0]
        if right == len(shifts):
            return shifts[-1]
        rise = negated[right] - negated[right - 1]
        return shifts[right - 1] + (shifts[right] - shifts[right - 1]) / rise * (-value - negated[right - 1])


def at_balance(
    falling: list[_Falling], above: list[float], below: list[float], unit: list[float], ratio: float = 1.0
) -> list[float]:
    """Return the shifts of a spread at the level where its own multiplier vanishes.

    Args:
        falling: the values of each member.
        above: how far each may lie above the level.
        below: how far each may lie below the ratio times the level.
        unit: of each member, see `Band`.
        ratio: of the spread.
    """
    members = list(zip(falling, above, below, unit, strict=True))

    def shifts(level: float) -> list[float]:
        return [line.least(min(ratio * level - down, level + up), level + up) for line, up, down, _ in members]

    def balance(level: float) -> float:
        total, bottom = 0.0, ratio * level
        for line, up, down, each in members:
            upper, lower = level + up, bottom - down
            if upper < line.still:
                total += max(line.at(upper), 0.0) / each
            elif lower > line.still:
                total += ratio * (min(line.at(lower), 0.0) / each)
        return total

    high = max(line.still - up for line, up, *_ in members)
    low = min((line.still + down) / max(ratio, 1e-9) for line, _, down, _ in members)
    if not low < high:
        return [0.0] * len(members)
    before, after = balance(low), balance(high)
    for _ in range(2):  # the balance falls as the level grows: it is above 0 at the lower end, and not at the upper
        first, width, down, up = low, high - low, 0, _LEVELS - 1
        while up - down > 1:
            # Among falling numbers any place between the two leads to the same step; a straight line guesses nearest.
            fall = before - after
            middle = down + int((up - down) * before / fall) if fall > 0.0 and before > 0.0 else (down + up) // 2
            middle = min(max(middle, down + 1), up - 1)
            found = balance(first + width * (middle / (_LEVELS - 1.0)))
            if found <= 0.0:
                up, after = middle, found
            else:
                down, before = middle, found
        low, high = first + width * (down / (_LEVELS - 1.0)), first + width * (up / (_LEVELS - 1.0))
    fall = before - after
    return shifts(low + (high - low) * (min(max(before / fall, 0.0), 1.0) if fall > 0.0 else 0.0))


def _band(
    owner: str, statement: Statement, functionals: FloatArray, members: IntArray, weights: FloatArray
) -> Band | None:
    a = functionals[members]
    points = np.flatnonzero((a != 0.0).any(axis=0) & (weights > 0.0))
    if not len(points):
        return None
    member = np.abs(a[:, points]).argmax(axis=0)
    order = np.argsort(member, kind="stable")
    points, member = points[order], member[order]
    reach = a[member, points] / weights[points]
    unit = np.zeros(len(members))
    np.maximum.at(unit, member, np.abs(reach))
    kept = np.flatnonzero(unit > 0.0)
    if len(kept) < len(members):
        return _band(owner, statement, functionals, members[kept], weights)
    share = reach / unit[member]
    size = np.bincount(member, weights=weights[points] * np.abs(share), minlength=len(members)).astype(np.float64)
    spread = isinstance(statement, Spread)
    offset = np.zeros(len(members))
    if isinstance(statement, Spread) and statement.offset is not None:
        offset = statement.offset[members]
    tolerance = as_float(statement.tolerance)
    rows = statement if isinstance(statement, Rows) else None
    return Band(
        owner=owner,
        names=tuple(f"{'' if spread else 'row '}{statement.names[m]}" for m in members.tolist()),
        points=points,
        member=member,
        starts=np.searchsorted(member, np.arange(len(members))),
        share=share,
        weight=weights[points] * share,
        unit=unit,
        offset=offset,
        size=size,
        lower=None if rows is None else rows.lower_offset[members] - tolerance,
        upper=None if rows is None else rows.upper_offset[members] + tolerance,
        tolerance=tolerance,
        ratio=statement.scale if isinstance(statement, Spread) else 1.0,
        slack=np.zeros(len(members)),
        debt=np.zeros(len(members)),
    )


def _as_rows(statement: Statement, functionals: FloatArray, present: FloatArray) -> Rows:
    """Return a statement whose members share points as rows over the points: of a spread, every pair of members."""
    here = np.flatnonzero(present)
    if isinstance(statement, Rows):
        kept = statement.keep(np.asarray(present, dtype=bool))
        return kept._replace(matrix=functionals[here])
    pairs = [(g, h) for g in here.tolist() for h in here.tolist() if g != h]
    offset = np.zeros(len(statement.matrix)) if statement.offset is None else statement.offset
    return Rows(
        means=statement.means,
        matrix=np.array([statement.scale * functionals[g] - functionals[h] for g, h in pairs]),
        lower_offset=np.full(len(pairs), -np.inf),
        upper_offset=np.array([offset[h] - statement.scale * offset[g] for g, h in pairs]),
        names=tuple(f"{statement.names[g]} over {statement.names[h]}" for g, h in pairs),
        tolerance=statement.tolerance,
    )
