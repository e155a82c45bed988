"""The trail as its writers use it."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, cast

from fairlayer.errors import ParameterError
from fairlayer.trail.appending import Ending, Prepared, prepare, prepare_event
from fairlayer.trail.checkpoint import Checkpoint, Signer, read_checkpoint
from fairlayer.trail.erasing import Erasure, compact, erase_about, not_named, rows_about
from fairlayer.trail.errors import TrailError
from fairlayer.trail.exporting import export_table
from fairlayer.trail.keys import Keys
from fairlayer.trail.pruning import Pruning, Retention, check_exported, drop_old
from fairlayer.trail.reading import Row, rows_between
from fairlayer.trail.records import Access, Record
from fairlayer.trail.signatures import Ed25519Signer, SealSigner
from fairlayer.trail.tables import (
    Description,
    check_key,
    check_name,
    create,
    described,
    is_trail,
    named_errors,
    open_to_read,
    transaction,
)

__all__ = ["AuditTrail"]

SEGMENT_ROWS = 10_000
_LOG_PAGES = 8000  # of the write-ahead log, 32 MB: each time it is full, a flush to the disk holds a writer up
_SYNCHRONOUS = {"process": "NORMAL", "power": "FULL"}


class AuditTrail:
    """An append-only, hash-chained record of decisions in one SQLite file, for any number of processes.

    Each `append` is one transaction that begins with reading the end of the trail, so that writers in other threads
    and processes never fork the chain, and a killed one leaves its rows whole or not at all. Times are the caller's;
    rows are in the order in which they were written.

    Args:
        path: the path of the file, which is made where there is none; or a connection of the caller's, where only
            `append_in` is used.
        key: at least 16 secret bytes, kept apart from the file. It seals the trail, hides subjects and commits to
            inputs. It is given at the first opening and at each one after.
        signing_key: Ed25519 private key (32 bytes or PEM) that also signs the checkpoints; needs fairlayer[trail].
        name: the name of a new trail, for its checkpoints: a text without spaces, such as "bank.example/loans".
        segment_rows: rows after which a segment of a new trail closes; default 10,000.
        durability: "process": what was appended outlives a killed process; a power cut may take the last rows, never
            the file's soundness. "power": it outlives a power cut too, at one flush to the disk per append.
        on_clock_back: "flag": a time before that of the row before is written as given, and `verify` and `report`
            count it. "refuse": it is refused.
        floor_days: the shortest time that `prune` keeps rows, on the caller's clock.
        timeout: seconds to wait for other writers.
        create: False refuses a file in which there is no trail yet.

    Raises:
        TrailError: the file cannot be opened, is of another format, or the settings are not those of this trail.
        TrailKeyError: the key is not the one that the trail was begun with.
        ParameterError: a setting has a value that it cannot take.

    Example:
        >>> from fairlayer.trail import AuditTrail, Decision, verify
        >>> with AuditTrail("trail.sqlite", key=bytes(32)) as trail:
        ...     trail.append([Decision(time=1790000000.0, cells={"sex": "F"}, emitted=0.51, decision=1)])
        range(1, 2)
        >>> verify("trail.sqlite", key=bytes(32)).level
        'sealed'
    """

    def __init__(
        self,
        path: str | Path | sqlite3.Connection,
        *,
        key: bytes | None = None,
        signing_key: bytes | None = None,
        name: str | None = None,
        segment_rows: int | None = None,
        durability: Literal["process", "power"] = "process",
        on_clock_back: Literal["flag", "refuse"] = "flag",
        floor_days: float = 183.0,
        timeout: float = 30.0,
        create: bool = True,
    ) -> None:
        _check(durability, on_clock_back, segment_rows, floor_days, timeout)
        self.durability, self.floor_days = durability, float(floor_days)
        self._refuse_back, self._timeout = on_clock_back == "refuse", timeout
        self._keys, self._lock = Keys(key), threading.RLock()
        self._signers: list[Signer] = [SealSigner(self._keys)] if key else []
        if signing_key is not None:
            self._signers.append(Ed25519Signer(signing_key))
        self._own: sqlite3.Connection | None = None
        self._inherited: list[sqlite3.Connection] = []  # over a fork; never used, and never closed in the child
        self._process = os.getpid()
        self._path = None if isinstance(path, sqlite3.Connection) else Path(path)
        with named_errors(str(path), "open"):
            try:
                self.description = self._begin(path, name, segment_rows, may_create=create)
            except BaseException:
                self.close()
                raise

    @property
    def keyed(self) -> bool:
        """Whether there is a key, so that inputs can be committed to and subjects are hidden."""
        return self._keys.name is not None

    @property
    def path(self) -> Path:
        """The file.

        Raises:
            TrailError: the trail was opened on a connection of the caller's.
        """
        if self._path is None:
            raise TrailError(
                "this trail is on a connection of the caller's; open it by its path for anything but rows."
            )
        return self._path

    def append(self, records: Record | Iterable[Record]) -> range:
        """Write one record or many, all or none of them; return the rows that they have.

        Raises:
            TrailClockError: a time lies before the row before, and on_clock_back is "refuse".
            ParameterError: a record cannot be written (see `canonical`).
            TrailError: the file cannot be written, or a record is about a row that is not there.
        """
        prepared = self._prepared(records)
        with self._writing("write") as db:
            return self._add(db, prepared)

    def append_in(self, connection: sqlite3.Connection, records: Record | Iterable[Record]) -> range:
        """Write records in the caller's transaction on the same file; they come and go with it.

        The caller begins (`BEGIN IMMEDIATE`) and commits; how durable that is, is a setting of that connection.

        Raises:
            TrailError: no transaction is open, or the connection is to another file.
            TrailClockError, ParameterError: as for `append`; nothing is written, the transaction goes on.
        """
        prepared = self._prepared(records)
        if not connection.in_transaction:
            raise TrailError(
                "append_in writes in a transaction of the caller's, but none is open: BEGIN IMMEDIATE first."
            )
        with named_errors("of the caller's connection", "write"):
            if described(connection) != self.description:
                raise TrailError(f"the connection is to another trail than {self.description.trail}.")
            connection.execute("SAVEPOINT fairlayer_trail")
            try:
                rows = self._add(connection, prepared)
            except BaseException:
                connection.execute("ROLLBACK TO fairlayer_trail")
                raise
            finally:
                connection.execute("RELEASE fairlayer_trail")
        return rows

    def checkpoint(self, *, time: float, who: str = "") -> Checkpoint:
        """Close the open segment and return its checkpoint, to be kept where writers of the file cannot reach it.

        That it was handed out is the segment's last row. Where nothing was written since the last closed segment,
        the checkpoint of that one is returned.

        Raises:
            TrailError: the trail is empty.
        """
        with self._writing("close a segment") as db:
            end = self._ending(db)
            if end.head.size == end.head.closed and end.head.segments and check_exported(db) >= end.head.segments:
                return read_checkpoint(end.checkpoint(end.head.segments) or "")
            if not end.head.size:
                raise TrailError("the trail is empty: there is nothing to close. Append something first.")
            number = end.head.segments + 1
            event = prepare_event("checkpoint", time, {"segment": number, "who": who})
            end.add([event], refuse_back=self._refuse_back)
            if end.head.segments < number:
                end.close()
            end.write()
            return read_checkpoint(end.checkpoint(number) or "")

    def erase(self, subject: str, *, time: float, who: str, why: str = "", vacuum: bool = True) -> Erasure:
        """Delete the content of all rows about a subject, and record that; the chain and all proofs still hold.

        What stays of each row is its number, time, kind and commitment, which say nothing without the salt. Deleted
        bytes are overwritten, the file is rewritten and the write-ahead log cut, so that neither holds them. Backups
        and exports are the caller's.

        Args:
            subject: the subject as it was named in the records.
            time: the caller's clock.
            who: the person or program that does it.
            why: the reason given. It stays, so it must not name the subject.
            vacuum: rewrite the file at once, for which writers wait. With False, call `compact` later.

        Raises:
            TrailError: no row has content about this subject.
        """
        with self._writing("erase") as db:
            end, back = self._ending(db), self._refuse_back
            erased = erase_about(end, self._keys.tag(subject), time=time, who=who, why=why, refuse_back=back)
            if erased is None:
                raise not_named(subject)
        if vacuum:
            self.compact()
        return erased

    def prune(self, *, time: float, who: str, keep_days: float | None = None, vacuum: bool = True) -> Pruning:
        """Drop whole segments whose rows are all older than `keep_days`, and record that; the others still verify.

        Args:
            time: the caller's clock, from which days are counted back.
            who: the person or program that does it.
            keep_days: the number of days, at least `floor_days`, which is the default.
            vacuum: give the room back to the disk at once, for which writers wait.

        Raises:
            RetentionError: keep_days is below the floor, or no checkpoint that covers the segments was exported.
        """
        with self._writing("drop segments") as db:
            end, days = self._ending(db), Retention(self.floor_days, keep_days)
            pruned = drop_old(end, days, time=time, who=who, refuse_back=self._refuse_back)
        if vacuum and pruned.through:
            self.compact()
        return pruned

    def compact(self) -> None:
        """Rewrite the file without what was deleted, and cut the write-ahead log. Writers wait meanwhile.

        Raises:
            TrailError: a reader still holds the old pages; nothing is lost, call it again.
        """
        with self._lock, named_errors(str(self._path), "be compacted"):
            compact(self._db)

    def rows_of(self, subject: str, kind: str | None = None) -> list[int]:
        """Return the rows about a subject whose content is there, of one kind or of all, in the order of writing."""
        with self._lock, named_errors(str(self._path), "be read"):
            return rows_about(self._db, self._keys.tag(subject), kind)

    def read(self, *, time: float, who: str, start: float | None = None, end: float | None = None) -> Iterator[Row]:
        """Record who reads, then return the rows with start <= time < end, one after another."""
        self._record_access("read", time, who, {"start": start, "end": end})
        return rows_between(self.path, start, end)

    def export(
        self, target: str | Path, *, time: float, who: str, start: float | None = None, end: float | None = None
    ) -> int:
        """Record who exports, write the rows with start <= time < end as a Parquet file, return how many.

        Raises:
            MissingExtraError: the library `pyarrow` is not installed.
            TrailError: the file is there already.
        """
        what: dict[str, object] = {"file": str(target), "start": start, "end": end}
        before = partial(self._record_access, "export", time, who, what)
        return export_table(self.path, target, start, end, before=before)

    def backup(self, target: str | Path) -> None:
        """Copy the trail into a new file while it is being written; the copy is one file, of one moment.

        Raises:
            TrailError: the file is there already.
        """
        if Path(target).exists():
            raise TrailError(f"the file '{target}' is there already; a backup never overwrites. Give another name.")
        with named_errors(str(target), "be written"), open_to_read(self.path) as source:
            copy = sqlite3.connect(target, isolation_level=None)
            try:
                source.backup(copy)
                copy.execute("PRAGMA user_version = 1")  # the mark of copies, by which a store knows a log of others
                copy.execute("PRAGMA journal_mode = DELETE")  # readable where nothing can be written beside it
            finally:
                copy.close()

    def tag(self, subject: str) -> str:
        """Return what rows about a subject have in place of its name, as hexadecimal digits."""
        return self._keys.tag(subject).hex()

    def commit(self, value: object) -> str:
        """Return the commitment that a row has for this input."""
        return self._keys.commit(value)

    def __len__(self) -> int:
        """Return how many rows were ever written."""
        with self._lock, named_errors(str(self._path), "read"):
            return int(self._db.execute("SELECT size FROM trail_head").fetchone()[0])

    def close(self) -> None:
        """Let go of the file."""
        self._leave_inherited()
        if self._own is not None:
            self._own.close()
            self._own = None

    def __enter__(self) -> AuditTrail:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(
        self, path: str | Path | sqlite3.Connection, name: str | None, segment_rows: int | None, *, may_create: bool
    ) -> Description:
        if not may_create and isinstance(path, str | Path) and not Path(path).is_file():
            raise TrailError(f"there is no file '{path}'.")
        db = path if isinstance(path, sqlite3.Connection) else self._db
        with transaction(db):
            if may_create and not is_trail(db):
                check_name(name or "fairlayer-trail")
                create(db, self._keys, name or "fairlayer-trail", segment_rows or SEGMENT_ROWS)
            found = described(db)
        check_key(found, self._keys)
        for setting, asked, there in (("name", name, found.name), ("segment_rows", segment_rows, found.segment_rows)):
            if asked is not None and asked != there:
                raise TrailError(f"the trail was begun with {setting}={there!r}, but {asked!r} was asked for.")
        return found

    @property
    def _db(self) -> sqlite3.Connection:
        self._leave_inherited()
        if self._own is None:
            self._own = self._connected()
        return self._own

    def _leave_inherited(self) -> None:
        if self._process != os.getpid():
            self._inherited += [self._own] if self._own is not None else []
            self._own, self._process = None, os.getpid()

    def _connected(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False)
        [mode] = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            db.close()
            raise TrailError(
                f"'{self.path}' cannot have a write-ahead log (its journal is '{mode}'): use a local disk."
            )
        db.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[self.durability]}")
        db.execute("PRAGMA secure_delete = ON")
        db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        return db

    @contextmanager
    def _writing(self, what: str) -> Iterator[sqlite3.Connection]:
        with self._lock, named_errors(str(self._path), what), transaction(self._db):
            yield self._db

    def _prepared(self, records: Record | Iterable[Record]) -> list[Prepared]:
        one = hasattr(records, "body")  # a record may be iterable too
        return prepare([cast(Record, records)] if one else cast("Iterable[Record]", records), self._keys)

    def _ending(self, db: sqlite3.Connection) -> Ending:
        cursor = db.cursor()
        cursor.row_factory = None  # whatever the caller's connection makes of rows
        return Ending.read(cursor, self.description, self._keys, self._signers)

    def _add(self, db: sqlite3.Connection, prepared: list[Prepared]) -> range:
        end = self._ending(db)
        rows = end.add(prepared, refuse_back=self._refuse_back)
        end.write()
        return rows

    def _record_access(self, kind: Literal["read", "export"], time: float, who: str, what: dict[str, object]) -> None:
        self.append(Access(time=time, who=who, kind=kind, what=what))


def _check(durability: str, on_clock_back: str, segment_rows: int | None, floor_days: float, timeout: float) -> None:
    if durability not in _SYNCHRONOUS or on_clock_back not in ("flag", "refuse"):
        raise ParameterError(
            "a trail takes durability='process' or 'power' and on_clock_back='flag' or 'refuse', but was given "
            f"durability={durability!r}, on_clock_back={on_clock_back!r}."
        )
    whole = segment_rows is None or (isinstance(segment_rows, int) and segment_rows >= 1)
    if not (whole and floor_days >= 0.0 and timeout >= 0.0):
        raise ParameterError(
            "a trail takes segment_rows of at least 1, floor_days and timeout of at least 0, but was given "
            f"segment_rows={segment_rows!r}, floor_days={floor_days!r}, timeout={timeout!r}."
        )
