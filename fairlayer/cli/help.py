"""The help of all commands where the library that reads the command line is not installed."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, NoReturn

from fairlayer.errors import require

__all__ = ["HelpParser", "in_plain_words"]

_MISTYPED = re.compile(
    r"Parser key \"(?P<option>[\w.]+)\"(?: element (?P<place>\d+))?:\s+"
    r"Expected a <class '(?P<kind>int|float)'>\. Got value: (?P<value>.*)"
)
_KINDS = {"int": "a whole number, such as 100", "float": "a number, such as 0.5"}


def in_plain_words(message: str, known: Iterable[str] = ()) -> str:
    """Return a parser's message with options as they are written, and the near option or command for an unknown one.

    Example:
        >>> in_plain_words("the following arguments are required: predict.table, predict.run")
        'the following arguments are required: TABLE, RUN'
        >>> in_plain_words("unrecognized arguments: --taget y", ["--target", "--out"])
        "unrecognized arguments: --taget y; did you mean '--target'?"
        >>> in_plain_words("Parser key \\"b_tau\\":\\n  Expected a <class 'int'>. Got value: many")
        "--b-tau takes a whole number, such as 100, but 'many' was given."
    """
    message = _MISTYPED.sub(_mistyped, message)
    if "are required" in message:
        return re.sub(r"\b(?:[a-z]+\.)+([a-z_]+)", lambda found: found[1].upper(), message)
    unknown = re.search(r"unrecognized arguments: (--[\w-]+)", message)
    if unknown:
        found = get_close_matches(unknown[1], list(known), n=1)
        return message + (f"; did you mean '{found[0]}'?" if found else "")
    choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
    if choice:
        found = get_close_matches(choice[1], re.findall(r"[\w-]+", choice[2]), n=1)
        return message + (f"; did you mean '{found[0]}'?" if found else "")
    return message


def _mistyped(found: re.Match[str]) -> str:
    option = "--" + found["option"].rpartition(".")[2].replace("_", "-")
    which = "" if found["place"] is None else f" as value {found['place']}"
    return f"{option} takes {_KINDS[found['kind']]}, but '{found['value']}' was given{which}."


class HelpParser(argparse.ArgumentParser):
    """A parser that knows the options of `jsonargparse` and shows their help, but runs nothing.

    Example:
        >>> parser = HelpParser(prog="tool")
        >>> parser.add_subcommands(dest="command").add_subcommand("go", HelpParser(description="Go."), help="go")
        >>> try:
        ...     parser.parse_args(["go", "--help"])
        ... except SystemExit:
        ...     pass
        usage: tool go [-h]
        <BLANKLINE>
        Go.
        <BLANKLINE>
        options:
          -h, --help  show this help message and exit
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._inner: dict[str, HelpParser] = {}
        self._listed: Any = None

    def add_argument(self, *names: Any, **options: Any) -> Any:
        """Add an option; one that reads a configuration file is shown like any other."""
        if options.get("action") == "config":
            options["action"] = "store"
        return super().add_argument(*names, **options)

    def add_subcommands(self, **options: Any) -> HelpParser:
        """Return what takes the subcommands."""
        self._listed = self.add_argument_group("commands")
        return self

    def add_subcommand(self, name: str, parser: HelpParser, *, help: str = "") -> None:
        """Add a subcommand."""
        self._inner[name] = parser
        self._listed.add_argument(name, nargs="?", help=help)

    def parse_args(self, words: Any = None, namespace: Any = None) -> NoReturn:
        """Show the help that the words ask for; for anything else say which extra is missing."""
        words = list(words or [])
        name = next((word for word in words if not word.startswith("-")), None)
        if name in self._inner:
            self._inner[name].prog = f"{self.prog} {name}"
            self._inner[name].parse_args(words[words.index(name) + 1 :])
        if not words or {"-h", "--help"} & set(words):
            self.print_help()
            raise SystemExit(0)
        require("jsonargparse", "train")
        raise SystemExit(2)  # it was installed meanwhile
