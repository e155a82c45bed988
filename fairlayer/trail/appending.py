"""Writing rows at the end, inside a transaction that is open: the end is read in it, so no other writer is missed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from fairlayer._numbers import is_number
from fairlayer.errors import ParameterError
from fairlayer.trail.canonical import canonical
from fairlayer.trail.checkpoint import Checkpoint, Signer, write_checkpoint
from fairlayer.trail.encoding import commitment_of, entry_of, genesis_of, leaf_of, link_after
from fairlayer.trail.errors import TrailClockError, TrailError
from fairlayer.trail.keys import Keys
from fairlayer.trail.merkle import root_of
from fairlayer.trail.records import Record
from fairlayer.trail.tables import Description, Head

__all__ = ["RESERVED", "Cursor", "Ending", "Prepared", "prepare", "prepare_event"]

RESERVED = ("checkpoint", "erasure", "pruning")  # written by the trail itself
_KIND = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_SALT = 32


class Cursor(Protocol):
    """What rows are written through: a cursor of SQLite's, or one that speaks like it."""

    def execute(self, statement: str, values: Any = ..., /) -> Any:
        """Run a statement; what is returned yields rows."""

    def executemany(self, statement: str, values: Any, /) -> Any:
        """Run a statement for each of the values."""


class Prepared(NamedTuple):
    """A record, checked and put into bytes; nothing can be wrong with it but the row that it is about."""

    time: float
    kind: str
    subject: bytes
    payload: bytes
    about: int | None


def prepare(records: Iterable[Record], keys: Keys) -> list[Prepared]:
    """Check records and put them into bytes.

    Raises:
        ParameterError: a time is not a finite number, a kind no word or reserved, a content not JSON.
        TrailKeyError: a record commits to an input, and there is no key.
    """
    return [_prepared(record, keys) for record in records]


def prepare_event(kind: str, time: float, body: dict[str, object]) -> Prepared:
    """Put an event of the trail itself into bytes."""
    return Prepared(_checked_time(time), kind, b"", canonical(body), None)


def _prepared(record: Record, keys: Keys) -> Prepared:
    kind = str(record.kind)
    if kind in RESERVED or not _KIND.fullmatch(kind):
        raise ParameterError(
            f"a record's kind is a lower-case word other than {', '.join(RESERVED)}, but was given {kind!r:.80}."
        )
    content = canonical(record.body(keys.commit))
    return Prepared(_checked_time(record.time), kind, keys.tag(record.subject), content, record.about)


def _checked_time(time: float) -> float:
    if not is_number(time):
        raise ParameterError(
            f"a time is a finite number of seconds on the caller's clock, but was given {time!r:.80}. "
            "The trail never reads a clock itself."
        )
    return float(time) + 0.0  # no negative zero


@dataclass
class Ending:
    """The end of a trail while rows are added to it, within one transaction.

    `read` takes it from the file, `add` and `close` move it on, `write` puts it back.
    """

    db: Cursor
    description: Description
    keys: Keys
    signers: Sequence[Signer]
    head: Head

    @classmethod
    def read(cls, cursor: Cursor, description: Description, keys: Keys, signers: Sequence[Signer]) -> Ending:
        """Read the end; the transaction must be open.

        Raises:
            TrailError: there is none.
        """
        found = cursor.execute("SELECT size, link, time, segments, closed FROM trail_head").fetchone()
        if found is None:
            raise TrailError("the trail has lost its head, which says where it ends: verify it.")
        return cls(cursor, description, keys, signers, Head(*found))

    def add(self, records: Sequence[Prepared], *, refuse_back: bool) -> range:
        """Write rows, closing segments as they fill; return the rows' numbers."""
        first = self.head.size + 1
        while records:
            room = self.description.segment_rows - (self.head.size - self.head.closed)
            self._insert(records[:room], refuse_back)
            if len(records) >= room:
                self.close()
            records = records[room:]
        return range(first, self.head.size + 1)

    def close(self) -> Checkpoint:
        """Close the open segment, which has rows, and write its checkpoint."""
        head = self.head
        number, rows = head.segments + 1, (head.closed + 1, head.size)
        leaves = self.db.execute("SELECT leaf FROM trail_rows WHERE row > ? ORDER BY row", (head.closed,))
        root = root_of(leaf for (leaf,) in leaves)
        origin = (self.description.name, self.description.trail, number)
        checkpoint = write_checkpoint(origin, rows, root, self.last_link(), list(self.signers))
        self.db.execute("INSERT INTO trail_segments VALUES (?, ?, ?, ?)", (number, *rows, checkpoint.text))
        self.head = head._replace(link=link_after(checkpoint.text), segments=number, closed=head.size)
        return checkpoint

    def write(self) -> None:
        """Put the end back into the file."""
        self.db.execute(
            "UPDATE trail_head SET size = ?, link = ?, time = ?, segments = ?, closed = ?, seal = ?",
            (*self.head, self.head.seal(self.keys)),
        )

    def last_link(self) -> bytes:
        """Return the link after the last closed segment."""
        last = self.checkpoint(self.head.segments)
        return genesis_of(self.description.text()) if last is None else link_after(last)

    def checkpoint(self, number: int) -> str | None:
        """Return the text of a segment's checkpoint."""
        found = self.db.execute(
            "SELECT CAST(checkpoint AS BLOB) FROM trail_segments WHERE number = ?", (number,)
        ).fetchone()
        return None if found is None else bytes(found[0]).decode()

    def _insert(self, records: Sequence[Prepared], refuse_back: bool) -> None:
        size, link, time, segments, closed = self.head
        salts = os.urandom(_SALT * len(records))
        rows, contents = [], list[tuple[int, bytes, bytes, str]]()
        for place, record in enumerate(records):
            if refuse_back and time is not None and record.time < time:
                raise TrailClockError(
                    f"a record's time {record.time!r} lies {time - record.time!r} seconds before that of row {size}. "
                    "Set the clock right, or open the trail with on_clock_back='flag'."
                )
            size, time = size + 1, record.time
            salt = salts[_SALT * place : _SALT * (place + 1)]
            subject = record.subject if record.about is None else self._subject_of(record.about, contents)
            commitment = commitment_of(salt, subject, record.payload)
            link = leaf_of(entry_of(size, time, link, commitment, record.kind.encode()))
            rows.append((size, time, record.kind, commitment, link))
            contents.append((size, salt, subject, record.payload.decode()))
        self.db.executemany("INSERT INTO trail_rows VALUES (?, ?, ?, ?, ?)", rows)
        self.db.executemany("INSERT INTO trail_contents VALUES (?, ?, ?, ?)", contents)
        self.head = Head(size, link, time, segments, closed)

    def _subject_of(self, row: int, before: Sequence[tuple[int, bytes, bytes, str]]) -> bytes:
        whole = isinstance(row, int) and not isinstance(row, bool)
        place = row - before[0][0] if before and whole else -1
        if 0 <= place < len(before):  # a row of this very call
            return before[place][2]
        found = self.db.execute(
            "SELECT c.subject FROM trail_contents c JOIN trail_rows r ON r.row = c.row "
            "WHERE r.row = ? AND r.kind NOT IN ('checkpoint', 'erasure', 'pruning')",
            (row if whole else None,),
        ).fetchone()
        if found is None:
            raise TrailError(
                f"a record is about row {row!r:.40}, but the trail holds no such row, or its content was erased. "
                "Give the row that `append` returned."
            )
        return bytes(found[0])
