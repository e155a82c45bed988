"""Pointers to law, from one dated file. They are not advice, and nothing in this package states that a law is kept."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from typing import Literal, TypeAlias, get_args

from fairlayer.errors import ParameterError

__all__ = ["STALE_AFTER_DAYS", "Checked", "Pointer", "cited", "law_table", "pointers"]

STALE_AFTER_DAYS = 180
Checked: TypeAlias = Literal["text", "quoted", "unchecked"]
_MEANT = {"text": "read", "quoted": "quoted by others"}


@dataclass(frozen=True)
class Pointer:
    """One provision.

    Args:
        sector: such as "credit".
        jurisdiction: where it applies.
        provision: what it is called.
        says: what it asks for, in short.
        status: whether it is in force, and since when.
        checked: "text" where the law's own words, or a page of the authority, were read; "quoted" where its words were
            read as others quote or describe them, and at least two of them agree; "unchecked" where neither was.
        basis: what was read; "" where nothing was.
        as_of: the day on which it was looked up.
        source: where it was read.

    Raises:
        ParameterError: `checked` is none of the three, or what it says was read does not go with it.
    """

    sector: str
    jurisdiction: str
    provision: str
    says: str
    status: str
    checked: Checked
    basis: str
    as_of: date
    source: str

    def __post_init__(self) -> None:
        if self.checked not in get_args(Checked) or (self.checked == "unchecked") == bool(self.basis):
            raise ParameterError(
                f"{self.provision}: checked={self.checked!r} does not go with basis={self.basis!r}. An entry whose "
                'text was read, or is quoted by others, says where; any other is "unchecked" and has no basis.'
            )

    @property
    def standing(self) -> str:
        """When it was looked up, and its status; of an unchecked entry only that it was not checked."""
        if self.checked == "unchecked":
            return f"not checked on {self.as_of}, so that nothing of it is printed"
        return f"{_MEANT[self.checked]}, {self.as_of}: {self.status}"

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
    return tuple(Pointer(**{**entry, "as_of": date.fromisoformat(entry["as_of"])}) for entry in told["entries"])


def cited(words: str) -> Pointer:
    """Return the one entry whose provision has these words.

    Args:
        words: such as "Annex IV".

    Raises:
        ParameterError: no entry has them, or several have.

    Example:
        >>> cited("Local Law 144").jurisdiction
        'New York City'
    """
    found = [one for one in pointers() if words in one.provision]
    if len(found) != 1:
        raise ParameterError(f"{words!r} is in the names of {len(found)} provisions of the file of law, not of one.")
    return found[0]


def law_table(entries: Iterable[Pointer] | None = None) -> str:
    """Return the table of the page on law and use, in Markdown; of unchecked entries only that they exist.

    Args:
        entries: which ones; None for all of the file.
    """
    lines = ["| for | provision | what it says | status, and what was read |", "|---|---|---|---|"]
    for p in pointers() if entries is None else entries:
        place = f"{p.sector}: {p.jurisdiction}"
        if p.checked == "unchecked":
            lines.append(f"| {place} | {p.provision} | – | {p.standing} |")
            continue
        meant = f"{p.status}. {_MEANT[p.checked].capitalize()} on {p.as_of}: {p.basis}"
        lines.append(f"| {place} | [{p.provision}]({p.source}) | {p.says} | {meant} |")
    return "\n".join(lines) + "\n"
