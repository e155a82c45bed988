"""The command line: `fairlayer COMMAND`, as `fairlayer --help` lists them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from fairlayer.cli.arguments import build_parser
from fairlayer.cli.commands import COMMANDS
from fairlayer.cli.config import INTERRUPTED, with_resumed_config
from fairlayer.cli.notes import warnings_told
from fairlayer.errors import FairlayerError

__all__ = ["main"]

UNREAD = 141  # as a shell counts a program that SIGPIPE ends


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code, 2 after a named error, 130 after Ctrl-C, 141 if nobody reads on."""
    try:
        words = with_resumed_config(sys.argv[1:] if argv is None else list(argv))
        arguments = build_parser().parse_args(words)
        with warnings_told():
            code = COMMANDS[arguments.command](arguments[arguments.command]) or 0
        sys.stdout.flush()
        return code
    except FairlayerError as error:
        print(f"fairlayer: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # such as `fairlayer ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python does not complain at exit
        return UNREAD
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
