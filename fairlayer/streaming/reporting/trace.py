"""A thinned record of a stream for pictures: at most a few hundred points, however long the stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from fairlayer._typing import FloatArray
from fairlayer.constraints import Constraint, Measured
from fairlayer.groups import Vocabulary, cell_name
from fairlayer.streaming.control.correction import measure_past
from fairlayer.streaming.counts.history import Counted
from fairlayer.streaming.phases import Phase

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine

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


class _Moment(NamedTuple):
    """What a point is made of, once somebody looks: to measure costs more than a step."""

    samples: float
    counted: Counted
    vocabulary: Vocabulary
    constraints: tuple[Constraint, ...]
    shifts: FloatArray
    phase: Phase

    def point(self) -> TracePoint:
        """Return the point."""
        features, cells, words = self.counted.features, self.counted.cells, self.vocabulary.categories
        names = [cell_name(features, [words.get(name, ()) for name in features], cell) for cell in cells]
        shifts = dict(zip(names, (-self.shifts).tolist(), strict=True))
        measured = measure_past(self.counted, self.vocabulary, self.constraints)
        return TracePoint(self.samples, measured, shifts, self.phase)


class Trace:
    """Points ever further apart, a sixteenth of the stream; every second goes when there are too many.

    They are taken when the machine has just read its history for a reason of its own, which costs least.
    """

    def __init__(self) -> None:
        self._moments: list[_Moment] = []
        self.next_record = 0.0
        self.revision = 0  # of the machine when it was looked at last

    @property
    def latest(self) -> float:
        """The samples at the latest point; 0 before the first."""
        return self._moments[-1].samples if self._moments else 0.0

    def record(self, machine: Machine, phase: Phase) -> None:
        """Add a point if one is due."""
        self.revision, samples = machine.revision, machine.rule.samples
        if samples < self.next_record:
            return
        self._moments.append(_now(machine, phase))
        if len(self._moments) > _MOST_POINTS:
            self._moments = self._moments[::2]
        self.next_record = samples + max(_LEAST_STRIDE, samples / _STRIDE_SHARE)

    def until_now(self, machine: Machine, phase: Phase) -> Sequence[TracePoint]:
        """Return the points, and where the stream stands now."""
        samples, moments = machine.rule.samples, self._moments
        if samples and not (moments and moments[-1].samples == samples):
            moments = [*moments, _now(machine, phase)]
        return [moment.point() for moment in moments]


def _now(machine: Machine, phase: Phase) -> _Moment:
    counted = machine.history.counted()
    return _Moment(machine.rule.samples, counted, machine.vocabulary, machine.constraints, machine.shifts.copy(), phase)
