"""Write the reference of the command line from the parser itself."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import Any

from fairlayer.cli.arguments import build_parser

__all__ = ["configuration", "page"]

HEAD = """# Command line

This page lists every command of `fairlayer` with every option, as the parser knows them. To learn the commands, read
[auditing predictions](../audit.md), [serving](../serving.md) or a [tutorial](../tutorials/index.md) first. The command
line needs the extra `train`: `pip install 'fairlayer[train]'`.

A command ends with exit code 0 where all is well, 2 after a named error (its text stands on standard error), and 130
after Ctrl-C. `audit` and `report` have further codes for their verdicts: 0 for PASS, 1 for FAIL, 3 for INCONCLUSIVE
and
4 for NOT EVALUATED. A file may hold the options of a command: see the [configuration file](configuration.md).
"""

CONFIGURATION = """# Configuration file

This page is for whoever wants to keep, repeat or change a training run. `fairlayer train` writes everything that it
was told
into `config.yaml` in the run folder, and reads such a file back.

```sh
fairlayer train loans.csv --target repaid --constraint 'demographic_parity(sex, 0.02)' --out run/
fairlayer train --config run/config.yaml --out again/               # the same run once more
fairlayer train --config run/config.yaml --out wider/ --epochs 60   # the same, but for what is said after it
fairlayer train --resume run/                                       # go on with a run that was cut off
```

A file of your own needs no more than this; what it leaves out has the default of the command line:

```yaml
table: loans.csv
target: repaid
constraint:
  - demographic_parity(sex, 0.02)
  - equal_opportunity(race, 0.05)
sensitive: [race+sex]
epochs: 40
```

## Keys

A key is the option of the [command line](command-line.md#fairlayer-train) with underscores. Options that may be
repeated take a
list.

"""
AFTER = """
`out`, `resume`, `force` and `accept_changed_data` say where a run goes and are not kept.

## The record

The file that a run writes ends with a `record`: the SHA-256 of the table and the versions of the libraries. When the
file is used
again, a table with another checksum is refused with a [`ChangedDataError`](../errors.md#changeddataerror), unless
`--accept-changed-data` is given, and other versions are told of. On the same machine with the same versions a run is
repeated to
the same numbers.

## Other files

An audit reads a file of what only people can say, by `--about`: [auditing predictions](../audit.md#from-python)
shows one.
"""
NOT_KEYS = {"config", "out", "resume", "record", "accept_changed_data", "print_config", "force"}


def configuration() -> str:
    """Return the page on the configuration file in Markdown.

    Example:
        >>> "| `patience` |" in configuration()
        True
    """
    parser = dict(commands(build_parser()))["train"]
    keys = [action for action in parser._actions if shown(action) and action.dest not in NOT_KEYS]
    rows = [f"| `{action.dest}` | {written(action.default)} | {explained(action)} |" for action in keys]
    return CONFIGURATION + "\n".join(["| key | default | meaning |", "|---|---|---|", *rows]) + "\n" + AFTER


def written(default: Any) -> str:
    """Return a default as it stands in the file."""
    if default is None:
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`"


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
