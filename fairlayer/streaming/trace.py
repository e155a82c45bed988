"""A thinned record of a stream for pictures: at most a few hundred points, however long the stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fairlayer.streaming.phases import Phase

__all__ = ["Trace", "TracePoint"]

_MOST_POINTS = 512
_LEAST_STRIDE = 16.0


class TracePoint(NamedTuple):
    """The stream after so many samples."""

    samples: float
    gaps: dict[str, float | None]
    shifts: dict[str, float]
    phase: Phase


class Trace:
    """Points ever further apart, a thirty-second of the stream; every second goes when there are too many."""

    def __init__(self) -> None:
        self.points: list[TracePoint] = []
        self.next_record = 0.0

    def record(self, machine: Any, phase: Phase, cells: Sequence[str]) -> None:
        """Add a point."""
        shifts = dict(zip(cells, (-machine.shifts).tolist(), strict=True))
        samples = machine.rule.samples
        self.points.append(TracePoint(samples, machine.pooled_gaps(), shifts, phase))
        if len(self.points) > _MOST_POINTS:
            self.points = self.points[::2]
        self.next_record = samples + max(_LEAST_STRIDE, samples / 32.0)
