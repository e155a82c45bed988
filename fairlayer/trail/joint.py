"""The chains of several writers in one database, as one: copied to files, closed at one moment, verified together."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlayer.errors import require
from fairlayer.trail.appending import Ending, prepare_event
from fairlayer.trail.checkpoint import Signer
from fairlayer.trail.errors import TrailError
from fairlayer.trail.keys import Keys
from fairlayer.trail.signatures import Ed25519Signer, SealSigner
from fairlayer.trail.slots import Chain, read_roster, schema_of, sealed_as
from fairlayer.trail.tables import SCHEMA, Description, check_key
from fairlayer.trail.verification import LEVELS, Level, Verification
from fairlayer.trail.verifying import verify

__all__ = [
    "JointVerification",
    "connected",
    "copy_chains",
    "ending_of",
    "joint_checkpoint",
    "names_of",
    "shown",
    "signers_of",
    "verify_chains",
]

_FORMAT = "fairlayer-joint/1"
_COLUMNS = {
    "trail_about": "one, description",
    "trail_rows": '"row", time, kind, commitment, leaf',
    "trail_contents": '"row", salt, subject, payload',
    "trail_segments": "number, first, last, checkpoint",
    "trail_head": "one, size, link, time, segments, closed, seal",
}
# Writers wait while a checkpoint holds their heads: not for one that stands still.
_PATIENCE = "-c lock_timeout=10000 -c idle_in_transaction_session_timeout=10000"
_PIECE = 5000  # rows that are held at once


@dataclass(frozen=True)
class JointVerification:
    """The answer of `verify_chains`: each chain's own, and what is wrong with their number.

    Args:
        chains: name of the chain -> what `verify` found in it.
        findings: what is wrong with the chains as a whole: one is missing, or is another one.

    Example:
        >>> found = JointVerification({}, ("the chain 2 is in the roster and not in the database",))
        >>> found.ok, found.rows
        (False, 0)
        >>> print(found)
        TAMPERED OR DAMAGED: the chain 2 is in the roster and not in the database
    """

    chains: Mapping[str, Verification]
    findings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings and all(found.ok for found in self.chains.values())

    @property
    def rows(self) -> int:
        """The rows of all chains."""
        return sum(found.rows for found in self.chains.values())

    @property
    def level(self) -> Level:
        """The level that holds for every row of every chain."""
        found = [one.level for one in self.chains.values()]
        return min(found, key=LEVELS.index) if found else "chain"

    def __str__(self) -> str:
        lines = [f"TAMPERED OR DAMAGED: {finding}" for finding in self.findings]
        lines += [f"{name}: {found}" for name, found in self.chains.items()]
        return "\n".join(lines or ["There is no trail in this database."])


def verify_chains(
    address: str, *, checkpoint: str | None = None, key: bytes | None = None, public_key: bytes | None = None
) -> JointVerification:
    """Verify all chains of a database at one moment, each as `verify` does, and that none is missing.

    A chain that was dropped is found by the roster: at the level "sealed" by whom has no key, at "anchored" by whom has
    every key, where the joint checkpoint names the chain. Within a chain the levels are those of `verify`. How the
    tables are made in the database (triggers, indexes) is not looked at.

    Args:
        address: postgresql://...
        checkpoint: the text that `joint_checkpoint` returned, held outside.
        key: the key that the chains are sealed with.
        public_key: the public half of the key that signed the checkpoints.

    Raises:
        TrailError: the database cannot be read, or the text is not a joint checkpoint.

    Example:
        >>> from fairlayer.trail import TrailError
        >>> try:
        ...     print(verify_chains("postgresql://127.0.0.1:1/decided"))
        ... except TrailError as error:
        ...     print(str(error)[:45])
        the trail in the database 127.0.0.1:1/decided
    """
    held = {} if checkpoint is None else _read_joint(checkpoint)
    keys = Keys(key)
    with tempfile.TemporaryDirectory() as folder:
        with _reading(address) as cursor:
            roster, seal = read_roster(cursor)
            paths = _copied(cursor, Path(folder))
        findings = [
            f"the chain {name} is in the roster and not in the database" for name in roster if name not in paths
        ]
        findings += [f"the chain {name} is not in the roster" for name in paths if name not in roster]
        findings += [f"the chain {name} of the checkpoint is gone" for name in held if name not in paths]
        if keys.name is not None and not sealed_as(roster, seal, keys):
            findings.append("the roster of the chains is not what was sealed with this key")
        chains = {}
        for name, path in paths.items():
            chains[name] = verify(path, checkpoint=held.get(name), key=key, public_key=public_key)
            if roster.get(name, chains[name].trail) != chains[name].trail:
                findings.append(f"the chain {name} is another one than the roster names")
    return JointVerification(chains, tuple(findings))


def copy_chains(address: str, folder: str | Path) -> dict[str, Path]:
    """Copy all chains of a database, as of one moment, to a file each, which is a trail; return name -> file.

    Args:
        address: postgresql://...
        folder: the folder to write to; it is made where there is none.

    Raises:
        TrailError: the database cannot be read, or a file is there already.

    Example:
        >>> from fairlayer.trail import TrailError
        >>> try:
        ...     print(copy_chains("postgresql://127.0.0.1:1/decided", "chains"))
        ... except TrailError as error:
        ...     print(str(error)[:45])
        the trail in the database 127.0.0.1:1/decided
    """
    with _reading(address) as cursor:
        return _copied(cursor, Path(folder))


def joint_checkpoint(
    address: str, *, time: float, who: str = "", key: bytes | None = None, signing_key: bytes | None = None
) -> str:
    """Close the open segment of every chain in one transaction, and return their checkpoints as one text.

    Args:
        address: postgresql://...
        time: the caller's clock.
        who: the person or program that does it.
        key: the key that the chains are sealed with.
        signing_key: Ed25519 private key that also signs the checkpoints.

    Raises:
        TrailError: the database cannot be written, or holds no chain.
        TrailKeyError: the key is another one.

    Example:
        >>> from fairlayer.trail import TrailError
        >>> try:
        ...     print(joint_checkpoint("postgresql://127.0.0.1:1/decided", time=0.0))
        ... except TrailError as error:
        ...     print(str(error)[:45])
        the trail in the database 127.0.0.1:1/decided
    """
    keys, signers = signers_of(key, signing_key)
    with connected(address) as connection, connection.transaction(), connection.cursor() as cursor:
        names = names_of(cursor)
        if not names:
            raise TrailError(f"there is no trail in the database {shown(address)}.")
        texts = {name: _closed(ending_of(Chain(cursor, name), keys, signers), time, who) for name in names}
    return json.dumps({"format": _FORMAT, "chains": texts}, indent=1, ensure_ascii=False) + "\n"


def signers_of(key: bytes | None, signing_key: bytes | None) -> tuple[Keys, list[Signer]]:
    """Return what rows are sealed with, and what checkpoints are."""
    keys = Keys(key)
    signers: list[Signer] = [SealSigner(keys)] if key else []
    return keys, signers if signing_key is None else [*signers, Ed25519Signer(signing_key)]


def ending_of(chain: Chain, keys: Keys, signers: Sequence[Signer]) -> Ending:
    """Return the end of a chain; no worker writes on it until the transaction that is open ends.

    Raises:
        TrailKeyError: the key is another one.
    """
    described = Description.read(chain.execute("SELECT description FROM trail_about").fetchone()[0])
    check_key(described, keys)
    return Ending.read(chain, described, keys, signers)


def _closed(end: Ending, time: float, who: str) -> str:
    number = end.head.segments + 1
    end.add([prepare_event("checkpoint", time, {"segment": number, "who": who})], refuse_back=False)
    if end.head.segments < number:
        end.close()
    end.write()
    return end.checkpoint(number) or ""


def _read_joint(text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
        if found["format"] != _FORMAT:
            raise ValueError(f"format {found['format']}")
        return {str(name): str(each) for name, each in found["chains"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TrailError(
            f"a text that begins with {text[:60]!r} is not a joint checkpoint ({error!r}). Give the text that "
            "`joint_checkpoint` returned, unchanged."
        ) from error


def names_of(cursor: Any) -> list[str]:
    """Return the chains that are in the database, whatever the roster says."""
    found = cursor.execute(
        "SELECT table_schema FROM information_schema.tables "
        "WHERE table_name = 'trail_about' AND table_schema LIKE 'fairlayer\\_trail\\_%' ORDER BY table_schema"
    ).fetchall()
    return [schema.removeprefix("fairlayer_trail_").replace("_", ".") for (schema,) in found]


def _copied(cursor: Any, folder: Path) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.sqlite" for name in names_of(cursor)}
    for name, path in paths.items():
        if path.exists():
            raise TrailError(f"the file '{path}' is there already; a copy never overwrites. Give another folder.")
        with closing(sqlite3.connect(path, isolation_level=None)) as copy:
            copy.execute("BEGIN")
            for statement in SCHEMA:
                copy.execute(statement)
            for table, columns in _COLUMNS.items():
                _copy_table(cursor, copy, f"{schema_of(name)}.{table}", columns)
            copy.execute("COMMIT")
    return paths


def _copy_table(cursor: Any, copy: sqlite3.Connection, table: str, columns: str) -> None:
    if cursor.execute("SELECT to_regclass(%s)", (table,)).fetchone()[0] is None:
        return  # `verify` misses what it should hold
    marks = ", ".join("?" * len(columns.split(",")))
    with cursor.connection.cursor(name="fairlayer_copy") as rows:
        rows.execute(f"SELECT {columns} FROM {table}")
        while piece := rows.fetchmany(_PIECE):
            copy.executemany(f"INSERT INTO {table.partition('.')[2]} VALUES ({marks})", piece)


@contextmanager
def _reading(address: str) -> Iterator[Any]:
    """A transaction in which everything read is of one moment."""
    with connected(address) as connection, connection.transaction(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield cursor


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Open a connection to a database, and say which where it cannot be used.

    Raises:
        TrailError: it cannot.
    """
    psycopg = require("psycopg", "postgres")
    try:
        with psycopg.connect(address, autocommit=True, connect_timeout=10, options=_PATIENCE) as connection:
            yield connection
    except psycopg.Error as error:
        raise TrailError(
            f"the trail in the database {shown(address)} cannot be used ({str(error).strip()})."
        ) from error


def shown(address: str) -> str:
    """The address without user and password."""
    return address.rpartition("@")[2].rpartition("//")[2]
