"""A store that several processes and hosts share: one PostgreSQL database, each worker in a slot of its own.

    slots      the whole state of each worker, and what it alone has counted, for the others to hear
    steps      each worker's steps since
    answers    id -> the prediction given by any worker, and the label delivered

No row is written by two workers, so none waits for another; a worker writes what has come together in one transaction.
A slot is held by a session lock of PostgreSQL's, which ends with the connection.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from fairlayer.errors import require
from fairlayer.streaming.store import Id, Step, StoredAnswer, StoreError
from fairlayer.trail import SlotTrail, TrailError
from fairlayer.trail.amending import rewritten
from fairlayer.trail.appending import Prepared

__all__ = ["KINDS", "Database", "Queued", "Slot", "forget_shared"]

KINDS = {"scores": "public", "decisions": "fairlayer_decisions"}
"""The streams that a database can hold, each in a schema of its own."""

FORMAT = "1"
_LOCK = 0x66616972  # one number for all that this package locks
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS fairlayer_meta (key text PRIMARY KEY, value text);
    CREATE TABLE IF NOT EXISTS fairlayer_slots (slot int PRIMARY KEY, seq bigint, state bytea, published bytea);
    CREATE TABLE IF NOT EXISTS fairlayer_steps (slot int, seq bigint, body text, PRIMARY KEY (slot, seq));
    CREATE TABLE IF NOT EXISTS fairlayer_answers (
        id text PRIMARY KEY, slot int, raw float8, emitted float8, label float8, digest text,
        settled boolean NOT NULL DEFAULT false
    );
    CREATE INDEX IF NOT EXISTS fairlayer_unsettled ON fairlayer_answers (slot) WHERE label IS NOT NULL AND NOT settled;
"""
_PIECE = 500  # steps of one statement

# One statement for all that has come together: it is a transaction by itself, and one way there and back.
_WRITE = """
    WITH written AS (
        INSERT INTO fairlayer_steps SELECT %s, * FROM unnest(%s::bigint[], %s::text[]) ON CONFLICT DO NOTHING
    )
    INSERT INTO fairlayer_answers (id, slot, raw, emitted, digest)
    SELECT id, %s, raw, emitted, digest
    FROM unnest(%s::text[], %s::float8[], %s::float8[], %s::text[]) AS new (id, raw, emitted, digest)
    ON CONFLICT DO NOTHING
"""
_FORGETTING = ("answers", "steps", "slots")  # the tables that name ids


class Slot(NamedTuple):
    """What a database holds of a worker.

    Args:
        state: its last snapshot; None for a new one.
        seq: number of the last step in it.
        steps: those since, with their numbers.
    """

    state: bytes | None
    seq: int
    steps: list[tuple[int, Step]]


class Queued(NamedTuple):
    """A step that is to be written.

    Args:
        seq: its number.
        step: what it is.
        rows: the rows of the audit trail, written in the same transaction; none where no trail is kept.
    """

    seq: int
    step: Step
    rows: Sequence[Prepared] = ()


class Database:
    """One connection, opened when it is needed and let go of when it fails. One thread at a time.

    Args:
        address: postgresql://...
        kind: the kind of the stream, one of `KINDS`.
        seconds: longest time for a connection, and for a statement.

    Raises:
        MissingExtraError: psycopg is not installed.
    """

    def __init__(self, address: str, *, kind: str = "scores", seconds: float = 2.0) -> None:
        self.address, self.kind, self.seconds = address, kind, seconds
        self._schema, self._lock_number = KINDS[kind], _LOCK + list(KINDS).index(kind)
        self._psycopg = require("psycopg", "postgres")
        self._connection: Any = None
        self._lock = threading.Lock()
        self.slot: int | None = None
        self._trail: SlotTrail | None = None

    def prepare(self, names: Sequence[str], shares: int) -> None:
        """Make the tables, and see whose stream they hold.

        Raises:
            StoreError: the stream of other constraints, or shared among another number.
        """
        said = {"format": FORMAT, "constraints": json.dumps(list(names)), "shares": str(shares)}
        with self._work() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {self._schema}")
            cursor.execute(_SCHEMA)
            for key, value in said.items():
                cursor.execute("INSERT INTO fairlayer_meta VALUES (%s, %s) ON CONFLICT DO NOTHING", (key, value))
            found = dict(cursor.execute("SELECT key, value FROM fairlayer_meta").fetchall())
        for key, value in said.items():
            if found[key] != value:
                raise StoreError(
                    f"the database holds a stream with {key} {found[key]}, but {value} was asked for. Use another "
                    "database, or start as before."
                )

    def take(self, slots: Sequence[int]) -> int:
        """Take the first of the slots that is free, and keep it while the connection lasts.

        Raises:
            StoreError: none is.
        """
        with self._work() as cursor:
            for slot in slots:
                if cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", (self._lock_number, slot)).fetchone()[0]:
                    self.slot = slot
                    return slot
        raise StoreError(
            f"all of the slots {list(slots)} are held by other processes. End one, or begin a database with "
            "more --shares."
        )

    def keep(self, trail: SlotTrail, slot: int) -> None:
        """Write a chain of the audit trail from now on.

        Raises:
            TrailError: it cannot be read, or has another key.
        """
        with self._work() as cursor:
            trail.begin(cursor, f"{self.kind}.{slot}")
        self._trail = trail

    def load(self, slot: int) -> Slot:
        """Return what is held of a worker."""
        with self._work() as cursor:
            found = cursor.execute("SELECT state, seq FROM fairlayer_slots WHERE slot = %s", (slot,)).fetchone()
            state, seq = (None, 0) if found is None else (bytes(found[0]), int(found[1]))
            rows = cursor.execute(
                "SELECT seq, body FROM fairlayer_steps WHERE slot = %s AND seq > %s ORDER BY seq", (slot, seq)
            ).fetchall()
        return Slot(state, seq, [(number, Step(**json.loads(body))) for number, body in rows])

    def append(self, slot: int, steps: Sequence[Queued]) -> None:
        """Write steps in their order, each whole or not at all; those that are there already are left as they are."""
        with self._work() if self._trail is not None else self._statement() as cursor:
            self._append(cursor, slot, steps)

    def exchange(
        self,
        slot: int,
        steps: Sequence[Queued],
        *,
        seq: int,
        state: bytes,
        published: bytes,
        settled: Sequence[Id],
    ) -> None:
        """Write steps, the state after them, and what the others may hear, in one transaction."""
        with self._work() as cursor:
            self._append(cursor, slot, steps)
            cursor.execute(
                "INSERT INTO fairlayer_slots VALUES (%s, %s, %s, %s) ON CONFLICT (slot) DO UPDATE SET "
                "seq = excluded.seq, state = excluded.state, published = excluded.published",
                (slot, seq, state, published),
            )
            cursor.execute("DELETE FROM fairlayer_steps WHERE slot = %s AND seq <= %s", (slot, seq))
            if settled:
                keys = [_key(each) for each in settled]
                cursor.execute("UPDATE fairlayer_answers SET settled = true WHERE id = ANY(%s)", (keys,))

    def hear(self, slot: int) -> tuple[dict[int, bytes], dict[Id, float]]:
        """Return what the other workers have published, and labels that have come for this one's predictions."""
        with self._statement() as cursor:
            others = cursor.execute("SELECT slot, published FROM fairlayer_slots WHERE slot <> %s", (slot,)).fetchall()
            labels = cursor.execute(
                "SELECT id, label FROM fairlayer_answers WHERE slot = %s AND label IS NOT NULL AND NOT settled", (slot,)
            ).fetchall()
        return {number: bytes(each) for number, each in others}, {json.loads(key): label for key, label in labels}

    def answers(self, ids: Sequence[Id]) -> dict[Id, StoredAnswer]:
        """Return what any worker has answered for those of the ids that have come before."""
        with self._statement() as cursor:
            rows = cursor.execute(
                "SELECT id, emitted, label, raw, digest FROM fairlayer_answers WHERE id = ANY(%s)",
                ([_key(each) for each in ids],),
            ).fetchall()
        return {json.loads(key): StoredAnswer(*answer) for key, *answer in rows}

    def label(self, labels: Mapping[Id, float]) -> None:
        """Write labels of predictions of any worker; each keeps its first."""
        with self._work() as cursor:
            cursor.executemany(
                "UPDATE fairlayer_answers SET label = %s WHERE id = %s AND label IS NULL",
                [(label, _key(each)) for each, label in labels.items()],
            )

    def close(self) -> None:
        """Let go of the connection, and of the slot."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _append(self, cursor: Any, slot: int, steps: Sequence[Queued]) -> None:
        if self._trail is not None and steps:
            self._record(cursor, slot, steps, self._trail)
        for start in range(
            0, len(steps), _PIECE
        ):  # what has waited for long takes several statements, each within time
            part = steps[start : start + _PIECE]
            bodies = [json.dumps(step._asdict(), allow_nan=False) for _, step, _ in part]
            answers = [row for _, step, _ in part for row in _rows(step)]
            keys, raw, emitted, marks = ([row[i] for row in answers] for i in range(4))
            cursor.execute(_WRITE, (slot, [each.seq for each in part], bodies, slot, keys, raw, emitted, marks))

    def _record(self, cursor: Any, slot: int, steps: Sequence[Queued], trail: SlotTrail) -> None:
        """Write the rows of the trail of those steps that are not there yet: a commit may have been lost to sight."""
        [last] = cursor.execute(
            "SELECT greatest((SELECT seq FROM fairlayer_slots WHERE slot = %s), "
            "(SELECT max(seq) FROM fairlayer_steps WHERE slot = %s), 0)",
            (slot, slot),
        ).fetchone()
        try:
            trail.add(cursor, [row for each in steps if each.seq > last for row in each.rows])
        except TrailError as error:
            raise StoreError(f"the audit trail cannot be written ({error})") from error

    @contextmanager
    def _work(self) -> Iterator[Any]:
        """Return a cursor in a transaction; a connection that fails is let go of."""
        with self._statement() as cursor, cursor.connection.transaction():
            yield cursor

    @contextmanager
    def _statement(self) -> Iterator[Any]:
        """Return a cursor of which each statement is a transaction; a connection that fails is let go of."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._open()
                with self._connection.cursor() as cursor:
                    yield cursor
            except self._psycopg.Error as error:
                self.close()
                raise StoreError(f"the PostgreSQL store cannot be used now ({str(error).strip()}).") from error

    def _open(self) -> Any:
        wait = max(1, round(self.seconds))
        connection = self._psycopg.connect(
            self.address,
            autocommit=True,
            connect_timeout=wait,
            options=f"-c statement_timeout={1000 * wait} -c idle_in_transaction_session_timeout=30000 "
            f"-c search_path={self._schema}",
            keepalives_idle=wait,
            tcp_user_timeout=1000 * wait,
        )
        if self.slot is not None:  # the lock went with the connection before
            held = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (self._lock_number, self.slot)).fetchone()[
                0
            ]
            if not held:
                connection.close()
                raise StoreError(
                    f"the slot {self.slot} was taken by another process in the meantime. Restart this one."
                )
        return connection


def forget_shared(address: str, ids: Sequence[Id], *, vacuum: bool = True) -> int:
    """Forget the answers to some ids, also while the workers go on; return how many there were.

    An id that comes again is then a new one. The steps of a worker name it until its next exchange, and the state of
    one that awaits its label until that has come or made room.

    Args:
        address: postgresql://...
        ids: the ids to be forgotten.
        vacuum: rewrite the tables, for which the workers wait.

    Raises:
        StoreError: the database cannot be written.
    """
    psycopg, forgotten = require("psycopg", "postgres"), 0
    try:
        with psycopg.connect(address, autocommit=True, connect_timeout=10, options="-c lock_timeout=10000") as found:
            tables = [f"{schema}.fairlayer_{name}" for schema in KINDS.values() for name in _FORGETTING]
            held = [each for each in tables if found.execute("SELECT to_regclass(%s)", (each,)).fetchone()[0]]
            for table in held:
                if table.endswith("_answers"):
                    deleted = found.execute(f"DELETE FROM {table} WHERE id = ANY(%s)", ([_key(each) for each in ids],))
                    forgotten += int(deleted.rowcount)
            if vacuum and forgotten:
                rewritten(found, held)
    except (psycopg.Error, TrailError) as error:
        raise StoreError(f"the ids could not be forgotten ({str(error).strip()}).") from error
    return forgotten


def _key(each: Id) -> str:
    """Return an id as text: 1 and "1" are two ids, and what PostgreSQL cannot hold in a text is escaped."""
    return json.dumps(each)


def _rows(step: Step) -> Iterator[tuple[str, float, float, str | None]]:
    marks: Sequence[str | None] = step.digests or [None] * len(step.ids or ())
    for key, raw, emitted, mark in zip(step.ids or (), step.raw or (), step.answered, marks, strict=False):
        yield _key(key), raw, emitted, mark
