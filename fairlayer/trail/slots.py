"""The trail of one of several writers on PostgreSQL: a chain of its own, written in the writer's transactions.

    fairlayer_trail.roster          the names of all chains and their ids, sealed: a chain that is gone is missed
    fairlayer_trail_NAME.trail_...  the tables of one chain, as `fairlayer.trail.tables` has them

The rows, links, segments and seals are those of a trail in a file, made by the same code: a copy of a chain in a file
is a trail that `verify` reads (`fairlayer.trail.joint`).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from fairlayer.trail.appending import Ending, Prepared, prepare
from fairlayer.trail.canonical import canonical
from fairlayer.trail.checkpoint import Signer
from fairlayer.trail.encoding import genesis_of
from fairlayer.trail.errors import TrailError
from fairlayer.trail.keys import Keys
from fairlayer.trail.records import Record
from fairlayer.trail.signatures import Ed25519Signer, SealSigner
from fairlayer.trail.tables import Description, Head, check_key, check_name

__all__ = ["ROSTER", "Chain", "SlotTrail", "read_roster", "schema_of", "sealed_as"]

SEGMENT_ROWS = 10_000
ROSTER = "fairlayer_trail.roster"
_TABLES = (
    "CREATE TABLE IF NOT EXISTS trail_about (one int PRIMARY KEY CHECK (one = 1), description text NOT NULL)",
    'CREATE TABLE IF NOT EXISTS trail_rows ("row" bigint PRIMARY KEY, time float8 NOT NULL, kind text NOT NULL, '
    "commitment bytea NOT NULL, leaf bytea NOT NULL)",
    'CREATE TABLE IF NOT EXISTS trail_contents ("row" bigint PRIMARY KEY, salt bytea NOT NULL, '
    "subject bytea NOT NULL, payload text NOT NULL)",
    "CREATE TABLE IF NOT EXISTS trail_segments (number bigint PRIMARY KEY, first bigint NOT NULL, "
    "last bigint NOT NULL, checkpoint text NOT NULL)",
    "CREATE TABLE IF NOT EXISTS trail_head (one int PRIMARY KEY CHECK (one = 1), size bigint NOT NULL, "
    "link bytea NOT NULL, time float8, segments bigint NOT NULL, closed bigint NOT NULL, seal bytea NOT NULL)",
)


class Chain:
    """A cursor of psycopg that speaks of one chain in the words that the trail's own code uses for its file.

    Args:
        cursor: a cursor in a transaction that is open.
        name: the name of the chain.
    """

    def __init__(self, cursor: Any, name: str) -> None:
        self._cursor, self._schema = cursor, schema_of(name)

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Chain:
        """Run a statement."""
        self._cursor.execute(_words(statement, self._schema), values)
        return self

    def executemany(self, statement: str, values: Sequence[Sequence[Any]]) -> None:
        """Run a statement for each of the values."""
        self._cursor.executemany(_words(statement, self._schema), values)

    def fetchone(self) -> Any:
        """Return the next row; None where there is none."""
        return self._cursor.fetchone()

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed."""
        return int(self._cursor.rowcount)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor)


@lru_cache(maxsize=256)
def _words(statement: str, schema: str) -> str:
    """Put SQLite's words into PostgreSQL's; whoever reads the head waits until nobody else writes on from it."""
    lock = " FOR UPDATE" if statement.startswith("SELECT size, link") else ""
    text = re.sub(r"CAST\(([\w.]+) AS BLOB\)", r"convert_to(\1, 'UTF8')", statement)
    text = text.replace("x''", "''::bytea").replace("?", "%s")
    return re.sub(r"\btrail_(about|rows|contents|segments|head)\b", rf"{schema}.trail_\1", text) + lock


def schema_of(name: str) -> str:
    """Return the schema of a chain, such as "scores.0"."""
    return f"fairlayer_trail_{name.replace('.', '_')}"


class SlotTrail:
    """The trail of one writer of several.

    Args:
        key: see `AuditTrail`; the same for all writers.
        signing_key: see `AuditTrail`.
        name: the name of a new trail, before the name of the chain.
        segment_rows: rows after which a segment of a new chain closes.
        opening: records with which the writer begins.

    Example:
        >>> from fairlayer.trail import Decision
        >>> trail = SlotTrail(key=bytes(32))  # goes into a Recorder of a stream on PostgreSQL
        >>> trail.keyed, len(trail.prepare([Decision(time=5.0, subject="17", raw=0.2, emitted=0.3)]))
        (True, 1)
    """

    def __init__(
        self,
        *,
        key: bytes | None = None,
        signing_key: bytes | None = None,
        name: str | None = None,
        segment_rows: int = SEGMENT_ROWS,
        opening: Iterable[Record] = (),
    ) -> None:
        check_name(name or "fairlayer-trail")
        self._keys, self._name, self._segment_rows = Keys(key), name or "fairlayer-trail", segment_rows
        self._signers: list[Signer] = [SealSigner(self._keys)] if key else []
        if signing_key is not None:
            self._signers.append(Ed25519Signer(signing_key))
        self._opening = prepare(opening, self._keys)
        self._description: Description | None = None
        self.chain = ""

    @property
    def keyed(self) -> bool:
        """Whether there is a key, so that inputs can be committed to and subjects are hidden."""
        return self._keys.name is not None

    def tag(self, subject: str) -> str:
        """Return what rows about a subject have in place of its name, as hexadecimal digits.

        Raises:
            ParameterError: it is not a name that a trail can keep.
        """
        return self._keys.tag(subject).hex()

    def prepare(self, records: Iterable[Record]) -> list[Prepared]:
        """Put records into bytes, to be written later."""
        return prepare(records, self._keys)

    def begin(self, cursor: Any, chain: str) -> None:
        """Make or resume the chain in a transaction that is open, and write that the writer begins.

        Raises:
            TrailError: the chain or the roster cannot be read.
            TrailKeyError: the chain was begun with another key.
        """
        self.chain = chain
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('fairlayer_trail'))")
        for schema in ("fairlayer_trail", schema_of(chain)):
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        cursor.execute(f"CREATE TABLE IF NOT EXISTS {ROSTER} (one int PRIMARY KEY, trails text, seal bytea)")
        tables = Chain(cursor, chain)
        for statement in _TABLES:
            tables.execute(statement)
        found = tables.execute("SELECT description FROM trail_about").fetchone()
        self._description = self._created(cursor, tables) if found is None else Description.read(found[0])
        check_key(self._description, self._keys)
        self.add(cursor, self._opening)

    def add(self, cursor: Any, records: Sequence[Prepared]) -> range:
        """Write rows in a transaction that is open; they come and go with it.

        Raises:
            TrailError: the chain has lost its head.
        """
        end = self._ending(cursor)
        rows = end.add(records, refuse_back=False)
        end.write()
        return rows

    def close(self) -> None:
        """Nothing is held open."""

    def _ending(self, cursor: Any) -> Ending:
        assert self._description is not None
        return Ending.read(Chain(cursor, self.chain), self._description, self._keys, self._signers)

    def _created(self, cursor: Any, tables: Chain) -> Description:
        described = Description(
            secrets.token_hex(16), f"{self._name}/{self.chain}", self._keys.name, self._segment_rows
        )
        text = described.text()
        head = Head(0, genesis_of(text), None, 0, 0)
        tables.execute("INSERT INTO trail_about VALUES (1, ?)", (text.decode(),))
        tables.execute("INSERT INTO trail_head VALUES (1, ?, ?, ?, ?, ?, ?)", (*head, head.seal(self._keys)))
        roster, seal = read_roster(cursor)
        if seal is not None and seal != _seal(roster, self._keys):
            raise TrailError("the roster of the chains in this database is not what was sealed: verify the trail.")
        roster[self.chain] = described.trail
        cursor.execute(
            f"INSERT INTO {ROSTER} VALUES (1, %s, %s) "
            "ON CONFLICT (one) DO UPDATE SET trails = excluded.trails, seal = excluded.seal",
            (canonical(roster).decode(), _seal(roster, self._keys)),
        )
        return described


def read_roster(cursor: Any) -> tuple[dict[str, str], bytes | None]:
    """Return the chains by name with their ids, and the seal; nothing and None where there is no roster.

    Raises:
        TrailError: it cannot be read.
    """
    if cursor.execute("SELECT to_regclass(%s)", (ROSTER,)).fetchone()[0] is None:
        return {}, None
    found = cursor.execute(f"SELECT trails, seal FROM {ROSTER}").fetchone()
    if found is None:
        return {}, None
    try:
        return dict(json.loads(found[0])), bytes(found[1])
    except (TypeError, ValueError) as error:
        raise TrailError(f"the roster of the chains cannot be read ({error!r}).") from error


def _seal(roster: dict[str, str], keys: Keys) -> bytes:
    return keys.seal(b"roster\n" + canonical(roster))


def sealed_as(roster: dict[str, str], seal: bytes | None, keys: Keys) -> bool:
    """Return whether the roster is the one that was sealed with this key."""
    return seal == _seal(roster, keys)
