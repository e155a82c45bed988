"""The bytes that are hashed, format 1.

    content      salt (32 random bytes), subject (bytes), payload (canonical JSON)
    commitment   SHA256(salt || length of subject, 2 bytes || subject || payload)
    entry        0x01 || row, 8 bytes || time, 8 bytes (IEEE 754 double) || link before, 32 || commitment, 32 || kind
    leaf         SHA256(0x00 || entry)                                             (RFC 6962, section 2.1)
    link         after a row: its leaf; after a closed segment: SHA256 of its checkpoint's text
    genesis      SHA256("fairlayer-trail/1" || newline || canonical JSON of the trail's description): the first link

Numbers are big-endian. So a row names everything before it, and a row's content can go without its commitment.
"""

from __future__ import annotations

import hashlib
import struct

__all__ = ["FORMAT", "commitment_of", "entry_of", "genesis_of", "leaf_of", "link_after", "read_entry"]

FORMAT = 1
_ENTRY = struct.Struct(">BQd32s32s")
_LENGTH = struct.Struct(">H")


def commitment_of(salt: bytes, subject: bytes, payload: bytes) -> bytes:
    """Return what a row says of its content."""
    return hashlib.sha256(salt + _LENGTH.pack(len(subject)) + subject + payload).digest()


def entry_of(row: int, time: float, before: bytes, commitment: bytes, kind: bytes) -> bytes:
    """Return the bytes of a row, without its content."""
    return _ENTRY.pack(FORMAT, row, time, before, commitment) + kind


def read_entry(entry: bytes) -> tuple[int, float, bytes, bytes, str]:
    """Return row, time, link before, commitment and kind.

    Raises:
        ValueError: these are not the bytes of a row.
    """
    try:
        form, row, time, before, commitment = _ENTRY.unpack_from(entry)
    except struct.error as error:
        raise ValueError(str(error)) from error
    if form != FORMAT:
        raise ValueError(f"format {form}")
    return row, time, before, commitment, entry[_ENTRY.size :].decode()


def leaf_of(entry: bytes) -> bytes:
    """Return the hash of a row: a leaf of its segment's tree."""
    return hashlib.sha256(b"\x00" + entry).digest()


def link_after(checkpoint: str) -> bytes:
    """Return the link that the first row after a closed segment names."""
    return hashlib.sha256(checkpoint.encode()).digest()


def genesis_of(description: bytes) -> bytes:
    """Return the link that the first row of a trail names."""
    return hashlib.sha256(b"fairlayer-trail/1\n" + description).digest()
