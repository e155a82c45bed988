"""Every statement of law has a date and a source, and the page says the same as the file."""

from __future__ import annotations

import re
import warnings
from datetime import date
from pathlib import Path

from fairlayer.audit.law import STALE_AFTER_DAYS, law_table, pointers
from fairlayer.routes import methods_table

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_entry_is_dated_sourced_and_confirmed_or_to_be_checked() -> None:
    found = pointers()
    assert len(found) >= 10
    for one in found:
        assert one.source.startswith("https://"), one.provision
        assert date(2026, 1, 1) <= one.as_of, one.provision
        assert ("to be checked" in one.standing) != bool(one.confirmed), one.provision
        assert one.says
        assert not re.search(r"\b(complies|compliant|compliance)\b", one.says), one.provision


def test_an_old_entry_is_warned_of() -> None:
    old = [one.provision for one in pointers() if one.stale(date.today())]
    if old:
        warnings.warn(
            f"these entries of fairlayer/audit/law.json are older than {STALE_AFTER_DAYS} days: {old}", stacklevel=1
        )
    assert any(one.confirmed for one in pointers())
    first = pointers()[0]
    assert first.stale(date(2028, 1, 1))
    assert not first.stale(first.as_of)


def test_the_pages_are_those_of_the_tables() -> None:
    assert law_table() in (DOCS / "law-and-use.md").read_text(encoding="utf-8")
    assert methods_table() in (DOCS / "choosing.md").read_text(encoding="utf-8")


def test_the_law_of_new_york_is_said_to_have_no_limit() -> None:
    [one] = [p for p in pointers() if p.jurisdiction == "New York City"]
    assert "names no value that a ratio must reach" in one.says
