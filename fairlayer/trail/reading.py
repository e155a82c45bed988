"""Reading rows, one after another, of one state of the file, whoever is writing it meanwhile."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fairlayer.trail.errors import TrailError
from fairlayer.trail.tables import described, open_to_read

__all__ = ["Row", "rows_between", "rows_of"]

_ROWS = (
    "SELECT r.row, r.time, r.kind, c.subject, CAST(c.payload AS BLOB) "
    "FROM trail_rows r LEFT JOIN trail_contents c ON c.row = r.row "
    "WHERE (?1 IS NULL OR r.time >= ?1) AND (?2 IS NULL OR r.time < ?2) ORDER BY r.row"
)


class Row(NamedTuple):
    """A row as it is read: `body` is None where the content was erased, `subject` hexadecimal, None for nobody.

    Example:
        >>> from fairlayer.trail import AuditTrail, Decision
        >>> with AuditTrail("first.sqlite") as trail:
        ...     rows = trail.append(Decision(time=float(i), emitted=0.5, decision=1) for i in range(3))
        >>> [first, *_] = rows_between("first.sqlite", 1.0)
        >>> first.row, first.time, first.kind, first.body["decision"]
        (2, 1.0, 'decision', 1)
    """

    row: int
    time: float
    kind: str
    subject: str | None
    body: dict[str, Any] | None


def rows_between(path: str | Path, start: float | None = None, end: float | None = None) -> Iterator[Row]:
    """Yield the rows with start <= time < end in the order of writing. It is not recorded: see `AuditTrail.read`.

    Args:
        path: the path of the trail.

    Raises:
        TrailError: the file cannot be read, or a content in it is not JSON.

    Example:
        >>> from fairlayer.trail import AuditTrail, Decision
        >>> with AuditTrail("between.sqlite") as trail:
        ...     rows = trail.append(Decision(time=float(i), emitted=0.5) for i in range(5))
        >>> [row.row for row in rows_between("between.sqlite", 1.0, 3.0)]
        [2, 3]
    """
    with open_to_read(path) as db:
        described(db)
        yield from rows_of(db, start, end)


def rows_of(db: sqlite3.Connection, start: float | None, end: float | None) -> Iterator[Row]:
    """Yield rows from a file that is open."""
    for row, time, kind, subject, payload in db.execute(_ROWS, (start, end)):
        try:
            body = None if payload is None else json.loads(payload)
        except ValueError as error:
            raise TrailError(f"the content of row {row} cannot be read ({error}): verify the trail.") from error
        yield Row(row, time, kind, bytes(subject).hex() if subject else None, body)
