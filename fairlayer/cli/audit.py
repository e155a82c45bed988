"""`fairlayer audit`: a table of predictions -> verdict, page, JSON and exit code."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fairlayer.audit import Columns, Provenance, Supplied, Wanted, audit_frame, read_supplied
from fairlayer.cli.options import Repeat, add_reading, new_parser
from fairlayer.cli.reading import cut_names, read_told
from fairlayer.cli.verdicts import show_audit
from fairlayer.data import parse_cut
from fairlayer.data.columns import check_cuts
from fairlayer.errors import DataError
from fairlayer.report import FORMATS, document_text, public_document, sign_file, write_card, write_markdown, write_page

__all__ = ["add_audit", "add_outputs", "run_audit", "show_and_write"]

EPILOG = """exit codes:
  0  PASS           every limit holds, allowing for chance
  1  FAIL           a limit is broken by more than chance can explain
  2                 a named error; nothing was judged
  3  INCONCLUSIVE   these people cannot tell
  4  NOT EVALUATED  no limit was asked for, or one could not be judged

example:
  fairlayer audit scored.csv --target repaid --score score --sensitive sex --sensitive race+sex \\
    --fail-on 'demographic_parity_difference > 0.1' --html report.html --json audit.json"""


def add_audit(commands: Any) -> None:
    """Add the command."""
    audit = new_parser(
        description="Audit the scores or decisions of any model: who is worse off, and whether limits hold.",
        epilog=EPILOG,
    )
    commands.add_subcommand("audit", audit, help="Audit the predictions of any model, by group.")
    audit.add_argument(
        "table", help="A CSV file (plain or compressed) or a parquet file, with one row for each person."
    )
    add_reading(audit)
    _add_columns(audit)
    _add_question(audit)
    audit.add_argument("--about", metavar="YAML", help="A file with what only people can say: purpose, reasons, roles.")
    audit.add_argument("--checkpoint", metavar="FILE", help="A checkpoint of an audit trail, to be named in the page.")
    audit.add_argument("--proxies", action="store_true", help="Measure what the other columns tell about the groups.")
    add_outputs(audit)
    audit.add_argument(
        "--kind",
        choices=("selection", "scoring"),
        default="selection",
        help="For --format ll144: what the tool does, select or score people.",
    )
    audit.add_argument(
        "--alike",
        action=Repeat,
        default=[],
        metavar="COLUMN",
        help="A column by which people are alike: the page says whether they are treated alike. Repeat it for more.",
    )
    audit.add_argument(
        "--interval",
        metavar="LOW,HIGH",
        help="The two columns of an interval for the outcome: the page says how often the outcome lies in it.",
    )
    audit.add_argument(
        "--label-set",
        metavar="COLUMN,COLUMN",
        help=(
            "A column for each label, that of label 0 first: the page says how often the set of a person holds the "
            "true label."
        ),
    )
    audit.add_argument(
        "--nominal",
        type=float,
        default=0.9,
        help="The share of intervals or sets that were to hold the outcome (default: %(default)s).",
    )
    audit.add_argument("--sex", metavar="COLUMN", help="For --format ll144: the column of the sex.")
    audit.add_argument("--race", metavar="COLUMN", help="For --format ll144: the column of race or ethnicity.")
    audit.add_argument(
        "--leave-out-small",
        metavar="REASON",
        help="For --format ll144: leave categories of less than 2 %% out of the ratios, for this reason.",
    )


def add_outputs(command: Any) -> None:
    """Add what a document can be written as."""
    command.add_argument("--html", metavar="FILE", help="The page to write, self-contained and printable.")
    command.add_argument(
        "--json", metavar="FILE", help="The document to write; its schema is fairlayer/audit/schema.json."
    )
    command.add_argument("--markdown", metavar="FILE", help="The file to write the same to in Markdown.")
    command.add_argument("--card", metavar="FILE", help="The model card to write, as Hugging Face reads it.")
    command.add_argument(
        "--sign",
        metavar="PEM",
        help="An Ed25519 private key: each file that is written is signed, in NAME.sig beside it.",
    )
    command.add_argument(
        "--format", choices=FORMATS, default="audit", help="The format of the page (default: %(default)s)."
    )
    command.add_argument(
        "--public",
        type=int,
        metavar="K",
        help="Write a version for the public, in which no group of fewer than K people can be found or computed.",
    )


def _add_columns(audit: Any) -> None:
    audit.add_argument("--score", metavar="COLUMN", help="The column of the prediction.")
    audit.add_argument(
        "--decision",
        metavar="COLUMN",
        help="The column of the decision that was taken (default: score >= threshold).",
    )
    audit.add_argument(
        "--decision-positive", metavar="VALUE", help="The value that is a positive decision (default: 1 beside 0)."
    )
    audit.add_argument(
        "--target", metavar="COLUMN", help="The column of the outcome. Without it nothing is said about errors."
    )
    audit.add_argument(
        "--positive", metavar="VALUE", help="The value of the target that counts as 1 (default: 1 beside 0)."
    )
    audit.add_argument(
        "--task",
        choices=("classification", "regression"),
        default="classification",
        help="Whether the target is a class or an amount (default: %(default)s).",
    )
    audit.add_argument(
        "--sensitive",
        action=Repeat,
        default=[],
        metavar="COLUMN",
        help="A column of groups; 'race+sex' crosses two. It may be given several times.",
    )
    audit.add_argument(
        "--cut", action=Repeat, default=[], metavar="COLUMN=EDGES", help="Make groups of a number: age=25,59."
    )
    audit.add_argument(
        "--unknown",
        action=Repeat,
        default=[],
        metavar="VALUE",
        help="A value that means 'not known'. It may be given several times.",
    )
    audit.add_argument(
        "--before", metavar="COLUMN", help="The column of the prediction before a correction; it shows who was moved."
    )
    audit.add_argument("--decision-before", metavar="COLUMN", help="The column of the decision before a correction.")
    audit.add_argument("--weight", metavar="COLUMN", help="The column that says how many people a row stands for.")
    audit.add_argument(
        "--stratum",
        action=Repeat,
        default=[],
        metavar="COLUMN",
        help="A column within whose values groups are compared too. It may be given several times.",
    )


def _add_question(audit: Any) -> None:
    audit.add_argument(
        "--threshold",
        type=float,
        help="The score from which on a decision is positive (default: 0.5 where scores lie in [0, 1]).",
    )
    audit.add_argument(
        "--fail-on",
        action=Repeat,
        default=[],
        metavar="CONDITION",
        help=(
            "A condition of failure, such as 'demographic_parity_difference > 0.1' or "
            "'selection_rate_ratio < 0.8 by race+sex'. It may be given several times."
        ),
    )
    audit.add_argument(
        "--reference",
        action=Repeat,
        default=[],
        metavar="GROUP",
        help="The group to compare with, such as sex=Male. It may be given several times.",
    )
    audit.add_argument(
        "--favourable",
        type=int,
        choices=(0, 1),
        default=1,
        help="The decision that is good for people; 0 where a high score is a burden.",
    )
    audit.add_argument(
        "--min-group-size", type=int, default=30, help="The smallest group that may stand in a headline."
    )
    audit.add_argument("--level", type=float, default=0.95, help="The level of the intervals (default: %(default)s).")
    audit.add_argument(
        "--practical",
        type=float,
        default=0.8,
        help="The ratio below which a difference counts as practically significant.",
    )


def run_audit(arguments: argparse.Namespace) -> int:
    """Audit a table; return the exit code of the verdict."""
    if not arguments.sensitive:
        raise DataError("an audit compares groups. Name their column, or several, by --sensitive COLUMN.")
    frame = read_told(arguments)
    cuts = tuple(parse_cut(text) for text in arguments.cut)
    check_cuts(frame, cuts)
    supplied = Supplied() if arguments.about is None else read_supplied(arguments.about, [*map(str, frame.columns)])
    found = audit_frame(
        frame,
        Columns(
            cut_names(arguments.sensitive, cuts),
            score=arguments.score,
            decision=arguments.decision,
            decision_positive=arguments.decision_positive,
            target=arguments.target,
            positive=arguments.positive,
            score_before=arguments.before,
            decision_before=arguments.decision_before,
            weight=arguments.weight,
            strata=arguments.stratum,
            cuts=cuts,
            unknown=arguments.unknown,
        ),
        wanted=_wanted(arguments),
        task=arguments.task,
        limits=arguments.fail_on,
        reference=arguments.reference,
        threshold=arguments.threshold,
        favourable=arguments.favourable,
        min_group_size=arguments.min_group_size,
        level=arguments.level,
        practical=arguments.practical,
        supplied=supplied,
        provenance=Provenance.of_file(
            arguments.table, command=command_line(sys.argv), trail_checkpoint=_text(arguments.checkpoint)
        ),
    )
    document = found.to_dict()
    show_and_write(document, arguments)
    return found.exit_code


def show_and_write(document: Mapping[str, Any], arguments: argparse.Namespace) -> None:
    """Write what was asked for, print the first screen, and say where the files are."""
    written = _written(document, arguments)  # first, since who reads the console may stop at any line
    show_audit(document)
    for line in written:
        print(line)


def _written(document: Mapping[str, Any], arguments: argparse.Namespace) -> list[str]:
    """Write what was asked for, and sign it where there is a key; return a line for each file."""
    if arguments.public is not None:
        document = public_document(document, smallest=arguments.public)
    written = []
    if arguments.json is not None:
        Path(arguments.json).write_text(document_text(document), encoding="utf-8")
        written.append(("Document", Path(arguments.json)))
    if arguments.html is not None:
        written.append(("Page", write_page(arguments.html, document, format=arguments.format)))
    if arguments.markdown is not None:
        written.append(("Markdown", write_markdown(arguments.markdown, document)))
    if arguments.card is not None:
        written.append(("Model card", write_card(arguments.card, document)))
    key = None if arguments.sign is None else Path(arguments.sign).read_bytes()
    signed = ["" if key is None else f", signed in {sign_file(path, key)}" for _, path in written]
    return [f"{what}: {path}{mark}" for (what, path), mark in zip(written, signed, strict=True)]


def command_line(words: Sequence[str]) -> str:
    """Return what was typed, without the folder of the program.

    Example:
        >>> command_line(["/usr/bin/fairlayer", "audit", "a b.csv"])
        "fairlayer audit 'a b.csv'"
    """
    return shlex.join(["fairlayer", *words[1:]])


def _wanted(arguments: argparse.Namespace) -> Wanted:
    impact = arguments.kind if arguments.format == "ll144" else None
    return Wanted(
        impact=impact,
        sex=arguments.sex,
        race=arguments.race,
        left_out_reason=arguments.leave_out_small,
        lending=arguments.format == "lending",
        proxies=arguments.proxies,
        alike=arguments.alike,
        interval=_names(arguments.interval),
        label_set=_names(arguments.label_set),
        nominal=arguments.nominal,
    )


def _names(text: str | None) -> list[str]:
    return [] if text is None else [name.strip() for name in text.split(",")]


def _text(path: str | None) -> str | None:
    return None if path is None else Path(path).read_text(encoding="utf-8").strip()
