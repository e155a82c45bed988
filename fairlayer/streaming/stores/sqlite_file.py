"""The file of a store and what lies beside it: the lock of the process that writes, the log of SQLite, and copies.

SQLite adds what it finds in FILE-wal to whatever file lies beside it. Where a process was killed and a backup was then
put back next to the log that it left, that mixes two states, and often nothing shows it. So each opening gives the file
a mark of its own, which FILE.lock keeps too, and a copy gets the mark of copies. A log beside a file of another mark
than the lock has is refused. Where the lock is gone, as where a file and its log were moved, only a copy is refused: a
log beside it is never its own.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from fairlayer.errors import FairlayerError

__all__ = ["StoreError", "StoreLock", "copy_store", "forget_ids", "words"]

_COPY = 1  # `PRAGMA user_version` of copies, which no lock has: a new lock has 0, as files of older versions have
_AT_MARK = 60  # where SQLite keeps it in the file


class StoreError(FairlayerError, RuntimeError):
    """The store cannot be opened, read or written; the stream is as it was before the call."""


class StoreLock:
    """FILE.lock, held while a store is open: two processes that count into one file would miss what the other emits.

    Args:
        path: the path of the store.

    Raises:
        StoreError: another process holds it, or the log beside the file belongs to another one.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._db = sqlite3.connect(f"{path}.lock", timeout=2.0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise StoreError(words(path, "open", error)) from error
        try:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")  # the end of a transaction does not let go
            self._db.execute("BEGIN EXCLUSIVE")
            self._check_log()
        except BaseException as error:
            self._db.close()
            if isinstance(error, sqlite3.Error):
                raise StoreError(words(path, "open", error)) from error
            raise

    def _check_log(self) -> None:
        log, file = Path(f"{self.path}-wal"), Path(self.path)
        if not (log.exists() and log.stat().st_size and file.exists() and file.stat().st_size):
            return
        with file.open("rb") as opened:  # SQLite itself would read the log as well
            opened.seek(_AT_MARK)
            mark = int.from_bytes(opened.read(4), "big")
        kept = self._db.execute("PRAGMA user_version").fetchone()[0]  # 0 where FILE.lock was not there
        if mark == kept or (kept == 0 and mark != _COPY):
            return
        moved = f" If both were brought here together, delete '{self.path}.lock', which knows another." if kept else ""
        raise StoreError(
            f"'{log}' is the log of another file than '{self.path}'. If that is a backup which was put back, delete "
            f"'{log}' and '{self.path}-shm' to go on with it as it is.{moved}"
        )

    def mark(self, store: sqlite3.Connection) -> None:
        """Give the store a new mark, in the file itself, and keep it here."""
        before, new = store.execute("PRAGMA user_version").fetchone()[0], secrets.randbelow(2**31 - 2) + _COPY + 1
        store.execute(f"PRAGMA user_version = {new}")
        if store.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:  # a reader keeps the log from the file
            store.execute(f"PRAGMA user_version = {before}")
            return
        self._db.execute(f"PRAGMA user_version = {new}")
        self._db.execute("COMMIT")
        self._db.execute("BEGIN EXCLUSIVE")

    def close(self) -> None:
        """Let go."""
        self._db.close()


def copy_store(source: sqlite3.Connection, path: str, target: str | Path) -> None:
    """Copy a store as it stands to another file, marked as a copy.

    Raises:
        StoreError: the file exists, or cannot be written.
    """
    if Path(target).exists():
        raise StoreError(f"the backup of '{path}' would overwrite '{target}'. Give a name that is free.")
    try:
        with closing(sqlite3.connect(target, isolation_level=None)) as copy:
            source.backup(copy)
            copy.execute(f"PRAGMA user_version = {_COPY}")
    except sqlite3.Error as error:
        raise StoreError(words(path, f"be copied to '{target}'", error)) from error


def forget_ids(path: str | Path, ids: Sequence[str | int]) -> int | None:
    """Forget the answers to some ids, also while the stream goes on; return how many, None where there is no stream.

    An id that comes again is then a new one. The log may name it until the next snapshot.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        with closing(sqlite3.connect(path, timeout=30.0, isolation_level=None)) as db:
            if not db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'answers'").fetchone()[0]:
                return None
            db.execute("PRAGMA secure_delete = ON")
            return sum(db.execute("DELETE FROM answers WHERE id = ?", (key,)).rowcount for key in ids)
    except sqlite3.Error as error:
        raise StoreError(words(str(path), "be written", error)) from error


def words(path: str, what: str, error: Exception) -> str:
    """Return what an error says that SQLite raised."""
    busy = "locked" in str(error)
    advice = "Another process has it open; a store serves one process." if busy else "Check the path and the disk."
    return f"the store '{path}' could not {what} ({error}). {advice}"
