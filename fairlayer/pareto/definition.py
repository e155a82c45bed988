"""What makes two sweeps the same: the function, the values and the seeds."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fairlayer.pareto.errors import SweepDefinitionError
from fairlayer.pareto.runs import key_of

__all__ = ["Definition"]

_FILE = "sweep.json"


@dataclass(frozen=True)
class Definition:
    """A sweep in plain JSON values.

    Args:
        train: name and settings of the function.
        source: hash of its source, "" where there is none to read. What it calls is not part of it.
        values: the swept values.
        seeds: the seeds.
    """

    train: str
    source: str
    values: tuple[Any, ...]
    seeds: tuple[int, ...]

    @staticmethod
    def of(train: Callable[..., Any], values: Sequence[Any], seeds: Sequence[int]) -> Definition:
        """Read a definition.

        Raises:
            SweepDefinitionError: no value or seed, a repeated one, or one that JSON cannot hold.
        """
        try:
            plain = json.loads(json.dumps(list(values), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise SweepDefinitionError(
                f"swept values must be what JSON can hold (numbers, strings, lists, dicts), but are {values!r} "
                f"({error})."
            ) from error
        keys = [key_of(value, int(seed)) for value in plain for seed in seeds]
        if not keys or len(set(keys)) < len(keys):
            raise SweepDefinitionError(
                f"a sweep needs values and seeds, each once, but was given values {plain} and seeds {list(seeds)}."
            )
        return Definition(_name(train), _source(train), tuple(plain), tuple(int(seed) for seed in seeds))

    @staticmethod
    def read(folder: Path) -> Definition:
        """Read what a folder holds.

        Raises:
            SweepDefinitionError: it holds no sweep.
        """
        path = folder / _FILE
        if not path.exists():
            raise SweepDefinitionError(f"{folder} holds no {_FILE}; give the folder of a pareto_sweep.")
        held = json.loads(path.read_text(encoding="utf-8"))
        return Definition(held["train"], held["source"], tuple(held["values"]), tuple(held["seeds"]))

    @property
    def grid(self) -> list[tuple[Any, int]]:
        """Every value with every seed."""
        return [(value, seed) for value in self.values for seed in self.seeds]

    def claim(self, folder: Path) -> None:
        """Take the folder for this sweep; one that holds it, or a part of its grid, is continued.

        Raises:
            SweepDefinitionError: the folder holds another sweep.
        """
        if (folder / _FILE).exists():
            self._compare(Definition.read(folder), folder)
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f"{_FILE}.new"
        draft.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        os.replace(draft, folder / _FILE)

    def _compare(self, held: Definition, folder: Path) -> None:
        changed = []
        if held.train != self.train:
            changed.append(f"train was {held.train} and is {self.train}")
        elif held.source != self.source:
            changed.append(f"the source of {self.train} has changed")
        mine = {key_of(value, 0) for value in self.values}
        if any(key_of(value, 0) not in mine for value in held.values):
            changed.append(f"values were {list(held.values)} and are {list(self.values)}")
        if not set(held.seeds) <= set(self.seeds):
            changed.append(f"seeds were {list(held.seeds)} and are {list(self.seeds)}")
        if changed:
            raise SweepDefinitionError(
                f"the folder {folder} holds another sweep: {'; '.join(changed)}. Runs of two definitions must not be "
                "mixed. Use another folder, or go back to the definition it holds; values and seeds may be added."
            )


def _name(train: Any) -> str:
    if isinstance(train, functools.partial):
        settings = [*map(_plain, train.args), *(f"{name}={_plain(value)}" for name, value in train.keywords.items())]
        return f"{_name(train.func)}({', '.join(settings)})"
    named = train if hasattr(train, "__qualname__") else type(train)
    own = "" if named is train else f"({_plain(vars(train))})"
    return f"{named.__module__}.{named.__qualname__}{own}"


def _plain(value: Any) -> str:
    """Return a setting in words that are the same in every process; an object by its type alone."""
    try:
        return json.dumps(value, sort_keys=True, default=lambda other: f"<{type(other).__qualname__}>")
    except (TypeError, ValueError):
        return f"<{type(value).__qualname__}>"


def _source(train: Any) -> str:
    if isinstance(train, functools.partial):
        return _source(train.func)
    try:
        text = inspect.getsource(train if hasattr(train, "__qualname__") else type(train))
    except (OSError, TypeError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()
