"""The text that closes a segment, to be held outside: a C2SP tlog-checkpoint, which is a signed note.

    bank.example/loans/0f3c...9a/3          origin: the trail's name, its random id, the segment's number
    10000                                   rows in the segment
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA...  the root of their Merkle tree
    rows 20001-30000                        which rows these are
    former LXnvxyuDhlPL8yhOcMvUl/Mm8...     the SHA-256 of the former checkpoint's text; the genesis for the first

    — bank.example/loans Az3grlgt...        one line per signature: HMAC with the key, Ed25519 with a signing key

Sources: https://c2sp.org/tlog-checkpoint, https://c2sp.org/signed-note.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from fairlayer.trail.errors import TrailError

__all__ = ["Checkpoint", "Signer", "Verifier", "read_checkpoint", "write_checkpoint"]

_BODY = re.compile(
    r"(?P<name>[^\s+]+)/(?P<trail>[0-9a-f]{32})/(?P<number>[1-9][0-9]*)\n"
    r"(?P<size>[1-9][0-9]*)\n"
    r"(?P<root>[A-Za-z0-9+/]{43}=)\n"
    r"rows (?P<first>[1-9][0-9]*)-(?P<last>[1-9][0-9]*)\n"
    r"former (?P<former>[A-Za-z0-9+/]{43}=)\n"
)
_LINE = re.compile(r"— (?P<name>[^\s+]+) (?P<signature>[A-Za-z0-9+/]+={0,2})")


class Verifier(Protocol):
    """Knows the signatures of one key."""

    def identity(self, name: str) -> bytes:
        """Return the four bytes that name the key, for a trail of this name."""
        ...

    def signed(self, text: bytes, signature: bytes) -> bool:
        """Return whether the key made this signature of the text."""
        ...


class Signer(Verifier, Protocol):
    """Makes the signatures of one key."""

    def sign(self, text: bytes) -> bytes:
        """Return the signature of the text."""
        ...


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint's text says.

    `text` is the whole, `body` what is signed, `trail` the id, `number` the segment's, `first` and `last` its rows,
    `root` over them, `former` the link that its first row names.

    Example:
        >>> from fairlayer.trail import AuditTrail, Decision
        >>> with AuditTrail("held.sqlite", name="loans") as trail:
        ...     rows = trail.append(Decision(time=float(i), emitted=0.5) for i in range(3))
        ...     held = trail.checkpoint(time=3.0)
        >>> held.name, held.number, held.first, held.last
        ('loans', 1, 1, 4)
    """

    text: str
    name: str
    trail: str
    number: int
    first: int
    last: int
    root: bytes
    former: bytes

    @cached_property
    def body(self) -> str:
        """What is signed."""
        return self.text[: self.text.rindex("\n\n") + 1]

    def check(self, verifier: Verifier) -> bool | None:
        """Return whether the key's signature holds; None where the key has not signed.

        Unknown keys are passed over, as the note format demands.
        """
        answers = [
            verifier.signed(self.body.encode(), signature[4:])
            for name, signature in _signatures(self.text)
            if name == self.name and signature[:4] == verifier.identity(self.name)
        ]
        return all(answers) if answers else None

    def __str__(self) -> str:
        return self.text


def write_checkpoint(
    origin: tuple[str, str, int], rows: tuple[int, int], root: bytes, former: bytes, signers: list[Signer]
) -> Checkpoint:
    """Return the checkpoint of a segment: origin is name, trail and number."""
    first, last = rows
    name = origin[0]
    lines = [
        "/".join(map(str, origin)),
        str(last - first + 1),
        _base64(root),
        f"rows {first}-{last}",
        f"former {_base64(former)}",
    ]
    body = "\n".join(lines) + "\n"
    signatures = [f"— {name} {_base64(signer.identity(name) + signer.sign(body.encode()))}\n" for signer in signers]
    return read_checkpoint(f"{body}\n{''.join(signatures)}")


def read_checkpoint(text: str) -> Checkpoint:
    """Read a checkpoint's text.

    Raises:
        TrailError: it is none.

    Example:
        >>> from fairlayer.trail import AuditTrail, Decision
        >>> with AuditTrail("reread.sqlite", name="loans") as trail:
        ...     rows = trail.append(Decision(time=float(i), emitted=0.5) for i in range(3))
        ...     held = trail.checkpoint(time=3.0)
        >>> read_checkpoint(held.text) == held
        True
    """
    body, _, _ = text.rpartition("\n\n")
    found = _BODY.fullmatch(body + "\n")
    if found is None:
        raise TrailError(_no_checkpoint(text))
    _signatures(text)
    number, size, first, last = (int(found[part]) for part in ("number", "size", "first", "last"))
    if size != last - first + 1:
        raise TrailError(_no_checkpoint(text))
    root, former = base64.b64decode(found["root"]), base64.b64decode(found["former"])
    return Checkpoint(text, found["name"], found["trail"], number, first, last, root, former)


def _signatures(text: str) -> list[tuple[str, bytes]]:
    lines = text[text.rindex("\n\n") + 2 :].split("\n")
    found = [_LINE.fullmatch(line) for line in lines[:-1]]
    if lines[-1] or not all(found):
        raise TrailError(_no_checkpoint(text))
    try:
        return [(line["name"], base64.b64decode(line["signature"], validate=True)) for line in found if line]
    except binascii.Error as error:
        raise TrailError(_no_checkpoint(text)) from error


def _no_checkpoint(text: str) -> str:
    return (
        f"a text that begins with {text[:60]!r} is not a checkpoint of a trail. "
        "Give the text that `checkpoint` returned, unchanged to its last line."
    )


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
