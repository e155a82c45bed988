"""What can be said on the command line: all commands in one parser."""

from __future__ import annotations

from typing import Any

from fairlayer.cli.audit import add_audit
from fairlayer.cli.options import add_constraints, add_force, add_training, new_parser
from fairlayer.cli.recommend import add_check, add_recommend
from fairlayer.cli.report import add_report
from fairlayer.cli.routes import add_train_routes
from fairlayer.cli.stream_options import add_serve, add_stream
from fairlayer.cli.trail import add_trail
from fairlayer.cli.train_options import add_predict, add_train
from fairlayer.data import READERS

__all__ = ["build_parser"]


def build_parser() -> Any:
    """Return the parser of all commands."""
    parser = new_parser(
        prog="fairlayer",
        description="Train, serve and audit models, and keep the group means of every batch within a tolerance.",
    )
    commands = parser.add_subcommands(dest="command", required=True, metavar="COMMAND")
    add_train(commands)
    add_predict(commands)
    add_stream(commands)
    add_serve(commands)
    add_audit(commands)
    add_report(commands)
    add_check(commands)
    add_recommend(commands)
    add_trail(commands)
    _add_demo(commands)
    return parser


def _add_demo(commands: Any) -> None:
    demo = new_parser(
        description="Train on a known data set, stream it, print tables and write a report. Without --data the data "
        "are a generated lending population with a known bias, and no network is needed.",
    )
    commands.add_subcommand("demo", demo, help="Train on a known data set, print a table and write a report.")
    demo.add_argument("--data", default="lending", help=f"One of {', '.join(READERS)}, or the path of such a file.")
    demo.add_argument("--out", default="demo-report", help="The folder to write (default: %(default)s).")
    add_force(demo)
    add_constraints(demo)
    add_train_routes(demo)
    add_training(demo)
