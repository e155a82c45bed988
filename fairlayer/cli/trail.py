"""`fairlayer trail`: verify, report, export and checkpoint an audit trail; override, erase and prune in it."""

from __future__ import annotations

import argparse
import getpass
import json
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from fairlayer.cli.amending import (
    erase,
    erase_in_chains,
    key_of,
    override,
    override_in_chains,
    prune,
    prune_chains,
)
from fairlayer.cli.options import new_parser
from fairlayer.cli.verdicts import say
from fairlayer.errors import DataError
from fairlayer.trail import (
    AuditTrail,
    PeriodReport,
    Verification,
    copy_chains,
    joint_checkpoint,
    report,
    rows_between,
    verify,
    verify_chains,
)

__all__ = ["add_trail", "run_trail"]

TAMPERED = 1
POSTGRES = ("postgresql://", "postgres://")


def add_trail(commands: Any) -> None:
    """Add the command and its verbs."""
    trail = new_parser(
        description="Verify, report, export or amend an audit trail. A trail is one SQLite file, which "
        "fairlayer.trail.AuditTrail writes. On PostgreSQL each worker writes a chain of its own, and `copy` makes such "
        "a file of each. `verify` exits with 0 where nothing was found, with 1 where something was, and with 2 on an "
        "error."
    )
    commands.add_subcommand("trail", trail, help="Verify, report, export or amend an audit trail.")
    verbs = trail.add_subcommands(dest="verb", required=True, metavar="VERB")
    for verb, (what, options) in _VERBS.items():
        parser = new_parser(description=what)
        verbs.add_subcommand(verb, parser, help=what)
        parser.add_argument("file", help="The SQLite file of the trail, or the database.")
        for name in options:
            parser.add_argument(f"--{name}", **{**_OPTIONS[name], **_NEEDED.get((verb, name), {})})


def run_trail(arguments: argparse.Namespace) -> int:
    """Run one of the verbs; return the exit code."""
    given = getattr(arguments, arguments.verb)
    shared = {
        "verify": _verify_chains,
        "checkpoint": _checkpoint_chains,
        "copy": _copy,
        "override": override_in_chains,
        "erase": erase_in_chains,
        "prune": prune_chains,
    }
    if str(given.file).startswith(POSTGRES):
        if arguments.verb not in shared:
            raise DataError(
                f"`trail {arguments.verb}` reads one file, but was given a database. Copy its chains to files first: "
                "fairlayer trail copy postgresql://... --out FOLDER"
            )
        return shared[arguments.verb](given)
    if arguments.verb == "copy":
        raise DataError("`trail copy` makes files of the chains in a database: give postgresql://...")
    verbs = {
        "verify": _verify,
        "report": _report,
        "export": _export,
        "checkpoint": _checkpoint,
        "override": override,
        "erase": erase,
        "prune": prune,
    }
    return verbs[arguments.verb](given)


def _say_lines(text: str) -> None:
    """Print lines in 80 columns, each with the indent that it has."""
    for line in text.splitlines():
        say(line.lstrip(), " " * (len(line) - len(line.lstrip())))


def _verify_chains(arguments: argparse.Namespace) -> int:
    if arguments.incremental or any(each is not None for each in _period(arguments)):
        raise DataError("a database is verified whole: leave out --incremental, --from and --to, or copy it to files.")
    found = verify_chains(
        arguments.file,
        checkpoint=_text(arguments.checkpoint),
        key=key_of(arguments),
        public_key=_bytes(arguments.public_key),
    )
    _say_lines(str(found))
    return 0 if found.ok else TAMPERED


def _checkpoint_chains(arguments: argparse.Namespace) -> int:
    who, signing = arguments.who or getpass.getuser(), _bytes(arguments.signing_key)
    print(
        joint_checkpoint(arguments.file, time=time.time(), who=who, key=key_of(arguments), signing_key=signing), end=""
    )
    return 0


def _copy(arguments: argparse.Namespace) -> int:
    for name, path in copy_chains(arguments.file, arguments.out or "trail").items():
        print(f"{name}: {path}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    if arguments.incremental and arguments.checkpoint is None:
        raise DataError("--incremental goes on from a checkpoint: name the file that holds it by --checkpoint.")
    found = verify(
        arguments.file,
        checkpoint=_text(arguments.checkpoint),
        key=key_of(arguments),
        public_key=_bytes(arguments.public_key),
        incremental=arguments.incremental,
    )
    _say_lines(str(found))
    start, end = _period(arguments)
    if found.ok and (start is not None or end is not None):
        _show_period(found, arguments.file, start, end)
    return 0 if found.ok else TAMPERED


def _show_period(found: Verification, path: str, start: float | None, end: float | None) -> None:
    first = last = None
    for row in rows_between(path, start, end):
        first, last = row.row if first is None else first, row.row
    if first is None or last is None:
        say("The period holds no row.")
    else:
        say(f"The period holds rows {first} to {last}: {found.level_of(last)}.")


def _report(arguments: argparse.Namespace) -> int:
    start, end = _period(arguments)
    if arguments.who is not None:
        with AuditTrail(arguments.file, key=key_of(arguments), create=False) as trail:
            trail.read(time=time.time(), who=arguments.who, start=start, end=end)
    counted = report(arguments.file, start, end)
    if arguments.json is not None:
        Path(arguments.json).write_text(json.dumps(counted.as_dict(), indent=2, ensure_ascii=False), encoding="utf-8")
    _say_lines("\n".join(_lines(counted)))
    return 0


def _lines(counted: PeriodReport) -> list[str]:
    lines = [f"Trail {counted.trail}: {counted.rows} rows from {_moment(counted.first_time)} to "
             f"{_moment(counted.last_time)}. Counted, not verified: see `fairlayer trail verify`."]  # fmt: skip
    for cell in counted.cells:
        name = ", ".join(f"{key}={value}" for key, value in cell.cells.items()) or "(no cells)"
        scores = f"; mean score {cell.mean_raw:.4f} -> {cell.mean_emitted:.4f}" if cell.scored else ""
        lines.append(f"  {name}: {cell.rows} decisions ({_counts(cell.decisions)}){scores}")
    for name, counts in (
        ("rows by kind", counted.kinds),
        ("models", counted.models),
        ("policies", counted.policies),
        ("overrides by", counted.overrides),
        ("overridden", counted.overridden),
        ("read by", counted.reads),
        ("exported by", counted.exports),
        ("rows erased by", counted.erased_by),
    ):
        lines.append(f"{name}: {_counts(counts)}")
    lines += [f"changed: {json.dumps(change, ensure_ascii=False)}" for change in counted.configurations]
    lines.append(f"rows without content: {counted.erased}; prunings: {counted.prunings}")
    lines.append(f"gaps in the sequence: {counted.gaps or 'none'}; clock went back: {counted.clock_back} times")
    return lines


def _export(arguments: argparse.Namespace) -> int:
    start, end = _period(arguments)
    out = arguments.out or str(Path(arguments.file).with_suffix(".parquet"))
    who = arguments.who or getpass.getuser()
    with AuditTrail(arguments.file, key=key_of(arguments), create=False) as trail:
        count = trail.export(out, time=time.time(), who=who, start=start, end=end)
    say(f"Rows: {out} ({count} rows; that {who} exported them is in the trail)")
    return 0


def _checkpoint(arguments: argparse.Namespace) -> int:
    with AuditTrail(
        arguments.file, key=key_of(arguments), signing_key=_bytes(arguments.signing_key), create=False
    ) as trail:
        print(trail.checkpoint(time=time.time(), who=arguments.who or getpass.getuser()), end="")
    return 0


def _period(arguments: argparse.Namespace) -> tuple[float | None, float | None]:
    """Return seconds since 1970 in UTC: from the first day's beginning to the last day's end."""
    first, last = getattr(arguments, "from"), arguments.to
    start = None if first is None else _midnight("--from", first)
    return start, None if last is None else _midnight("--to", last, days=1)


def _midnight(option: str, text: str, days: int = 0) -> float:
    try:
        day = date.fromisoformat(text) + timedelta(days=days)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{option} is a date such as 2026-10-01, but was given '{text}'.") from error
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def _moment(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{seconds!r}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(counts.items())) or "none"


def _bytes(path: str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


def _text(path: str | None) -> str | None:
    return None if path is None else Path(path).read_text(encoding="utf-8")


_OPTIONS: dict[str, dict[str, Any]] = {
    "from": {"metavar": "DATE", "help": ("The first day of the period, in UTC (default: from the beginning).")},
    "to": {"metavar": "DATE", "help": "The last day of the period, in UTC (default: to the end)."},
    "key-file": {"metavar": "FILE", "help": "The file with the key of the trail, as hexadecimal digits."},
    "public-key": {"metavar": "FILE", "help": "The file with the Ed25519 public key, as PEM."},
    "signing-key": {"metavar": "FILE", "help": "The file with the Ed25519 private key, as PEM."},
    "checkpoint": {"metavar": "FILE", "help": "A checkpoint that was held outside."},
    "incremental": {"action": "store_true", "help": "Read only what was written after the checkpoint."},
    "who": {
        "metavar": "NAME",
        "help": ("The name that is recorded in the trail (default for export and checkpoint: your user name)."),
    },
    "json": {"metavar": "FILE", "help": "Write the same numbers as JSON."},
    "row": {"type": int, "metavar": "NUMBER", "help": "The row of the decision that is overridden."},
    "chain": {"metavar": "NAME", "help": "The chain of that row, in a database, such as scores.0."},
    "subject": {
        "metavar": "NAME",
        "help": "The person whom it is about, by the name that the trail was given; for a service that is an id.",
    },
    "decision": {"metavar": "VALUE", "help": "The decision that holds instead."},
    "why": {"metavar": "REASON", "help": "The reason given. It stays in the trail, so it must not name the person."},
    "later": {"action": "store_true", "help": "Do not rewrite the file now, for which writers would have to wait."},
    "keep-days": {
        "type": float,
        "metavar": "DAYS",
        "help": "The number of days for which rows are kept (default: 183, which is also the least).",
    },
    "out": {"metavar": "PARQUET", "help": "The file to write (default: beside the trail); for `copy`, the folder."},
}
_VERBS: dict[str, tuple[str, tuple[str, ...]]] = {
    "verify": (
        "Say what is not as it was written, and what that answer is worth.",
        ("key-file", "public-key", "checkpoint", "incremental", "from", "to"),
    ),
    "report": (
        "Count the decisions, overrides, reads and erasures of a period.",
        ("from", "to", "json", "who", "key-file"),
    ),
    "export": (
        "Write the rows of a period as Parquet, and record who did so.",
        ("from", "to", "out", "who", "key-file"),
    ),
    "checkpoint": ("Close the open segment and print its checkpoint.", ("who", "key-file", "signing-key")),
    "override": (
        "Record that a person decided otherwise.",
        ("chain", "row", "subject", "decision", "who", "why", "key-file"),
    ),
    "erase": (
        "Delete the content of all rows about a person, and record that it was deleted.",
        ("subject", "who", "why", "later", "key-file"),
    ),
    "copy": ("Copy the chains that workers wrote on PostgreSQL to a file each.", ("out",)),
    "prune": (
        "Drop old segments whose checkpoints were handed out, and record that they were dropped.",
        ("who", "keep-days", "key-file"),
    ),
}
_NEEDED: dict[tuple[str, str], dict[str, Any]] = {
    (verb, name): {"required": True}
    for verb, names in {"override": ("decision", "who"), "erase": ("subject", "who"), "prune": ("who",)}.items()
    for name in names
}
