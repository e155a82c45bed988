"""Names that a package does not have, answered with where they live or with the name that is meant.

The public names of the packages are read from their sources, and only once a name is missing, so that nothing is
imported for an answer. Type checkers see no `__getattr__`, and go on to report a name that does not exist.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import ModuleType

from fairlayer.errors import UnknownNameError

__all__ = ["answering_names", "homes"]

_ROOT = Path(__file__).parent
_PUBLIC = re.compile(r"^explain_public\(\s*__name__", re.MULTILINE)  # so ends each package whose names are for users


def answering_names(module: ModuleType) -> Callable[[str], object]:
    """Return the `__getattr__` of a public package: it raises `UnknownNameError`, an `AttributeError`.

    Example:
        >>> import fairlayer
        >>> answering_names(fairlayer)("pareto_sweep")
        Traceback (most recent call last):
        fairlayer.errors.UnknownNameError: fairlayer has no 'pareto_sweep'; it lives in fairlayer.pareto: use "from ...
    """

    def __getattr__(name: str) -> object:  # noqa: N807
        if name.startswith("_"):  # what Python and its tools ask every module for
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
        raise UnknownNameError(f"{module.__name__} has no {name!r}{_answer(module, name)}", name=name)

    return __getattr__


@cache
def homes() -> dict[str, str]:
    """Return each public name of the packages and the package to import it from, the shortest where there are several.

    Example:
        >>> homes()["pareto_sweep"], homes()["project"]
        ('fairlayer.pareto', 'fairlayer')
    """
    found: dict[str, str] = {}
    for path in sorted(_ROOT.rglob("*.py"), key=lambda path: (len(path.parts), path)):
        text = path.read_text(encoding="utf-8")
        if _PUBLIC.search(text):
            inside = path.parent if path.name == "__init__.py" else path.with_suffix("")
            package = ".".join((__package__, *inside.relative_to(_ROOT).parts))
            for name in _exported(ast.parse(text)):
                found.setdefault(name, package)
    return found


def _exported(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return list(ast.literal_eval(node.value))
    return []


def _answer(module: ModuleType, name: str) -> str:
    own = getattr(module, "__path__", None)
    if own is not None and ((Path(own[0]) / name).is_dir() or (Path(own[0]) / f"{name}.py").is_file()):
        return f' until it is imported: use "import {module.__name__}.{name}".'
    known = homes()
    if name in known:
        return f'; it lives in {known[name]}: use "from {known[name]} import {name}".'
    near = _near(name, module.__all__)
    if near is not None:
        return f"; did you mean {near!r}?"
    near = _near(name, known)
    return "." if near is None else f'; did you mean {near!r}? Use "from {known[near]} import {near}".'


def _near(name: str, known: dict[str, str] | list[str]) -> str | None:
    """Return the known name of the same letters but for case and underscores, else the one that looks most like it."""
    plain = {_letters(each): each for each in known}
    if _letters(name) in plain:
        return plain[_letters(name)]
    return next(iter(get_close_matches(name, known, n=1, cutoff=0.75)), None)


def _letters(name: str) -> str:
    return name.replace("_", "").lower()
