"""An attacker who knows the code: edits a trail's file, and computes anew what is hashed, sealed and signed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairlayer.trail import Access, AuditTrail, Configuration, Decision, Ed25519Signer, Override
from fairlayer.trail.checkpoint import read_checkpoint, write_checkpoint
from fairlayer.trail.encoding import commitment_of, entry_of, genesis_of, leaf_of, link_after
from fairlayer.trail.keys import Keys
from fairlayer.trail.merkle import root_of
from fairlayer.trail.signatures import SealSigner
from fairlayer.trail.tables import Head

KEY, OTHER_KEY = b"the kept key of the trail" * 2, b"another key, not the trail's" * 2
SIGNING, OTHER_SIGNING = b"s" * 32, b"o" * 32
PUBLIC = Ed25519Signer(SIGNING).verifier._key.public_bytes_raw()
NAME = "bank.example/loans"
SEGMENT = 8
DAY = 86_400.0


def decision(number: int, time: float | None = None) -> Decision:
    return Decision(
        time=1000.0 + number if time is None else time,
        subject=f"applicant {number % 7}",
        input={"age": 20 + number, "income": 1000 * number},
        cells={"sex": "FM"[number % 2]},
        raw=0.25 + number / 128,
        emitted=0.5,
        decision=number % 3 == 0,
        shift=0.125,
        phase="steady",
        policy="tracking",
        limit={"DemographicParity('sex')": 0.02},
        model="credit 7",
        package="0.1.0",
    )


def open_trail(path: Path, **options: Any) -> AuditTrail:
    options = {"key": KEY, "signing_key": SIGNING, "name": NAME, "segment_rows": SEGMENT, "floor_days": 1.0, **options}
    return AuditTrail(path, **options)


def make_trail(path: Path, copies: Path, **options: Any) -> str:
    """Write a trail of 45 rows, rows 1-36 of which the returned checkpoint covers, and two older copies of it."""
    with open_trail(path, **options) as trail:
        trail.append([decision(i) for i in range(1, 13)])
        trail.append(Override(time=1013.0, row=4, decision=True, who="Ann", why="papers seen"))
        trail.append(Configuration(time=1014.0, who="Bob", changes={"tolerance": [0.05, 0.02]}, why="new rule"))
        trail.erase("applicant 3", time=1015.0, who="privacy desk")
        trail.append([decision(i) for i in range(16, 25)])
        trail.backup(copies / "before.sqlite")
        trail.append(Access(time=1025.0, who="Cem", what={"purpose": "complaint"}))
        trail.append([decision(i) for i in range(26, 36)])
        held = trail.checkpoint(time=1036.0, who="nightly")
        trail.append([decision(i) for i in range(37, 41)])
        trail.backup(copies / "after.sqlite")
        trail.append([decision(i) for i in range(41, 46)])
    return held.text


def prune_trail(path: Path) -> None:
    """Drop the segments of the first 36 rows."""
    with open_trail(path) as trail:
        trail.prune(time=1040.0 + 2 * DAY, who="retention", keep_days=2.0)


def edit(path: Path, *statements: str | tuple[str, tuple[Any, ...]]) -> None:
    """Run SQL on the file, as anybody can who may write it."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        for statement in statements:
            db.execute(*((statement,) if isinstance(statement, str) else statement))
    finally:
        db.close()


def change(path: Path, table: str, column: str, where: str, new: Callable[[Any], Any]) -> None:
    """Put another value in the place of one."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        [(old,)] = db.execute(f"SELECT {column} FROM {table} WHERE {where}").fetchall()
        assert new(old) != old or type(new(old)) is not type(old)
        changed = db.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (new(old),)).rowcount
        assert changed == 1
    finally:
        db.close()


def forge(
    path: Path,
    *statements: str | tuple[str, tuple[Any, ...]],
    key: bytes | None = None,
    sign: bytes | str = "keep",
    untouched: int = 0,
) -> None:
    """Edit, then compute anew everything that needs no secret, and what the given keys allow.

    Rows are counted anew from 1; `sign` is a private key, "keep" for the old signatures or "strip" for none.
    Checkpoints of segments below `untouched` stay as they are.
    """
    edit(path, *statements)
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("BEGIN")
        _renumber(db)
        _rehash(db, Keys(key), sign, untouched)
        db.execute("COMMIT")
    finally:
        db.close()


def _renumber(db: sqlite3.Connection) -> None:
    rows = [row for (row,) in db.execute("SELECT row FROM trail_rows ORDER BY row")]
    for table in ("trail_rows", "trail_contents"):
        db.executemany(f"UPDATE {table} SET row = -? WHERE row = ?", [(new, old) for new, old in enumerate(rows, 1)])
        db.execute(f"UPDATE {table} SET row = -row")


def _rehash(db: sqlite3.Connection, keys: Keys, sign: bytes | str, untouched: int) -> None:
    [(about,)] = db.execute("SELECT description FROM trail_about")
    segments = db.execute("SELECT number, first, last, checkpoint FROM trail_segments ORDER BY number").fetchall()
    size = db.execute("SELECT max(row) FROM trail_rows").fetchone()[0]
    link, closed = genesis_of(about.encode()), 0
    for number, first, last, text in segments:
        former = link
        leaves = _relink(db, first, last, link)
        if len(leaves) < last - first + 1:
            db.execute("DELETE FROM trail_segments WHERE number >= ?", (number,))
            break
        new = (
            _rewrite(text, json.loads(about)["name"], (root_of(leaves), former), keys, sign)
            if number >= untouched
            else text
        )
        db.execute("UPDATE trail_segments SET checkpoint = ? WHERE number = ?", (new, number))
        link, closed = link_after(new), last
    leaves = _relink(db, closed + 1, size, link)
    count = db.execute("SELECT count(*) FROM trail_segments").fetchone()[0]
    time = db.execute("SELECT time FROM trail_rows WHERE row = ?", (size,)).fetchone()[0]
    head = Head(size, leaves[-1] if leaves else link, time, count, closed)
    db.execute("UPDATE trail_head SET size = ?, link = ?, time = ?, segments = ?, closed = ?", head)
    if keys.name:
        db.execute("UPDATE trail_head SET seal = ?", (head.seal(keys),))


def _relink(db: sqlite3.Connection, first: int, last: int, link: bytes) -> list[bytes]:
    leaves = []
    found = db.execute(
        "SELECT r.row, r.time, r.kind, r.commitment, c.salt, c.subject, c.payload FROM trail_rows r "
        "LEFT JOIN trail_contents c ON c.row = r.row WHERE r.row BETWEEN ? AND ? ORDER BY r.row",
        (first, last),
    ).fetchall()
    for row, time, kind, old, salt, subject, payload in found:
        commitment = old if salt is None else commitment_of(salt, subject, payload.encode())
        link = leaf_of(entry_of(row, time, link, commitment, kind.encode()))
        leaves.append(link)
        db.execute("UPDATE trail_rows SET commitment = ?, leaf = ? WHERE row = ?", (commitment, link, row))
    return leaves


def _rewrite(text: str, name: str, hashes: tuple[bytes, bytes], keys: Keys, sign: bytes | str) -> str:
    old = read_checkpoint(text)
    signers: list[Any] = [SealSigner(keys)] if keys.name else []
    signers += [Ed25519Signer(sign)] if isinstance(sign, bytes) else []
    origin = (name, old.trail, old.number)
    new = write_checkpoint(origin, (old.first, old.last), *hashes, signers).text
    lines = text[text.rindex("\n\n") + 2 :].splitlines(keepends=True)  # first the seal, then the signature
    kept = ([] if keys.name else lines[:1]) + (lines[1:] if sign == "keep" else [])
    return new + "".join(kept)
