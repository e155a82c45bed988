"""A stream bucket by bucket: what came in, what was emitted, who was moved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fairlayer._notebook import table_html
from fairlayer._typing import FloatArray
from fairlayer.constraints import Constraint, Measured
from fairlayer.constraints.measure import measure
from fairlayer.streaming.counts.history import batch_of
from fairlayer.streaming.counts.windows import Bucket, joined
from fairlayer.streaming.phases import Phase
from fairlayer.streaming.transition import Event

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine

__all__ = ["BucketReport", "GapReport", "Split", "StreamReport", "report_of"]


class GapReport(NamedTuple):
    """What one constraint says about a stretch of a stream.

    Args:
        raw: what the raw scores have; None where nothing was counted.
        emitted: what the predictions have.
    """

    raw: Measured | None
    emitted: Measured | None


class Split(NamedTuple):
    """The pooled gap of the two groups that make it, split exactly over the buckets k with shares p and means m.

    Args:
        gap: the gap of the pooled means.
        within: sum over k of (p0k + p1k) / 2 (m0k - m1k): what the gaps inside the buckets make.
        mix: sum over k of (p0k - p1k) (m0k + m1k) / 2: what the groups' coming at different times makes.
    """

    gap: float
    within: float
    mix: float


@dataclass(frozen=True)
class BucketReport:
    """One stretch of a stream.

    Args:
        start: predictions emitted before it.
        samples: predictions emitted in it.
        since: the caller's clock at its first prediction; None where none was given.
        until: the same at its last.
        counts: predictions per cell.
        gaps: what each constraint says, by name.
        moved: share of predictions that differ from the raw score.
        at_bound: share that stands at a bound.
        flips: share whose decision at the middle of the bounds differs from that of the raw score.
        phase: the phase of most of its predictions; of several with as many, the first by the order of `Phase`.

    Example:
        >>> import torch, fairlayer as fl
        >>> stream = fl.InferenceState([fl.DemographicParity("sex", tolerance=0.1)], bounds=(0.0, 1.0))
        >>> for _ in range(50):
        ...     _ = stream.emit(torch.tensor([0.2, 0.8]), {"sex": ["F", "M"]})
        >>> bucket = stream.report().buckets[-1]
        >>> bucket.samples, dict(bucket.counts)
        (100, {'sex=F': 50, 'sex=M': 50})
    """

    start: int
    samples: int
    since: float | None
    until: float | None
    counts: Mapping[str, int]
    gaps: Mapping[str, GapReport]
    moved: float
    at_bound: float
    flips: float
    phase: Phase | None


@dataclass(frozen=True)
class StreamReport:
    """A stream bucket by bucket; `str` of it is a table.

    Args:
        buckets: oldest first; those before the ones kept are one.
        window: the window that ends now, summed over its buckets (their granularity is a tenth of it); None without.
        everything: all predictions since the last reset, of all replicas that were heard of.
        splits: pooled gap of each parity, within buckets and by mix, of what this replica emitted.
        limits: what each constraint holds its number to.
        waiting: predictions whose label has not come.
        lost: predictions that waited for a label and had to make room.
        phase: the phase now.
        policy: the policy that holds the stream.
        events: the latest things that happened.

    Example:
        >>> import torch, fairlayer as fl
        >>> stream = fl.InferenceState([fl.DemographicParity("sex", tolerance=0.1)], bounds=(0.0, 1.0))
        >>> for _ in range(50):
        ...     _ = stream.emit(torch.tensor([0.2, 0.8]), {"sex": ["F", "M"]})
        >>> report = stream.report()
        >>> report.samples, str(report.phase), report.waiting, report.limits
        (100, 'warming', 0, {"DemographicParity('sex')": 0.1})
    """

    buckets: tuple[BucketReport, ...]
    window: BucketReport | None
    everything: Mapping[str, Measured | None]
    splits: Mapping[str, Split]
    limits: Mapping[str, float | None]
    waiting: int
    lost: int
    phase: Phase
    policy: str
    events: tuple[Event, ...]

    @property
    def samples(self) -> int:
        """Predictions that the buckets hold: what this replica has emitted since the last reset."""
        return sum(bucket.samples for bucket in self.buckets)

    def worst(self, name: str) -> BucketReport | None:
        """Return the bucket in which the emitted predictions of one constraint lie furthest beyond its limit."""
        found = [(b.gaps[name].emitted, b) for b in self.buckets if name in b.gaps]
        known = [(each.excess, bucket) for each, bucket in found if each is not None and each.excess is not None]
        return max(known, key=lambda pair: pair[0])[1] if known else None

    def _repr_html_(self) -> str:
        title = f"{self.samples} predictions, policy {self.policy}, phase {self.phase.value}"
        note = f"{self.waiting} predictions wait for a label, and {self.lost} had to make room." if self.waiting else ""
        tables = [
            table_html(
                f"{title}: {name}, limit {'-' if limit is None else f'{limit:g}'}",
                ("from", "predictions", "raw", "emitted", "moved", "at a bound", "decisions flipped", "phase"),
                [_shown(bucket, name) for bucket in self.buckets],
                note=note,
            )
            for name, limit in self.limits.items()
        ]
        return "".join(tables)

    def __str__(self) -> str:
        lines = [f"{self.samples} predictions, policy {self.policy}, phase {self.phase.value}"]
        for name, limit in self.limits.items():
            lines.append(f"{name}, limit {'-' if limit is None else f'{limit:g}'}")
            lines.append(
                f"{'from':>10} {'samples':>8} {'raw':>8} {'emitted':>8} {'moved':>6} {'bound':>6} {'flips':>6}"
            )
            lines += [_line(bucket, name) for bucket in self.buckets]
            if name in self.splits:
                split = self.splits[name]
                lines.append(f"pooled {split.gap:+.4f} = within {split.within:+.4f} + mix {split.mix:+.4f}")
        if self.waiting or self.lost:
            lines.append(f"labels: {self.waiting} predictions wait, {self.lost} had to make room")
        lines += [f"after {event.samples:g}: {event.kind}: {event.text}" for event in self.events]
        return "\n".join(lines)


def _shown(bucket: BucketReport, name: str) -> tuple[object, ...]:
    gap = bucket.gaps.get(name) or GapReport(None, None)
    values = [None if measured is None else measured.value for measured in gap]
    shares = [f"{share:.1%}" for share in (bucket.moved, bucket.at_bound, bucket.flips)]
    return bucket.start, bucket.samples, *values, *shares, bucket.phase and bucket.phase.value


def report_of(machine: Machine, names: Sequence[str], *, waiting: int) -> StreamReport:
    """Return the report of a stream whose cells have these names."""
    machine.history.flush()
    windows = machine.windows
    kept = [bucket for bucket in (windows.before, *windows.buckets) if bucket.samples]
    splits = {c.name: split for c in machine.constraints if (split := _split(machine, c, kept)) is not None}
    return StreamReport(
        buckets=tuple(_bucket(machine, bucket, names) for bucket in kept),
        window=None if windows.window is None else _bucket(machine, joined(windows.latest() or windows.buckets), names),
        everything=machine.measured(),
        splits=splits,
        limits={constraint.name: constraint.limit for constraint in machine.constraints},
        waiting=waiting,
        lost=machine.lost_labels,
        phase=machine.phase(),
        policy=str(machine.policy),
        events=tuple(machine.events),
    )


def gap_of(machine: Machine, constraint: Constraint, bucket: Bucket, what: str) -> Measured | None:
    """Return what a constraint says about the "raw" or "emitted" means of a bucket; None where nothing is counted."""
    if not constraint.needs_labels:
        counts, sums = bucket.of("count"), bucket.of(what)
        cells = np.flatnonzero(counts)
        labels = None
    else:
        counts = np.concatenate([bucket.of("count0"), bucket.of("count1")])
        sums = np.concatenate([bucket.of(f"{what}0"), bucket.of(f"{what}1")])
        rows = np.flatnonzero(counts)
        wide = bucket.sums.shape[1]
        labels = np.repeat([0.0, 1.0], wide)[rows]
        counts, sums, cells = counts[rows], sums[rows], rows % max(wide, 1)
        if len(rows):
            batch = batch_of(machine.history, machine.vocabulary, cells, weights=counts, labels=labels)
            return measure(constraint, batch, sums / counts)
        return None
    if not len(cells):
        return None
    batch = batch_of(machine.history, machine.vocabulary, cells, weights=counts[cells])
    return measure(constraint, batch, sums[cells] / counts[cells])


def _bucket(machine: Machine, bucket: Bucket, names: Sequence[str]) -> BucketReport:
    n = max(bucket.samples, 1.0)
    counts = bucket.of("count").astype(int).tolist()
    gaps = {
        c.name: GapReport(gap_of(machine, c, bucket, "raw"), gap_of(machine, c, bucket, "emitted"))
        for c in machine.constraints
    }
    return BucketReport(
        start=int(bucket.start),
        samples=int(bucket.samples),
        since=bucket.since if math.isfinite(bucket.since) else None,
        until=bucket.until if math.isfinite(bucket.until) else None,
        counts={name: count for name, count in zip(names, counts, strict=False) if count},
        gaps=gaps,
        moved=float(bucket.of("moved").sum() / n),
        at_bound=float(bucket.of("bound").sum() / n),
        flips=float(bucket.of("flips").sum() / n),
        phase=max(Phase, key=bucket.phases.__getitem__) if bucket.phases else None,
    )


def _split(machine: Machine, constraint: Constraint, buckets: Sequence[Bucket]) -> Split | None:
    """Split the pooled gap of the two groups that make it; None for constraints that are not a plain parity."""
    if constraint.needs_labels or not buckets:
        return None
    k = len(machine.history.cells)
    whole = joined([Bucket(np.zeros((len(buckets[0].sums), k)), 0, 0.0), *buckets])
    cells = np.flatnonzero(whole.of("count"))
    if len(cells) < 2:
        return None
    batch = batch_of(machine.history, machine.vocabulary, cells, weights=np.ones(len(cells)))
    statements = constraint.statements(batch)
    codes = statements[0].means.codes if len(statements) == 1 else None
    found = gap_of(machine, constraint, whole, "emitted")
    if codes is None or found is None or len(found.worst) != 2 or found.at_least:
        return None
    groups = statements[0].means.names
    if not set(found.worst) <= set(groups):
        return None
    counts, sums = (np.zeros((2, len(buckets))) for _ in range(2))
    for j, bucket in enumerate(buckets):
        wide = bucket.sums.shape[1]
        for g, name in enumerate(found.worst):
            mine = cells[codes == groups.index(name)]
            mine = mine[mine < wide]
            counts[g, j], sums[g, j] = bucket.of("count")[mine].sum(), bucket.of("emitted")[mine].sum()
    return split_gap(counts, sums)


def split_gap(counts: FloatArray, sums: FloatArray) -> Split | None:
    """Split the gap of two pooled means, given counts and sums (2, buckets), within buckets and by mix.

    A bucket in which one group is absent has no gap; what it adds is by mix.

    Example:
        >>> split_gap(np.array([[10.0, 30.0], [30.0, 10.0]]), np.array([[8.0, 6.0], [24.0, 2.0]]))
        Split(gap=-0.3, within=0.0, mix=-0.3)
    """
    total = counts.sum(axis=1)
    if not total.all():
        return None
    shares = counts / total[:, None]
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    both = (counts > 0).all(axis=0)
    gap = float(sums[0].sum() / total[0] - sums[1].sum() / total[1])
    within = float((0.5 * (shares[0] + shares[1]) * (means[0] - means[1]))[both].sum())
    return Split(round(gap, 12), round(within, 12), round(gap - within, 12))


def _line(bucket: BucketReport, name: str) -> str:
    raw, emitted = (
        "-" if found is None or found.value is None else f"{found.value:.4f}" for found in bucket.gaps[name]
    )
    shares = " ".join(f"{share:6.1%}" for share in (bucket.moved, bucket.at_bound, bucket.flips))
    phase = "" if bucket.phase is None else bucket.phase.value
    return f"{bucket.start:>10} {bucket.samples:>8} {raw:>8} {emitted:>8} {shares} {phase}"
