"""A stream in words, numbers and a picture: what the terminal and the page show of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["StreamSection"]


class StreamSection(NamedTuple):
    """What to show of a stream.

    `blocks` are rows of (name, nothing, offline, stream); `picture` is inline SVG.
    """

    title: str
    blocks: Sequence[Sequence[tuple[str, str, str, str]]]
    caption: str
    sentences: Sequence[str]
    picture: str
