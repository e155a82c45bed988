"""Retention: the oldest segments are dropped whole, once they are old enough and a checkpoint pins them outside."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NamedTuple

from fairlayer._numbers import is_number
from fairlayer.errors import ParameterError
from fairlayer.trail.appending import Cursor, Ending, prepare_event
from fairlayer.trail.errors import RetentionError

__all__ = ["Pruning", "Retention", "check_exported", "drop_old"]

_DAY = 86_400.0


@dataclass(frozen=True)
class Pruning:
    """What was dropped: all segments up to number `through`, and how many rows these held.

    Example:
        >>> Pruning(through=12, rows=48000).rows
        48000
    """

    through: int
    rows: int


class Retention(NamedTuple):
    """How long rows are kept: the least number of days that may be asked for, and the number asked, None for that."""

    floor_days: float
    keep_days: float | None = None


def drop_old(end: Ending, kept: Retention, *, time: float, who: str, refuse_back: bool) -> Pruning:
    """Drop the segments that are old enough and record it, inside the transaction that is open; checkpoints stay.

    Raises:
        RetentionError: the days are below the floor, or no checkpoint that covers the segments was exported.
    """
    number, last = _through_which(end.db, time, kept)
    if not number:
        return Pruning(0, 0)
    end.db.execute("DELETE FROM trail_contents WHERE row <= ?", (last,))
    dropped = end.db.execute("DELETE FROM trail_rows WHERE row <= ?", (last,)).rowcount
    event = prepare_event("pruning", time, {"through": number, "last": last, "who": who})
    end.add([event], refuse_back=refuse_back)
    end.write()
    return Pruning(number, dropped)


def _through_which(db: Cursor, time: float, kept: Retention) -> tuple[int, int]:
    """Return the last segment that may be dropped, and its last row; (0, 0) for none.

    Raises:
        RetentionError: the days are below the floor, or no checkpoint that covers the segment was exported.
    """
    if not is_number(time):
        raise ParameterError(f"a time is a finite number of seconds on the caller's clock, but was given {time!r:.80}.")
    floor_days, keep_days = kept
    days = floor_days if keep_days is None else keep_days
    if not days >= floor_days:
        raise RetentionError(
            f"rows are kept for at least {floor_days:g} days, but keep_days={days!r} was asked for. "
            "Open the trail with a lower floor_days, if the law that you are under allows it."
        )
    number, last = _old_enough(db, time - days * _DAY)
    exported = check_exported(db)
    if number > exported:
        raise RetentionError(
            f"segments up to {number} are old enough, but the last checkpoint that was exported is that of segment "
            f"{exported or 'none'}. Export one by checkpoint(), keep it outside, then prune."
        )
    return number, last


def check_exported(db: Cursor) -> int:
    """Return the last segment whose checkpoint was handed out; it pins all segments before it."""
    found = db.execute(
        "SELECT CAST(c.payload AS BLOB) FROM trail_rows r JOIN trail_contents c ON c.row = r.row "
        "WHERE r.kind = 'checkpoint' AND r.kind <> 'decision' ORDER BY r.row DESC LIMIT 1"
    ).fetchone()
    return int(json.loads(found[0])["segment"]) if found else 0


def _old_enough(db: Cursor, before: float) -> tuple[int, int]:
    oldest = db.execute("SELECT coalesce(min(row), 1) FROM trail_rows").fetchone()[0]
    found = (0, 0)
    segments = db.execute("SELECT number, first, last FROM trail_segments WHERE last >= ? ORDER BY number", (oldest,))
    for number, first, last in list(segments):
        latest = db.execute("SELECT max(time) FROM trail_rows WHERE row BETWEEN ? AND ?", (first, last)).fetchone()[0]
        if latest is None or latest >= before:
            break
        found = (number, last)
    return found
