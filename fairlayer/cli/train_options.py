"""The options of `fairlayer train` and `fairlayer predict`."""

from __future__ import annotations

import argparse
from typing import Any

from fairlayer.cli.options import IfGiven, Repeat, add_constraints, add_force, add_reading, add_training, new_parser
from fairlayer.cli.routes import add_predict_routes, add_train_routes
from fairlayer.training import known_constraints

__all__ = ["add_predict", "add_train"]


def add_train(commands: Any) -> None:
    """Add `fairlayer train`."""
    train = new_parser(
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
    train.add_argument(
        "--positive",
        help="The value of the target that counts as 1 (default: '1' beside '0', or 'True' beside 'False').",
    )
    train.add_argument(
        "--task",
        choices=("classification", "regression"),
        default="classification",
        help="Whether the target is a class or an amount (default: %(default)s).",
    )
    train.add_argument("--out", help="The run folder to write. It is needed.")
    add_force(train)
    add_reading(train)
    train.add_argument(
        "--missing",
        choices=("refuse", "drop"),
        default="refuse",
        help="What to do where rows have no target: stop, or leave them out (default: %(default)s).",
    )
    _add_columns(train)
    add_constraints(train)
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
    add_training(train)
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


def add_predict(commands: Any) -> None:
    """Add `fairlayer predict`."""
    predict = new_parser(
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
