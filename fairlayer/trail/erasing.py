"""Erasure: salt and payload go, the commitment stays, and so do the chain and all proofs."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from fairlayer.trail.errors import TrailError

__all__ = ["Erasure", "compact", "erase_content", "rows_about"]


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


def rows_about(db: sqlite3.Connection, subject: bytes, kind: str | None = None) -> list[int]:
    """Return the rows that have content about a subject, of one kind or of all."""
    found = db.execute(
        "SELECT c.row FROM trail_contents c JOIN trail_rows r ON r.row = c.row "
        "WHERE c.subject = ?1 AND c.subject <> x'' AND (?2 IS NULL OR r.kind = ?2) ORDER BY c.row",
        (subject, kind),
    )
    return [row for (row,) in found]


def erase_content(db: sqlite3.Connection, rows: Sequence[int]) -> Erasure:
    """Delete the content of rows, inside the transaction that is open."""
    db.executemany("DELETE FROM trail_contents WHERE row = ?", ((row,) for row in rows))
    return Erasure(tuple(_spans(rows)), len(rows))


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
