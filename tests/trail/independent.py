"""A verifier of trails that shares no line with the package: what an auditor could write from the documents."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sqlite3
import struct
from pathlib import Path


def accepts(path: Path, key: bytes | None = None, held: str | None = None) -> bool:
    try:
        return _accepts(path, key, held)
    except (AssertionError, ValueError, TypeError, KeyError, IndexError, AttributeError, struct.error, sqlite3.Error):
        return False


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def tree(leaves: list[bytes]) -> bytes:
    split = 1 << ((len(leaves) - 1).bit_length() - 1) if len(leaves) > 1 else 0
    return sha(b"\x01", tree(leaves[:split]), tree(leaves[split:])) if split else leaves[0]


def _accepts(path: Path, key: bytes | None, held: str | None) -> bool:
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    db.text_factory = bytes
    [(about,)] = db.execute("SELECT description FROM trail_about")
    rows = {row[0]: row for row in db.execute("SELECT row, time, kind, commitment, leaf FROM trail_rows ORDER BY row")}
    contents = {row: rest for row, *rest in db.execute("SELECT row, salt, subject, payload FROM trail_contents")}
    events = [(row[2], json.loads(contents[at][2])) for at, row in rows.items() if row[2] in (b"erasure", b"pruning")]
    spans = [span for kind, event in events if kind == b"erasure" for span in event["rows"]]
    erased = {row for first, last in spans for row in range(first, last + 1)}
    dropped = max((event["through"] for kind, event in events if kind == b"pruning"), default=0)
    link, done, seen, leaf_list = sha(b"fairlayer-trail/1\n", about), 0, held is None, list[bytes]()

    def walk(first: int, last: int, link: bytes) -> list[bytes]:
        leaves = []
        for at in range(first, last + 1):
            row, time, kind, commitment, leaf = rows.pop(at)
            assert (at in contents) != (at in erased)
            if at in contents:
                salt, subject, payload = contents.pop(at)
                assert sha(salt, struct.pack(">H", len(subject)), subject, payload) == commitment
            entry = struct.pack(">BQd", 1, row, time) + link + commitment + kind
            link = sha(b"\x00", entry)
            assert link == leaf
            leaves.append(link)
        return leaves

    def mac(text: bytes) -> bytes:
        return hmac.digest(hmac.digest(key or b"", b"fairlayer-trail/1 seal", "sha256"), text, "sha256")

    segments = db.execute("SELECT number, first, last, checkpoint FROM trail_segments ORDER BY number").fetchall()
    for place, (number, first, last, text) in enumerate(segments, 1):
        body, _, signatures = text.rpartition(b"\n\n")
        origin, size, root, span, former = body.decode().split("\n")
        named = json.loads(about)
        assert origin == f"{named['name']}/{named['trail']}/{place}"
        assert (place, int(size), span) == (number, last - first + 1, f"rows {first}-{last}")
        assert (first, former) == (done + 1, "former " + base64.b64encode(link).decode())
        assert number <= dropped or base64.b64encode(tree(walk(first, last, link))).decode() == root
        sealed = [base64.b64decode(line.split()[2])[4:] for line in signatures.decode().splitlines()]
        assert key is None or mac(b"checkpoint\n" + body + b"\n") in sealed
        seen = seen or (held or "").rpartition("\n\n")[0].encode() == body
        link, done = sha(text), last
    [(total, end, time, count, closed, seal)] = db.execute(
        "SELECT size, link, time, segments, closed, seal FROM trail_head"
    )
    last_time = rows[total][1] if total in rows else time
    leaf_list = walk(done + 1, total, link)
    head = (end, count, closed, time) == ((leaf_list or [link])[-1], len(segments), done, last_time)
    sealed_head = key is None or mac(b"head\n" + struct.pack(">Q32sdQQ", total, end, time, count, closed)) == seal
    return seen and head and sealed_head and not rows and not contents
