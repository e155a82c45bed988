"""Who signs a checkpoint: the kept key by HMAC, or an Ed25519 key, whose public half can check and not forge."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

from fairlayer.errors import require
from fairlayer.trail.errors import TrailKeyError
from fairlayer.trail.keys import Keys

__all__ = ["Ed25519Signer", "Ed25519Verifier", "SealSigner"]

# Signature types of signed notes: 0x01 is Ed25519; 0xff and a long name are for types that have no number.
_ED25519 = b"\x01"
_HMAC = b"\xfffairlayer.trail/hmac-sha256"
_RAW = 32


def _identity(name: str, kind: bytes, key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + kind + key).digest()[:4]


class SealSigner:
    """The kept key. Whoever can check its signatures can make them."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def identity(self, name: str) -> bytes:
        """Return the four bytes that name the key."""
        return _identity(name, _HMAC, (self._keys.name or "").encode())

    def sign(self, text: bytes) -> bytes:
        """Return the HMAC of the text."""
        return self._keys.seal(b"checkpoint\n" + text)

    def signed(self, text: bytes, signature: bytes) -> bool:
        """Return whether this is the HMAC of the text."""
        return hmac.compare_digest(self.sign(text), signature)


class Ed25519Verifier:
    """A public key: 32 bytes, or PEM as `openssl pkey -pubout` writes it.

    Raises:
        TrailKeyError: it is no such key.
        MissingExtraError: the library `cryptography` is not installed.

    Example:
        >>> from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        >>> public = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
        >>> verifier = Ed25519Verifier(public)
        >>> verifier.signed(b"text", Ed25519Signer(bytes(32)).sign(b"text")), verifier.signed(b"text", bytes(64))
        (True, False)
    """

    def __init__(self, public_key: bytes) -> None:
        self._key = _loaded(public_key, private=False)

    def identity(self, name: str) -> bytes:
        """Return the four bytes that name the key."""
        return _identity(name, _ED25519, self._key.public_bytes_raw())

    def signed(self, text: bytes, signature: bytes) -> bool:
        """Return whether this is a signature of the text by this key (RFC 8032)."""
        invalid = require("cryptography.exceptions", "trail").InvalidSignature
        try:
            self._key.verify(signature, text)
        except invalid:
            return False
        return True

    def note_key(self, name: str) -> str:
        """Return the key as the tools for signed notes want it: name+identity+key."""
        key = base64.b64encode(_ED25519 + self._key.public_bytes_raw()).decode()
        return f"{name}+{self.identity(name).hex()}+{key}"


class Ed25519Signer:
    """A private key: 32 bytes, or PEM as `openssl genpkey -algorithm ed25519` writes it.

    Raises:
        TrailKeyError: it is no such key.
        MissingExtraError: the library `cryptography` is not installed.

    Example:
        >>> from fairlayer.trail import AuditTrail, Decision
        >>> with AuditTrail("signed.sqlite", name="loans", signing_key=bytes(32)) as trail:
        ...     rows = trail.append([Decision(time=0.0, emitted=0.5)])
        ...     held = trail.checkpoint(time=1.0)
        >>> held.check(Ed25519Signer(bytes(32)).verifier)
        True
    """

    def __init__(self, signing_key: bytes) -> None:
        self._key = _loaded(signing_key, private=True)
        self.verifier = Ed25519Verifier(self._key.public_key().public_bytes_raw())

    def identity(self, name: str) -> bytes:
        """Return the four bytes that name the key."""
        return self.verifier.identity(name)

    def sign(self, text: bytes) -> bytes:
        """Return the signature of the text (RFC 8032)."""
        return bytes(self._key.sign(text))

    def signed(self, text: bytes, signature: bytes) -> bool:
        """Return whether this is a signature of the text by this key."""
        return self.verifier.signed(text, signature)


def _loaded(key: bytes, *, private: bool) -> Any:
    ed25519 = require("cryptography.hazmat.primitives.asymmetric.ed25519", "trail")
    pem = require("cryptography.hazmat.primitives.serialization", "trail")
    wanted = ed25519.Ed25519PrivateKey if private else ed25519.Ed25519PublicKey
    try:
        if len(key) == _RAW:
            return wanted.from_private_bytes(key) if private else wanted.from_public_bytes(key)
        found = pem.load_pem_private_key(key, password=None) if private else pem.load_pem_public_key(key)
    except (TypeError, ValueError) as error:
        raise TrailKeyError(_no_key(private, str(error))) from error
    if not isinstance(found, wanted):
        raise TrailKeyError(_no_key(private, f"found {type(found).__name__}"))
    return found


def _no_key(private: bool, found: str) -> str:
    half, command = ("private", "openssl genpkey -algorithm ed25519") if private else ("public", "openssl pkey -pubout")
    return f"an Ed25519 {half} key is 32 bytes or PEM, as `{command}` writes it, but this cannot be read: {found}."
