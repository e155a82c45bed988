"""Pages that are copies of files in the root of the repository, with their links made to fit the site."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["pages"]

ROOT = Path(__file__).resolve().parent.parent
COPIED = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
LINK = re.compile(r"\[([^\]]+)\]\((?!https?://|#)([^)\s]+)\)")


def fitted(text: str) -> str:
    """Return a text whose links into `docs/` are links within the site, and whose other links are plain words.

    Example:
        >>> fitted("[a](docs/a.md), [b](LICENSE)")
        '[a](a.md), b'
    """

    def moved(found: re.Match[str]) -> str:
        words, target = found[1], found[2]
        return f"[{words}]({target.removeprefix('docs/')})" if target.startswith("docs/") else words

    return LINK.sub(moved, text)


def pages() -> dict[str, str]:
    """Return the copied pages: the path below `docs` and the text."""
    return {page: fitted((ROOT / file).read_text(encoding="utf-8")) for page, file in COPIED.items()}
