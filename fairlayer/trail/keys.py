"""The kept key: what it seals, what it commits to, and whom it hides."""

from __future__ import annotations

import hmac
from pathlib import Path

from fairlayer.errors import ParameterError
from fairlayer.trail.canonical import canonical
from fairlayer.trail.errors import TrailKeyError

__all__ = ["Keys", "read_key"]

_SHORTEST = 16
_LONGEST_SUBJECT = 1024


class Keys:
    """The uses of one secret key, each under a key of its own derived from it (HMAC-SHA256).

    Args:
        key: at least 16 secret bytes; None for a trail without a key, which seals nothing.

    Raises:
        TrailKeyError: the key is too short, or no bytes.

    Example:
        >>> keys = Keys(bytes(32))
        >>> keys.tag("applicant 17") == keys.tag("applicant 17"), keys.commit({"age": 40})[:16]
        (True, '3c135c22eacc9259')
    """

    def __init__(self, key: bytes | None) -> None:
        if key is not None and (not isinstance(key, bytes) or len(key) < _SHORTEST):
            raise TrailKeyError(
                f"a trail's key is at least {_SHORTEST} secret bytes, for example secrets.token_bytes(32); "
                f"{f'{len(key)} bytes' if isinstance(key, bytes) else type(key).__name__} were given."
            )
        self._derived = {use: self._derive(key, use) for use in ("name", "seal", "input", "subject")} if key else {}

    @property
    def name(self) -> str | None:
        """What tells this key from others, and nothing about it."""
        return self._derived["name"].hex()[:16] if self._derived else None

    def seal(self, sealed: bytes) -> bytes:
        """Return the HMAC that only who has the key can make; nothing without a key."""
        return hmac.digest(self._derived["seal"], sealed, "sha256") if self._derived else b""

    def commit(self, value: object) -> str:
        """Return a commitment to a value (see `canonical`), or to bytes: who has key and value can prove it."""
        if not self._derived:
            raise TrailKeyError(
                "a commitment to an input needs a kept key: without one, anybody could try out likely inputs. "
                "Open the trail with key=..., or leave the input out."
            )
        content = b"bytes:" + value if isinstance(value, bytes) else b"json:" + canonical(value)
        return hmac.digest(self._derived["input"], content, "sha256").hex()

    def tag(self, subject: str | None) -> bytes:
        """Return what is kept of a subject's name: its HMAC; the name itself where there is no key."""
        if subject is None:
            return b""
        name = subject.encode(errors="surrogatepass") if isinstance(subject, str) else b""
        if not 0 < len(name) <= _LONGEST_SUBJECT:
            raise ParameterError(
                f"a subject is named by a text of 1 to {_LONGEST_SUBJECT} bytes, but was given {subject!r:.80}."
            )
        return hmac.digest(self._derived["subject"], name, "sha256") if self._derived else name

    @staticmethod
    def _derive(key: bytes, use: str) -> bytes:
        return hmac.digest(key, f"fairlayer-trail/1 {use}".encode(), "sha256")


def read_key(path: str | Path) -> bytes:
    """Read a key from a file that holds it as hexadecimal digits, as `openssl rand -hex 32` writes them.

    Args:
        path: the path of the file with the key.

    Raises:
        TrailKeyError: the file cannot be read, or holds anything else.

    Example:
        >>> _ = Path("trail.key").write_text("00" * 32)
        >>> read_key("trail.key") == bytes(32)
        True
    """
    try:
        return bytes.fromhex(Path(path).read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise TrailKeyError(
            f"no key could be read from '{path}' ({error}). A key file holds hexadecimal digits: "
            "openssl rand -hex 32 > key.hex"
        ) from error
