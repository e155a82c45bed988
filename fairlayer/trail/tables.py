"""The tables of a trail in its SQLite file, which may hold other tables as well.

trail_about      one line: the description (format, id, name, key's name, rows of a segment), hashed as genesis
trail_rows       row, time, kind, commitment, leaf: what stays
trail_contents   row, salt, subject, payload: what can be erased
trail_segments   number, first row, last row, text of the checkpoint: what stays when a segment's rows are dropped
trail_head       one line: rows written, last link, last time, closed segments and their rows, and the seal of these
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fairlayer.errors import ParameterError
from fairlayer.trail.canonical import canonical
from fairlayer.trail.encoding import FORMAT, genesis_of
from fairlayer.trail.errors import TrailError, TrailKeyError
from fairlayer.trail.keys import Keys

__all__ = ["SCHEMA", "Description", "Head", "create", "described", "named_errors", "open_to_read", "transaction"]

SCHEMA = (
    "CREATE TABLE trail_about (one INTEGER PRIMARY KEY CHECK (one = 1), description TEXT NOT NULL)",
    "CREATE TABLE trail_rows (row INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, "
    "commitment BLOB NOT NULL, leaf BLOB NOT NULL)",
    "CREATE TABLE trail_contents (row INTEGER PRIMARY KEY, salt BLOB NOT NULL, subject BLOB NOT NULL, "
    "payload TEXT NOT NULL)",
    "CREATE TABLE trail_segments (number INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, "
    "checkpoint TEXT NOT NULL)",
    "CREATE TABLE trail_head (one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, link BLOB NOT NULL, "
    "time REAL, segments INTEGER NOT NULL, closed INTEGER NOT NULL, seal BLOB NOT NULL)",
    "CREATE INDEX trail_by_subject ON trail_contents (subject) WHERE subject <> x''",
    "CREATE INDEX trail_events ON trail_rows (kind) WHERE kind <> 'decision'",
)
_SEALED = struct.Struct(">Q32sdQQ")


class Description(NamedTuple):
    """What a trail was begun as; it never changes.

    `trail` is a random id, `key` the name of the key that seals it, None for none.
    """

    trail: str
    name: str
    key: str | None
    segment_rows: int

    def text(self) -> bytes:
        """Return the canonical bytes, which the first link is the hash of."""
        return canonical({"format": FORMAT, **self._asdict()})

    @staticmethod
    def read(text: str | bytes) -> Description:
        """Read the description's bytes.

        Raises:
            TrailError: they are of another format, or none.
        """
        try:
            found = json.loads(text)
            form = found.pop("format")
            description = Description(**found)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TrailError(f"the trail's description cannot be read ({error!r}).") from error
        if form != FORMAT:
            raise TrailError(f"this is a trail of format {form}; this version reads format {FORMAT}.")
        return description


class Head(NamedTuple):
    """Where a trail ends.

    `size` rows were written, the next one names `link`, the last one has `time`; `closed` of the rows lie in
    `segments` closed segments.
    """

    size: int
    link: bytes
    time: float | None
    segments: int
    closed: int

    def seal(self, keys: Keys) -> bytes:
        """Return the HMAC over all of this."""
        time = float("nan") if self.time is None else self.time
        return keys.seal(b"head\n" + _SEALED.pack(self.size, self.link, time, self.segments, self.closed))


def create(db: sqlite3.Connection, keys: Keys, name: str, segment_rows: int) -> None:
    """Make the tables of a new trail, inside the transaction that is open."""
    for statement in SCHEMA:
        db.execute(statement)
    text = Description(secrets.token_hex(16), name, keys.name, segment_rows).text()
    head = Head(0, genesis_of(text), None, 0, 0)
    db.execute("INSERT INTO trail_about VALUES (1, ?)", (text.decode(),))
    db.execute("INSERT INTO trail_head VALUES (1, ?, ?, ?, ?, ?, ?)", (*head, head.seal(keys)))


def is_trail(db: sqlite3.Connection) -> bool:
    """Return whether the file holds a trail."""
    found = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'trail_about'").fetchone()
    return bool(found[0])


def described(db: sqlite3.Connection) -> Description:
    """Return the description of the trail in the file.

    Raises:
        TrailError: there is none.
    """
    return Description.read(description_bytes(db))


def description_bytes(db: sqlite3.Connection) -> bytes:
    """Return the description as it is stored, which the first link is the hash of.

    Raises:
        TrailError: there is no trail in the file.
    """
    if not is_trail(db):
        raise TrailError("there is no trail in this file: it has no table trail_about.")
    found = db.execute("SELECT CAST(description AS BLOB) FROM trail_about").fetchone()
    return bytes(found[0]) if found else b""


def check_key(description: Description, keys: Keys) -> None:
    """Refuse a key that is not the trail's.

    Raises:
        TrailKeyError: it is another one, it is missing, or the trail has none.
    """
    if description.key != keys.name:
        wanted = "no key" if description.key is None else f"the key {description.key}"
        given = "none" if keys.name is None else f"the key {keys.name}"
        raise TrailKeyError(
            f"the trail was begun with {wanted}, but was opened with {given}. "
            "Give the key that it was begun with; a new key needs a new trail."
        )


def check_name(name: str) -> None:
    """Refuse a name that a signed note cannot carry."""
    if not name or "+" in name or any(letter.isspace() or not letter.isprintable() for letter in name):
        raise ParameterError(
            f"a trail's name is a text without spaces and '+', such as 'bank.example/loans', but was given {name!r}."
        )


@contextmanager
def open_to_read(path: str | Path) -> Iterator[sqlite3.Connection]:
    """Open a file that may be in use, read-only, at one moment: everything read is of one state.

    Raises:
        TrailError: there is no such file, or it cannot be read.
    """
    if not Path(path).is_file():
        raise TrailError(f"there is no file '{path}'.")
    with named_errors(str(path), "read"):
        db = sqlite3.connect(Path(path).resolve().as_uri() + "?mode=ro", uri=True, isolation_level=None)
        try:
            db.execute("BEGIN")
            yield db
        finally:
            db.close()


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """One writer at a time: what is read inside is what is written on."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextmanager
def named_errors(path: str, what: str) -> Iterator[None]:
    """Say what could not be done to which file."""
    try:
        yield
    except sqlite3.Error as error:
        busy = "locked" in str(error)
        advice = "Another connection holds it; give a longer timeout." if busy else "Check the path and the disk."
        raise TrailError(f"the trail '{path}' could not {what} ({error}). {advice}") from error
