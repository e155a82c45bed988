"""The guard of the present: an answer must not take the gap of recent predictions beyond tolerance and raw gap.

For members g, h of a parity, with present means m of predictions and o of raw scores, and a tolerance with noise tau,

    min(-tau, o_g - o_h)  <=  m_g - m_h  <=  max(tau, o_g - o_h)

A request moves m_g by w dy / N_g, so each end is a bound on its prediction y, which goes to the nearest.
docs/streaming.md says what follows from it for two groups, and proves it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fairlayer.constraints import Batch, Constraint, Spread, Statement
from fairlayer.constraints.statements import as_float
from fairlayer.groups import Groups

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine

__all__ = ["Guarded", "Sample", "guards_of"]

_LEAST_SHARE = 0.02  # of a label below which a request is not answered for it


class Sample(NamedTuple):
    """One answer, before or after it is given.

    Args:
        cell: of the sample.
        weight: of the newest sample.
        estimate: of its label.
        raw: its raw score.
        emitted: its prediction.
    """

    cell: int
    weight: float
    estimate: float
    raw: float
    emitted: float


class Guarded:
    """The present means of the members of one parity. Sums are in units of the first sample, not of the newest.

    Args:
        owner: the name of its constraint.
        tolerance: of the parity.
        member: of each cell, -1 outside.
        kind: 0 where every sample counts, 1 for those of label 1, 2 for those of label 0.
        members: how many there are.
    """

    def __init__(self, owner: str, tolerance: float, member: list[int], kind: int, members: int) -> None:
        self.owner, self.tolerance, self.member, self.kind = owner, tolerance, member, kind
        self.count, self.emitted, self.raw = [0.0] * members, [0.0] * members, [0.0] * members
        self.mean = [math.nan] * members
        self.complete = False  # whether every member has been seen
        self.room = tolerance

    def fill(self, sums: Sequence[Sequence[float]]) -> None:
        """Take the sums of the cells: counts, predictions and raw scores of all samples, then those of label 1."""
        members = len(self.count)
        self.count, self.emitted, self.raw = [0.0] * members, [0.0] * members, [0.0] * members
        for cell, g in enumerate(self.member):
            if g < 0:
                continue
            for target, i in ((self.count, 0), (self.emitted, 1), (self.raw, 2)):
                value = sums[3 + i][cell] if self.kind == 1 else sums[i][cell]
                target[g] += value - sums[3 + i][cell] if self.kind == 2 else value
        self.mean = [e / n if n > 0.0 else math.nan for e, n in zip(self.emitted, self.count, strict=True)]
        self.complete = all(n > 0.0 for n in self.count)

    def add(self, sample: Sample) -> None:
        """Count one sample."""
        g = self.member[sample.cell]
        if g < 0:
            return
        w = sample.weight * self._share(sample)
        if not self.complete and w > 0.0:
            self.complete = all(n > 0.0 or h == g for h, n in enumerate(self.count))
        n = self.count[g] = self.count[g] + w
        e = self.emitted[g] = self.emitted[g] + w * sample.emitted
        self.raw[g] += w * sample.raw
        if n > 0.0:
            self.mean[g] = e / n

    def add_block(self, sums: Sequence[Sequence[float]], weight: float) -> None:
        """Count a block, given the sums of its cells as `fill` takes them, in units of the newest sample."""
        for cell, count in enumerate(sums[0]):
            g = self.member[cell]
            if g < 0 or not count:
                continue
            n, e, r = (row[cell] for row in (sums[3:] if self.kind == 1 else sums[:3]))
            if self.kind == 2:
                n, e, r = n - sums[3][cell], e - sums[4][cell], r - sums[5][cell]
            self.count[g] += weight * n
            self.emitted[g] += weight * e
            self.raw[g] += weight * r
            if self.count[g] > 0.0:
                self.mean[g] = self.emitted[g] / self.count[g]
        self.complete = self.complete or all(n > 0.0 for n in self.count)

    def ends(self, sample: Sample, noise: float) -> tuple[float, float] | None:
        """Return the least and the largest prediction that the guard allows; None where it has nothing to say.

        Args:
            sample: with the prediction that is to be looked at.
            noise: how far beyond the tolerance noise may take the gap of two means of one sample each.
        """
        g = self.member[sample.cell]
        if g < 0:
            return None
        share = self._share(sample) if self.kind else 1.0
        if share < _LEAST_SHARE:
            return None
        w = sample.weight * share
        n = self.count[g] + w
        mean = (self.emitted[g] + w * sample.emitted) / n
        before, self.mean[g] = self.mean[g], mean
        known = self.mean if self.complete else [m for m in self.mean if not math.isnan(m)]
        top, bottom = max(known), min(known)
        self.mean[g] = before
        if top - mean <= self.room and mean - bottom <= self.room:
            return None
        return self._ends(g, sample, w, noise * math.sqrt(sample.weight))

    def _share(self, sample: Sample) -> float:
        return 1.0 if not self.kind else sample.estimate if self.kind == 1 else 1.0 - sample.estimate

    def _ends(self, g: int, sample: Sample, w: float, noise: float) -> tuple[float, float] | None:
        n, emitted = self.count[g] + w, sample.emitted
        mean, raw = (self.emitted[g] + w * emitted) / n, (self.raw[g] + w * sample.raw) / n
        low, high = -math.inf, math.inf
        for h, count in enumerate(self.count):
            if h == g or count <= 0.0:
                continue
            gap = mean - self.mean[h]
            tau = self.room + noise * math.sqrt(1.0 / n + 1.0 / count)
            if -tau <= gap <= tau:
                continue
            raw_gap = raw - self.raw[h] / count
            if gap > max(tau, raw_gap):
                high = min(high, emitted - (gap - max(tau, raw_gap)) * n / w)
            elif gap < min(-tau, raw_gap):
                low = max(low, emitted + (min(-tau, raw_gap) - gap) * n / w)
        return None if low == -math.inf and high == math.inf else (low, high)

    def raw_excess(self) -> float:
        """Return by how much the present gap of raw scores exceeds the tolerance."""
        means = [r / n for r, n in zip(self.raw, self.count, strict=True) if n > 0.0]
        return max(means) - min(means) - self.tolerance if means else 0.0

    def copy(self) -> Guarded:
        """Return a guard that can be tried out."""
        new = Guarded(self.owner, self.tolerance, self.member, self.kind, len(self.count))
        new.count, new.emitted, new.raw, new.mean = self.count[:], self.emitted[:], self.raw[:], self.mean[:]
        new.complete, new.room = self.complete, self.room
        return new

    def holds(self, noise: float, weight: float) -> bool:
        """Return whether every pair of members is within what the guard allows."""
        found = [(m, n, r / n) for m, n, r in zip(self.mean, self.count, self.raw, strict=True) if n > 0.0]
        if len(found) < 2:
            return True
        means, most = [m for m, _, _ in found], max(n for _, n, _ in found)
        if max(means) - min(means) <= self.room + noise * math.sqrt(2.0 * weight / most):
            return True  # no pair has less room
        m, n, o = (np.array(column) for column in zip(*found, strict=True))
        gap, raw = m[:, None] - m, o[:, None] - o
        tau = self.room + noise * np.sqrt(weight * (1.0 / n[:, None] + 1.0 / n))
        return bool((gap <= np.maximum(tau, raw) + 1e-12).all())


def guards_of(stream: Machine) -> list[Guarded]:
    """Return a guard for each parity of plain means that the constraints of a stream state about its cells."""
    k, found = len(stream.history.cells), []
    codes = stream.history.codes()
    for constraint in stream.constraints if k else ():
        halves = 2 if constraint.needs_labels else 1
        rows = np.tile(np.arange(k), halves)
        columns = {name: codes[rows, j] for j, name in enumerate(stream.history.features)}
        labels = np.repeat([0.0, 1.0], k) if halves == 2 else None
        batch = Batch(Groups.from_codes(columns, stream.vocabulary), len(rows), labels=labels)
        found += [guard for each in constraint.statements(batch) if (guard := _guard(constraint, each, k)) is not None]
    return found


def _guard(constraint: Constraint, statement: Statement, k: int) -> Guarded | None:
    if not isinstance(statement, Spread) or statement.scale != 1.0 or statement.offset is not None:
        return None
    if statement.at_least:
        return None
    if not len(statement.matrix):
        return None
    weights = (statement.matrix @ statement.means.as_weights()).reshape(len(statement.matrix), -1, k)
    reads = np.asarray(weights > 0.0)
    kinds: list[bool] = np.asarray(reads.any(axis=(0, 2))).tolist()
    each = reads.any(axis=1)
    if (statement.matrix < 0.0).any() or (each.sum(axis=0) > 1).any():
        return None
    member = np.where(each.any(axis=0), each.argmax(axis=0), -1).tolist()
    kind = 0 if len(kinds) == 1 or all(kinds) else 1 if kinds[1] else 2
    return Guarded(constraint.name, as_float(statement.tolerance), member, kind, len(statement.matrix))
