"""Sums of a stream per bucket: what a window holds, and what a report shows. Bounded in size.

A bucket is a tenth of the window, by the number of samples or by the caller's clock; without a window buckets begin
with `first` samples, and double whenever there are too many. The buckets before the ones kept are summed in one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fairlayer._numbers import is_number
from fairlayer._typing import FloatArray, IntArray
from fairlayer.errors import ParameterError
from fairlayer.fused import stream_loaded
from fairlayer.streaming.counts.gather import gathered
from fairlayer.streaming.phases import Phase
from fairlayer.streaming.policies.base import Labelled
from fairlayer.streaming.setting import Window

__all__ = ["PER_WINDOW", "Bucket", "ClockBackError", "Windows"]

PER_WINDOW = 10
_KEPT, _KEPT_WITHOUT = 100, 24  # buckets: with a window, and without
_SUMS = ("count", "emitted", "raw", "moved", "bound", "flips")
_LABELLED = ("count0", "count1", "emitted0", "emitted1", "raw0", "raw1")
_PHASES = tuple(Phase)


class ClockBackError(ParameterError):
    """A call comes with a time before that of an earlier one."""


class Bucket:
    """Sums of one stretch of a stream.

    Args:
        sums: (kinds, cells), see `Windows`.
        number: how many buckets began before it.
        start: samples emitted before it.
        since: the caller's clock at its first sample; infinite where none was given.
        until: the same at its last; minus infinite where none was given.
    """

    def __init__(self, sums: FloatArray, number: int, start: float, since: float = np.inf, until: float = -np.inf):
        self.sums, self.number, self.start, self.since, self.until = sums, number, start, since, until
        self.samples = float(sums[0].sum())  # emitted in it
        self.phases: Counter[Phase] = Counter()

    def of(self, name: str) -> FloatArray:
        """Return one kind of sum per cell."""
        return np.asarray(self.sums[(*_SUMS, *_LABELLED).index(name)])

    def join(self, later: Bucket) -> Bucket:
        """Return this bucket and the next as one."""
        wide = max(self.sums.shape[1], later.sums.shape[1])
        both = Bucket(_padded(self.sums, wide) + _padded(later.sums, wide), self.number, self.start)
        both.since, both.until = min(self.since, later.since), max(self.until, later.until)
        both.phases = self.phases + later.phases
        return both


class Windows:
    """The buckets of a stream, newest last; `sums` of each are

        count, emitted, raw     samples, and the sums of their predictions and raw scores
        moved, bound, flips     samples that were moved, that stand at a bound, whose decision changed
        count0 ... raw1         the same for labelled samples, by label, where a constraint reads labels

    Args:
        window: the window over which gaps are asked for; None for none.
        first: samples of a bucket where there is no window.
        labelled: whether labels are counted.
        threshold: the score at or above which a prediction a score is a decision.
        bounds: the bounds of every prediction.
    """

    def __init__(
        self,
        window: Window | None,
        *,
        first: float,
        labelled: bool,
        threshold: float,
        bounds: tuple[float | None, float | None],
    ) -> None:
        self.window, self.labelled, self.threshold, self.bounds = window, labelled, threshold, bounds
        self.clocked = window is not None and window.clock  # whether buckets end by the caller's clock
        self.every = float(first) if window is None else window.length / PER_WINDOW
        self.kinds = len(_SUMS) + (len(_LABELLED) if labelled else 0)
        self.before = self._new(0, 0.0)
        self.buckets: list[Bucket] = [self._new(0, 0.0)]
        self.at: float | None = None

    def check(self, at: float | None) -> None:
        """Check a time before anything changes.

        Raises:
            ParameterError: it is missing where the window is a time, or no number.
            ClockBackError: it lies before the one before.
        """
        if at is None:
            if self.clocked:
                raise ParameterError(
                    f"the window is {self.window}, but a call came without at=. Pass at= seconds with every call."
                )
            return
        if not is_number(at):
            raise ParameterError(f"at= must be a finite number of seconds, but is {at!r}.")
        if self.at is not None and at < self.at:
            raise ClockBackError(f"at={at:g} lies before the time of an earlier call, {self.at:g}; it never goes back.")

    def begins_bucket(self, at: float | None) -> bool:
        """Return whether a sample at this time begins a new bucket by the clock."""
        bucket = self.buckets[-1]
        if not self.clocked or at is None or not np.isfinite(bucket.since):
            return False
        return bool(at >= self._edge(bucket) + self.every)

    def tick(self, at: float) -> None:
        """Take note of the time of the samples to come; what came before must have been added."""
        if self.begins_bucket(at):
            last = self.buckets[-1]
            self._begin(last.start + last.samples)
        self.at = float(at)
        bucket = self.buckets[-1]
        bucket.since = min(bucket.since, self.at)
        bucket.until = self.at

    def add(self, cells: IntArray, raw: FloatArray, emitted: FloatArray, phase: Phase, known: int) -> None:
        """Count predictions."""
        while len(cells):
            bucket = self.buckets[-1]
            room = len(cells) if self.clocked else max(1, math.ceil(self.every - bucket.samples))
            n = min(room, len(cells))
            self._count(bucket, cells[:n], raw[:n], emitted[:n], known)
            bucket.samples += n
            bucket.phases[phase] += n
            cells, raw, emitted = cells[n:], raw[n:], emitted[n:]
            if not self.clocked and bucket.samples >= self.every:
                self._begin(bucket.start + bucket.samples)

    def label(self, labelled: Labelled, numbers: IntArray, known: int) -> None:
        """Count labels in the buckets of these numbers (n,), as far as those are kept."""
        if not self.labelled:
            return
        _, raw, emitted, _, labels = labelled
        for number in np.unique(numbers).tolist():
            bucket = next((each for each in reversed(self.buckets) if each.number <= number), self.before)
            bucket.sums = _padded(bucket.sums, known)
            mine = numbers == number
            for digit, chosen in enumerate((mine & (labels != 1.0), mine & (labels == 1.0))):
                for kind, values in (("count", np.ones(len(raw))), ("emitted", emitted), ("raw", raw)):
                    np.add.at(bucket.of(f"{kind}{digit}"), labelled.cells[chosen], values[chosen])

    @property
    def number(self) -> int:
        """The number of the newest bucket."""
        return self.buckets[-1].number

    def latest(self) -> list[Bucket]:
        """Return the buckets of the window that ends now, the oldest of them counted in part by the clock."""
        if self.window is None:
            return list(self.buckets)
        if not self.clocked:
            return self.buckets[-PER_WINDOW - 1 :]
        end = self.at if self.at is not None else np.inf
        return [bucket for bucket in self.buckets if not bucket.until <= end - self.window.length]

    def take_over(self, other: Windows, rows: IntArray, known: int) -> None:
        """Go on with the buckets of another stream, whose cell i is the cell `rows[i]` here."""
        self.before, *self.buckets = [
            _moved(bucket, rows, known, self.kinds) for bucket in (other.before, *other.buckets)
        ]
        self.at = other.at
        self.every = other.every if self.window is None or self.window == other.window else self.every

    def to_state(self) -> dict[str, Any]:
        """Return tensors and plain numbers."""
        kept, wide = [self.before, *self.buckets], max(each.sums.shape[1] for each in (self.before, *self.buckets))
        return {
            "every": self.every,
            "at": self.at,
            "sums": torch.from_numpy(np.stack([_padded(each.sums, wide) for each in kept])),
            "marks": torch.tensor([[e.number, e.start, e.since, e.until] for e in kept], dtype=torch.float64),
            "phases": torch.tensor([[e.phases[phase] for phase in _PHASES] for e in kept], dtype=torch.int64),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `to_state` returned; where another window was asked since, new buckets have its length."""
        found = []
        for sums, marks, phases in zip(state["sums"], state["marks"].tolist(), state["phases"].tolist(), strict=True):
            table = _kinds(sums.cpu().double().numpy().copy(), self.kinds)
            bucket = Bucket(table, int(marks[0]), *marks[1:])
            bucket.phases = Counter({phase: n for phase, n in zip(_PHASES, phases, strict=False) if n})
            found.append(bucket)
        self.before, self.buckets = found[0], found[1:]
        self.at = None if state["at"] is None else float(state["at"])
        self.every = float(state["every"]) if self.window is None else self.every

    def _edge(self, bucket: Bucket) -> float:
        """Where the bucket begins by the clock: at a whole multiple of its length."""
        return float(np.floor(bucket.since / self.every) * self.every)

    def _new(self, number: int, start: float, cells: int = 0) -> Bucket:
        return Bucket(np.zeros((self.kinds, cells)), number, start)

    def _begin(self, start: float) -> None:
        self.buckets.append(self._new(self.number + 1, start, self.buckets[-1].sums.shape[1]))
        if self.window is None and len(self.buckets) > _KEPT_WITHOUT:
            pairs = zip(self.buckets[:-1:2], self.buckets[1:-1:2], strict=True)
            self.buckets = [*(first.join(second) for first, second in pairs), self.buckets[-1]]
            self.every *= 2.0
        elif len(self.buckets) > _KEPT:
            self.before = self.before.join(self.buckets.pop(0))

    def _count(self, bucket: Bucket, cells: IntArray, raw: FloatArray, emitted: FloatArray, known: int) -> None:
        bucket.sums = _padded(bucket.sums, known)
        low, high = self.bounds
        quick = stream_loaded()
        if quick is not None:
            ends = (-np.inf if low is None else low, np.inf if high is None else high)
            quick.stream_counts.add_to_bucket(cells, raw, emitted, *ends, self.threshold, bucket.sums)
            return
        bound = np.zeros(len(raw), dtype=bool)
        for end in (low, high):
            bound = bound if end is None else bound | (emitted == end)
        flips = (emitted >= self.threshold) != (raw >= self.threshold)
        sums = bucket.sums
        for row, values in enumerate((None, emitted, raw, np.abs(emitted - raw) > 1e-9, bound, flips)):
            sums[row] += np.bincount(cells, values, known)


def _padded(sums: FloatArray, cells: int) -> FloatArray:
    missing = cells - sums.shape[1]
    return sums if missing <= 0 else np.hstack([sums, np.zeros((len(sums), missing))])


def _kinds(sums: FloatArray, kinds: int) -> FloatArray:
    missing = kinds - len(sums)
    return sums[:kinds] if missing <= 0 else np.vstack([sums, np.zeros((missing, sums.shape[1]))])


def _moved(bucket: Bucket, rows: IntArray, known: int, kinds: int) -> Bucket:
    """Return a bucket with its columns where cells have gone."""
    old = _kinds(bucket.sums, kinds)
    sums = gathered(old, rows[: old.shape[1]], known)
    moved = Bucket(sums, bucket.number, bucket.start, bucket.since, bucket.until)
    moved.phases = bucket.phases
    return moved


def joined(buckets: Sequence[Bucket]) -> Bucket:
    """Return several buckets as one."""
    found = buckets[0]
    for bucket in buckets[1:]:
        found = found.join(bucket)
    return found
