"""Answers of a stream -> rows of an audit trail, in the transaction that counts them where there is one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from fairlayer._version import __version__
from fairlayer.errors import ParameterError
from fairlayer.trail import AuditTrail, Decision, SlotTrail

__all__ = ["Answered", "Recorder", "Witness", "slot_trail"]

Score = float | list[float]


class Answered(NamedTuple):
    """One step of a stream: what it was asked, and what it answers, one entry per prediction.

    Args:
        features: sensitive feature -> (n,) categories, None where one is not known.
        raw: (n,) the model's scores.
        emitted: (n,) what the stream made of them; None where the answer is a decision alone.
        phase: the phase of the stream after the step; None where there is none.
        policy: the name of the policy; None where there is none.
        limits: constraint -> what it holds its number to.
        ids: (n,) the caller's names of the requests.
        at: seconds on the caller's clock.
        inputs: (n,) what the model read, of which a trail keeps an HMAC.
        decisions: (n,) what was decided, where that is not read off the score.
        wishes: (n,) what a decision rule made of the scores, and the stream then moved; None where it moves the scores.
    """

    features: Mapping[str, Sequence[Any]]
    raw: Sequence[Score]
    emitted: Sequence[Score] | None
    phase: str | None
    policy: str | None
    limits: Mapping[str, float]
    ids: Sequence[str | int] | None = None
    at: float | None = None
    inputs: Sequence[object] | None = None
    decisions: Sequence[int] | None = None
    wishes: Sequence[float] | None = None


class Witness(Protocol):
    """What is written beside a step, on the connection and in the transaction that store it.

    Where it raises an error, the step is taken back and nothing is answered.
    """

    def __call__(self, connection: sqlite3.Connection, step: Answered) -> None:
        """Write what is to be kept of a step."""


@dataclass(frozen=True)
class Recorder:
    """What writes a row of an audit trail for each answer.

    Args:
        trail: where to write: a file, or a chain of one of several writers.
        model: what the model is called in each row, with its version.
        threshold: score from which on the answer is a yes; None where no decision is taken from the score.
        clock: the time of a row, in seconds; None for the time that comes with the step.

    Example:
        >>> from fairlayer.trail import AuditTrail, rows_between
        >>> step = Answered({"sex": ["F"]}, [0.25], [0.5], "steady", "present", {"parity": 0.02}, ids=["17"], at=5.0)
        >>> with AuditTrail("answers.sqlite", key=bytes(32)) as trail:
        ...     Recorder(trail, model="credit 7", threshold=0.5).write(step)
        range(1, 2)
        >>> [row] = rows_between("answers.sqlite")
        >>> row.time, row.body["shift"], row.body["decision"]
        (5.0, 0.25, 1)
    """

    trail: AuditTrail | SlotTrail
    model: str | None = None
    threshold: float | None = None
    clock: Callable[[], float] | None = None

    def __call__(self, connection: sqlite3.Connection, step: Answered) -> None:
        """Write the rows of a step in the transaction that is open."""
        self._file().append_in(connection, self.records(step))

    def write(self, *steps: Answered) -> range:
        """Write the rows of steps in a transaction of their own; return their numbers."""
        return self._file().append([record for step in steps for record in self.records(step)])

    def check(self, at: float | None, ids: Iterable[str | int] = ()) -> None:
        """See that a row would have a time, and a subject that a trail can name.

        Raises:
            ParameterError: the call has no time and there is no clock, or an id cannot name a subject.
        """
        for each in ids:
            self.trail.tag(str(each))
        if at is None and self.clock is None:
            raise ParameterError(
                "an audit trail is kept, but the call has no time, and the trail reads no clock. Pass at=SECONDS, such "
                "as at=time.time(), or give the Recorder a clock."
            )

    def records(self, step: Answered) -> list[Decision]:
        """Return one record for each prediction.

        Raises:
            ParameterError: the step has no time, and there is no clock.
        """
        self.check(step.at)
        time = float(step.at or 0.0) if self.clock is None else self.clock()
        own_clock = self.clock is not None and step.at is not None
        return [self._record(step, row, time, {"at": step.at} if own_clock else {}) for row in range(len(step.raw))]

    def _file(self) -> AuditTrail:
        if isinstance(self.trail, SlotTrail):
            raise ParameterError(
                "the chain of one of several writers is written by the stream that shares the database. Give this "
                "stream an AuditTrail."
            )
        return self.trail

    def _record(self, step: Answered, row: int, time: float, clock: dict[str, object]) -> Decision:
        raw, emitted = step.raw[row], None if step.emitted is None else step.emitted[row]
        moved = raw if step.wishes is None else step.wishes[row]
        wish: dict[str, object] = {} if step.wishes is None else {"wish": moved}
        return Decision(
            time=time,
            subject=None if step.ids is None else str(step.ids[row]),
            input=step.inputs[row] if step.inputs is not None and self.trail.keyed else None,
            cells={name: column[row] for name, column in step.features.items()},
            raw=raw,
            emitted=emitted,
            decision=self._decision(emitted) if step.decisions is None else step.decisions[row],
            shift=None if emitted is None else _shift(moved, emitted),
            phase=step.phase,
            policy=step.policy,
            limit=step.limits,
            model=self.model,
            package=__version__,
            details={**clock, **wish} or None,
        )

    def _decision(self, emitted: Score | None) -> int | None:
        if self.threshold is None or not isinstance(emitted, float):
            return None
        return int(emitted >= self.threshold)


def slot_trail(recorder: Recorder) -> SlotTrail:
    """Return the chain that a recorder writes.

    Raises:
        ParameterError: it writes a file.
    """
    if not isinstance(recorder.trail, SlotTrail):
        raise ParameterError(
            "a stream on PostgreSQL writes its audit trail there, in the transaction that stores an answer. Give the "
            "Recorder a SlotTrail in place of an AuditTrail."
        )
    return recorder.trail


def _shift(raw: Score, emitted: Score) -> Score:
    if isinstance(raw, list) and isinstance(emitted, list):
        return [after - before for before, after in zip(raw, emitted, strict=True)]
    assert isinstance(raw, float)
    assert isinstance(emitted, float)
    return emitted - raw
