"""Row after row against its own hashes: the part of a verification that sees every row."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np

from fairlayer.trail.appending import RESERVED
from fairlayer.trail.encoding import commitment_of, entry_of, leaf_of
from fairlayer.trail.merkle import RootBuilder
from fairlayer.trail.verification import Findings

__all__ = ["Spans", "Walk"]

_SELECT = (
    "SELECT r.row, r.time, r.kind, r.commitment, r.leaf, c.salt, c.subject, c.payload, "
    "typeof(r.time) || typeof(r.kind) || typeof(r.commitment) || typeof(r.leaf), "
    "typeof(c.salt) || typeof(c.subject) || typeof(c.payload) "
    "FROM trail_rows r LEFT JOIN trail_contents c ON c.row = r.row WHERE r.row BETWEEN ? AND ? ORDER BY r.row"
)
_ROW_TYPES, _CONTENT_TYPES, _NO_CONTENT = b"realtextblobblob", b"blobblobtext", b"nullnullnull"
_KEPT = {kind.encode() for kind in RESERVED}  # events that the rest is checked by are never erased
_HASH = 32


class Spans:
    """Spans of rows, asked for in rising order.

    Args:
        ends: first, last, first, last, ... in any order of spans.
    """

    def __init__(self, ends: Iterable[int]) -> None:
        numbers = np.frombuffer(array("q", ends), dtype=np.int64)
        order = np.argsort(numbers[0::2], kind="stable")
        self._first = array("q", numbers[0::2][order].tobytes())
        self._last = array("q", numbers[1::2][order].tobytes())
        self._next = 0

    def cover(self, row: int) -> bool:
        """Return whether a row, not before the one asked for last, lies in a span."""
        while self._next < len(self._last) and self._last[self._next] < row:
            self._next += 1
        return self._next < len(self._first) and self._first[self._next] <= row


class Walk:
    """Where the reading stands.

    `row` is the last one, `link` what the next one has to name (None where that was lost), `time` that of the last.
    """

    def __init__(self, findings: Findings, erased: Spans) -> None:
        self.findings = findings
        self.row, self.link, self.time = 0, b"", float("-inf")
        self.link_known = True
        self.erased = self.clock_back = 0
        self._spans = erased

    def go_to(self, row: int, link: bytes) -> None:
        """Go on after a row, from the link that the next one has to name."""
        self.row, self.link, self.link_known = row, link, True

    def rows(self, db: sqlite3.Connection, last: int) -> bytes:
        """Check the rows up to the last one; return the root over their leaves."""
        tree = RootBuilder()
        for fields in db.execute(_SELECT, (self.row + 1, last)):
            self._row(*fields[:5], types=fields[8])
            self._content(fields)
            tree.add(self.link)
        return tree.root()

    def _row(self, row: int, time: Any, kind: Any, commitment: Any, leaf: Any, *, types: bytes) -> None:
        if row != self.row + 1:
            self.findings.add(f"row {self.row + 1}", f"missing, up to row {row - 1}")
            self.link_known = False
        self.row = row
        if types != _ROW_TYPES or len(commitment) != _HASH or len(leaf) != _HASH:
            self.findings.add(f"row {row}", "a column is not of the type or length that was written")
            self.link, self.link_known = bytes(_HASH), False
            return
        if self.link_known and leaf_of(entry_of(row, time, self.link, commitment, kind)) != leaf:
            self.findings.add(f"row {row}", "number, time, kind, commitment or the row before is not what was hashed")
        self.link, self.link_known = leaf, True
        self.clock_back += time < self.time
        self.time = time

    def _content(self, fields: tuple[Any, ...]) -> None:
        row, kind, commitment = fields[0], fields[2], fields[3]
        salt, subject, payload = fields[5:8]
        covered = self._spans.cover(row)
        if fields[9] == _NO_CONTENT:
            self.erased += 1
            if not covered or kind in _KEPT:
                self.findings.add(f"row {row}", "the content is gone, and no erasure accounts for it")
        elif fields[9] != _CONTENT_TYPES or commitment_of(salt, subject, payload) != commitment:
            self.findings.add(f"row {row}", "salt, subject or content is not what the row commits to")
        elif covered:
            self.findings.add(f"row {row}", "it was erased, but its content is there")
