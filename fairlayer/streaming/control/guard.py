"""The guard of the present: an answer must not take the gap of recent predictions beyond tolerance and raw gap.

For members g, h of a parity, with present means m of predictions and o of raw scores, and a tolerance with noise tau,

    min(-tau, o_g - o_h)  <=  m_g - m_h  <=  max(tau, o_g - o_h)

A request moves m_g by w dy / N_g, so each end is a bound on its prediction y, which goes to the nearest.
docs/streaming.md says what follows from it for two groups, and proves it.

The present means are sums over cells, so a guard keeps nothing: it reads the sums of the stream's book.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.constraints import Batch, Constraint, Spread, Statement
from fairlayer.constraints.statements import as_float
from fairlayer.fused.book import LEAST_SHARE
from fairlayer.groups import Groups

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine

__all__ = ["Guards", "MemberRows", "Sample", "Totals", "guards_of"]

EVERYBODY, LABEL_1, LABEL_0 = 0, 1, 2
Totals = list[list[float]]
"""Present counts, predictions and raw scores of each member, in units of the first sample of the stream."""


class Sample(NamedTuple):
    """One answer, before or after it is given.

    Args:
        cell: the cell of the sample.
        weight: the weight of the newest sample.
        estimate: the estimate of its label.
        raw: its raw score.
        emitted: its prediction.
    """

    cell: int
    weight: float
    estimate: float
    raw: float
    emitted: float


class MemberRows(NamedTuple):
    """Where a parity finds its members among rows of one cell each.

    Args:
        rows: (r,) which rows belong to a member, sorted by member; a slice where all do, as they come.
        member: (r,) the member of each.
        starts: (members,) where each member's rows begin.
    """

    rows: IntArray | slice
    member: IntArray
    starts: IntArray


@dataclass(frozen=True)
class Guards:
    """The parities of plain means that the constraints of a stream state about its cells.

    Args:
        owners: the name of each parity's constraint.
        names: the names of each parity's members.
        needs_labels: (parities,) whether the constraint reads labels.
        tolerance: (parities,) of each.
        room: (parities,) the tolerance, and what a transition leaves beside it.
        kind: (parities,) who counts: everybody, those of label 1, or those of label 0.
        member: (parities, cells) which member each cell belongs to, -1 for none; counted through all parities.
        start: (parities + 1,) where the members of each parity begin.
        complete: whether the constraints state nothing else.
    """

    owners: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]
    needs_labels: IntArray
    tolerance: FloatArray
    room: FloatArray
    kind: IntArray
    member: IntArray
    start: IntArray
    complete: bool

    @cached_property
    def members(self) -> list[str]:
        """Every member, as "constraint/member"."""
        return [f"{owner}/{name}" for owner, names in zip(self.owners, self.names, strict=True) for name in names]

    @cached_property
    def widest(self) -> float:
        """The largest tolerance; 0 where there is none."""
        return float(self.tolerance.max(initial=0.0))

    @cached_property
    def met(self) -> bool:
        """Whether every member has a cell."""
        return set(self.member[self.member >= 0].tolist()) == set(range(len(self.members)))

    @cached_property
    def layouts(self) -> list[MemberRows]:
        """Of each parity, where its cells are."""
        return [self.layout(j, np.arange(self.member.shape[1])) for j in range(len(self.owners))]

    def layout(self, parity: int, cells: IntArray) -> MemberRows:
        """Return where a parity finds its members among rows of these cells."""
        place = self.member[parity].take(cells) - self.start[parity]
        rows: IntArray | slice = slice(None)
        if (place < 0).any() or (np.diff(place) < 0).any():
            kept = np.flatnonzero(place >= 0)
            rows = kept[place[kept].argsort(kind="stable")]
            place = place[rows]
        return MemberRows(rows, place, place.searchsorted(np.arange(len(self.names[parity]))))

    @cached_property
    def _gather(self) -> tuple[FloatArray, FloatArray | None]:
        """The matrices from sums of cells to those of members: of everybody, and of label 1."""
        everybody, labelled = np.zeros((2, len(self.members), self.member.shape[1]))
        for member, kind in zip(self.member, self.kind.tolist(), strict=True):
            place = (member[member >= 0], np.flatnonzero(member >= 0))
            everybody[place] = 0.0 if kind == LABEL_1 else 1.0
            labelled[place] = (0.0, 1.0, -1.0)[kind]
        return everybody.T, labelled.T if labelled.any() else None

    @cached_property
    def _each_cell(self) -> bool:
        """Whether the members are the cells, in order, so that sums of cells are those of members."""
        everybody, labelled = self._gather
        return labelled is None and bool(np.array_equal(everybody, np.eye(len(self.members))))

    @cached_property
    def _plain(self) -> tuple[list[list[int]], list[tuple[int, int, int]], list[float]]:
        """Of each parity the member of each cell, the kind with the first and last member, and the room."""
        ends = self.start.tolist()
        return self.member.tolist(), list(zip(self.kind.tolist(), ends, ends[1:], strict=False)), self.room.tolist()

    @cached_property
    def _places(self) -> list[tuple[int, int, float]]:
        """Of each parity the first and last member, and the room."""
        return [(first, last, room) for (_, first, last), room in zip(*self._plain[1:], strict=True)]

    def with_rooms(self, rooms: Sequence[float]) -> Guards:
        """Return the guards with other rooms."""
        return replace(self, room=np.array(rooms, dtype=np.float64))

    def totals(self, sums: FloatArray) -> FloatArray:
        """Return (3, members) of the sums (6, cells) of a book: all samples, then those of label 1."""
        if self._each_cell:
            return sums[:3]
        everybody, labelled = self._gather
        found: FloatArray = sums[:3].dot(everybody)
        return found if labelled is None else found + sums[3:].dot(labelled)

    def holds(self, totals: FloatArray, noise: float, weight: float) -> bool:
        """Return whether every pair of members is within what the guards allow.

        Args:
            totals: the totals of the members.
            noise: how far beyond the tolerance noise may take the gap of two means of one sample each.
            weight: the weight of the newest sample.
        """
        counts, emitted, _ = totals.tolist()
        for first, last, room in self._places:
            top, bottom, most = -math.inf, math.inf, 0.0
            for g in range(first, last):
                n = counts[g]
                if n > 0.0:
                    mean = emitted[g] / n
                    top = max(top, mean)
                    bottom = min(bottom, mean)
                    most = max(most, n)
            if top - bottom <= room or top - bottom <= room + noise * math.sqrt(2.0 * weight / most):
                continue  # no pair has less room
            here = totals[:, first:last]
            n, m, o = here[:, here[0] > 0.0]
            m, o = m / n, o / n
            gap, raw = m[:, None] - m, o[:, None] - o
            tau = room + noise * np.sqrt(weight * (1.0 / n[:, None] + 1.0 / n))
            if not (gap <= np.maximum(tau, raw) + 1e-12).all():
                return False
        return True

    def allowed(
        self, totals: Totals, sample: Sample, noise: float, bounds: tuple[float | None, float | None]
    ) -> tuple[float, bool]:
        """Return the prediction nearest to that of the sample that every guard allows, and whether one acts.

        Where they clash it is halfway between them.
        """
        least, most, acts = -math.inf, math.inf, False
        noise *= math.sqrt(sample.weight)
        members, plain, rooms = self._plain
        for member, (kind, first, last), room in zip(members, plain, rooms, strict=True):
            g, share = member[sample.cell], _share(kind, sample.estimate)
            if g < 0 or (kind and share < LEAST_SHARE):
                continue
            ends = _ends(totals, (g, first, last), sample, sample.weight * share, (room, noise))
            if ends is not None:
                least, most, acts = max(least, ends[0]), min(most, ends[1]), True
        if not acts:
            return sample.emitted, False
        least, most = within(least, *bounds), within(most, *bounds)
        return (0.5 * (least + most) if least > most else min(max(sample.emitted, least), most)), True

    def add(self, totals: Totals, sample: Sample) -> None:
        """Count one sample."""
        members, plain, _ = self._plain
        for member, (kind, *_) in zip(members, plain, strict=True):
            g = member[sample.cell]
            if g >= 0:
                w = sample.weight * _share(kind, sample.estimate)
                totals[0][g] += w
                totals[1][g] += w * sample.emitted
                totals[2][g] += w * sample.raw

    def raw_excesses(self, totals: FloatArray) -> list[float]:
        """Return by how much the present gap of raw scores exceeds the tolerance of each parity."""
        found = []
        for j, tolerance in enumerate(self.tolerance.tolist()):
            counts, _, raws = totals[:, self.start[j] : self.start[j + 1]]
            means = raws[counts > 0.0] / counts[counts > 0.0]
            found.append(float(means.max() - means.min()) - tolerance if len(means) else 0.0)
        return found


def _ends(
    totals: Totals, place: tuple[int, int, int], sample: Sample, w: float, room_and_noise: tuple[float, float]
) -> tuple[float, float] | None:
    """Return the least and the largest prediction that one guard allows; None where it has nothing to say."""
    (counts, sums, raws), (g, first, last), (room, noise), y = totals, place, room_and_noise, sample.emitted
    n = counts[g] + w
    mean, raw = (sums[g] + w * y) / n, (raws[g] + w * sample.raw) / n
    least, most = -math.inf, math.inf
    for h in range(first, last):
        count = counts[h]
        if h == g or count <= 0.0:
            continue
        gap = mean - sums[h] / count
        if -room <= gap <= room:
            continue
        tau = room + noise * math.sqrt(1.0 / n + 1.0 / count)
        if -tau <= gap <= tau:
            continue
        raw_gap = raw - raws[h] / count
        if gap > max(tau, raw_gap):
            most = min(most, y - (gap - max(tau, raw_gap)) * n / w)
        elif gap < min(-tau, raw_gap):
            least = max(least, y + (min(-tau, raw_gap) - gap) * n / w)
    return None if least == -math.inf and most == math.inf else (least, most)


def _share(kind: int, estimate: float) -> float:
    return 1.0 if kind == EVERYBODY else estimate if kind == LABEL_1 else 1.0 - estimate


def within(value: float, low: float | None, high: float | None) -> float:
    """Return a number within bounds of which either may be missing."""
    value = value if low is None or value > low else low
    return value if high is None or value < high else high


def guards_of(stream: Machine) -> Guards:
    """Return a guard for each parity of plain means that the constraints of a stream state about its cells."""
    k = len(stream.history.cells)
    codes = stream.history.codes()
    found: list[_Parity] = []
    others = 0
    for constraint in stream.constraints if k else ():
        halves = 2 if constraint.needs_labels else 1
        rows = np.tile(np.arange(k), halves)
        columns = {name: codes[rows, j] for j, name in enumerate(stream.history.features)}
        labels = np.repeat([0.0, 1.0], k) if halves == 2 else None
        batch = Batch(Groups.from_codes(columns, stream.vocabulary), len(rows), labels=labels)
        for statement in constraint.statements(batch):
            parity = _parity(constraint, statement, k)
            others += parity is None or not parity.plain
            if parity is not None:
                found.append(parity)
    start = np.cumsum([0, *(len(parity.names) for parity in found)])
    members = [
        np.where(parity.member >= 0, parity.member + first, -1) for parity, first in zip(found, start, strict=False)
    ]
    tolerance = np.array([parity.tolerance for parity in found])
    return Guards(
        owners=tuple(parity.owner for parity in found),
        names=tuple(parity.names for parity in found),
        needs_labels=np.array([parity.needs_labels for parity in found], dtype=np.int64),
        tolerance=tolerance,
        room=tolerance,
        kind=np.array([parity.kind for parity in found], dtype=np.int64),
        member=np.array(members, dtype=np.int64).reshape(len(found), k),
        start=np.asarray(start, dtype=np.int64),
        complete=not others and bool(k),
    )


class _Parity(NamedTuple):
    owner: str
    names: tuple[str, ...]
    needs_labels: bool
    tolerance: float
    kind: int
    member: IntArray
    plain: bool


def _parity(constraint: Constraint, statement: Statement, k: int) -> _Parity | None:
    """Read a statement as a parity of plain means of disjoint members; None where it is none."""
    if not isinstance(statement, Spread) or statement.scale != 1.0 or statement.offset is not None:
        return None
    if statement.at_least or not len(statement.matrix):
        return None
    weights = (statement.matrix @ statement.means.as_weights()).reshape(len(statement.matrix), -1, k)
    reads = np.asarray(weights > 0.0)
    each = reads.any(axis=1)
    if (statement.matrix < 0.0).any() or (each.sum(axis=0) > 1).any():
        return None
    kinds: list[bool] = np.asarray(reads.any(axis=(0, 2))).tolist()
    kind = EVERYBODY if len(kinds) == 1 or all(kinds) else LABEL_1 if kinds[1] else LABEL_0
    member = np.where(each.any(axis=0), each.argmax(axis=0), -1)
    # A member is a plain mean where its cells count alike, and all members read the same labels.
    rows = weights.reshape(len(weights), -1)
    alike = all(np.ptp(row[row > 0.0]) <= 1e-12 * row.max() for row in rows if row.any())
    by_label = np.asarray(reads.any(axis=2))
    same = len(np.unique(by_label[by_label.any(axis=1)], axis=0)) == 1
    names, tolerance = tuple(statement.names), as_float(statement.tolerance)
    return _Parity(constraint.name, names, constraint.needs_labels, tolerance, kind, member, alike and same)
