"""The command line: `fairlayer audit`, `report`, `train`, `predict`, `stream`, `serve`, `trail`, `demo`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fairlayer.cli.arguments import build_parser
from fairlayer.cli.commands import COMMANDS
from fairlayer.cli.config import with_resumed_config
from fairlayer.errors import FairlayerError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: that of the command, 0 where it has none; 2 after a named error."""
    try:
        words = with_resumed_config(sys.argv[1:] if argv is None else list(argv))
        arguments = build_parser().parse_args(words)
        return COMMANDS[arguments.command](arguments[arguments.command]) or 0
    except (FairlayerError, OSError) as error:
        print(f"fairlayer: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
