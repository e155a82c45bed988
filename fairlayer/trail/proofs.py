"""That one row is in a trail, shown without the trail: a C2SP tlog-proof.

    c2sp.org/tlog-proof@v1
    extra AQAAAAAAAAAB...        the bytes of the row (see `encoding`)
    index 6                      its place in its segment, from 0
    gSKyXoYZUgZ6jduWYrkDOAR...   the hashes beside the way to the root, from the leaf on
                                 (an empty line)
    bank.example/loans/0f3c...   the checkpoint of its segment

Source: https://c2sp.org/tlog-proof.
"""

from __future__ import annotations

import base64
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from fairlayer.trail.checkpoint import Checkpoint, read_checkpoint
from fairlayer.trail.encoding import commitment_of, entry_of, leaf_of, read_entry
from fairlayer.trail.errors import TrailError
from fairlayer.trail.merkle import inclusion_path, root_from_path
from fairlayer.trail.tables import described, open_to_read

__all__ = ["Content", "Proof", "ProvenRow", "check_proof", "prove"]

_HEADER = "c2sp.org/tlog-proof@v1"
_PROOF = re.compile(
    re.escape(_HEADER) + r"\nextra (?P<entry>[A-Za-z0-9+/]+={0,2})\nindex (?P<index>0|[1-9][0-9]*)\n"
    r"(?P<path>(?:[A-Za-z0-9+/]{43}=\n)*)\n(?P<checkpoint>.*)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Content:
    """What a row commits to; it can be shown to whom it concerns, and checked against the proof."""

    salt: bytes
    subject: bytes
    payload: bytes


@dataclass(frozen=True)
class Proof:
    """The text of the proof, which holds no content, and the content itself; None where it was erased.

    Example:
        >>> from fairlayer.trail import AuditTrail, Decision
        >>> with AuditTrail("proof.sqlite") as trail:
        ...     rows = trail.append(Decision(time=float(i), emitted=0.5) for i in range(3))
        ...     _ = trail.checkpoint(time=3.0)
        >>> proof = prove("proof.sqlite", 2)
        >>> "0.5" in proof.text, check_proof(proof.text).holds(proof.content)
        (False, True)
    """

    text: str
    content: Content | None


@dataclass(frozen=True)
class ProvenRow:
    """What a proof shows: a row of a trail, and the checkpoint that it stands under.

    Example:
        >>> from fairlayer.trail import AuditTrail, Decision
        >>> with AuditTrail("proven.sqlite", name="loans") as trail:
        ...     rows = trail.append(Decision(time=float(i), emitted=0.5) for i in range(3))
        ...     _ = trail.checkpoint(time=3.0)
        >>> found = check_proof(prove("proven.sqlite", 2).text)
        >>> found.row, found.time, found.kind, found.checkpoint.name
        (2, 1.0, 'decision', 'loans')
    """

    row: int
    time: float
    kind: str
    commitment: bytes
    checkpoint: Checkpoint

    def holds(self, content: Content) -> bool:
        """Return whether this is the content that the row commits to."""
        return commitment_of(content.salt, content.subject, content.payload) == self.commitment


def prove(path: str | Path, row: int) -> Proof:
    """Return the proof that a row is in the trail.

    Args:
        path: the path of the trail.

    Raises:
        TrailError: there is no such row, its segment was dropped, or is still open.

    Example:
        >>> from fairlayer.trail import AuditTrail, Decision
        >>> with AuditTrail("proving.sqlite") as trail:
        ...     rows = trail.append(Decision(time=float(i), emitted=0.5) for i in range(3))
        ...     _ = trail.checkpoint(time=3.0)
        >>> check_proof(prove("proving.sqlite", 2).text).row
        2
    """
    with open_to_read(path) as db:
        described(db)
        checkpoint = _checkpoint_over(db, row)
        span = (checkpoint.first, checkpoint.last)
        rows = db.execute("SELECT row, leaf FROM trail_rows WHERE row BETWEEN ? AND ? ORDER BY row", span).fetchall()
        if len(rows) != checkpoint.last - checkpoint.first + 1:
            raise TrailError(f"the rows of segment {checkpoint.number} are not all there: they were dropped.")
        leaves, index = [bytes(leaf) for _, leaf in rows], row - checkpoint.first
        path_lines = "".join(f"{_base64(node)}\n" for node in inclusion_path(leaves, index))
        entry = _base64(_entry(db, row, leaves[index - 1] if index else checkpoint.former))
        return Proof(f"{_HEADER}\nextra {entry}\nindex {index}\n{path_lines}\n{checkpoint.text}", _content(db, row))


def check_proof(proof: str) -> ProvenRow:
    """Return the row that a proof shows, once its hashes lead to the root in its checkpoint.

    The checkpoint is only as good as its source: compare it with one that was held outside, or check its signature
    (`checkpoint.check(Ed25519Verifier(public_key))`).

    Raises:
        TrailError: this is not a proof, or it does not lead to the root.

    Example:
        >>> from fairlayer.trail import AuditTrail, Decision
        >>> with AuditTrail("checked.sqlite") as trail:
        ...     rows = trail.append(Decision(time=float(i), emitted=0.5) for i in range(3))
        ...     held = trail.checkpoint(time=3.0)
        >>> check_proof(prove("checked.sqlite", 3).text).checkpoint.root == held.root
        True
    """
    found = _PROOF.fullmatch(proof)
    if found is None:
        raise TrailError(f"a text that begins with {proof[:40]!r} is not a proof of a row.")
    checkpoint = read_checkpoint(found["checkpoint"])
    try:
        entry, index = base64.b64decode(found["entry"], validate=True), int(found["index"])
        row, time, _, commitment, kind = read_entry(entry)
    except ValueError as error:
        raise TrailError(f"the row in the proof cannot be read ({error}).") from error
    size = checkpoint.last - checkpoint.first + 1
    path = [base64.b64decode(line) for line in found["path"].split()]
    root = root_from_path(leaf_of(entry), index, size, path) if index < size else None
    if root != checkpoint.root or row != checkpoint.first + index:
        raise TrailError(f"the proof does not lead to the root of segment {checkpoint.number}: row {row} is not in it.")
    return ProvenRow(row, time, kind, commitment, checkpoint)


def _checkpoint_over(db: sqlite3.Connection, row: int) -> Checkpoint:
    found = db.execute("SELECT checkpoint FROM trail_segments WHERE ? BETWEEN first AND last", (row,)).fetchone()
    if found is None:
        raise TrailError(
            f"no closed segment holds row {row!r}: close the open one by checkpoint(), if the row is there."
        )
    return read_checkpoint(found[0])


def _entry(db: sqlite3.Connection, row: int, before: bytes) -> bytes:
    time, kind, commitment = db.execute(
        "SELECT time, kind, commitment FROM trail_rows WHERE row = ?", (row,)
    ).fetchone()
    return entry_of(row, time, before, commitment, kind.encode())


def _content(db: sqlite3.Connection, row: int) -> Content | None:
    found = db.execute(
        "SELECT salt, subject, CAST(payload AS BLOB) FROM trail_contents WHERE row = ?", (row,)
    ).fetchone()
    return None if found is None else Content(*map(bytes, found))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
