"""A written document, signed: an Ed25519 signature of its bytes in a file beside it, which OpenSSL checks too."""

from __future__ import annotations

from pathlib import Path

from fairlayer.errors import DataError
from fairlayer.trail import Ed25519Signer, Ed25519Verifier

__all__ = ["check_signature", "sign_file"]


def sign_file(path: str | Path, signing_key: bytes) -> Path:
    """Write the signature of a file's bytes (RFC 8032, 64 bytes) beside it, as NAME.sig; return its path.

    Args:
        path: the path of a page, a document or a model card.
        signing_key: Ed25519 private key, 32 bytes or PEM, such as the one that signs a trail's checkpoints.

    Raises:
        TrailKeyError: it is no such key.
        MissingExtraError: the library `cryptography` is not installed.

    Example:
        >>> _ = Path("audit.html").write_text("<!doctype html>")
        >>> sign_file("audit.html", bytes(32)).name
        'audit.html.sig'
    """
    path = Path(path)
    signature = path.with_name(path.name + ".sig")
    signature.write_bytes(Ed25519Signer(signing_key).sign(path.read_bytes()))
    return signature


def check_signature(path: str | Path, public_key: bytes, signature: str | Path | None = None) -> bool:
    """Return whether a file is as it was when the owner of a key signed it.

    Args:
        path: the path of the file.
        public_key: Ed25519 public key, 32 bytes or PEM.
        signature: the file that holds the signature; NAME.sig beside the file by default.

    Raises:
        DataError: one of the files cannot be read.
        TrailKeyError: it is no such key.
        MissingExtraError: the library `cryptography` is not installed.

    Example:
        >>> from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        >>> public = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
        >>> _ = Path("audit.html").write_text("<!doctype html>")
        >>> _ = sign_file("audit.html", bytes(32))
        >>> check_signature("audit.html", public)
        True
    """
    path = Path(path)
    beside = path.with_name(path.name + ".sig") if signature is None else Path(signature)
    try:
        content, signed = path.read_bytes(), beside.read_bytes()
    except OSError as error:
        raise DataError(
            f"the signature of '{path}' cannot be checked ({error}). It is written by --sign, beside the file."
        ) from error
    return Ed25519Verifier(public_key).signed(content, signed)
