"""The Merkle tree of a segment, as RFC 6962 section 2.1 has it: an odd node is promoted, never doubled."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

__all__ = ["RootBuilder", "inclusion_path", "root_from_path", "root_of"]


def node_of(left: bytes, right: bytes) -> bytes:
    """Return the hash of two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class RootBuilder:
    """Takes leaves one by one; keeps none but the O(log n) complete subtrees on the left."""

    def __init__(self) -> None:
        self._complete: list[tuple[int, bytes]] = []  # (leaves below, hash), sizes falling

    def add(self, leaf: bytes) -> None:
        """Take one leaf."""
        size, node = 1, leaf
        while self._complete and self._complete[-1][0] == size:
            node = node_of(self._complete.pop()[1], node)
            size *= 2
        self._complete.append((size, node))

    def root(self) -> bytes:
        """Return the root over the leaves taken so far."""
        if not self._complete:
            return hashlib.sha256(b"").digest()
        root = self._complete[-1][1]
        for _, left in reversed(self._complete[:-1]):
            root = node_of(left, root)
        return root


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Return the root over leaves.

    Example:
        >>> root_of([]).hex()[:8]  # SHA-256 of nothing, as the RFC has it
        'e3b0c442'
    """
    builder = RootBuilder()
    for leaf in leaves:
        builder.add(leaf)
    return builder.root()


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the siblings on the way from a leaf (counted from 0) to the root."""
    if len(leaves) == 1:
        return []
    split = _split(len(leaves))
    left, right = leaves[:split], leaves[split:]
    if index < split:
        return [*inclusion_path(left, index), root_of(right)]
    return [*inclusion_path(right, index - split), root_of(left)]


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that a leaf and its siblings lead to; None where there are too many or too few of them."""
    if size == 1:
        return None if path else leaf
    if not path:
        return None
    split = _split(size)
    here, below = path[-1], path[:-1]
    if index < split:
        left = root_from_path(leaf, index, split, below)
        return None if left is None else node_of(left, here)
    right = root_from_path(leaf, index - split, size - split, below)
    return None if right is None else node_of(here, right)


def _split(size: int) -> int:
    """Return the largest power of two below the size."""
    return 1 << ((size - 1).bit_length() - 1)
