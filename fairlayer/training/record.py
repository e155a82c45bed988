"""What a run was made from: the data's hash, and the versions of what computed it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairlayer.audit.provenance import library_versions, sha256_of
from fairlayer.errors import DataError

__all__ = ["ChangedDataError", "check_data", "other_versions", "record_of"]


class ChangedDataError(DataError):
    """A table is not the one that a configuration was written for."""


def record_of(table: str | Path) -> dict[str, Any]:
    """Return the SHA-256 of a table's file, and the versions of Python and of what computes.

    Example:
        >>> _ = Path("people.csv").write_text("sex,age\\nF,40\\n")
        >>> sorted(record_of("people.csv"))
        ['data_sha256', 'versions']
    """
    return {"data_sha256": sha256_of(table), "versions": library_versions()}


def check_data(table: str | Path, record: Mapping[str, Any]) -> None:
    """Compare a table with the record of a configuration.

    Raises:
        ChangedDataError: the file's content is another one.

    Example:
        >>> _ = Path("people.csv").write_text("sex,age\\nF,40\\n")
        >>> check_data("people.csv", record_of("people.csv"))
    """
    expected, found = record.get("data_sha256"), sha256_of(table)
    if expected is not None and expected != found:
        raise ChangedDataError(
            f"the configuration was written for a table with SHA-256 {expected[:12]}..., but '{table}' has "
            f"{found[:12]}... . Give the same file, or say that another one is meant (--accept-changed-data)."
        )


def other_versions(record: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return library -> (version recorded, version here), where they differ.

    Args:
        record: what `record_of` returned when the run was made.

    Example:
        >>> _ = Path("people.csv").write_text("sex,age\\nF,40\\n")
        >>> other_versions(record_of("people.csv"))
        {}
    """
    here = library_versions()
    then = record.get("versions", {})
    return {name: (then[name], here.get(name, "-")) for name in then if then[name] != here.get(name)}
