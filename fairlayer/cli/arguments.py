"""What can be said on the command line."""

from __future__ import annotations

import argparse
from typing import Any

from fairlayer.cli.audit import add_audit
from fairlayer.cli.help import HelpParser, in_plain_words
from fairlayer.cli.recommend import add_check, add_recommend
from fairlayer.cli.report import add_report
from fairlayer.cli.routes import add_predict_routes, add_train_routes
from fairlayer.cli.trail import add_trail
from fairlayer.data import READERS
from fairlayer.errors import MissingExtraError, require
from fairlayer.training import FitOptions, known_constraints

__all__ = ["add_reading", "build_parser"]

_DEFAULT = FitOptions()


class Repeat(argparse.Action):
    """Collects the values of a repeated option; those given replace those of a configuration file."""

    _collecting: argparse.Namespace | None = None

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        before = getattr(namespace, self.dest) if self._collecting is namespace else []
        self._collecting = namespace
        setattr(namespace, self.dest, [*before, values])


class IfGiven(argparse.Action):
    """A positional argument that may be left out, and then leaves what a configuration file said."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        if values is not None:
            setattr(namespace, self.dest, values)


def build_parser() -> Any:
    """Return the parser of all commands."""
    parser = _parser(
        prog="fairlayer",
        description="Train and apply models that keep group means of every batch within a tolerance.",
    )
    commands = parser.add_subcommands(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_predict(commands)
    _add_stream(commands)
    _add_serve(commands)
    add_audit(commands, _parser, Repeat)
    add_report(commands, _parser, Repeat)
    add_check(commands, _parser, Repeat)
    add_recommend(commands, _parser)
    add_trail(commands, _parser)
    _add_demo(commands)
    return parser


def _parser(**options: Any) -> Any:
    try:
        jsonargparse = require("jsonargparse", "train")
    except MissingExtraError:
        return HelpParser(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    class Parser(jsonargparse.ArgumentParser):  # type: ignore[misc,name-defined]
        def error(self, message: str, *more: Any, **rest: Any) -> Any:
            """Name options as they are written on the command line, and the near one for one that is unknown."""
            return super().error(in_plain_words(message, self._option_string_actions), *more, **rest)

    return Parser(formatter_class=argparse.RawDescriptionHelpFormatter, **options)


def _add_train(commands: Any) -> None:
    train = _parser(
        description="Train an MLP through the layer on a CSV or parquet table, beside an unconstrained one.",
        epilog="constraints: " + ", ".join(known_constraints()) + "\n\n"
        "example:\n  fairlayer train adult.csv.gz --target income --positive '>50K' \\\n"
        "    --constraint 'demographic_parity(sex, 0.02)' --out run/",
    )
    commands.add_subcommand("train", train, help="Train on a table, and compare with an unconstrained model.")
    train.add_argument("--config", action="config", help="The config.yaml of a run; the options after it override it.")
    train.add_argument(
        "table",
        nargs="?",
        action=IfGiven,
        help=(
            "A CSV file (plain or compressed) or a parquet file with a header row. It is needed "
            "where --config is not given."
        ),
    )
    train.add_argument("--target", help="The column to predict. It is needed.")
    train.add_argument("--positive", help="The value of the target that counts as 1 (default: '1' or 'True').")
    train.add_argument(
        "--task",
        choices=("classification", "regression"),
        default="classification",
        help="What the target is (default: %(default)s).",
    )
    train.add_argument("--out", help="The run folder to write. It is needed.")
    _add_force(train)
    add_reading(train)
    train.add_argument(
        "--missing",
        choices=("refuse", "drop"),
        default="refuse",
        help="What to do where rows have no target: stop, or leave them out (default: %(default)s).",
    )
    _add_columns(train)
    _add_constraints(train)
    train.add_argument(
        "--bounds", help="The bounds LOW,HIGH of the predictions of a regression. Those of a classification are 0,1."
    )
    train.add_argument(
        "--margin",
        type=float,
        default=1e-4,
        help="The distance that predictions keep from the bounds (default: %(default)s).",
    )
    train.add_argument(
        "--b-tau",
        type=int,
        default=256,
        help="The smallest batch that is projected by itself (default: %(default)s).",
    )
    train.add_argument(
        "--on-infeasible",
        choices=("raise", "relax"),
        default="raise",
        help=(
            "What to do where no predictions meet every limit: stop, or widen all limits by the least (default: raise)."
        ),
    )
    add_train_routes(train)
    _add_training(train)
    _add_keeping(train)


def _add_keeping(train: Any) -> None:
    train.add_argument(
        "--fail-on",
        action=Repeat,
        default=[],
        metavar="CONDITION",
        help=(
            "A condition of failure, such as 'demographic_parity_difference > 0.1', 'accuracy_drop "
            "> 0.01' or 'seconds > 600'. It may be given several times."
        ),
    )
    train.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        help="Train one run for each seed, in a folder of its own, and write a table of them.",
    )
    train.add_argument(
        "--logger",
        action=Repeat,
        default=[],
        metavar="NAME",
        help=(
            "A logger: csv, tensorboard, wandb, mlflow, comet, or a class of Lightning's loggers by"
            " its dotted name. It may be given several times."
        ),
    )
    train.add_argument("--resume", metavar="RUN", help="Go on with a run that was cut off, as it was configured.")
    train.add_argument(
        "--accept-changed-data", action="store_true", help="Take another table than that of the configuration."
    )
    train.add_argument("--record", type=dict, help=argparse.SUPPRESS)  # of a config.yaml


def _add_columns(train: Any) -> None:
    train.add_argument(
        "--sensitive",
        action=Repeat,
        default=[],
        help=(
            "A column whose groups are shown, or several joined as race+sex for their "
            "intersections. It may be given several times. The columns that constraints compare are"
            " implied."
        ),
    )
    train.add_argument("--drop-sensitive", action="store_true", help="Keep the sensitive columns out of the features.")
    train.add_argument(
        "--drop",
        action=Repeat,
        default=[],
        metavar="COLUMN",
        help="A column that is not to be a feature. It may be given several times.",
    )
    train.add_argument(
        "--use",
        action=Repeat,
        default=[],
        metavar="COLUMN",
        help=(
            "A column that is to be a feature although it looks like an id of the rows. It may be given several times."
        ),
    )
    train.add_argument(
        "--categorical",
        action=Repeat,
        default=[],
        metavar="COLUMN",
        help="A column of numbers that are codes and not amounts. It may be given several times.",
    )
    train.add_argument(
        "--cut",
        action=Repeat,
        default=[],
        metavar="COLUMN=EDGES",
        help="Make groups of a number: age=25,59 makes the column age_group.",
    )
    train.add_argument(
        "--split-column",
        help="The column that says train, test or valid (default: 'split' where there is one, else a random split).",
    )


def add_reading(command: Any) -> None:
    """Add how the table's file is written."""
    command.add_argument(
        "--separator",
        metavar="CHARACTER",
        help="What stands between cells: comma, semicolon, tab, bar, or the character itself.",
    )
    command.add_argument(
        "--encoding", help="The encoding of the letters, such as utf-8, latin-1 or cp1252 (default: it is found out)."
    )
    command.add_argument(
        "--na",
        action=Repeat,
        default=[],
        metavar="WORD",
        help=(
            "A word that stands for a missing value, such as '?', beside empty cells. It may be given several times."
        ),
    )


def _add_force(command: Any) -> None:
    command.add_argument("--force", action="store_true", help="Write into the folder although it is not empty.")


def _add_constraints(command: Any) -> None:
    command.add_argument(
        "--constraint",
        action=Repeat,
        default=[],
        metavar="TEXT",
        help=(
            "A constraint, such as 'demographic_parity(sex, 0.02)' or 'equalized_odds(sex+race, "
            "0.05)'. It may be given several times."
        ),
    )


def _add_training(command: Any) -> None:
    command.add_argument(
        "--epochs", type=int, default=_DEFAULT.epochs, help="The largest number of epochs (default: %(default)s)."
    )
    command.add_argument(
        "--patience",
        type=int,
        default=_DEFAULT.patience,
        help="The number of epochs without an improvement after which training stops (default: %(default)s).",
    )
    command.add_argument(
        "--batch-size",
        type=int,
        default=_DEFAULT.batch_size,
        help="The number of rows in a batch (default: %(default)s).",
    )
    command.add_argument(
        "--learning-rate", type=float, default=_DEFAULT.learning_rate, help="The learning rate (default: %(default)s)."
    )
    command.add_argument(
        "--weight-decay",
        type=float,
        default=_DEFAULT.weight_decay,
        help="The weight decay of AdamW (default: %(default)s).",
    )
    command.add_argument("--hidden", default="64,32", help="The sizes of the hidden layers (default: %(default)s).")
    command.add_argument(
        "--threads",
        type=int,
        default=1,
        help="The number of threads of torch. Small networks gain nothing from more (default: %(default)s).",
    )
    command.add_argument(
        "--seed", type=int, default=0, help="The seed of weights, batches and split (default: %(default)s)."
    )


def _add_predict(commands: Any) -> None:
    predict = _parser(
        description="Score a table as one batch: raw scores beside projected ones. No labels are needed.",
    )
    commands.add_subcommand("predict", predict, help="Apply a trained run to new rows.")
    predict.add_argument("run", help="The run folder that `train` wrote.")
    predict.add_argument("table", help="A CSV or parquet file with the columns of the training table.")
    predict.add_argument(
        "--out",
        help=(
            "The CSV file to write. It is needed, and has the columns id, raw_score, score, "
            "decision, group, moved_by, and covered (whether the constraints speak of the row's "
            "group)."
        ),
    )
    predict.add_argument("--id", metavar="COLUMN", help="The column that names the rows. It is written first.")
    predict.add_argument(
        "--keep",
        action=Repeat,
        default=[],
        metavar="COLUMN",
        help="A column to write as it is. It may be given several times.",
    )
    add_predict_routes(predict)
    predict.add_argument("--b-tau", type=int, help="The smallest file to accept (default: as trained).")
    add_reading(predict)


def _add_stream(commands: Any) -> None:
    stream = _parser(
        description="Emit a prediction for each row as it comes, so that the gap of all predictions so far stays "
        "within tolerance; print it beside doing nothing and beside projecting the whole table at once.",
    )
    commands.add_subcommand("stream", stream, help="Stream a table through a trained run, row by row.")
    stream.add_argument("run", help="The run folder that `train` wrote.")
    stream.add_argument(
        "table", help="A CSV or parquet file with the columns of the training table, its rows in order of arrival."
    )
    stream.add_argument("--out", help="The CSV file to write, with the columns score and streamed_score.")
    stream.add_argument(
        "--batch-size", type=int, default=1, help="The number of rows that arrive together (default: %(default)s)."
    )
    stream.add_argument(
        "--plot",
        metavar="PNG",
        help="The picture to write: the pooled gap, the shifts and the phases over the stream.",
    )
    stream.add_argument(
        "--plot-report",
        metavar="PNG",
        help="The picture to write: the raw and the emitted gap of each bucket, who was moved, and the phases.",
    )
    stream.add_argument(
        "--at", metavar="COLUMN", help="The column that holds the clock of the window: seconds that never fall."
    )
    stream.add_argument(
        "--decisions",
        action="store_true",
        help=(
            "Decide each row too, by the decision rule of the run, so that the gap of all decisions"
            " so far stays within tolerance."
        ),
    )
    stream.add_argument(
        "--report",
        metavar="HTML",
        help=(
            "The page to write: the gaps of each bucket with the band, who was moved, phases, "
            "events, cost, and decisions."
        ),
    )
    stream.add_argument("--buckets", action="store_true", help="Print the report of the stream, bucket by bucket.")
    stream.add_argument(
        "--trail", metavar="FILE", help="The audit trail to write, with one row for each row of the table."
    )
    _add_trail_key(stream)
    _add_policy(stream)
    add_reading(stream)


def _add_serve(commands: Any) -> None:
    serve = _parser(
        description="POST /score, /decide (where the run keeps a decision rule), /labels; GET /state, /metrics, "
        "/health, /ready, /docs. Without a token anybody who reaches the address can ask.",
    )
    commands.add_subcommand("serve", serve, help="Answer over HTTP, through one stream.")
    serve.add_argument("run", help="The run folder that `train` wrote.")
    serve.add_argument("--host", default="127.0.0.1", help="The address to listen on (default: %(default)s).")
    serve.add_argument("--port", type=int, default=8000, help="The port to listen on (default: %(default)s).")
    serve.add_argument(
        "--allowed-host",
        action="append",
        metavar="NAME",
        help=(
            "A name that the Host header may have. It may be given several times (default: names of"
            " this machine for itself where the address is one, else any)."
        ),
    )
    serve.add_argument(
        "--token-file",
        metavar="FILE",
        help=(
            "The file with the token that requests must carry as 'Authorization: Bearer TOKEN' "
            "(default: the environment's FAIRLAYER_TOKEN, else none is asked for)."
        ),
    )
    serve.add_argument(
        "--most-bytes",
        type=int,
        default=4_000_000,
        help="The largest body of a request, in bytes (default: %(default)s).",
    )
    serve.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        help=(
            "The longest time for a request to arrive, and for requests that are under way at the "
            "end (default: %(default)s)."
        ),
    )
    serve.add_argument(
        "--unknown",
        choices=("refuse", "uncovered"),
        default="refuse",
        help=(
            "What to do with a sensitive category that training has not met: refuse the request, or"
            " score and count it while no constraint covers it (default: %(default)s)."
        ),
    )
    serve.add_argument(
        "--decision-policy",
        default="anytime",
        metavar="POLICY",
        help=(
            "How the decisions of /decide are held, see --policy (default: %(default)s, which "
            "bounds the gap of all decisions so far)."
        ),
    )
    serve.add_argument(
        "--store",
        metavar="STORE",
        help=(
            "What keeps the stream over a restart: a file (SQLite, for one process), or "
            "postgresql://... for several (default: none)."
        ),
    )
    serve.add_argument(
        "--workers",
        type=int,
        default=1,
        help="The number of processes; more than one need postgresql://... (default: %(default)s).",
    )
    serve.add_argument(
        "--shares",
        type=int,
        help=(
            "With postgresql://...: the number of processes, over all hosts, that share the allowed"
            " excess (default: --workers)."
        ),
    )
    serve.add_argument(
        "--lease",
        type=float,
        default=0.01,
        help=(
            "By how much all of them together may move a gap while they do not hear of each other, "
            "in units of the score (default: %(default)s)."
        ),
    )
    serve.add_argument(
        "--synchronous",
        choices=("normal", "full"),
        default="normal",
        help=(
            'How safely a file is written: "full" also outlives a power cut, at one disk flush per '
            "request (default: %(default)s)."
        ),
    )
    serve.add_argument(
        "--trail",
        metavar="FILE",
        help=(
            "The audit trail to write, with one row for each answer, in the transaction that counts it. The stream is "
            "kept in the same file, so that --store is left out. Decisions are kept in FILE.decisions. In place of a "
            "file it may be postgresql://..., where each worker writes a chain of its own."
        ),
    )
    _add_trail_key(serve)
    _add_policy(serve)


def _add_trail_key(command: Any) -> None:
    command.add_argument(
        "--trail-key",
        metavar="FILE",
        help=(
            "The file with the secret key of the trail, as hexadecimal digits (openssl rand -hex 32). The key seals "
            "the trail, hides ids, and commits to what the model read."
        ),
    )


def _add_policy(command: Any) -> None:
    command.add_argument(
        "--policy",
        default="present",
        help=(
            "The policy: present, tracking, anytime or per_batch, or one of your own as "
            "package.module:Class (default: %(default)s)."
        ),
    )
    command.add_argument(
        "--memory", type=float, help="The number of rows that count as recent (default: what the policy says)."
    )
    command.add_argument("--half-life", type=float, help=argparse.SUPPRESS)
    command.add_argument(
        "--window", help="The number of rows, or a time such as 12h or 30d, over which gaps are reported."
    )
    command.add_argument("--hold", choices=("window",), help="Hold the gap of the window too (policy present).")
    command.add_argument(
        "--warm-start",
        metavar="TABLE",
        help="A file of rows like those to come, to begin from. They are not counted.",
    )


def _add_demo(commands: Any) -> None:
    demo = _parser(
        description="Without --data: a generated lending population with known bias, no network needed.",
    )
    commands.add_subcommand("demo", demo, help="Train on a known data set, print a table and write a report.")
    demo.add_argument("--data", default="lending", help=f"One of {', '.join(READERS)}, or the path of such a file.")
    demo.add_argument("--out", default="demo-report", help="The folder to write (default: %(default)s).")
    _add_force(demo)
    _add_constraints(demo)
    add_train_routes(demo)
    _add_training(demo)
