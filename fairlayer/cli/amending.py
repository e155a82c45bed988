"""`fairlayer trail` override, erase and prune: what people do about rows, in a file or in the chains of a database."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Sequence
from typing import TypeVar

from fairlayer.cli.verdicts import say
from fairlayer.errors import DataError
from fairlayer.streaming.store import forget_ids
from fairlayer.streaming.stores.postgres import forget_shared
from fairlayer.trail import AuditTrail, ChainRow, JointTrail, Override, Pruning, read_key

__all__ = ["erase", "erase_in_chains", "key_of", "override", "override_in_chains", "prune", "prune_chains"]

_Place = TypeVar("_Place")


def key_of(arguments: argparse.Namespace) -> bytes | None:
    """Return the key of the trail, None where none is named."""
    return None if arguments.key_file is None else read_key(arguments.key_file)


def override(arguments: argparse.Namespace) -> int:
    """Write that a person decided otherwise; return the exit code."""
    with AuditTrail(arguments.file, key=key_of(arguments), create=False) as trail:
        if arguments.chain is not None:
            raise DataError(f"'{arguments.file}' is one chain: leave out --chain, which is for a database.")
        found = trail.rows_of(arguments.subject, "decision") if arguments.subject is not None else []
        change = _change(arguments, _one_row(arguments, found, arguments.row))
        [row] = trail.append(change)
    say(f"Row {row}: {_said(change)}")
    return 0


def _change(arguments: argparse.Namespace, row: int) -> Override:
    decision, why = _decided(arguments.decision), arguments.why or "not given"
    return Override(time=time.time(), row=row, decision=decision, who=arguments.who, why=why)


def _said(change: Override) -> str:
    return f"{change.who} decided {change.decision} instead of what row {change.row} says."


def _one_row(arguments: argparse.Namespace, decisions: Sequence[_Place], named: _Place) -> _Place:
    """Return the row that is meant: the one named, or the last decision about the subject."""
    if (arguments.row is None) == (arguments.subject is None):
        raise DataError("one decision is overridden: name it by --row NUMBER, or by --subject NAME for the last one.")
    if arguments.row is not None:
        return named
    if not decisions:
        raise DataError(
            f"no decision about '{arguments.subject}' is in the trail, or it was erased. A sealed trail finds subjects "
            "by its key only (--key-file)."
        )
    return decisions[-1]


def _decided(text: str) -> int | float | str:
    """Return a decision as the trail's own are written: a number where it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def erase(arguments: argparse.Namespace) -> int:
    """Delete the content about a person; return the exit code."""
    with AuditTrail(arguments.file, key=key_of(arguments), create=False) as trail:
        known = trail.rows_of(arguments.subject)
        forgotten = forget_ids(arguments.file, _ids_of(arguments.subject)) if known else None
        erased = trail.erase(  # the file is rewritten last, so that what the stream forgot is not in it either
            arguments.subject,
            time=time.time(),
            who=arguments.who,
            why=arguments.why or "",
            vacuum=not arguments.later,
        )
    say(f"Erased: the content of {erased.count} rows. That is in the trail.")
    if forgotten is not None:
        say(
            f"The stream in the same file has forgotten {forgotten} answers to this id. Its log may name the id until "
            "the next snapshot: for at most a thousand requests, or until the service ends."
        )
    return 0


def _ids_of(subject: str) -> list[str | int]:
    """Return the ids of requests that a trail names so: 17 and "17" are two ids of one name."""
    whole = re.fullmatch(r"0|-?[1-9]\d{0,18}", subject)
    return [subject, int(subject)] if whole and -(2**63) <= int(subject) < 2**63 else [subject]


def prune(arguments: argparse.Namespace) -> int:
    """Drop old segments; return the exit code."""
    with AuditTrail(arguments.file, key=key_of(arguments), create=False) as trail:
        pruned = trail.prune(time=time.time(), who=arguments.who, keep_days=arguments.keep_days)
    say(f"Dropped: {_dropped(pruned)}")
    return 0


def _dropped(pruned: Pruning) -> str:
    if not pruned.through:
        return "nothing; no segment is old enough."
    return f"all segments up to number {pruned.through}, with {pruned.rows} rows. That is in the trail."


def override_in_chains(arguments: argparse.Namespace) -> int:
    """Write the same into the chain that holds the decision."""
    trail = JointTrail(arguments.file, key=key_of(arguments))
    if (arguments.chain is None) != (arguments.row is None):
        raise DataError("rows of different chains have the same numbers: name a row by --chain NAME and --row NUMBER.")
    found = trail.rows_of(arguments.subject, "decision") if arguments.subject is not None else []
    chain, overridden = _one_row(arguments, found, ChainRow(arguments.chain, arguments.row))
    change = _change(arguments, overridden)
    [row] = trail.append(chain, change)
    say(f"Chain {chain}, row {row}: {_said(change)}")
    return 0


def erase_in_chains(arguments: argparse.Namespace) -> int:
    """Delete the content about a person in every chain."""
    trail = JointTrail(arguments.file, key=key_of(arguments))
    known = trail.rows_of(arguments.subject)
    vacuum = not arguments.later
    forgotten = forget_shared(arguments.file, _ids_of(arguments.subject), vacuum=vacuum) if known else 0
    erased = trail.erase(arguments.subject, time=time.time(), who=arguments.who, why=arguments.why or "", vacuum=vacuum)
    rows = sum(each.count for each in erased.values())
    say(f"Erased: the content of {rows} rows in {len(erased)} chains. That is in each of these.")
    say(
        f"The streams in the same database have forgotten {forgotten} answers to this id. The log of a worker may name "
        "the id until its next exchange, about a second. The server's write-ahead log and your backups are yours to "
        "end."
    )
    return 0


def prune_chains(arguments: argparse.Namespace) -> int:
    """Drop old segments of every chain."""
    trail = JointTrail(arguments.file, key=key_of(arguments))
    for name, pruned in trail.prune(time=time.time(), who=arguments.who, keep_days=arguments.keep_days).items():
        say(f"{name}: {_dropped(pruned)}")
    return 0
