"""A thinned record of a stream for pictures: at most a few hundred points, however long the stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fairlayer.constraints import Measured
from fairlayer.streaming.phases import Phase

__all__ = ["Trace", "TracePoint"]

_MOST_POINTS = 512
_LEAST_STRIDE, _STRIDE_SHARE = 16.0, 16.0


class TracePoint(NamedTuple):
    """The stream after so many samples."""

    samples: float
    measured: dict[str, Measured | None]
    shifts: dict[str, float]
    phase: Phase

    @property
    def gaps(self) -> dict[str, float | None]:
        """The number that each constraint bounds."""
        return {name: None if found is None else found.value for name, found in self.measured.items()}


class Trace:
    """Points ever further apart, a sixteenth of the stream; every second goes when there are too many.

    They are taken when the machine has just read its history for a reason of its own, which costs least.
    """

    def __init__(self) -> None:
        self.points: list[TracePoint] = []
        self.next_record = 0.0
        self.revision = 0  # of the machine when it was looked at last

    def record(self, machine: Any, phase: Phase, cell_names: Callable[[], Sequence[str]]) -> None:
        """Add a point if one is due."""
        self.revision, samples = machine.revision, machine.rule.samples
        if samples < self.next_record:
            return
        self.points.append(_now(machine, phase, cell_names()))
        if len(self.points) > _MOST_POINTS:
            self.points = self.points[::2]
        self.next_record = samples + max(_LEAST_STRIDE, samples / _STRIDE_SHARE)

    def until_now(self, machine: Any, phase: Phase, cell_names: Sequence[str]) -> Sequence[TracePoint]:
        """Return the points, and where the stream stands now."""
        samples = machine.rule.samples
        if not samples or (self.points and self.points[-1].samples == samples):
            return self.points
        return [*self.points, _now(machine, phase, cell_names)]


def _now(machine: Any, phase: Phase, cell_names: Sequence[str]) -> TracePoint:
    shifts = dict(zip(cell_names, (-machine.shifts).tolist(), strict=True))
    return TracePoint(machine.rule.samples, machine.measured(), shifts, phase)
