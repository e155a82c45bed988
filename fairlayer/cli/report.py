"""`fairlayer report`: the page of a trained run, at any time, and of new rows with outcomes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fairlayer.audit import Provenance, Supplied, read_supplied
from fairlayer.cli.audit import add_outputs, command_line, show_and_write
from fairlayer.cli.options import Repeat, add_reading, new_parser
from fairlayer.cli.reading import read_told
from fairlayer.errors import DataError
from fairlayer.report import (
    StreamSection,
    alternatives_among,
    alternatives_of,
    check_signature,
    document_text,
    read_document,
    write_page,
)
from fairlayer.routes import Route, TrainedRoutes
from fairlayer.serving import stored_section
from fairlayer.training import audit_kept, audit_run, audit_trained, load_run, model_hash
from fairlayer.training.kept import THROUGH

__all__ = ["AUDIT", "PAGE", "add_report", "keep_stream", "run_report", "write_report"]

AUDIT, PAGE = "audit.json", "report.html"


def add_report(commands: Any) -> None:
    """Add the command."""
    report = new_parser(
        description="Write the page of a trained run: what it bounds, whom it moved, and what it cost. With a table of "
        "new rows that have outcomes, the same is measured on those. The exit codes are those of `fairlayer audit`.",
    )
    commands.add_subcommand("report", report, help="Write the page of a trained run.")
    report.add_argument("run", help="The run folder that `train` wrote, or a document that `audit --json` wrote.")
    report.add_argument("table", nargs="?", help="A CSV or parquet file of new rows, with the target.")
    add_reading(report)
    report.add_argument(
        "--sensitive",
        action=Repeat,
        default=[],
        metavar="COLUMN",
        help="Further columns of the table whose groups are shown.",
    )
    report.add_argument(
        "--fail-on",
        action=Repeat,
        default=[],
        metavar="CONDITION",
        help=(
            "With a table: a condition of failure, such as 'demographic_parity_difference > 0.1' or"
            " 'accuracy_drop > 0.01'. It may be given several times."
        ),
    )
    report.add_argument(
        "--verify",
        metavar="PEM",
        help=(
            "An Ed25519 public key. The command then says whether the file that is named in place of the run is as "
            "--sign left it, and exits with 0 if it is and with 1 if it is not."
        ),
    )
    report.add_argument("--about", metavar="YAML", help="With a table: a file with what only people can say.")
    report.add_argument(
        "--store",
        metavar="FILE",
        help="The file in which a service of the run keeps its stream, which is shown period by period.",
    )
    report.add_argument(
        "--policy", default="present", help="The policy by which that service holds the stream (default: %(default)s)."
    )
    report.add_argument(
        "--alternatives",
        metavar="FOLDER",
        help="The folder of a sweep, whose candidates are shown with the reason why each was not chosen.",
    )
    report.add_argument("--chosen", metavar="VALUE", help="The value of the sweep that was chosen.")
    report.add_argument(
        "--maximise", default="accuracy", metavar="MEASURE", help="The measure of the sweep (default: %(default)s)."
    )
    report.add_argument(
        "--minimise", default="gap", metavar="MEASURE", help="The measure of the sweep (default: %(default)s)."
    )
    add_outputs(report)


def run_report(arguments: argparse.Namespace) -> int:
    """Write the page, or check a signature; return the exit code of the verdict."""
    folder = Path(arguments.run)
    if arguments.verify is not None:
        return _verify(folder, Path(arguments.verify))
    document = _kept(folder, arguments) if arguments.table is None else _measured(folder, arguments)
    if arguments.store is not None:
        document["stream"] = stored_section(load_run(folder), arguments.store, policy=arguments.policy).to_dict()
    if arguments.alternatives is not None:
        document["alternatives"] = alternatives_of(
            arguments.alternatives,
            chosen=arguments.chosen,
            maximise=arguments.maximise,
            minimise=arguments.minimise,
        )
    if not any((arguments.html, arguments.json, arguments.markdown, arguments.card)):
        arguments.html = str((folder.parent if folder.is_file() else folder) / PAGE)
    show_and_write(document, arguments)
    return int(document["exit_code"])


def _verify(path: Path, public_key: Path) -> int:
    if check_signature(path, public_key.read_bytes()):
        print(f"'{path}' is as the owner of this key signed it.")
        return 0
    print(f"'{path}' is not what the owner of this key signed: it, its signature, or the key is another one.")
    return 1


def write_report(
    folder: Path,
    found: TrainedRoutes,
    kept: Route,
    *,
    table: str | None,
    limits: Iterable[str] = (),
    seconds: float | None = None,
    stream: StreamSection | None = None,
    inference: bool = False,
) -> dict[str, Any]:
    """Write the document and the page of a training into its run folder; return the document.

    They are about the route that the folder keeps; the other routes stand beside it as alternatives.
    """
    parts, trained = found.parts, found.trained
    origin: dict[str, Any] = {
        "model": folder.name,
        "model_sha256": model_hash(folder),
        "command": command_line(sys.argv),
        "seed": trained.options.seed,
    }
    told: dict[str, Any] = {
        "limits": limits,
        "seconds": seconds,
        "provenance": Provenance.now(**origin) if table is None else Provenance.of_file(table, **origin),
        "supplied": Supplied({"title": f"Audit of the run {folder.name}"}),
        "sections": {
            "alternatives": alternatives_among(found.routes, kept.name),
            **({} if stream is None else {"stream": stream.to_dict()}),
        },
    }
    if kept.name == THROUGH.name:
        audited = audit_trained(parts, trained, inference=inference, **told)
    else:
        comparison, run = trained.comparison, found.run(kept.name)
        audited = audit_kept(
            run,
            parts.test,
            batch_size=comparison.batch_size,
            watched=parts.sensitive,
            data=comparison.data,
            split=comparison.split,
            rows=comparison.rows,
            chosen_by=f"It was chosen by {found.routes.criterion}, on {found.routes.rows['valid']:,} validation rows.",
            history=None if run.route.scored_by == "trees" else trained.history_svg(),
            warnings=parts.warnings,
            **told,
        )
    document = audited.to_dict()
    (folder / AUDIT).write_text(document_text(document), encoding="utf-8")
    write_page(folder / PAGE, document)
    return document


def keep_stream(folder: Path, stream: StreamSection) -> bool:
    """Put a stream into the document and the page of a run folder; return whether there is one."""
    if not (folder / AUDIT).is_file():
        return False
    document = {**read_document(folder / AUDIT), "stream": stream.to_dict()}
    (folder / AUDIT).write_text(document_text(document), encoding="utf-8")
    write_page(folder / PAGE, document)
    return True


def _kept(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.fail_on or arguments.about or arguments.sensitive:
        raise DataError(
            "--fail-on, --about and --sensitive need the rows themselves: name a table after the run folder. Without "
            "one, the page is made from what `train` kept."
        )
    path = folder if folder.is_file() else folder / AUDIT
    if not path.is_file():
        raise DataError(
            f"'{folder}' holds no {AUDIT}, which `fairlayer train` writes. Train again, or name a table with outcomes: "
            f"fairlayer report {folder} new.csv."
        )
    return read_document(path)


def _measured(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    frame = read_told(arguments, folder)
    supplied = Supplied() if arguments.about is None else read_supplied(arguments.about, [*map(str, frame.columns)])
    found = audit_run(
        load_run(folder),
        frame,
        data=Path(arguments.table).name,
        sensitive=arguments.sensitive,
        limits=arguments.fail_on,
        supplied=supplied,
        provenance=Provenance.of_file(
            arguments.table, model=folder.name, model_sha256=model_hash(folder), command=command_line(sys.argv)
        ),
    )
    return found.to_dict()
