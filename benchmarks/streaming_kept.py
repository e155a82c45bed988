"""What a long run has found so far, kept line by line, so that it can go on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Kept", "markdown"]

Record = dict[str, Any]


class Kept:
    """Records of a run in a file of JSON lines, found again by what was asked.

    Args:
        path: the file; None to keep nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self._found: dict[str, Record] = {}
        for line in lines:
            asked, record = json.loads(line)
            self._found[_key(asked)] = record

    def get(self, asked: Record, run: Callable[[], Record]) -> Record:
        """Return the record of what is asked, from the file or by running it."""
        key = _key(asked)
        if key not in self._found:
            self._found[key] = run()
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(json.dumps([asked, self._found[key]]) + "\n")
        return self._found[key]


def _key(asked: Record) -> str:
    return json.dumps(asked, sort_keys=True)


def markdown(records: list[Record]) -> str:
    """Return a table of scenarios by ways: the worst window, and the share of answers at 0 or 1; seeds on average."""
    ways = list(dict.fromkeys(each["way"] for each in records))
    names = list(dict.fromkeys(each["scenario"] for each in records))
    lines = ["| scenario | " + " | ".join(ways) + " |", "|---" * (len(ways) + 1) + "|"]
    for name in names:
        cells = []
        for way in ways:
            found = [each for each in records if each["scenario"] == name and each["way"] == way]
            ends = sum(each["ends"] for each in found) / max(len(found), 1)
            cells.append(f"{max(each['worst'] for each in found):.3f}, {100 * ends:.1f} %" if found else "-")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
