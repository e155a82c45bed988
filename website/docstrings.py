"""What the API reference does to docstrings before they are read: `Example:` becomes the section that shows code."""

from __future__ import annotations

import re
from typing import Any

import griffe

__all__ = ["Sections"]

EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)


class Sections(griffe.Extension):
    """The Google style knows `Examples:`; our docstrings have one example and say so in the singular."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """See `griffe.Extension.on_object`."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub("Examples:", obj.docstring.value)
