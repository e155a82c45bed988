"""Verification: the file against what its own hashes, a key, a signature and a checkpoint held outside say."""

from __future__ import annotations

import hmac
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from fairlayer.errors import ParameterError
from fairlayer.trail.checkpoint import Checkpoint, Verifier, read_checkpoint
from fairlayer.trail.encoding import genesis_of, link_after
from fairlayer.trail.errors import TrailError
from fairlayer.trail.keys import Keys
from fairlayer.trail.signatures import Ed25519Verifier, SealSigner
from fairlayer.trail.tables import SCHEMA, Description, Head, description_bytes, open_to_read
from fairlayer.trail.verification import Findings, Level, Verification
from fairlayer.trail.walking import Spans, Walk

__all__ = ["verify"]

_TABLES = ("trail_about", "trail_rows", "trail_contents", "trail_segments", "trail_head")
_LAST = 2**63 - 1  # of SQLite's row numbers
_HEAD = (
    "SELECT size, link, time, segments, closed, seal, "
    "typeof(size) || typeof(link) || typeof(segments) || typeof(closed) || typeof(seal) FROM trail_head"
)


def verify(
    path: str | Path,
    *,
    checkpoint: str | Checkpoint | None = None,
    key: bytes | None = None,
    public_key: bytes | None = None,
    incremental: bool = False,
) -> Verification:
    """Read a trail and say what is not as it was written, and what that answer is worth.

    The levels, from weak to strong, and against whom each one holds:

        chain      no argument     who changes the file and does not compute its hashes anew
        sealed     key             who knows this code and can write the file, but has no key
        signed     public_key      who has the key as well, up to the last signed checkpoint
        anchored   checkpoint      who has every key, up to the checkpoint; also finds a tail cut off before it

    Rows cut off at the end, and a file put back to an older copy, are found by a later checkpoint and nothing else.
    The file may be in use: one state of it is read. Memory does not grow with the number of rows.

    Args:
        path: the path of the file.
        checkpoint: what `AuditTrail.checkpoint` returned, or its text, kept outside.
        key: the key that the trail is sealed with.
        public_key: the public half of the key that signed the checkpoints: 32 bytes, or PEM.
        incremental: read only what was written after the checkpoint, and trust what was verified before it.

    Raises:
        TrailError: there is no file, or the text is not a checkpoint.
        ParameterError: incremental without a checkpoint.
        MissingExtraError: a public key was given, and `cryptography` is not installed.

    Example:
        >>> from fairlayer.trail import AuditTrail, Decision, verify
        >>> with AuditTrail("verified.sqlite") as trail:
        ...     rows = trail.append(Decision(time=float(i), emitted=0.5) for i in range(3))
        ...     held = trail.checkpoint(time=3.0)
        >>> verify("verified.sqlite").level, verify("verified.sqlite", checkpoint=held).level
        ('chain', 'anchored')
    """
    if incremental and checkpoint is None:
        raise ParameterError("incremental=True goes on from a checkpoint, but none was given.")
    if not Path(path).is_file():
        raise TrailError(f"there is no file '{path}'.")
    held = read_checkpoint(checkpoint) if isinstance(checkpoint, str) else checkpoint
    public = None if public_key is None else Ed25519Verifier(public_key)
    check = _Check(Keys(key), public, held, incremental)
    try:
        with open_to_read(path) as db:
            db.text_factory = bytes  # text that is none must be found, not raised
            check.file(db)
    except TrailError as error:
        check.findings.add("file", str(error))
    return check.answer()


class _Check:
    """One verification under way."""

    def __init__(self, keys: Keys, public: Verifier | None, held: Checkpoint | None, incremental: bool) -> None:
        self.keys, self.public, self.held, self.incremental = keys, public, held, incremental
        self.seal = None if keys.name is None else SealSigner(keys)
        self.findings = Findings()
        self.walk = Walk(self.findings, Spans(()))
        self.about: Description | None = None
        self.segments = self.pruned = 0
        self.first = 1  # the first row that is read
        self.closed = self.signed = self.anchored = 0  # last rows of: closed segments, signed ones, the one held

    def file(self, db: sqlite3.Connection) -> None:
        """Check everything there is."""
        about = description_bytes(db)
        self.about = Description.read(about)
        self._key(self.about)
        self._tables(db)
        self._strays(db)
        self.walk = Walk(self.findings, Spans(self._named_in(db, "erasure", "rows")))
        self.pruned = max(self._named_in(db, "pruning", "through"), default=0)
        self.walk.go_to(0, genesis_of(about))
        for checkpoint in self._checkpoints(db):
            self._segment(db, checkpoint)
        self.walk.rows(db, _LAST)
        if self.about.segment_rows <= self.walk.row - self.closed:
            self.findings.add("open segment", f"it has more rows than segments have ({self.about.segment_rows})")
        self._head(db)
        self._outside()

    def answer(self) -> Verification:
        """Return what was found."""
        reach: dict[Level, int] = {"chain": self.walk.row}
        reach |= {"sealed": self.walk.row} if self.seal else {}
        reach |= {"signed": self.signed} if self.public else {}
        reach |= {"anchored": self.anchored} if self.held else {}
        return Verification(
            trail=self.about.trail if self.about else None,
            rows=self.walk.row,
            read=self.first,
            segments=self.segments,
            reach={} if self.findings.count else reach,
            erased=self.walk.erased,
            pruned=self.pruned,
            clock_back=self.walk.clock_back,
            findings=tuple(self.findings.first),
            found=self.findings.count,
        )

    def _key(self, about: Description) -> None:
        if self.seal is not None and about.key != self.keys.name:
            self.findings.add("key", f"the trail's key is {about.key or 'none'}, the one given is {self.keys.name}")

    def _tables(self, db: sqlite3.Connection) -> None:
        there = _tables_of(db)
        for name, wanted in _expected_tables().items():
            if there.pop(name, None) != wanted:
                self.findings.add(f"table or index {name}", "not as this version makes it")
        for name in there:
            self.findings.add(f"trigger, table or index {name}", "this version makes none")
        if not self.incremental:
            for (problem,) in db.execute("PRAGMA integrity_check(20)"):
                if problem != b"ok":
                    self.findings.add("file", problem.decode(errors="replace"))

    def _strays(self, db: sqlite3.Connection) -> None:
        for (row,) in db.execute(
            "SELECT c.row FROM trail_contents c LEFT JOIN trail_rows r ON r.row = c.row WHERE r.row IS NULL LIMIT 20"
        ):
            self.findings.add(f"row {row}", "there is content, but no such row")
        for (row,) in db.execute("SELECT row FROM trail_rows WHERE row < 1 LIMIT 20"):
            self.findings.add(f"row {row}", "rows are counted from 1")

    def _named_in(self, db: sqlite3.Connection, kind: str, field: str) -> Iterator[int]:
        """Yield the numbers that a field of the trail's own events of a kind holds, one after another."""
        for row, payload in db.execute(
            "SELECT r.row, CAST(c.payload AS BLOB) FROM trail_rows r JOIN trail_contents c ON c.row = r.row "
            "WHERE r.kind = ? AND r.kind <> 'decision' ORDER BY r.row",
            (kind,),
        ):
            try:
                yield from _numbers(json.loads(payload)[field], below=row)
            except (KeyError, TypeError, ValueError):
                self.findings.add(f"row {row}", f"the {kind} does not say which {field}")

    def _checkpoints(self, db: sqlite3.Connection) -> Iterator[Checkpoint]:
        """Yield the checkpoints of closed segments, each in its place."""
        start = self.held.number if self.held and self.incremental else -_LAST
        self.segments = max(start - 1, 0)
        for number, first, last, text, type_ in db.execute(
            "SELECT number, first, last, CAST(checkpoint AS BLOB), typeof(checkpoint) FROM trail_segments "
            "WHERE number >= ? ORDER BY number",
            (start,),
        ):
            self.segments += 1
            try:
                found = read_checkpoint(text.decode())
            except (TrailError, UnicodeDecodeError):
                self.findings.add(f"segment {number}", "its checkpoint cannot be read")
                continue
            if number == start:  # what came before was verified with the checkpoint that is held
                self.walk.go_to(found.first - 1, found.former)
            if (found.number, found.first, found.last, b"text") != (number, first, last, type_):
                self.findings.add(f"segment {number}", "number, first or last row is not that of its checkpoint")
            yield found

    def _segment(self, db: sqlite3.Connection, checkpoint: Checkpoint) -> None:
        where, about = f"segment {checkpoint.number}", self.about
        if about and (checkpoint.name, checkpoint.trail, checkpoint.number) != (about.name, about.trail, self.segments):
            self.findings.add(where, f"the checkpoint in place {self.segments} is of another trail or segment")
        if checkpoint.first != self.walk.row + 1:
            self.findings.add(where, f"it begins with row {checkpoint.first}, after row {self.walk.row}")
        if self.walk.link_known and checkpoint.former != self.walk.link:
            self.findings.add(where, "it does not name the checkpoint before it")
        if checkpoint.number <= self.pruned:
            self._dropped(db, checkpoint)
        elif not (self.incremental and self.held and checkpoint.number == self.held.number):
            if self.walk.rows(db, checkpoint.last) != checkpoint.root or self.walk.row != checkpoint.last:
                self.findings.add(where, "its rows are not those that were closed")
        else:
            self.first = checkpoint.last + 1
        self._signatures(where, checkpoint)
        self.closed = checkpoint.last
        self.walk.go_to(checkpoint.last, link_after(checkpoint.text))
        if self.held and self.held.body == checkpoint.body:
            self.anchored = checkpoint.last

    def _dropped(self, db: sqlite3.Connection, checkpoint: Checkpoint) -> None:
        self.first = checkpoint.last + 1
        span = (checkpoint.first, checkpoint.last)
        if db.execute("SELECT 1 FROM trail_rows WHERE row BETWEEN ? AND ? LIMIT 1", span).fetchone():
            self.findings.add(f"segment {checkpoint.number}", "it was dropped, but it has rows")

    def _signatures(self, where: str, checkpoint: Checkpoint) -> None:
        if self.seal and not checkpoint.check(self.seal):
            self.findings.add(where, "its checkpoint is not sealed with the key")
        if self.public:
            signed = checkpoint.check(self.public)
            self.signed = checkpoint.last if signed else self.signed
            if signed is False:
                self.findings.add(where, "its checkpoint's signature is false")

    def _head(self, db: sqlite3.Connection) -> None:
        found = db.execute(_HEAD).fetchall()
        if len(found) != 1 or found[0][-1] != b"integerblobintegerintegerblob":
            self.findings.add("head", "it is missing, or not of the type that was written")
            return
        *fields, seal, _ = found[0]
        there = Head(*fields)
        last = db.execute("SELECT time FROM trail_rows WHERE row = ?", (self.walk.row,)).fetchone()
        time = last[0] if last else None
        link = self.walk.link if self.walk.link_known else there.link
        if there != Head(self.walk.row, link, time, self.segments, self.closed):
            says = f"it says {there.size} rows in {there.segments} segments"
            self.findings.add("head", f"{says}, and does not fit the last row: rows were cut off or added")
        elif self.seal and not hmac.compare_digest(there.seal(self.keys), seal):
            self.findings.add("head", "the seal is not that of the key")
        elif self.about and self.about.key is None and seal:
            self.findings.add("head", "it has a seal, but the trail has no key")

    def _outside(self) -> None:
        if self.public and not self.signed:
            self.findings.add("signatures", "no checkpoint is signed with the private half of the public key")
        held = self.held
        if held is None:
            return
        if (self.public and held.check(self.public) is False) or (self.seal and held.check(self.seal) is False):
            self.findings.add("checkpoint held", "its signature is false: it is not what was handed out")
        if not self.anchored:
            self.findings.add("checkpoint held", self._difference(held))

    def _difference(self, held: Checkpoint) -> str:
        if self.about is None or held.trail != self.about.trail:
            return f"it is of the trail {held.trail}, which is not in the file"
        if held.number > self.segments:
            return f"segment {held.number} is not in the file: the end was cut off, or an older copy put back"
        return f"segment {held.number} of the file is not the one that was closed"


def _numbers(value: object, *, below: int) -> Iterator[int]:
    """Yield the whole numbers in a value, or in lists of them."""
    if isinstance(value, list):
        for part in value:
            yield from _numbers(part, below=below)
    elif isinstance(value, int) and 0 < value < below:
        yield value
    else:
        raise ValueError(value)


def _tables_of(db: sqlite3.Connection) -> dict[str, bytes]:
    marks = ", ".join("?" * len(_TABLES))
    found = db.execute(f"SELECT name, sql FROM sqlite_master WHERE tbl_name IN ({marks})", _TABLES)
    return {name.decode(errors="replace"): sql for name, sql in found}


def _expected_tables() -> dict[str, bytes]:
    db = sqlite3.connect(":memory:")
    try:
        db.text_factory = bytes
        for statement in SCHEMA:
            db.execute(statement)
        return _tables_of(db)
    finally:
        db.close()
