"""Every statement of law has a date and a source and says what was read; what was not checked is not printed."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from fairlayer.audit.law import STALE_AFTER_DAYS, cited, law_table, pointers
from fairlayer.errors import ParameterError
from fairlayer.routes import methods_table

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_entry_is_dated_sourced_and_says_what_was_read() -> None:
    found = pointers()
    assert len(found) >= 10
    assert len({one.provision for one in found}) == len(found)
    for one in found:
        assert one.source.startswith("https://"), one.provision
        assert date(2026, 1, 1) <= one.as_of <= date.today(), one.provision
        assert str(one.as_of) in one.standing, one.provision
        assert one.says
        told = f"{one.says} {one.status} {one.basis}"
        assert not re.search(r"\b(complies|compliant|compliance)\b", told), one.provision


def test_an_unchecked_entry_is_named_and_nothing_of_it_is_printed() -> None:
    one = replace(cited("Local Law 144"), checked="unchecked", basis="")
    table = law_table([one, cited("Equality Act 2010")])
    assert one.provision in table
    assert "not checked" in one.standing
    for kept in (one.says, one.status, one.source):
        assert kept not in table
        assert kept not in one.standing
    assert cited("Equality Act 2010").says in table


@pytest.mark.parametrize(
    ("checked", "basis"), [("text", ""), ("quoted", ""), ("unchecked", "a page"), ("seen", "a page")]
)
def test_an_entry_that_says_it_was_checked_says_where(checked: Any, basis: str) -> None:
    with pytest.raises(ParameterError, match="does not go with basis"):
        replace(cited("Local Law 144"), checked=checked, basis=basis)


def test_a_provision_is_cited_by_words_that_only_it_has() -> None:
    assert cited("Annex IV").jurisdiction == "European Union"
    for words, count in (("Regulation", r"\d+"), ("Magna Carta", "0")):
        with pytest.raises(ParameterError, match=f"{count} provisions"):
            cited(words)


def test_an_old_entry_is_warned_of() -> None:
    old = [one.provision for one in pointers() if one.stale(date.today())]
    if old:
        warnings.warn(
            f"these entries of fairlayer/audit/law.json are older than {STALE_AFTER_DAYS} days: {old}", stacklevel=1
        )
    first = pointers()[0]
    assert first.stale(date(2028, 1, 1))
    assert not first.stale(first.as_of)


def test_the_pages_are_those_of_the_tables() -> None:
    assert law_table() in (DOCS / "law-and-use.md").read_text(encoding="utf-8")
    assert methods_table() in (DOCS / "choosing.md").read_text(encoding="utf-8")


def test_the_law_of_new_york_is_said_to_have_no_limit() -> None:
    assert "names no value that a ratio must reach" in cited("Local Law 144").says
