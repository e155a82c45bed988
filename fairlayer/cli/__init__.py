"""The command line: `fairlayer train`, `predict`, `stream`, `serve`, `demo`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fairlayer.cli.arguments import build_parser
from fairlayer.cli.commands import COMMANDS
from fairlayer.errors import FairlayerError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 after a named error or an unusable path."""
    arguments = build_parser().parse_args(argv)
    try:
        COMMANDS[arguments.command](arguments)
    except (FairlayerError, OSError) as error:
        print(f"fairlayer: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0
