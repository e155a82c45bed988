"""What each column of a record may hold: one statement, which requests are checked by and the document is made of."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from fairlayer.data.encoder import DateColumn, NumericColumn
from fairlayer.groups.categories import DISGUISED
from fairlayer.training.config import continuous_names, feature_names
from fairlayer.training.recipe import Recipe

__all__ = ["LARGEST", "Field", "fields_of", "kind_of", "problem_of"]

LARGEST = 3e38  # of float32
_NO_NAMES = sorted(DISGUISED)  # texts that missing values turn into
_TOLD_APART = float(2**53 - 1)  # beyond it, whole numbers may be one and the same floating number
_SURROGATE = re.compile("[\ud800-\udfff]")
_MOST_LISTED = 50  # categories in a description
_FAR = 1e9  # standard deviations of the training rows
_WORDS = {"true": True, "false": False}


@dataclass(frozen=True)
class Field:
    """One column of a record.

    Args:
        name: the name of the column.
        kind: what it is read as. A "group" is a sensitive column outside whose categories nothing is taken.
        words: categories that are known.
        example: a value that is taken.
        written: how a date is written.
        needed: whether null is refused.
        named: whether a category names a group, so that it has to be a name.
        reach: the least and the largest number that is taken.

    Example:
        >>> sex = Field("sex", "group", ("F", "M"), "F")
        >>> sex.problem("M"), sex.problem("X")
        (None, "is 'X', but has to be one of 'F', 'M' or null")
    """

    name: str
    kind: Literal["number", "date", "category", "group"]
    words: tuple[str, ...] = ()
    example: Any = None
    written: str = ""
    needed: bool = False
    named: bool = False
    reach: tuple[float, float] = (-LARGEST, LARGEST)

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a value; None where nothing is."""
        if value is None:
            return "is null, but has to be known" if self.needed else None
        return problem_of(value) or self._misfit(value)

    def _misfit(self, value: Any) -> str | None:
        """Return why a text, number or boolean is none of those that this column holds."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        wanted = {
            "number": (number, "is read as a number"),
            "date": (isinstance(value, str), f"is read as a date ({self.written})"),
            "group": (any(_same(value, each) for each in self.values), f"has to be one of {self._listed()}"),
            "category": (not (self.named and value in _NO_NAMES), "stands for no group: write null for unknown"),
        }
        fits, words = wanted[self.kind]
        if fits and number and self.kind != "group" and not self.reach[0] <= value <= self.reach[1]:
            fits, words = False, f"has to lie between {self.reach[0]:g} and {self.reach[1]:g}"
        return None if fits else f"is {_shown(value)}, but {words}"

    @property
    def values(self) -> list[Any]:
        """The values of a group, each in all ways in which JSON can write it: 1 and "1" are one category."""
        return [value for word in self.words for value in _ways(word)]

    def schema(self) -> dict[str, Any]:
        """Return the field as the document of OpenAPI has it."""
        said: dict[str, Any] = {"title": self.name, "description": self._description(), "examples": [self.example]}
        if self.kind == "group":
            return {**said, "enum": [*self.values, *([] if self.needed else [None])]}
        number: dict[str, Any] = {"type": "number", "minimum": self.reach[0], "maximum": self.reach[1]}
        text: dict[str, Any] = {"type": "string", **({"not": {"enum": _NO_NAMES}} if self.named else {})}
        dated = {**text, "format": "date"} if self.written == "ISO8601" else text
        kinds = {"number": [number], "date": [dated], "category": [text, number, {"type": "boolean"}]}[self.kind]
        return {**said, "anyOf": [*kinds, *([] if self.needed else [{"type": "null"}])]}

    def _description(self) -> str:
        unknown = "" if self.needed else "; null where it is not known"
        if self.kind in {"number", "date"}:
            return f"{self.kind}{f' ({self.written})' if self.written else ''}{unknown}"
        listed = ", ".join(self.words[:_MOST_LISTED])
        return f"category: {listed}{unknown}" if listed else f"category{unknown}"

    def _listed(self) -> str:
        shown = ", ".join(map(repr, self.words[:_MOST_LISTED]))
        return shown if self.needed else f"{shown} or null"


def fields_of(
    recipe: Recipe, groups: Mapping[str, Sequence[Any]], *, closed: bool = True, needed: Sequence[str] = ()
) -> tuple[Field, ...]:
    """Return the columns that a record must have: features, and what the sensitive features are made of.

    Args:
        recipe: the recipe of the run.
        groups: sensitive feature -> its categories.
        closed: whether a category that is not among them is refused.
        needed: sensitive features that must be known.
    """
    encoded = {column.name: column for column in recipe.encoder.columns}
    numbers = {*continuous_names(recipe.config.parsed()), *(cut.source for cut in recipe.cuts)}
    must = set(_sources(recipe, needed))
    found = []
    for name in dict.fromkeys([*encoded, *_sources(recipe, feature_names(recipe.config.parsed()))]):
        words = tuple(str(each) for each in groups.get(name, ()) if each is not None)
        if name in numbers:
            field = Field(name, "number", example=0.0)
        elif closed and words:
            field = _group(name, words, encoded.get(name))
        else:
            field = _feature(name, words, encoded.get(name))
            if field.kind == "category" and name in groups:  # any name will do, but it has to be one
                field = replace(field, named=True, reach=(-_TOLD_APART, _TOLD_APART))
        found.append(replace(field, needed=name in must))
    return tuple(found)


def _group(name: str, words: tuple[str, ...], column: Any) -> Field:
    """A group whose names are numbers may be a numeric feature too: both have to be able to read it."""
    if isinstance(column, NumericColumn):
        words = tuple(word for word in words if _number(word) is not None)
    return Field(name, "group", words, _ways(words[0])[-1])


def _feature(name: str, words: tuple[str, ...], column: Any) -> Field:
    if isinstance(column, NumericColumn):
        return Field(name, "number", example=round(column.mean, 3), reach=_reach(column))
    if isinstance(column, DateColumn):
        return Field(name, "date", example="2024-01-31", written=column.written)
    levels = words or tuple(str(level) for level in getattr(column, "levels", ()) if level is not None)
    return Field(name, "category", levels, levels[0] if levels else None)


def _reach(column: NumericColumn) -> tuple[float, float]:
    """Return the reach: numbers further from the mean would leave the float32 of the network."""
    far = _FAR * column.scale
    return max(column.mean - far, -LARGEST), min(column.mean + far, LARGEST)


def _sources(recipe: Recipe, names: Sequence[str]) -> list[str]:
    """Return the columns that sensitive features are made of: in place of one that was cut, the number."""
    cut = {each.column: each.source for each in recipe.cuts}
    return [cut.get(name, name) for name in names]


def problem_of(value: Any) -> str | None:
    """Return why a JSON value is not text, number, boolean or null that can be read; None where it is one.

    Example:
        >>> problem_of("clerk"), problem_of([1])
        (None, 'is a list')
    """
    if value is None:
        return None
    if isinstance(value, str):
        return "is not text that can be encoded (half of a surrogate pair)" if _SURROGATE.search(value) else None
    if not isinstance(value, int | float):
        return f"is {kind_of(value)}"
    if isinstance(value, float) and math.isnan(value):
        return "is NaN"
    return None if abs(value) <= LARGEST else f"is too large for a number ({str(value)[:12]}...)"


def kind_of(value: Any) -> str:
    """Return what JSON calls a value, with its article."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _ways(word: str) -> list[Any]:
    number = _number(word)
    truth = _WORDS.get(word.lower()) if word in {"True", "False"} else None
    return [word, *([] if number is None else [number]), *([] if truth is None else [truth])]


def _number(word: str) -> int | float | None:
    """Return the number that a category is the name of; None where it is the name of none."""
    try:
        number = float(word)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    whole = int(number) if number.is_integer() else number
    return whole if str(whole) == word else None


def _same(value: Any, other: Any) -> bool:
    """Whether two JSON values are equal: true is not 1, and 1.0 is."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _shown(value: Any) -> str:
    return kind_of(value) if isinstance(value, bool) else repr(value)[:40]
