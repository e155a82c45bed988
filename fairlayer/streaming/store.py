"""A file that remembers a stream: one SQLite database in WAL mode, written by one process and read by any.

    snapshot    the whole state, every so many steps
    log         each step since, in order: what was asked and what was answered
    answers     id -> the prediction given, and the label delivered, for ids that come again

A second file beside it, FILE.lock, is held locked by the process that writes. Others may read: `StoreView`.

A step is one transaction, so after a SIGKILL at any moment it is there whole or not at all. What a power cut may take
is the caller's choice: with synchronous="normal" the last steps (the file stays sound), with "full" nothing that was
committed, at the price of one flush to the disk per step (docs/serving.md has the measured price).
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fairlayer.errors import ConstraintDefinitionError, FairlayerError, LabelValueError, ShapeError
from fairlayer.streaming.stores.sqlite_file import StoreError, StoreLock, copy_store, forget_ids, words

__all__ = [
    "IdReusedError",
    "LabelChangedError",
    "Step",
    "StoreError",
    "StoreView",
    "StoredAnswer",
    "StreamStore",
    "UnknownIdError",
    "forget_ids",
]

FORMAT = "3"
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT);
    CREATE TABLE IF NOT EXISTS snapshot (id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER, state BLOB);
    CREATE TABLE IF NOT EXISTS log (seq INTEGER PRIMARY KEY, body TEXT);
    CREATE TABLE IF NOT EXISTS answers (
        id PRIMARY KEY, seq INTEGER, raw REAL, emitted REAL, label REAL, digest TEXT
    );
    CREATE INDEX IF NOT EXISTS answers_by_age ON answers (seq);
"""
_MOST_VARIABLES = 500  # of one SQL statement

Id = str | int


class IdReusedError(FairlayerError, ValueError):
    """An id that was answered before comes again with another record."""


class UnknownIdError(ShapeError):
    """A label comes for an id of which no prediction is known."""


class LabelChangedError(LabelValueError):
    """An id that has a label comes with another one."""


class Step(NamedTuple):
    """One change of a stream, as plain values.

    A step of predictions has `raw`, `emitted` and `features`; a step of labels has `labels`. `meters` are the numbers
    of the state that a recount cannot rebuild. `digests` tell one record from another, one per id; `counters` are added
    to those that the store keeps; `answers` are what was answered, where that is not what was emitted.
    """

    ids: list[Id] | None
    meters: dict[str, dict[str, float]]
    raw: list[float] | None = None
    emitted: list[float] | None = None
    features: dict[str, list[Any]] | None = None
    labels: list[float] | None = None
    at: float | None = None
    digests: list[str] | None = None
    counters: dict[str, int] | None = None
    answers: list[float] | None = None

    @property
    def answered(self) -> list[float]:
        """What was answered: what was emitted, unless that was finished."""
        return (self.emitted or []) if self.answers is None else self.answers


class StoredAnswer(NamedTuple):
    """What was answered for an id, the label delivered for it since, and the raw score and digest of its record."""

    emitted: float
    label: float | None
    raw: float
    digest: str | None = None


class _Reader:
    """What can be read from the database, by the process that writes it and by others."""

    path: str
    _db: sqlite3.Connection

    def load(self) -> tuple[bytes | None, list[Step]]:
        """Return the last snapshot, None for a new file, and the steps since."""
        with self._named("read"):  # in one statement, so that both are of one moment, whoever writes meanwhile
            rows = self._db.execute(
                "SELECT state, NULL FROM snapshot UNION ALL SELECT NULL, body FROM (SELECT body FROM log ORDER BY seq)"
            ).fetchall()
        found = next(((state,) for state, _ in rows if state is not None), None)
        bodies = [(body,) for _, body in rows if body is not None]
        try:
            return (found[0] if found else None), [Step(**json.loads(body)) for (body,) in bodies]
        except (TypeError, ValueError) as error:
            raise StoreError(
                f"the store '{self.path}' holds a step that cannot be read ({error}). Begin a new file."
            ) from error

    def constraints(self) -> list[str] | None:
        """Return the names of the constraints whose stream this is; None for a new file."""
        text = self._meta("constraints")
        return None if text is None else list(json.loads(text))

    def answers(self, ids: Sequence[Id]) -> dict[Id, StoredAnswer]:
        """Return what was answered for those of the ids that have come before."""
        found: dict[Id, StoredAnswer] = {}
        with self._named("read"):
            for start in range(0, len(ids), _MOST_VARIABLES):
                part = ids[start : start + _MOST_VARIABLES]
                marks = ", ".join("?" * len(part))
                rows = self._db.execute(
                    f"SELECT id, emitted, label, raw, digest FROM answers WHERE id IN ({marks})", part
                )
                found.update((key, StoredAnswer(*answer)) for key, *answer in rows)
        return found

    def _meta(self, key: str) -> str | None:
        with self._named("read"):
            found = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(words(self.path, what, error)) from error


class StreamStore(_Reader):
    """The file.

    Args:
        path: the path of the database; ":memory:" for none that lasts.
        synchronous: "normal" or "full", see above.
        every: steps after which the state is written whole and the log truncated.
        remember: steps for which an id that comes again is recognised.

    Raises:
        StoreError: it is no such file, or another process has it open.

    Example:
        >>> with StreamStore(":memory:") as store:
        ...     store.load()
        (None, [])
    """

    def __init__(
        self, path: str | Path, *, synchronous: str = "normal", every: int = 1000, remember: int = 1_000_000
    ) -> None:
        if synchronous not in ("normal", "full") or every < 1 or remember < 1:
            raise ConstraintDefinitionError(
                "a store takes synchronous='normal' or 'full', and every and remember of at least 1, but was given "
                f"synchronous={synchronous!r}, every={every}, remember={remember}."
            )
        self.path, self.every, self.remember = str(path), every, remember
        self.synchronous = synchronous
        self._seq = self._snapshot_seq = 0
        self._kept: dict[str, int] = {}
        self._guard = None if self.path == ":memory:" else StoreLock(self.path)
        try:
            with self._named("open"):
                self._db = sqlite3.connect(self.path, timeout=2.0, isolation_level=None, check_same_thread=False)
        except BaseException:
            self._unlock()
            raise
        try:
            self._begin(synchronous)
        except BaseException:
            self.close()
            raise
        self._file = self._identity()

    @property
    def durability(self) -> dict[str, str]:
        """What outlives what, in words."""
        if self.path == ":memory:":
            return {"store": "none", "survives": "nothing: the stream begins anew at each start"}
        power = "a power cut too" if self.synchronous == "full" else "no power cut: it may take the last steps"
        return {"store": "sqlite", "survives": f"the end of the process at any moment; {power}"}

    def append(self, step: Step, beside: Callable[[sqlite3.Connection], None] | None = None) -> None:
        """Write one step, whole or not at all.

        Args:
            step: what to write.
            beside: a function that is called within the transaction, to write more in it; where it raises, nothing is
                written.
        """
        self.check()
        keys = step.ids or []
        marks: Sequence[str | None] = step.digests or [None] * len(keys)
        answers = list(zip(keys, step.raw or (), step.answered, marks, strict=False))
        counters = _added(self._kept, step.counters)
        labels = zip(step.labels or (), step.ids or (), strict=False)
        with self._transaction():
            seq = self._seq + 1
            self._db.execute("INSERT INTO log VALUES (?, ?)", (seq, json.dumps(step._asdict(), allow_nan=False)))
            self._db.executemany(
                "INSERT INTO answers VALUES (?, ?, ?, ?, NULL, ?)",
                [(key, seq, raw, emitted, mark) for key, raw, emitted, mark in answers],
            )
            self._db.executemany("UPDATE answers SET label = ? WHERE id = ?", list(labels))
            if counters != self._kept:
                self._db.execute("INSERT OR REPLACE INTO meta VALUES ('counters', ?)", (json.dumps(counters),))
            if beside is not None:
                beside(self._db)
        self._seq, self._kept = seq, counters

    def counters(self) -> dict[str, int]:
        """Return the counters that go with the stream."""
        return dict(self._kept)

    def backup(self, target: str | Path) -> None:
        """Copy the store as it stands to another file, while it is in use.

        Raises:
            StoreError: the file exists, or cannot be written.
        """
        copy_store(self._db, self.path, target)

    @property
    def due(self) -> bool:
        """Whether the log is long enough for a snapshot."""
        return self._seq - self._snapshot_seq >= self.every

    def snapshot(self, state: bytes, constraints: Sequence[str]) -> None:
        """Write the whole state, truncate the log, forget the oldest ids."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO snapshot VALUES (1, ?, ?)", (self._seq, state))
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('constraints', ?)", (json.dumps(list(constraints)),))
            self._db.execute("DELETE FROM log")
            self._db.execute("DELETE FROM answers WHERE seq <= ?", (self._seq - self.remember,))
        self._snapshot_seq = self._seq

    def forget(self) -> None:
        """Delete everything."""
        with self._transaction():
            for table in ("snapshot", "log", "answers"):
                self._db.execute(f"DELETE FROM {table}")
            self._db.execute("DELETE FROM meta WHERE key = 'counters'")
        self._kept = {}

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    def _identity(self) -> tuple[int, int] | None:
        """Return which file the path names; None for memory."""
        if self.path == ":memory:":
            return None
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise StoreError(
                f"the store '{self.path}' is gone ({error}). Put the file back, or begin anew with a restart."
            ) from error
        return found.st_dev, found.st_ino

    def check(self) -> None:
        """See whether the file is still the one that was opened: SQLite would go on to write to a deleted one.

        Raises:
            StoreError: it is gone, or another one.
        """
        if self._identity() != self._file:
            raise StoreError(f"the file '{self.path}' is another one than the store that was opened. Restart.")

    def __enter__(self) -> StreamStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, synchronous: str) -> None:
        with self._named("open"):
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA synchronous = {synchronous}")
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        self._check_format()
        self._kept = dict(json.loads(self._meta("counters") or "{}"))
        with self._named("read"):
            seqs = self._db.execute("SELECT (SELECT max(seq) FROM snapshot), (SELECT max(seq) FROM log)").fetchone()
            if self._guard is not None:
                self._guard.mark(self._db)
        self._snapshot_seq = int(seqs[0] or 0)
        self._seq = max(self._snapshot_seq, int(seqs[1] or 0))

    def _check_format(self) -> None:
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (FORMAT,))
        if self._meta("format") != FORMAT:
            raise StoreError(
                f"'{self.path}' is a store of format {self._meta('format')}, this version reads {FORMAT}. "
                "Begin a new file."
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._named("write"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


class StoreView(_Reader):
    """A store read by another process than the one that writes it, while that one goes on.

    Args:
        path: the path of the database.

    Raises:
        StoreError: there is no such store.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "s.sqlite"
        >>> with StreamStore(path) as store, StoreView(path) as view:
        ...     view.load()
        (None, [])
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        with self._named("open"):
            uri = f"{Path(path).absolute().as_uri()}?mode=ro"
            self._db = sqlite3.connect(uri, uri=True, timeout=2.0, isolation_level=None, check_same_thread=False)
        try:
            if self._meta("format") != FORMAT:
                raise StoreError(f"'{path}' is not a store of format {FORMAT}. Open it with the version that wrote it.")
        except BaseException:
            self._db.close()
            raise

    def counters(self) -> dict[str, int]:
        """Return the counters that go with the stream."""
        return dict(json.loads(self._meta("counters") or "{}"))

    def backup(self, target: str | Path) -> None:
        """Copy the store as it stands to another file.

        Raises:
            StoreError: the file exists, or cannot be written.
        """
        copy_store(self._db, self.path, target)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def __enter__(self) -> StoreView:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _added(before: dict[str, int], more: dict[str, int] | None) -> dict[str, int]:
    return dict(Counter(before) + Counter(more)) if more else before
