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
    """The parser of all commands."""
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
    commands.add_subcommand("train", train, help="train on a table and compare with an unconstrained model")
    train.add_argument("--config", action="config", help="config.yaml of a run; options after it override it")
    train.add_argument(
        "table",
        nargs="?",
        action=IfGiven,
        help="CSV (plain or compressed) or parquet file with a header row; needed without --config",
    )
    train.add_argument("--target", help="column to predict; needed")
    train.add_argument("--positive", help="value of the target that counts as 1 (default: '1' or 'True')")
    train.add_argument(
        "--task",
        choices=("classification", "regression"),
        default="classification",
        help="what the target is (default: %(default)s)",
    )
    train.add_argument("--out", help="run folder to write; needed")
    _add_force(train)
    add_reading(train)
    train.add_argument(
        "--missing",
        choices=("refuse", "drop"),
        default="refuse",
        help="rows whose target is missing: stop, or leave them out (default: %(default)s)",
    )
    _add_columns(train)
    _add_constraints(train)
    train.add_argument("--bounds", help="LOW,HIGH of predictions, for regression (classification: 0,1)")
    train.add_argument(
        "--margin", type=float, default=1e-4, help="distance kept from the bounds (default: %(default)s)"
    )
    train.add_argument("--b-tau", type=int, default=256, help="smallest inference batch (default: %(default)s)")
    train.add_argument(
        "--on-infeasible",
        choices=("raise", "relax"),
        default="raise",
        help="when no prediction meets every limit: stop, or widen all limits by the least (default: raise)",
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
        help="such as 'demographic_parity_difference > 0.1', 'accuracy_drop > 0.01', 'seconds > 600'; repeat",
    )
    train.add_argument("--seeds", type=int, nargs="+", help="several runs, one folder each, and a table of them")
    train.add_argument(
        "--logger",
        action=Repeat,
        default=[],
        metavar="NAME",
        help="csv, tensorboard, wandb, mlflow, comet, or a class of Lightning's loggers by its dotted name; repeat",
    )
    train.add_argument("--resume", metavar="RUN", help="go on with a run that was cut off, as it was configured")
    train.add_argument(
        "--accept-changed-data", action="store_true", help="take another table than that of the configuration"
    )
    train.add_argument("--record", type=dict, help=argparse.SUPPRESS)  # of a config.yaml


def _add_columns(train: Any) -> None:
    train.add_argument(
        "--sensitive",
        action=Repeat,
        default=[],
        help="column whose groups are shown, or several joined as race+sex for their intersections; repeat. Those "
        "that constraints compare are implied",
    )
    train.add_argument("--drop-sensitive", action="store_true", help="keep sensitive columns out of the features")
    train.add_argument(
        "--drop", action=Repeat, default=[], metavar="COLUMN", help="column that is not to be a feature; repeat"
    )
    train.add_argument(
        "--use",
        action=Repeat,
        default=[],
        metavar="COLUMN",
        help="column that is to be a feature although it looks like an id of the rows; repeat",
    )
    train.add_argument(
        "--categorical",
        action=Repeat,
        default=[],
        metavar="COLUMN",
        help="column of numbers that are codes, not amounts; repeat",
    )
    train.add_argument(
        "--cut",
        action=Repeat,
        default=[],
        metavar="COLUMN=EDGES",
        help="groups from a number: age=25,59 makes age_group",
    )
    train.add_argument(
        "--split-column",
        help="column with train / test (/ valid); default: 'split' if there, else a random split",
    )


def add_reading(command: Any) -> None:
    """Add how the table's file is written."""
    command.add_argument(
        "--separator", metavar="CHARACTER", help="between cells: comma, semicolon, tab, bar, or the character itself"
    )
    command.add_argument("--encoding", help="of the letters, such as utf-8, latin-1, cp1252 (default: found out)")
    command.add_argument(
        "--na",
        action=Repeat,
        default=[],
        metavar="WORD",
        help="word that stands for a missing value, such as '?', beside empty cells; repeat",
    )


def _add_force(command: Any) -> None:
    command.add_argument("--force", action="store_true", help="write into a folder that is not empty")


def _add_constraints(command: Any) -> None:
    command.add_argument(
        "--constraint",
        action=Repeat,
        default=[],
        metavar="TEXT",
        help="such as 'demographic_parity(sex, 0.02)', 'equalized_odds(sex+race, 0.05)'; repeat",
    )


def _add_training(command: Any) -> None:
    command.add_argument("--epochs", type=int, default=_DEFAULT.epochs, help="at most (default: %(default)s)")
    command.add_argument("--patience", type=int, default=_DEFAULT.patience, help="for early stopping (%(default)s)")
    command.add_argument("--batch-size", type=int, default=_DEFAULT.batch_size, help="default: %(default)s")
    command.add_argument("--learning-rate", type=float, default=_DEFAULT.learning_rate, help="default: %(default)s")
    command.add_argument(
        "--weight-decay", type=float, default=_DEFAULT.weight_decay, help="of AdamW (default: %(default)s)"
    )
    command.add_argument("--hidden", default="64,32", help="sizes of hidden layers (default: %(default)s)")
    command.add_argument(
        "--threads", type=int, default=1, help="of torch; small networks gain nothing from more (%(default)s)"
    )
    command.add_argument("--seed", type=int, default=0, help="of weights, batches and split (default: %(default)s)")


def _add_predict(commands: Any) -> None:
    predict = _parser(
        description="Score a table as one batch: raw scores beside projected ones. No labels are needed.",
    )
    commands.add_subcommand("predict", predict, help="apply a trained run to new rows")
    predict.add_argument("run", help="run folder that `train` wrote")
    predict.add_argument("table", help="CSV or parquet file with the columns of the training table")
    predict.add_argument(
        "--out",
        help="CSV file to write, needed: id, raw_score, score, decision, group, moved_by, covered (whether the "
        "constraints speak of the row's group)",
    )
    predict.add_argument("--id", metavar="COLUMN", help="column that names the rows, to write first")
    predict.add_argument("--keep", action=Repeat, default=[], metavar="COLUMN", help="column to write as it is; repeat")
    add_predict_routes(predict)
    predict.add_argument("--b-tau", type=int, help="smallest file to accept (default: as trained)")
    add_reading(predict)


def _add_stream(commands: Any) -> None:
    stream = _parser(
        description="Emit a prediction for each row as it comes, so that the gap of all predictions so far stays "
        "within tolerance; print it beside doing nothing and beside projecting the whole table at once.",
    )
    commands.add_subcommand("stream", stream, help="stream a table through a trained run, row by row")
    stream.add_argument("run", help="run folder that `train` wrote")
    stream.add_argument("table", help="CSV or parquet file with the columns of the training table, in order of arrival")
    stream.add_argument("--out", help="CSV file to write: score, streamed_score")
    stream.add_argument("--batch-size", type=int, default=1, help="rows that arrive together (default: %(default)s)")
    stream.add_argument("--plot", metavar="PNG", help="picture to write: pooled gap, shifts and phases over the stream")
    stream.add_argument(
        "--plot-report",
        metavar="PNG",
        help="picture to write: raw and emitted gap of each bucket, who was moved, phases",
    )
    stream.add_argument("--at", metavar="COLUMN", help="column of seconds that never fall: the clock of the window")
    stream.add_argument(
        "--decisions",
        action="store_true",
        help="decide each row too, by the decision rule of the run; the gap of all decisions so far stays within "
        "tolerance",
    )
    stream.add_argument(
        "--report",
        metavar="HTML",
        help="page to write: gaps of each bucket with the band, who was moved, phases, events, cost, and decisions",
    )
    stream.add_argument("--buckets", action="store_true", help="print the report of the stream, bucket by bucket")
    _add_policy(stream)
    add_reading(stream)


def _add_serve(commands: Any) -> None:
    serve = _parser(
        description="POST /score, /decide (where the run keeps a decision rule), /labels; GET /state, /metrics, "
        "/health, /ready, /docs. Without a token anybody who reaches the address can ask.",
    )
    commands.add_subcommand("serve", serve, help="score over HTTP through one stream")
    serve.add_argument("run", help="run folder that `train` wrote")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=int, default=8000, help="default: %(default)s")
    serve.add_argument(
        "--allowed-host",
        action="append",
        metavar="NAME",
        help="name that the Host header may have; may be repeated (default: names of this machine for itself where the "
        "address is one, else any)",
    )
    serve.add_argument(
        "--token-file",
        metavar="FILE",
        help="file with the token that requests must carry as 'Authorization: Bearer TOKEN' (default: the "
        "environment's FAIRLAYER_TOKEN, else none is asked for)",
    )
    serve.add_argument("--most-bytes", type=int, default=4_000_000, help="largest body (default: %(default)s)")
    serve.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        help="longest time for a request to arrive, and for requests under way at the end (default: %(default)s)",
    )
    serve.add_argument(
        "--unknown",
        choices=("refuse", "uncovered"),
        default="refuse",
        help="a sensitive category that training has not met: refuse the request, or score it, count it, and let no "
        "constraint cover it (default: %(default)s)",
    )
    serve.add_argument(
        "--decision-policy",
        default="anytime",
        metavar="POLICY",
        help="how the decisions of /decide are held, see --policy (default: %(default)s, which bounds the gap of all "
        "decisions so far)",
    )
    serve.add_argument(
        "--store",
        metavar="STORE",
        help="what keeps the stream over a restart: a file (SQLite, one process), or postgresql://... for several "
        "(default: none)",
    )
    serve.add_argument(
        "--workers", type=int, default=1, help="processes; more than one need postgresql://... (default: %(default)s)"
    )
    serve.add_argument(
        "--shares",
        type=int,
        help="processes over all hosts that the allowed excess is shared among, with postgresql://... (default: "
        "--workers)",
    )
    serve.add_argument(
        "--lease",
        type=float,
        default=0.01,
        help="by how much all of them together may move a gap while they do not hear of each other, in units of the "
        "score (default: %(default)s)",
    )
    serve.add_argument(
        "--synchronous",
        choices=("normal", "full"),
        default="normal",
        help="of a file: full also outlives a power cut, at one disk flush per request (default: %(default)s)",
    )
    _add_policy(serve)


def _add_policy(command: Any) -> None:
    command.add_argument(
        "--policy",
        default="present",
        help="present, tracking, anytime or per_batch, or a policy of your own as package.module:Class "
        "(default: %(default)s)",
    )
    command.add_argument("--memory", type=float, help="rows that count as recent (default: what the policy says)")
    command.add_argument("--half-life", type=float, help=argparse.SUPPRESS)
    command.add_argument("--window", help="rows, or a time such as 12h or 30d, over which gaps are reported")
    command.add_argument("--hold", choices=("window",), help="hold the gap of the window too (policy present)")
    command.add_argument("--warm-start", metavar="TABLE", help="rows like those to come, to begin from; not counted")


def _add_demo(commands: Any) -> None:
    demo = _parser(
        description="Without --data: a generated lending population with known bias, no network needed.",
    )
    commands.add_subcommand("demo", demo, help="train on a known data set, print a table and write a report")
    demo.add_argument("--data", default="lending", help=f"one of {', '.join(READERS)}, or the path of such a file")
    demo.add_argument("--out", default="demo-report", help="folder to write (default: %(default)s)")
    _add_force(demo)
    _add_constraints(demo)
    add_train_routes(demo)
    _add_training(demo)
