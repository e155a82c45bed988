"""Erasure: salt and payload go, the commitment stays, and so do the chain and all proofs."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from fairlayer.trail.appending import Cursor, Ending, prepare_event
from fairlayer.trail.errors import TrailError

__all__ = ["Erasure", "compact", "erase_about", "not_named", "rows_about"]

_SPANS = 10_000  # of rows, in one record of an erasure; longer ones take several


@dataclass(frozen=True)
class Erasure:
    """What was erased: spans of rows (first, last), and how many rows these are.

    Example:
        >>> from fairlayer.trail import AuditTrail, Decision
        >>> with AuditTrail("erased.sqlite", key=bytes(32)) as trail:
        ...     rows = trail.append(Decision(time=0.0, subject=name, emitted=0.5) for name in ("ann", "bob"))
        ...     erased = trail.erase("ann", time=2.0, who="privacy desk", why="request of 29 November")
        >>> erased.rows, erased.count
        (((1, 1),), 1)
    """

    rows: tuple[tuple[int, int], ...]
    count: int


def rows_about(db: Cursor, subject: bytes, kind: str | None = None) -> list[int]:
    """Return the rows that have content about a subject, of one kind or of all."""
    of_kind = "" if kind is None else " AND r.kind = ?"
    found = db.execute(
        "SELECT c.row FROM trail_contents c JOIN trail_rows r ON r.row = c.row "
        f"WHERE c.subject = ? AND c.subject <> x''{of_kind} ORDER BY c.row",
        (subject,) if kind is None else (subject, kind),
    )
    return [row for (row,) in found]


def erase_about(end: Ending, subject: bytes, *, time: float, who: str, why: str, refuse_back: bool) -> Erasure | None:
    """Delete the content of all rows about a subject and record it, inside the transaction that is open.

    Returns None, and changes nothing, where no row has content about the subject.
    """
    rows = rows_about(end.db, subject)
    if not rows:
        return None
    end.db.executemany("DELETE FROM trail_contents WHERE row = ?", [(row,) for row in rows])
    erased = Erasure(tuple(_spans(rows)), len(rows))
    pieces = (erased.rows[start : start + _SPANS] for start in range(0, len(erased.rows), _SPANS))
    said: list[dict[str, object]] = [{"rows": list(piece), "who": who, "why": why} for piece in pieces]
    end.add([prepare_event("erasure", time, body) for body in said], refuse_back=refuse_back)
    end.write()
    return erased


def not_named(subject: str) -> TrailError:
    """Return the error of an erasure that finds nothing."""
    return TrailError(
        f"no row has content about the subject {subject!r:.80}: it was never named so, or is erased. "
        "If an erasure was cut off after it was recorded, `compact` ends it."
    )


def compact(db: sqlite3.Connection) -> None:
    """Rewrite the file, so that no page has room where deleted bytes could lie, and cut the write-ahead log.

    `secure_delete` overwrites what is deleted where it lies, but not the copies that SQLite left behind when it moved
    rows between pages before; VACUUM does. Frames of the log hold old pages until it is truncated.
    """
    db.execute("VACUUM")
    busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise TrailError(
            "a reader holds the old pages, so deleted bytes may still be in the write-ahead log. "
            "Call compact() again when it has ended."
        )


def _spans(rows: Sequence[int]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for row in rows:
        if spans and spans[-1][1] == row - 1:
            spans[-1] = (spans[-1][0], row)
        else:
            spans.append((row, row))
    return spans
