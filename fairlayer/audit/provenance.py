"""Where a result comes from: the date, the versions, the hash of the data, the command and the seed."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fairlayer._version import __version__
from fairlayer.errors import DataError

__all__ = ["Provenance", "library_versions", "sha256_of"]

LIBRARIES = ("torch", "numpy", "scipy", "lightning")


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that compute; "-" for one that is not installed."""
    found = {"python": platform.python_version(), "fairlayer": __version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "-"
    return found


@dataclass(frozen=True)
class Provenance:
    """What a reader needs to make the same result again. What nobody supplied is None.

    Args:
        date: the day and the time in UTC, such as "2026-11-29 10:30 UTC".
        data: the name of the table, without its folder.
        data_sha256: the SHA-256 of the table's file.
        model: the name of the model.
        model_sha256: the SHA-256 of the model's file.
        command: what was typed, or None where the audit was made from Python.
        seed: the seed of whatever was drawn by chance; None where nothing was.
        trail_checkpoint: the checkpoint of an audit trail that was held outside.
        versions: library -> version.

    Example:
        >>> Provenance(date="2026-11-29", data="scored.csv").to_dict()["data"]
        'scored.csv'
    """

    date: str | None = None
    data: str | None = None
    data_sha256: str | None = None
    model: str | None = None
    model_sha256: str | None = None
    command: str | None = None
    seed: int | None = None
    trail_checkpoint: str | None = None
    versions: dict[str, str] = field(default_factory=library_versions)

    @staticmethod
    def of_file(path: str | Path, **supplied: Any) -> Provenance:
        """Return the provenance of a result on a table's file, made now.

        Raises:
            DataError: there is no such file.
        """
        return Provenance.now(data=Path(path).name, data_sha256=sha256_of(path), **supplied)

    @staticmethod
    def now(**supplied: Any) -> Provenance:
        """Return the provenance of a result made now."""
        return Provenance(date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), **supplied)

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
        return {**vars(self), "versions": dict(self.versions)}


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file.

    Args:
        path: the path of a file.

    Raises:
        DataError: there is no such file.

    Example:
        >>> _ = Path("empty.csv").write_bytes(b"")
        >>> sha256_of("empty.csv")[:16]
        'e3b0c44298fc1c14'
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no file at '{path}'. Give the path of a .csv, .csv.gz or .parquet file.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
