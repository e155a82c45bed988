"""The command line: `fairlayer audit`, `report`, `train`, `predict`, `stream`, `serve`, `trail`, `demo`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fairlayer.cli.arguments import build_parser
from fairlayer.cli.commands import COMMANDS
from fairlayer.cli.config import INTERRUPTED, with_resumed_config
from fairlayer.errors import FairlayerError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: the command's, 2 after a named error, 130 after Ctrl-C."""
    try:
        words = with_resumed_config(sys.argv[1:] if argv is None else list(argv))
        arguments = build_parser().parse_args(words)
        return COMMANDS[arguments.command](arguments[arguments.command]) or 0
    except FairlayerError as error:
        print(f"fairlayer: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"fairlayer: {_in_words(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fairlayer: interrupted; nothing more is written.", file=sys.stderr)
        return INTERRUPTED


def _in_words(error: OSError) -> str:
    if error.filename is None:
        return f"{type(error).__name__}: {error}"
    return f"'{error.filename}' cannot be used: {error.strerror}. Give a path that can be read, or written."


def __dir__() -> list[str]:
    return list(__all__)
