"""What a user should know beside the output: one form for it, printed where errors go."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

from fairlayer.errors import FairlayerWarning

__all__ = ["tell", "warnings_told"]


def tell(notes: Iterable[str]) -> None:
    """Print notes where errors go, so that the output stays what was asked for."""
    for note in notes:
        print(f"fairlayer: note: {note}", file=sys.stderr)


@contextmanager
def warnings_told() -> Iterator[None]:
    """Print each warning of fairlayer as a note, once, without the line of code; others as Python shows them."""
    before, told = warnings.showwarning, set[str]()

    def show(  # noqa: PLR0917 - the signature of warnings.showwarning
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, FairlayerWarning):
            before(message, category, filename, lineno, file, line)
        elif str(message) not in told:
            told.add(str(message))
            tell([str(message)])

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before
