"""The same feed-forward as `bands`, for parities of plain means: recent raw scores lie in rows, a cell to each.

A cell belongs to one member of a parity at most, and each of its points counts for that member by a share: 1, or the
probability of the label that the parity reads. So of a point i of the cell c

    q_i = sum over parities j of t_jg s_ji,      g the member of c,      s_ji = 1, p_i or 1 - p_i

and a shift of a member answers whole rows at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.streaming.control.bands import RESTS, RESTS_ALONE, SWEEPS, at_balance, falling_of, table_around
from fairlayer.streaming.control.guard import EVERYBODY, LABEL_1, Guards, MemberRows

__all__ = ["Parity", "ScoreRows", "folded", "parities_of", "solve_parities"]

Answering = Callable[[FloatArray, FloatArray], FloatArray]


class ScoreRows(NamedTuple):
    """Points in rows of one cell each.

    Args:
        cell: (rows,) of each row.
        score: (rows, p) raw scores, or their coordinates.
        weight: (rows, p) how many recent samples each stands for; 0 where there is no point.
        estimate: (rows, p) of the label; None where no constraint reads labels.
    """

    cell: IntArray
    score: FloatArray
    weight: FloatArray
    estimate: FloatArray | None


class Parity(NamedTuple):
    """One parity about rows of points.

    Args:
        owner: the name of its constraint.
        names: the names of its members.
        layout: where its members are among the rows.
        share: (r, p) how much each point counts; None where all count as 1.
        weight: (r, p) its weight times that.
        unit: (members,) one over what all of the points of a member count.
        slack: (members,) of each.
        tolerance: of the parity.
    """

    owner: str
    names: tuple[str, ...]
    layout: MemberRows
    share: FloatArray | None
    weight: FloatArray
    unit: FloatArray
    slack: FloatArray
    tolerance: float

    @property
    def members(self) -> list[str]:
        """Every member, as "constraint/member"."""
        return [f"{self.owner}/{name}" for name in self.names]

    def pulls(self, shifts: FloatArray) -> FloatArray:
        """Return what shifts (members,) pull each point by: (r, p), or (r, 1) where all points of a row are alike."""
        of_row = shifts.take(self.layout.member)[:, None]
        return of_row if self.share is None else of_row * self.share

    def values(self, answers: FloatArray) -> FloatArray:
        """Return the mean of each member (members, ...) of predictions (r, p, ...) of its points."""
        sums: FloatArray = np.matmul(self.weight[:, None, :], answers)[:, 0, :]
        if len(self.layout.starts) < len(sums):
            sums = np.add.reduceat(sums, self.layout.starts, axis=0)
        sums *= self.unit[:, None]
        return sums

    def outside(self, means: FloatArray) -> float:
        """Return by how much means (members,) are farther apart than they may be."""
        top, bottom, known = -math.inf, math.inf, 0
        for mean, slack in zip(means.tolist(), self.slack.tolist(), strict=True):
            if slack < math.inf:
                top, bottom, known = max(top, mean - slack), min(bottom, mean + slack), known + 1
        return max(top - bottom - self.tolerance, 0.0) if known > 1 else 0.0


def folded(cells: IntArray, scores: FloatArray, known: int, wide: int) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return samples in rows of at most so many of one of the known cells: the cell of each row, scores and weights."""
    counts = np.bincount(cells, None, known)
    order = cells.argsort(kind="stable")
    cell = cells[order]
    place = np.arange(len(cells)) - (counts.cumsum() - counts)[cell]
    rows = -(-counts // wide)
    at = ((rows.cumsum() - rows)[cell] + place // wide, place % wide)
    score, weight = np.zeros((2, int(rows.sum()), wide))
    score[at], weight[at] = scores[order], 1.0
    return np.repeat(np.arange(known), rows), score, weight


def parities_of(found: Guards, rows: ScoreRows, slacks: Callable[[int, FloatArray], FloatArray]) -> list[Parity]:
    """Return the parities of a stream about its recent scores.

    Args:
        found: the parities.
        rows: the recent scores.
        slacks: a function from the number of a parity, and what each of its members counts, to their slacks.
    """
    parities = []
    plain = len(rows.cell) == found.member.shape[1]  # a row for each cell, and no more
    for j, (kind, tolerance) in enumerate(zip(found.kind.tolist(), found.tolerance.tolist(), strict=True)):
        layout = found.layouts[j] if plain else found.layout(j, rows.cell)
        names, weight, share = found.names[j], rows.weight[layout.rows], None
        if kind != EVERYBODY and rows.estimate is not None:
            share = rows.estimate[layout.rows]
            share = share if kind == LABEL_1 else 1.0 - share
            weight = weight * share
        size = np.bincount(layout.member, np.add.reduce(weight, axis=1), len(names)).astype(np.float64, copy=False)
        parities.append(Parity(found.owners[j], names, layout, share, weight, 1.0 / size, slacks(j, size), tolerance))
    return parities


def solve_parities(
    parities: Sequence[Parity], scores: FloatArray, answer: Answering, *, limit: float, before: Mapping[str, float]
) -> tuple[list[FloatArray], float]:
    """Return the shifts of each parity (members,), and by how much the worst one is not met; see `solve_bands`.

    Args:
        parities: what must hold.
        scores: (rows, p) coordinates of all points.
        answer: a function from coordinates (r, p, 1) and pulls to predictions (r, p, k).
        limit: the largest shift.
        before: the shifts of an earlier solution by "owner/member", to begin from.
    """
    alone = len(parities) == 1
    shifts = [np.array([before.get(name, 0.0) for name in parity.members]) for parity in parities]
    pulls: Any = np.zeros(scores.shape if any(p.share is not None for p in parities) else (len(scores), 1))
    points = [scores[parity.layout.rows][:, :, None] for parity in parities]
    if not alone:
        for parity, t in zip(parities, shifts, strict=True):
            pulls[parity.layout.rows] += parity.pulls(t)
    for _ in range(SWEEPS):
        moved = 0.0
        for j, (parity, x) in enumerate(zip(parities, points, strict=True)):
            rest = None if alone else pulls[parity.layout.rows] - parity.pulls(shifts[j])
            t = _shifts(parity, rest, shifts[j], partial(answer, x), limit)
            moved = max(moved, float(np.maximum.reduce(np.abs(t - shifts[j]), initial=0.0)))
            shifts[j] = t
            if rest is not None:
                pulls[parity.layout.rows] = rest + parity.pulls(t)
        if moved <= (RESTS_ALONE if alone else RESTS) * limit:
            break
    unmet = 0.0
    for parity, x, t in zip(parities, points, shifts, strict=True):
        here = parity.pulls(t) if alone else pulls[parity.layout.rows]
        unmet = max(unmet, parity.outside(parity.values(answer(x, here[:, :, None]))[:, 0]))
    return shifts, unmet


def _shifts(
    parity: Parity, rest: FloatArray | None, now: FloatArray, answer: Callable[[FloatArray], FloatArray], limit: float
) -> FloatArray:
    """Return the shifts of one parity while the others rest."""
    table = table_around(now, limit)
    pulls = table.take(parity.layout.member, axis=0)[:, None, :]
    if parity.share is not None:
        pulls = pulls * parity.share[:, :, None]
    if rest is not None:
        pulls = pulls + rest[:, :, None]
    falling = falling_of(table, parity.values(answer(pulls)))
    slack = parity.slack.tolist()
    below = [parity.tolerance + each for each in slack]
    return np.array(at_balance(falling, slack, below, parity.unit.tolist()))
