"""What can be done to a trail's file, and the level from which on it is found. The table in docs/trail.md is this list.

Run as `python -m tests.trail.attacks` from the repository's root to print the table.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from fairlayer.trail import Decision
from fairlayer.trail.verification import LEVELS, Level
from tests.trail.forging import KEY, OTHER_KEY, OTHER_SIGNING, SIGNING, change, decision, edit, forge, open_trail


class Attack(NamedTuple):
    """One kind of edit.

    `found` is the weakest level at which it is found; None for never. `dropped` says that it is done to the trail
    whose first segments were dropped. `short` says that an independent verifier of some forty lines sees it too.
    """

    family: str
    name: str
    found: Level | None
    act: Callable[[Path, Path], None]
    dropped: bool = False
    short: bool = True


ATTACKS: list[Attack] = []


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def column(table: str, name: str, where: str, new: Callable[[Any], Any], what: str, **options: Any) -> None:
    """Register the change of one value, with nothing computed anew."""
    found = options.pop("found", "chain")
    ATTACKS.append(
        Attack(
            f"one value of `{table}` changed, nothing computed anew",
            f"`{name}`: {what}",
            found,
            lambda path, _: change(path, table, name, where, new),
            **options,
        )
    )


def sql(family: str, name: str, *statements: Any, found: Level | None = "chain", **options: Any) -> None:
    """Register an edit by SQL, with nothing computed anew."""
    ATTACKS.append(Attack(family, name, found, lambda path, _: edit(path, *statements), **options))


def forged(family: str, name: str, *statements: Any, found: Level | None, **options: Any) -> None:
    """Register an edit after which the attacker computes hashes anew, and seals and signs with the keys that he has."""
    keys = {word: options.pop(word) for word in ("key", "sign", "untouched") if word in options}
    ATTACKS.append(Attack(family, name, found, lambda path, _: forge(path, *statements, **keys), **options))


def act(
    family: str, name: str, found: Level | None, **options: Any
) -> Callable[[Callable[[Path, Path], None]], Callable[[Path, Path], None]]:
    """Register a function as an attack."""

    def registered(function: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        ATTACKS.append(Attack(family, name, found, function, **options))
        return function

    return registered


def field(name: str, value: Any) -> Callable[[str], str]:
    """Return an edit of one field of a content."""
    return lambda payload: json.dumps({**json.loads(payload), name: value}, separators=(",", ":"), sort_keys=True)


def replaced(old: str, new: str) -> Callable[[str], str]:
    def edited(text: str) -> str:
        assert old in text, text
        return text.replace(old, new, 1)

    return edited


# One value changed -----------------------------------------------------------------------------------------------
R, C, S, H, A = "trail_rows", "trail_contents", "trail_segments", "trail_head", "trail_about"
column(R, "row", "row = 45", lambda _: 46, "another number")
column(R, "row", "row = 1", lambda _: 0, "number 0")
column(R, "row", "row = 1", lambda _: -1, "a negative number")
column(R, "time", "row = 5", lambda time: time - 60.0, "a minute earlier")
column(R, "time", "row = 5", lambda time: time + 2.0**-40, "a picosecond later")
column(R, "time", "row = 5", lambda _: "noon", "text")
column(R, "time", "row = 45", lambda time: time + 1.0, "of the last row")
column(R, "kind", "row = 5", lambda _: "test", "another word")
column(R, "kind", "row = 5", lambda _: "Decision", "a capital letter")
column(R, "kind", "row = 5", lambda kind: kind.encode(), "a blob of the same bytes", short=False)
column(R, "kind", "row = 13", lambda _: "read", "an override called a read")
column(R, "kind", "row = 15", lambda _: "read", "an erasure called a read")
column(R, "commitment", "row = 5", flipped, "one bit")
column(R, "commitment", "row = 5", lambda _: b"", "empty")
column(R, "commitment", "row = 3", flipped, "one bit, of an erased row")
column(R, "leaf", "row = 5", flipped, "one bit")
column(R, "leaf", "row = 5", lambda leaf: leaf[:16], "half of it")
column(R, "leaf", "row = 45", flipped, "one bit, of the last row")
column(C, "row", "row = 45", lambda _: 99, "content moved to a row that is not there")
column(C, "row", "row = 5", lambda _: 3, "content moved to an erased row")
column(C, "salt", "row = 5", flipped, "one bit")
column(C, "salt", "row = 5", lambda _: b"", "empty")
column(C, "salt", "row = 5", lambda salt: salt.decode("latin-1"), "text", short=False)
column(C, "subject", "row = 5", flipped, "one bit, so that an erasure would miss it")
column(C, "subject", "row = 5", lambda _: b"", "empty")
column(C, "payload", "row = 5", field("cells", {"sex": "F"}), "the group")
column(C, "payload", "row = 5", field("raw", 0.9), "the raw score")
column(C, "payload", "row = 5", field("emitted", 0.9), "the emitted score")
column(C, "payload", "row = 5", field("decision", True), "the decision")
column(C, "payload", "row = 5", field("shift", 0.0), "the shift")
column(C, "payload", "row = 5", field("phase", "warming"), "the phase")
column(C, "payload", "row = 5", field("policy", "per_batch"), "the policy")
column(C, "payload", "row = 5", field("limit", {"DemographicParity('sex')": 0.5}), "the limit")
column(C, "payload", "row = 5", field("model", "credit 8"), "the model")
column(C, "payload", "row = 5", field("package", "9.9"), "the version of the package")
column(C, "payload", "row = 5", field("input", "00" * 32), "the commitment to the input")
column(C, "payload", "row = 5", lambda text: text + " ", "a space at the end")
column(C, "payload", "row = 5", lambda text: text.encode(), "a blob of the same bytes", short=False)
column(C, "payload", "row = 5", lambda _: b"\xff\xfe", "bytes that are not text")
column(C, "payload", "row = 13", field("who", "Zoe"), "who overrode")
column(C, "payload", "row = 13", field("why", "none"), "why it was overridden")
column(C, "payload", "row = 14", field("changes", {}), "what was configured")
column(C, "payload", "row = 15", field("rows", [[3, 3]]), "which rows were erased")
column(C, "payload", "row = 15", lambda _: "{}", "no rows in an erasure")
column(C, "payload", "row = 25", field("who", "nobody"), "who read")
column(C, "payload", "row = 45", field("decision", False), "the decision of the last row")
column(S, "number", "number = 5", lambda _: 7, "another number")
column(S, "number", "number = 1", lambda _: 0, "number 0")
column(S, "first", "number = 2", lambda first: first + 1, "another first row")
column(S, "last", "number = 2", lambda last: last - 1, "another last row")
for what, old, new in (
    ("the name in the origin", "bank", "blank"),
    ("the number in the origin", "/2\n", "/3\n"),
    ("the size", "\n8\n", "\n7\n"),
    ("the rows", "rows 9-16", "rows 9-17"),
    ("a line added", "\n\n", "\nmore\n\n"),
    ("a signature line of another name added", "\n\n", "\n\n— other.example AAAAAAAA\n"),
    ("carriage returns", "\n", "\r\n"),
):
    column(S, "checkpoint", "number = 2", replaced(old, new), what)
column(S, "checkpoint", "number = 2", lambda text: re.sub("former .", "former +", text), "the former checkpoint")
column(S, "checkpoint", "number = 2", lambda text: re.sub("\n8\n.", "\n8\n+", text), "the root")
column(S, "checkpoint", "number = 2", lambda text: text[:-20] + "A" + text[-19:], "a byte of the signature")
column(S, "checkpoint", "number = 2", lambda text: text[: text.rindex("—")], "the signature taken away")
column(S, "checkpoint", "number = 5", lambda text: text[: text.rindex("—")], "the last signature taken away")
column(S, "checkpoint", "number = 2", lambda text: text[: text.index("—")], "seal and signature taken away")
column(S, "checkpoint", "number = 2", lambda _: "", "empty")
column(S, "checkpoint", "number = 2", lambda text: text.encode(), "a blob of the same bytes", short=False)
column(H, "size", "one = 1", lambda size: size - 1, "one row less")
column(H, "size", "one = 1", lambda size: size + 1, "one row more")
column(H, "link", "one = 1", flipped, "one bit")
column(H, "time", "one = 1", lambda time: time - 1.0, "another time")
column(H, "segments", "one = 1", lambda count: count - 1, "one segment less")
column(H, "closed", "one = 1", lambda closed: closed - 1, "one row less")
column(H, "seal", "one = 1", flipped, "one bit", found="sealed")
column(H, "seal", "one = 1", lambda _: b"", "taken away", found="sealed")
column(A, "description", "one = 1", replaced("bank", "blank"), "the name")
column(A, "description", "one = 1", replaced('"segment_rows":8', '"segment_rows":80'), "the rows of a segment")
column(A, "description", "one = 1", replaced('"format":1', '"format":2'), "the format")
column(A, "description", "one = 1", replaced('"trail":"', '"trail":"0'), "the id")
column(A, "description", "one = 1", replaced(",", ", "), "a space")
column(A, "description", "one = 1", lambda _: "[]", "something else")


# Rows taken away, put in, put elsewhere ---------------------------------------------------------------------------
def rows_gone(which: str) -> tuple[str, ...]:
    return tuple(f"DELETE FROM {table} WHERE row {which}" for table in (R, C))


GONE = "something deleted, nothing computed anew"
sql(GONE, "a row", "DELETE FROM trail_rows WHERE row = 5")
sql(GONE, "a row and its content", *rows_gone("= 5"))
sql(GONE, "the first row and its content", *rows_gone("= 1"))
sql(GONE, "the last row and its content", *rows_gone("= 45"))
sql(GONE, "all rows of the open segment", *rows_gone("> 36"))
sql(GONE, "all rows of a closed segment", *rows_gone("BETWEEN 9 AND 16"))
sql(
    GONE,
    "a closed segment and its checkpoint",
    *rows_gone("BETWEEN 9 AND 16"),
    "DELETE FROM trail_segments WHERE number = 2",
)
sql(GONE, "all rows", "DELETE FROM trail_rows", "DELETE FROM trail_contents")
sql(GONE, "a content, as if it were erased", "DELETE FROM trail_contents WHERE row = 5")
sql(GONE, "an override", *rows_gone("= 13"))
sql(GONE, "the content of an override", "DELETE FROM trail_contents WHERE row = 13")
sql(GONE, "the content of an erasure", "DELETE FROM trail_contents WHERE row = 15")
sql(GONE, "a record of reading", *rows_gone("= 25"))
sql(GONE, "a checkpoint", "DELETE FROM trail_segments WHERE number = 2")
sql(GONE, "the last checkpoint", "DELETE FROM trail_segments WHERE number = 6")
sql(GONE, "the head", "DELETE FROM trail_head")
sql(GONE, "the description", "DELETE FROM trail_about")

PUT = "something inserted or doubled, nothing computed anew"
AS_ROW = "SELECT {}, time, kind, commitment, leaf FROM trail_rows WHERE row = {}"
AS_CONTENT = "SELECT {}, salt, subject, payload FROM trail_contents WHERE row = {}"
INTO_ROWS, INTO_CONTENTS = "INSERT INTO trail_rows ", "INSERT INTO trail_contents "
sql(PUT, "a row doubled at the end", INTO_ROWS + AS_ROW.format(46, 5), INTO_CONTENTS + AS_CONTENT.format(46, 5))
sql(PUT, "a row doubled before the first", INTO_ROWS + AS_ROW.format(0, 1), INTO_CONTENTS + AS_CONTENT.format(0, 1))
sql(PUT, "a row far behind the end", INTO_ROWS + AS_ROW.format(1000, 5), INTO_CONTENTS + AS_CONTENT.format(1000, 5))
sql(PUT, "a content without a row", INTO_CONTENTS + AS_CONTENT.format(1000, 5))
sql(PUT, "a content for an erased row", INTO_CONTENTS + AS_CONTENT.format(3, 5))
sql(
    PUT,
    "a checkpoint doubled",
    "INSERT INTO trail_segments SELECT 7, first, last, checkpoint FROM trail_segments WHERE number = 6",
)

SWAP = "the order changed, nothing computed anew"


def swap(table: str, columns: str, one: int, two: int) -> list[str]:
    key = "number" if table == S else "row"
    moves = [(one, -1), (two, one), (-1, two)]
    if columns == key:
        return [f"UPDATE {table} SET {key} = {to} WHERE {key} = {old}" for old, to in moves]
    names = columns.split(", ")
    return [
        f"CREATE TEMP TABLE kept AS SELECT * FROM {table} WHERE {key} IN ({one}, {two})",
        *(
            f"UPDATE {table} SET {name} = (SELECT {name} FROM kept WHERE {key} = {other}) WHERE {key} = {here}"
            for name in names
            for here, other in ((one, two), (two, one))
        ),
    ]


sql(SWAP, "two neighbours", *swap(R, "row", 5, 6), *swap(C, "row", 5, 6))
sql(SWAP, "two rows of different segments", *swap(R, "row", 5, 20), *swap(C, "row", 5, 20))
sql(SWAP, "the first and the last row", *swap(R, "row", 1, 45), *swap(C, "row", 1, 45))
sql(SWAP, "the contents of two rows", *swap(C, "row", 5, 6))
sql(SWAP, "the times of two rows", *swap(R, "time", 5, 6))
sql(SWAP, "times and hashes of two rows", *swap(R, "time, leaf", 5, 6))
sql(SWAP, "two checkpoints", *swap(S, "checkpoint", 2, 3))
sql(SWAP, "two whole segments", *swap(S, "number", 2, 3), *swap(S, "first, last", 2, 3))

SCHEMA = "the tables changed"
sql(
    SCHEMA,
    "a trigger that drops what is appended",
    "CREATE TRIGGER t AFTER INSERT ON trail_rows BEGIN DELETE FROM trail_rows WHERE row = new.row; END",
    short=False,
)
sql(SCHEMA, "an index dropped", "DROP INDEX trail_by_subject", short=False)
sql(SCHEMA, "a column added", "ALTER TABLE trail_rows ADD COLUMN note TEXT", short=False)
sql(
    SCHEMA,
    "a view in place of a table",
    "ALTER TABLE trail_contents RENAME TO t",
    "CREATE VIEW trail_contents AS SELECT row, salt, subject, payload FROM t",
    short=False,
)
sql(SCHEMA, "a table dropped", "DROP TABLE trail_segments")


# The file ----------------------------------------------------------------------------------------------------------
FILE = "the file damaged or replaced"


def find_and_flip(path: Path, wanted: bytes) -> None:
    content = bytearray(path.read_bytes())
    place = content.index(wanted)
    content[place] ^= 1
    path.write_bytes(bytes(content))


@act(FILE, "a byte of a content, under SQLite's feet", "chain")
def _(path: Path, copies: Path) -> None:
    find_and_flip(path, b"steady")


@act(FILE, "a byte of an index, so that an erasure would miss a row", "chain", short=False)
def _(path: Path, copies: Path) -> None:
    db = sqlite3.connect(path)
    [(subject,)] = db.execute("SELECT subject FROM trail_contents WHERE row = 5")
    [(root,)] = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'trail_by_subject'")
    [(size,)] = db.execute("PRAGMA page_size")
    db.close()
    content = bytearray(path.read_bytes())
    content[content.index(subject, (root - 1) * size)] ^= 1
    path.write_bytes(bytes(content))


@act(FILE, "cut to half its length", "chain")
def _(path: Path, copies: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@act(FILE, "replaced by noise", "chain")
def _(path: Path, copies: Path) -> None:
    path.write_bytes(bytes(range(256)) * 64)


@act(FILE, "replaced by an empty file", "chain")
def _(path: Path, copies: Path) -> None:
    path.write_bytes(b"")


def another(path: Path, **options: Any) -> None:
    path.unlink()
    with open_trail(path, **options) as trail:
        trail.append([replace(decision(i), input=None) for i in range(1, 40)])
        trail.checkpoint(time=1040.0)


@act(FILE, "replaced by another trail, without a key", "sealed")
def _(path: Path, copies: Path) -> None:
    another(path, key=None, signing_key=None)


@act(FILE, "replaced by another trail, with another key", "sealed")
def _(path: Path, copies: Path) -> None:
    another(path, key=OTHER_KEY)


@act(FILE, "replaced by another trail, with the key, signed by another", "signed")
def _(path: Path, copies: Path) -> None:
    another(path, signing_key=OTHER_SIGNING)


@act(FILE, "replaced by another trail, with all keys", "anchored")
def _(path: Path, copies: Path) -> None:
    another(path)


# Everything computed anew -------------------------------------------------------------------------------------------
DECIDED = (
    "UPDATE trail_contents SET payload = replace(payload, '\"decision\":false', '\"decision\":true') WHERE row = ?"
)
LAST = "UPDATE trail_contents SET payload = replace(payload, '\"decision\":true', '\"decision\":false') WHERE row = 45"
LATER = "UPDATE trail_rows SET time = time + 86400 WHERE row = 20"
DROP_20 = rows_gone("= 20")
DROP_40 = rows_gone("= 40")
SWAP_20 = (*swap(R, "row", 20, 22), *swap(C, "row", 20, 22))
TAIL = rows_gone("> 40")
INSERTED = (
    "UPDATE trail_rows SET row = -row - 1 WHERE row >= 20",
    "UPDATE trail_rows SET row = -row WHERE row < 0",
    "UPDATE trail_contents SET row = -row - 1 WHERE row >= 20",
    "UPDATE trail_contents SET row = -row WHERE row < 0",
    INTO_ROWS + AS_ROW.format(20, 9),
    INTO_CONTENTS + AS_CONTENT.format(20, 9),
)
APPENDED = (INTO_ROWS + AS_ROW.format(46, 5), INTO_CONTENTS + AS_CONTENT.format(46, 5))
HIDDEN = (  # a content taken away, and written into the record of an erasure
    "DELETE FROM trail_contents WHERE row = 5",
    "UPDATE trail_contents SET payload = replace(payload, '[[3,3]', '[[3,3],[5,5]') WHERE row = 15",
)

KNOWING = "all hashes computed anew, without a key"
for name, statements in {
    "a decision changed": [(DECIDED, (20,))],
    "a decision of the open segment changed": [LAST],
    "a time changed": [LATER],
    "a row deleted": DROP_20,
    "a row of the open segment deleted": DROP_40,
    "two rows swapped": SWAP_20,
    "a row inserted": INSERTED,
    "a row appended": APPENDED,
    "the tail cut off": TAIL,
    "a content hidden behind a false erasure": HIDDEN,
    "an override taken out": rows_gone("= 13"),
    "the name changed": ["UPDATE trail_about SET description = replace(description, 'bank', 'tank')"],
}.items():
    forged(KNOWING, name, *statements, found="sealed")


@act(KNOWING, "the key taken out of the description, and all seals away", "sealed")
def _(path: Path, copies: Path) -> None:
    db = sqlite3.connect(path)
    [(about,)] = db.execute("SELECT description FROM trail_about")
    db.close()
    without = json.dumps({**json.loads(about), "key": None}, separators=(",", ":"), sort_keys=True)
    edit(
        path,
        ("UPDATE trail_about SET description = ?", (without,)),
        "UPDATE trail_head SET seal = x''",
        "UPDATE trail_segments SET checkpoint = substr(checkpoint, 1, instr(checkpoint, '—') - 1)",
    )
    forge(path, (DECIDED, (20,)))


WITH_KEY = "all hashes and seals computed anew with the key, without the signing key"
for name, statements in {
    "a decision changed, the old signatures left": [(DECIDED, (20,))],
    "a row deleted, the old signatures left": DROP_20,
    "two rows swapped, the old signatures left": SWAP_20,
    "a row inserted, the old signatures left": INSERTED,
}.items():
    forged(WITH_KEY, name, *statements, key=KEY, found="signed")
forged(
    WITH_KEY, "a decision changed, all signatures taken away", (DECIDED, (20,)), key=KEY, sign="strip", found="signed"
)
forged(WITH_KEY, "a decision changed, signed by another", (DECIDED, (20,)), key=KEY, sign=OTHER_SIGNING, found="signed")


forged(
    WITH_KEY,
    "signatures taken away from the third segment on (the reach of `signed` falls)",
    (DECIDED, (28,)),
    key=KEY,
    sign="strip",
    untouched=3,
    found="anchored",
)
forged(WITH_KEY, "a decision after the last signed checkpoint changed", LAST, key=KEY, found=None)


forged(
    WITH_KEY,
    "the seal of the last checkpoint taken away",
    "UPDATE trail_segments SET checkpoint = substr(checkpoint, 1, instr(checkpoint, '—') - 1) WHERE number = 6",
    key=KEY,
    untouched=99,
    found="sealed",
)
forged(
    KNOWING,
    "a decision changed, the checkpoint of its segment left as it was",
    (DECIDED, (20,)),
    untouched=99,
    found="chain",
)
forged(
    WITH_KEY,
    "the last checkpoint taken away, its rows left open",
    "DELETE FROM trail_segments WHERE number = 6",
    key=KEY,
    found="chain",
    short=False,
)

ALL_KEYS = "everything computed anew with all keys"
for name, statements in {
    "a decision changed": [(DECIDED, (20,))],
    "a time changed": [LATER],
    "a row deleted": DROP_20,
    "two rows swapped": SWAP_20,
    "a row inserted": INSERTED,
    "a content hidden behind a false erasure": HIDDEN,
}.items():
    forged(ALL_KEYS, f"{name}, before the checkpoint held", *statements, key=KEY, sign=SIGNING, found="anchored")
forged(ALL_KEYS, "a decision changed after the checkpoint held", (DECIDED, (44,)), key=KEY, sign=SIGNING, found=None)
forged(ALL_KEYS, "a row inserted at the end", *APPENDED, key=KEY, sign=SIGNING, found=None)

CUT = "the end cut off, or an older copy put back"
forged(
    CUT, "rows after the checkpoint held cut off, head and seal computed anew with the key", *TAIL, key=KEY, found=None
)
forged(
    CUT,
    "rows before the checkpoint held cut off, computed anew with the key",
    *rows_gone("> 30"),
    key=KEY,
    found="anchored",
)
forged(
    CUT,
    "all but the first two signed segments cut off, computed anew with all keys",
    *rows_gone("> 16"),
    key=KEY,
    sign=SIGNING,
    found="anchored",
)


@act(CUT, "an older copy from before the checkpoint held", "anchored")
def _(path: Path, copies: Path) -> None:
    shutil.copy(copies / "before.sqlite", path)


@act(CUT, "an older copy from after the checkpoint held", None)
def _(path: Path, copies: Path) -> None:
    shutil.copy(copies / "after.sqlite", path)


@act(CUT, "an older copy from before the checkpoint held, written on with all keys", "anchored")
def _(path: Path, copies: Path) -> None:
    shutil.copy(copies / "before.sqlite", path)
    with open_trail(path) as trail:
        trail.append([decision(i + 1) for i in range(26, 45)])
        trail.checkpoint(time=1046.0)


ERASURES = "erasures misused"
ERASE_5 = {"time": 1050.0, "who": "privacy desk", "vacuum": False}


@act(ERASURES, "an erased content put back, just as it was", "chain")
def _(path: Path, copies: Path) -> None:
    with sqlite3.connect(path) as db:
        kept = db.execute("SELECT row, salt, subject, payload FROM trail_contents WHERE row = 5").fetchone()
    db.close()
    with open_trail(path) as trail:
        trail.erase("applicant 5", **ERASE_5)  # type: ignore[arg-type]
    edit(path, ("INSERT INTO trail_contents VALUES (?, ?, ?, ?)", kept))


@act(ERASURES, "the record of an erasure erased itself, all computed anew with all keys", "chain")
def _(path: Path, copies: Path) -> None:
    with open_trail(path) as trail:
        trail.erase("applicant 5", **ERASE_5)  # type: ignore[arg-type]
    wider = (
        "UPDATE trail_contents SET payload = replace(payload, '[[5,5]', '[[3,3],[10,10],[15,15],[5,5]') WHERE row = 46"
    )
    forge(path, "DELETE FROM trail_contents WHERE row = 15", wider, key=KEY, sign=SIGNING)


BY_WRITERS = "written through the trail by who has the keys"


@act(BY_WRITERS, "an invented decision appended", None)
def _(path: Path, copies: Path) -> None:
    with open_trail(path) as trail:
        trail.append(Decision(time=1050.0, decision=True, emitted=0.9))


@act(BY_WRITERS, "a subject erased that never asked (recorded: see the report)", None)
def _(path: Path, copies: Path) -> None:
    with open_trail(path) as trail:
        trail.erase("applicant 5", time=1050.0, who="nobody", vacuum=False)


@act(BY_WRITERS, "a wrong time given (a step back is counted)", None)
def _(path: Path, copies: Path) -> None:
    with open_trail(path) as trail:
        trail.append(decision(46, time=5.0))


# Segments that were dropped ------------------------------------------------------------------------------------------
DROPPED = "after the first segments were dropped"
OPTIONS: dict[str, Any] = {"dropped": True}
sql(DROPPED, "a kept checkpoint of a dropped segment deleted", "DELETE FROM trail_segments WHERE number = 2", **OPTIONS)
sql(
    DROPPED,
    "a kept checkpoint of a dropped segment edited",
    "UPDATE trail_segments SET checkpoint = replace(checkpoint, 'rows 9-16', 'rows 9-15') WHERE number = 2",
    **OPTIONS,
)
sql(DROPPED, "a remaining row deleted", *rows_gone("= 40"), **OPTIONS)
sql(DROPPED, "the first remaining row deleted", *rows_gone("= 37"), **OPTIONS)
sql(DROPPED, "the record of the dropping deleted", *rows_gone("= 46"), **OPTIONS)
sql(
    DROPPED,
    "more said to be dropped than was",
    "UPDATE trail_contents SET payload = replace(payload, '\"through\":5', '\"through\":6') WHERE row = 46",
    **OPTIONS,
)
sql(
    DROPPED,
    "a row put back",
    "INSERT INTO trail_rows SELECT 5, time, kind, commitment, leaf FROM trail_rows WHERE row = 40",
    **OPTIONS,
)


_families = list(dict.fromkeys(attack.family for attack in ATTACKS))
ATTACKS.sort(key=lambda attack: _families.index(attack.family))


def mark(attack: Attack, level: Level) -> bool:
    """Return whether the attack is found at a level."""
    return attack.found is not None and LEVELS.index(level) >= LEVELS.index(attack.found)


def table() -> str:
    """Return the table of the documents."""
    lines = ["| what is done | " + " | ".join(LEVELS) + " |", "|---" * (len(LEVELS) + 1) + "|"]
    family = ""
    for attack in ATTACKS:
        if attack.family != family:
            family = attack.family
            lines.append(f"| **{family}** |" + " |" * len(LEVELS))
        marks = ["found" if mark(attack, level) else "**not found**" for level in LEVELS]
        lines.append(f"| {attack.name} | " + " | ".join(marks) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
