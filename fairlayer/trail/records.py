"""What can be written into a trail: decisions, and what people did about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, SupportsFloat

from fairlayer._typing import Category

__all__ = ["Access", "Configuration", "Decision", "Override", "Record"]

Commit = Callable[[object], str]
Score = SupportsFloat | Sequence[SupportsFloat]


class Record(Protocol):
    """Anything that a trail can hold. A record of one's own has these and works everywhere.

    `kind` is a lower-case word; `time` the caller's clock, in seconds; `subject` the person whom the content is about,
    None where it is about nobody; `about` the row whose subject it shares. `body(commit)` returns the content, which
    JSON must know; `commit(value)` gives the HMAC of a value that is itself never written.

    Example:
        >>> from dataclasses import dataclass
        >>> from fairlayer.trail import AuditTrail
        >>> @dataclass(frozen=True)
        ... class Letter:
        ...     time: float
        ...     kind: str = "letter"
        ...     subject: str | None = None
        ...     about: int | None = None
        ...     def body(self, commit):
        ...         return {"sent": True}
        >>> with AuditTrail("letters.sqlite") as trail:
        ...     trail.append([Letter(time=0.0)])
        range(1, 2)
    """

    @property
    def kind(self) -> str: ...
    @property
    def time(self) -> float: ...
    @property
    def subject(self) -> str | None: ...
    @property
    def about(self) -> int | None: ...
    def body(self, commit: Commit) -> Mapping[str, object]: ...


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One answer that was given.

    Args:
        time: the time, on the caller's clock: seconds since 1970 in UTC, where dates are to be read from it.
        subject: whom it is about, so that it can be erased; with a key, only an HMAC of it is written.
        input: what the model was given, as JSON values or bytes: an HMAC of it is written, never itself.
        cells: the groups that the constraints looked at, such as {"sex": "F"}.
        raw: the model's score, or its scores.
        emitted: the score after the correction.
        decision: what was decided.
        shift: the correction of this cell, in prediction units.
        phase, policy: of the stream, at this answer.
        limit: what each constraint was held to, in its own unit.
        model, package: which model, and which version of the software.
        details: anything else that JSON knows.

    Example:
        >>> loan = Decision(time=1790000000.0, cells={"sex": "F"}, raw=0.48, emitted=0.51, decision=1)
        >>> loan.body(str)
        {'cells': {'sex': 'F'}, 'raw': 0.48, 'emitted': 0.51, 'decision': 1}
    """

    time: float
    subject: str | None = None
    input: object = None
    cells: Mapping[str, Category] | None = None
    raw: Score | None = None
    emitted: Score | None = None
    decision: Category | float | None = None
    shift: Score | None = None
    phase: str | None = None
    policy: str | None = None
    limit: Mapping[str, float] | float | None = None
    model: str | None = None
    package: str | None = None
    details: Mapping[str, object] | None = None

    kind = "decision"
    about = None

    def body(self, commit: Commit) -> dict[str, object]:
        """Return what is known."""
        content = {
            "input": None if self.input is None else commit(self.input),
            "cells": self.cells,
            "raw": _plain(self.raw),
            "emitted": _plain(self.emitted),
            "decision": self.decision,
            "shift": _plain(self.shift),
            "phase": self.phase,
            "policy": self.policy,
            "limit": self.limit,
            "model": self.model,
            "package": self.package,
            "details": self.details,
        }
        return {name: value for name, value in content.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Override:
    """A person decided otherwise. It is about the subject of the row, and goes with it when that is erased.

    Args:
        time: the time, on the caller's clock.
        row: the row of the decision that is overridden.
        decision: what holds instead.
        who: the person who decides.
        why: the reason given.

    Example:
        >>> Override(time=1790000000.0, row=17, decision=1, who="A. Miller", why="income proven later").body(str)
        {'row': 17, 'decision': 1, 'who': 'A. Miller', 'why': 'income proven later'}
    """

    time: float
    row: int
    decision: Category | float
    who: str
    why: str

    kind = "override"
    subject = None

    @property
    def about(self) -> int:
        """The row that is overridden."""
        return self.row

    def body(self, commit: Commit) -> dict[str, object]:
        """Return what was decided, by whom and why."""
        return {"row": self.row, "decision": self.decision, "who": self.who, "why": self.why}


@dataclass(frozen=True, kw_only=True)
class Access:
    """Somebody read rows, or took them out.

    Args:
        time: the time, on the caller's clock.
        who: the person or program.
        kind: "read" or "export".
        what: the period, the file, the purpose.

    Example:
        >>> Access(time=1790000000.0, who="A. Miller", kind="export", what={"purpose": "yearly report"}).body(str)
        {'who': 'A. Miller', 'what': {'purpose': 'yearly report'}}
    """

    time: float
    who: str
    kind: Literal["read", "export"] = "read"
    what: Mapping[str, object] = field(default_factory=dict)

    subject = None
    about = None

    def body(self, commit: Commit) -> dict[str, object]:
        """Return who and what."""
        return {"who": self.who, "what": self.what}


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Something that decides was changed: a limit, a policy, a model, a version.

    Args:
        time: the time, on the caller's clock.
        who: the person or program that changed it.
        changes: name -> [value before, value after].
        why: the reason given.

    Example:
        >>> changed = Configuration(time=0.0, who="A. Miller", changes={"tolerance": [0.05, 0.02]}, why="the board")
        >>> changed.body(str)
        {'who': 'A. Miller', 'changes': {'tolerance': [0.05, 0.02]}, 'why': 'the board'}
    """

    time: float
    who: str
    changes: Mapping[str, object]
    why: str = ""

    kind = "configuration"
    subject = None
    about = None

    def body(self, commit: Commit) -> dict[str, object]:
        """Return who, what and why."""
        return {"who": self.who, "changes": self.changes, "why": self.why}


def _plain(score: Score | None) -> float | list[float] | None:
    if score is None:
        return None
    return [float(one) for one in score] if isinstance(score, Sequence) else float(score)
