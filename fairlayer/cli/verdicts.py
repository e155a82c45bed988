"""An audit on the console, in 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from fairlayer.report.figures import count, named, number, percent
from fairlayer.report.reading import Reader

__all__ = ["say", "show_audit", "show_verdicts"]

WIDTH = 80


def show_audit(document: Mapping[str, Any]) -> None:
    """Print the first screen of a document: outcome, question and answer, who is worse off, who was moved, the cost."""
    head = document["headline"]
    say(f"{document['outcome']}: {head['outcome']}")
    for sentence in head["reversals"]:
        say(sentence)
    for one in head["asked"]:
        say(f"{one['question']}")
        say(f"{one['outcome']}: {one['answer'].removeprefix('Not evaluated. ')}", "  ")
    if not head["asked"]:
        decided = any("selection_rate" in grouping["overall"] for grouping in document["groupings"])
        example = "demographic_parity_difference > 0.1" if decided else "mean_score_parity_difference > NUMBER"
        say(f"Say when it fails: --fail-on '{example}'.")
    say(" ".join(head["on_whom"]))
    for title, name in (("Worse off", "worse_off"), ("Grown", "grew"), ("Moved", "moved"), ("Cost", "cost")):
        if name == "grew" and not head[name]:
            continue
        print(f"{title}:")
        for sentence in head[name] or ["nobody, as far as groups with enough people tell."]:
            say(Reader.readable(sentence), "  ")
    _groups(document)
    for sentence in document["warnings"]:
        say(f"Warning: {sentence}")


def show_verdicts(document: Mapping[str, Any]) -> None:
    """Print every limit with its outcome, and what a reader must know."""
    for one in document["verdicts"]:
        say(f"{one['outcome']}: {one['question']} {one['answer'].removeprefix('Not evaluated. ')}")
    head = document["headline"]
    for sentence in head["reversals"] + [Reader.readable(one) for one in head["grew"]] + document["warnings"]:
        say(f"Warning: {sentence}")


def _groups(document: Mapping[str, Any]) -> None:
    for grouping in document["groupings"]:
        if not grouping["asked"]:
            continue
        print(f"By {' x '.join(grouping['by'])}:")
        for group in grouping["groups"]:
            rate = group["numbers"].get("selection_rate")
            told = _mean(group) if rate is None else f", positive {percent(rate['value'])}"
            people = "person" if group["rows"] == 1 else "people"
            mark = "" if group["standing"] == "counted" else f" ({_STANDINGS[group['standing']]})"
            say(f"{named(group['name'])}: {count(group['rows'])} {people}{told}{mark}", "  ")


def _mean(group: Mapping[str, Any]) -> str:
    found = group["numbers"].get("mean_score")
    return "" if found is None else f", mean score {number(found['value'])}"


_STANDINGS = {"small": "too few for the headline", "unknown": "group not known", "empty": "nobody"}


def say(text: str, indent: str = "") -> None:
    """Print a text in lines of 80 columns; a path or a hash stays whole, so that it can be copied."""
    lines = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    print("\n".join(lines))
