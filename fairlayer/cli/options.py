"""Options that several commands share, and the parser that they are added to."""

from __future__ import annotations

import argparse
from typing import Any

from fairlayer.cli.help import HelpParser, in_plain_words
from fairlayer.errors import MissingExtraError, require
from fairlayer.training import FitOptions

__all__ = ["IfGiven", "Repeat", "add_constraints", "add_force", "add_reading", "add_training", "new_parser"]

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


def new_parser(**options: Any) -> Any:
    """Return a parser of one command: of jsonargparse, or, without it, one that can show its help."""
    try:
        jsonargparse = require("jsonargparse", "train")
    except MissingExtraError:
        return HelpParser(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    class Parser(jsonargparse.ArgumentParser):  # type: ignore[misc,name-defined]
        def error(self, message: str, *more: Any, **rest: Any) -> Any:
            """Name options as they are written on the command line, and the near one for one that is unknown."""
            return super().error(in_plain_words(message, self._option_string_actions), *more, **rest)

    return Parser(formatter_class=argparse.RawDescriptionHelpFormatter, **options)


def add_reading(command: Any) -> None:
    """Add how the table's file is written."""
    command.add_argument(
        "--separator",
        metavar="CHARACTER",
        help="What stands between cells: comma, semicolon, tab, bar, space, or the character itself.",
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


def add_force(command: Any) -> None:
    """Add the leave to write into a folder that is not empty."""
    command.add_argument("--force", action="store_true", help="Write into the folder although it is not empty.")


def add_constraints(command: Any) -> None:
    """Add the constraints as text."""
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


def add_training(command: Any) -> None:
    """Add how long and in what steps a network is trained."""
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
        "--learning-rate",
        type=float,
        default=_DEFAULT.learning_rate,
        help="The learning rate without constraints (default: %(default)s). Training through the layer, which goes on "
        "from there, takes a quarter of it.",
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
