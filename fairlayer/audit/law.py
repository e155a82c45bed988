"""Pointers to law, from one dated file. They are not advice, and nothing in this package states that a law is kept."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from importlib.resources import files

__all__ = ["STALE_AFTER_DAYS", "Pointer", "law_table", "pointers"]

STALE_AFTER_DAYS = 180


@dataclass(frozen=True)
class Pointer:
    """One provision.

    Args:
        sector: such as "credit".
        jurisdiction: where it applies.
        provision: what it is called.
        says: what it asks for, in short.
        status: whether it is in force, and since when.
        confirmed: which text of the law, or page of the authority, says so; "" where only secondary sources do.
        as_of: the day on which the source was read.
        source: where it was read.
    """

    sector: str
    jurisdiction: str
    provision: str
    says: str
    status: str
    confirmed: str
    as_of: date
    source: str

    @property
    def standing(self) -> str:
        """The status with what it rests on; "to be checked" where nothing confirms it."""
        return f"{self.status}; {f'confirmed: {self.confirmed}' if self.confirmed else 'to be checked'}"

    def stale(self, today: date) -> bool:
        """Return whether it was read more than `STALE_AFTER_DAYS` days before a day."""
        return (today - self.as_of).days > STALE_AFTER_DAYS


def pointers() -> tuple[Pointer, ...]:
    """Return every entry of the file.

    Example:
        >>> {pointer.jurisdiction for pointer in pointers()} >= {"European Union", "New York City", "Colorado"}
        True
    """
    told = json.loads((files("fairlayer.audit") / "law.json").read_text(encoding="utf-8"))
    return tuple(
        Pointer(
            entry["sector"],
            entry["jurisdiction"],
            entry["provision"],
            entry["says"],
            entry["status"],
            entry["confirmed"],
            date.fromisoformat(entry["as_of"]),
            entry["source"],
        )
        for entry in told["entries"]
    )


def law_table() -> str:
    """Return the table of the page on law and use, in Markdown."""
    lines = ["| for | provision | what it says | status, and when it was read |", "|---|---|---|---|"]
    lines += [
        f"| {p.sector}: {p.jurisdiction} | [{p.provision}]({p.source}) | {p.says} | {p.standing} (read on {p.as_of}) |"
        for p in pointers()
    ]
    return "\n".join(lines) + "\n"
