"""What can be counted of the prose: help texts and docstrings are sentences, and no argument goes unexplained."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
import pytest

import fairlayer
from tools.breaking import public_paths

pytest.importorskip("jsonargparse")

ROOT = Path(fairlayer.__file__).parent.parent
SHOWN_BY_LIBRARIES = {"--help", "--print_config"}


def help_texts(parser: Any, name: str) -> Iterator[tuple[str, str | None]]:
    """Yield (command and option, help) of a parser and of the commands below it."""
    for action in parser._actions:
        below = action.choices if isinstance(action.choices, dict) else {}
        if any(hasattr(each, "_actions") for each in below.values()):
            yield from ((f"{name} {one.dest}", one.help) for one in action._choices_actions)
            for word, command in below.items():
                yield from help_texts(command, f"{name} {word}")
        elif not SHOWN_BY_LIBRARIES & set(action.option_strings) and action.help != argparse.SUPPRESS:
            yield f"{name} {' '.join(action.option_strings) or action.dest}", action.help


def test_help_texts_are_sentences() -> None:
    from fairlayer.cli.arguments import build_parser

    texts = list(help_texts(build_parser(), "fairlayer"))
    assert len(texts) > 100
    wrong = [f"{where}: {said}" for where, said in texts if not said or not re.match(r"[A-Z].*\.$", said, re.S)]
    assert not wrong, "a help text begins with a capital letter and ends with a full stop:\n" + "\n".join(wrong)


@pytest.fixture(scope="module")
def public() -> list[Any]:
    package = griffe.load("fairlayer", search_paths=[ROOT], try_relative_path=False)
    found = [package[path.removeprefix("fairlayer.")] for path in sorted(public_paths(package)) if "." in path]
    return [each for each in found if each.is_class or each.is_function]


def test_public_docstrings_begin_with_a_sentence(public: list[Any]) -> None:
    firsts = {each.path: each.docstring.value.partition("\n\n")[0].strip() for each in public if each.docstring}
    assert len(firsts) == len(public) > 200
    assert not [path for path, first in firsts.items() if not first.endswith((".", ":"))]


def test_docstrings_of_public_functions_and_methods_say_what_they_do(public: list[Any]) -> None:
    """A property is a noun; a function does something, or returns it, and its first word says so."""
    functions = [member for each in public for member in described(each) if member.is_function and member.docstring]
    assert len(functions) > 400
    nouns = re.compile(r"(The|An?|One|How|What|Which|Whether|All|Its?)\b")
    wrong = [each.path for each in functions if nouns.match(each.docstring.value) and not each.name.startswith("on_")]
    assert not wrong, "begin with what it does, as in Return the ...:\n" + "\n".join(wrong)


def test_every_argument_of_a_public_function_is_spoken_of(public: list[Any]) -> None:
    silent = [
        f"{each.path}({parameter.name})"
        for each in public
        if each.is_function
        for parameter in each.parameters
        if not re.search(rf"\b{parameter.name.strip('*')}\b", each.docstring.value)
    ]
    assert not silent, "say under Args what these mean:\n" + "\n".join(silent)


def test_arguments_are_described_with_a_subject(public: list[Any]) -> None:
    """An entry of Args says what the argument is, or what to do: "the seed of the draw", and not "of the draw"."""
    entries = [
        (f"{each.path}({name})", said)
        for each in public
        for member in described(each)
        if member.docstring
        for name, said in arguments_of(member.docstring.value)
    ]
    assert len(entries) > 900
    bare = re.compile(r"(of|to|from|on|over|whose|told|called|goes|takes|keeps|makes|writes|reads) ")
    wrong = [f"{where}: {said}" for where, said in entries if bare.match(said)]
    assert not wrong, "begin with what it is, as in the ... of:\n" + "\n".join(wrong)


def arguments_of(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield the name of each argument under Args, and the first line that is said of it."""
    for section in re.findall(r"^Args:\n(.*?)(?=\n\n|\Z)", docstring, re.M | re.S):
        yield from re.findall(r"^    (\*{0,2}\w+): (.*)$", section, re.M)


def test_every_public_name_has_an_example_that_runs(public: list[Any]) -> None:
    """The examples are run by tests/test_documents.py; what an error means stands in docs/errors.md."""
    lacking = [each.path for each in public if not is_error(each) and not any(map(shows_code, described(each)))]
    assert not lacking, "show in an Example how to use these:\n" + "\n".join(lacking)


def is_error(found: Any) -> bool:
    return bool(found.is_class and found.name.endswith(("Error", "Warning")))


def described(found: Any) -> Iterator[Any]:
    """Yield an object and, of a class, its own methods."""
    yield found
    if found.is_class:
        yield from (member for member in found.members.values() if not member.is_alias)


def shows_code(found: Any) -> bool:
    return found.docstring is not None and ">>> " in found.docstring.value
