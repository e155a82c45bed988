"""`fairlayer recommend` and `fairlayer check`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairlayer.audit import EXIT_CODES, Audit, gravest
from fairlayer.audit.checklists import validation_list
from fairlayer.cli.options import Repeat, add_reading, new_parser
from fairlayer.cli.reading import read_told
from fairlayer.cli.report import AUDIT, PAGE
from fairlayer.cli.verdicts import say
from fairlayer.errors import DataError
from fairlayer.report import document_text, read_document, write_page
from fairlayer.routes import Check, Situation, check_run, check_seeds, recommend
from fairlayer.routes.recommendation import DEFINITIONS, MODELS, PROMISES
from fairlayer.training import load_run

__all__ = ["add_check", "add_recommend", "run_check", "run_recommend"]

# seed -> the audit of a run that is trained anew, as its folder's configuration says
Train = Callable[[Path, int], Audit]


def add_recommend(commands: Any) -> None:
    """Add the command."""
    parser = new_parser(description="Say which method fits a situation, why, and what it does not give.")
    commands.add_subcommand("recommend", parser, help="Say which method fits a situation.")
    parser.add_argument("--model", choices=MODELS, default="any", help="The kind of model (default: %(default)s).")
    parser.add_argument(
        "--definition",
        choices=DEFINITIONS,
        default="demographic_parity",
        help="What should be equal between groups (default: %(default)s).",
    )
    parser.add_argument(
        "--promise",
        choices=PROMISES,
        default="scores",
        help="Whether the promise is about scores or about decisions (default: %(default)s).",
    )
    parser.add_argument("--no-group", action="store_true", help="Say that the group is not known when a score is made.")
    parser.add_argument("--group-is-input", action="store_true", help="Say that the model reads the group.")
    parser.add_argument("--soft", action="store_true", help="Say that no bound has to hold in every batch.")
    parser.add_argument("--stream", action="store_true", help="Say that people come one by one.")
    parser.add_argument("--smallest-group", type=int, metavar="N", help="The number of people in the smallest group.")


def run_recommend(arguments: argparse.Namespace) -> None:
    """Print the recommendation."""
    found = recommend(
        Situation(
            arguments.model,
            arguments.definition,
            arguments.promise,
            group_at_inference=not arguments.no_group,
            group_is_input=arguments.group_is_input,
            hard=not arguments.soft,
            stream=arguments.stream,
            smallest_group=arguments.smallest_group,
        )
    )
    for line in str(found).splitlines():
        say(line)


def add_check(commands: Any) -> None:
    """Add the command."""
    parser = new_parser(
        description="Check a trained run under other limits, with people reweighted and shifted, on other people, and "
        "with other seeds. Each check prints one line. The exit codes are those of `fairlayer audit`.",
    )
    commands.add_subcommand("check", parser, help="Check a trained run under changes.")
    parser.add_argument("run", help="The run folder that `train` wrote.")
    parser.add_argument("table", help="A CSV or parquet file, with the target, of rows that were not trained on.")
    add_reading(parser)
    parser.add_argument(
        "--population",
        action=Repeat,
        default=[],
        metavar="TABLE",
        help=(
            "A file of other people, such as those of another state, with the columns and the target of the training "
            "table. It may be given several times."
        ),
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[], help="Train anew with these seeds, and compare.")
    parser.add_argument("--seed", type=int, default=0, help="The seed of the resampling (default: %(default)s).")
    parser.add_argument(
        "--fail-on",
        action=Repeat,
        default=[],
        metavar="CONDITION",
        help="A condition of failure, as in `fairlayer audit`. It may be given several times.",
    )


def run_check(arguments: argparse.Namespace, train: Train) -> int:
    """Run every check, print a line for each, add them to the run's page; return the gravest exit code."""
    folder = Path(arguments.run)
    run, frame = load_run(folder), read_told(arguments, folder)
    if len(frame) < run.layered.b_tau:
        raise DataError(
            f"'{arguments.table}' has {len(frame)} rows, fewer than the smallest batch of the run, "
            f"{run.layered.b_tau}. Name a larger table."
        )
    populations = {path: read_told(arguments, folder, path) for path in arguments.population}
    checks = list(check_run(run, frame, limits=arguments.fail_on, populations=populations, seed=arguments.seed))
    if arguments.seeds:
        checks.append(check_seeds({seed: train(folder, seed) for seed in dict.fromkeys(arguments.seeds)}))
    for check in checks:
        say(str(check))
    _keep(folder, checks)
    return EXIT_CODES[gravest(check.outcome for check in checks)]


def _keep(folder: Path, checks: list[Check]) -> None:
    path = folder / AUDIT
    if not path.is_file():
        return
    document = read_document(path)
    document["checks"] = [check.to_dict() for check in checks]
    document["checklists"]["validation"] = validation_list(document)
    path.write_text(document_text(document), encoding="utf-8")
    write_page(folder / PAGE, document)
    print(f"The checks were added to {folder / PAGE}.")
