"""Write the reference of the command line from the parser itself."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import Any

from fairlayer.cli.arguments import build_parser

__all__ = ["page"]

HEAD = """# Command line

This page lists every command of `fairlayer` with every option, as the parser knows them. To learn the commands, read
[auditing predictions](../audit.md), [serving](../serving.md) or a [tutorial](../tutorials/index.md) first. The command line
needs the extra `train`: `pip install 'fairlayer[train]'`.

A command ends with exit code 0 where all is well, 2 after a named error (its text stands on standard error), and 130
after Ctrl-C. `audit` and `report` have further codes for their verdicts: 0 for PASS, 1 for FAIL, 3 for INCONCLUSIVE and
4 for NOT EVALUATED. A file may hold the options of a command: see the [configuration file](configuration.md).
"""


def page() -> str:
    """Return the page in Markdown.

    Example:
        >>> "## fairlayer audit" in page()
        True
    """
    parser = build_parser()
    parts = [HEAD, "| command | what it does |", "|---|---|"]
    found = dict(commands(parser))
    summaries = {action.dest: action.help for action in chooser(parser)._choices_actions}
    parts += [f"| [`fairlayer {name}`](#fairlayer-{name}) | {sentence(summaries[name])} |" for name in found]
    for name, inner in found.items():
        parts += ["", *section(f"fairlayer {name}", inner, 2)]
    return "\n".join(parts) + "\n"


def chooser(parser: Any) -> Any:
    """Return the action that takes the subcommands of a parser, or None."""
    return next((action for action in parser._actions if isinstance(action, argparse._SubParsersAction)), None)


def commands(parser: Any) -> Iterator[tuple[str, Any]]:
    """Yield the subcommands of a parser with their names."""
    action = chooser(parser)
    if action is not None:
        yield from action._name_parser_map.items()


def section(name: str, parser: Any, level: int) -> Iterator[str]:
    """Yield the lines of one command, its own subcommands included."""
    yield f"{'#' * level} {name}"
    if parser.description:
        yield ""
        yield escaped(parser.description)
    positional = [action for action in parser._actions if not action.option_strings and shown(action)]
    optional = [action for action in parser._actions if action.option_strings and shown(action)]
    words = " ".join(["[OPTIONS]"] * bool(optional) + [argument_name(action) for action in positional])
    inner = list(commands(parser))
    yield from ["", "```text", f"{name} {words}{' COMMAND' if inner else ''}".rstrip(), "```"]
    for title, actions in (("argument", positional), ("option", optional)):
        if actions:
            yield from ["", f"| {title} | what it says |", "|---|---|"]
            yield from (f"| {spelling(action)} | {explained(action)} |" for action in actions)
    if parser.epilog:
        yield from ["", "```text", parser.epilog.strip(), "```"]
    for word, below in inner:
        yield ""
        yield from section(f"{name} {word}", below, level + 1)


def shown(action: Any) -> bool:
    """Return whether an action is one that people use: not the help, not the list of subcommands, not hidden."""
    hidden = action.help == argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction)
    return not hidden and "--help" not in action.option_strings and action.dest != "help"


def argument_name(action: Any) -> str:
    """Return a positional argument as it stands in the line of use."""
    name = (action.metavar or action.dest).upper()
    return {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} [{name} ...]"}.get(action.nargs, name)


def spelling(action: Any) -> str:
    """Return an option with its value, as it is written."""
    if not action.option_strings:
        return f"`{argument_name(action)}`"
    value = ""
    if action.nargs != 0:
        choices = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else None
        metavar = action.metavar or choices or action.dest.upper()
        value = " " + (metavar if isinstance(metavar, str) else " ".join(metavar))
        value += {"+": " ...", "*": " ..."}.get(action.nargs, "")
    return ", ".join(f"`{flag}{value}`" for flag in action.option_strings).replace("|", "\\|")


def explained(action: Any) -> str:
    """Return the help of an action, its default filled in."""
    text = str(action.help or "")
    known = {**vars(action), "prog": "fairlayer"}
    text = re.sub(r"%\((\w+)\)s", lambda found: str(known.get(found[1])), text).replace("%%", "%")
    return escaped(text.strip()).replace("|", "\\|").replace("\n", " ")


def sentence(text: str) -> str:
    """Return a text that starts with a capital and ends with a full stop, where a word or a code does not forbid it."""
    text = text.strip()
    if text and text[-1] not in ".!?":
        text += "."
    return text[:1].upper() + text[1:]


def escaped(text: str) -> str:
    """Return a text in which the signs of Markdown and HTML are only signs."""
    return re.sub(r"([<>*_\[\]])", r"\\\1", text) if "`" not in text else text.replace("<", "&lt;")
