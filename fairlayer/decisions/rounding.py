"""Predictions in [0, 1] -> decisions 0 or 1, so that each cell's decisions stay within half a person of them.

    d = floor(r + e + 1/2),     r <- r + e - d

From r in [-1/2, 1/2) follows r + e + 1/2 in [0, 2), so d is 0 or 1, and the new r is in [-1/2, 1/2) again. r is the sum
of e minus the sum of d.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fairlayer.groups import cell_name

__all__ = ["Rounding", "cells_of"]

DECIDED, SELECTED = "decided: ", "selected: "  # of the counters that a store keeps
Columns = Mapping[str, Sequence[Any]]


class Rounding:
    """What earlier roundings have left over in each cell; a stream with a store rounds by it before it answers.

    Args:
        owner: in words, whose decisions these are.

    Example:
        >>> rounding = Rounding()
        >>> rounding.answers({"sex": ["F", "F", "M"]}, [0.4, 0.4, 0.9])
        [0.0, 1.0, 1.0]
    """

    def __init__(self, owner: str = "decisions") -> None:
        self.owner = owner
        self._left: dict[str, float] = {}

    def answers(self, features: Columns, emitted: Sequence[float]) -> list[float]:
        """Return decisions, and remember what is left over."""
        found = []
        for cell, prediction in zip(_keys(features, len(emitted)), emitted, strict=True):
            total = self._left.get(cell, 0.0) + prediction
            decision = math.floor(total + 0.5)
            self._left[cell] = total - decision
            found.append(float(decision))
        return found

    def recount(self, features: Columns, emitted: Sequence[float], answers: Sequence[float]) -> None:
        """Count decisions that were taken before."""
        for cell, prediction, answer in zip(_keys(features, len(emitted)), emitted, answers, strict=True):
            self._left[cell] = self._left.get(cell, 0.0) + prediction - answer

    def counters(self, features: Columns, answers: Sequence[float]) -> Counter[str]:
        """Return what a store is to count of decisions: how many of each cell, and how many of them are 1."""
        found = Counter[str]()
        for cell, answer in zip(_keys(features, len(answers)), answers, strict=True):
            found[DECIDED + cell] += 1
            found[SELECTED + cell] += int(answer)
        return found

    def to_state(self) -> dict[str, float]:
        """Return plain numbers."""
        return dict(self._left)

    def load_state(self, state: Mapping[str, float]) -> None:
        """Restore what `to_state` returned."""
        self._left = {cell: float(left) for cell, left in state.items()}


def cells_of(features: Sequence[str], counters: Mapping[str, int]) -> dict[str, tuple[tuple[Any, ...], int, int]]:
    """Return name -> categories, decisions, and how many of them are 1, from what a store has counted.

    Example:
        >>> rounding = Rounding()
        >>> cells_of(["sex"], rounding.counters({"sex": ["F", "F"]}, [1.0, 0.0]))
        {'sex=F': (('F',), 2, 1)}
    """
    found = {}
    for key, count in sorted(counters.items()):
        if key.startswith(DECIDED):
            cell = key.removeprefix(DECIDED)
            words = tuple(json.loads(cell))
            name = cell_name(features, [(word,) for word in words], [-1 if word is None else 0 for word in words])
            found[name] = (words, count, counters.get(SELECTED + cell, 0))
    return found


def _keys(features: Columns, n: int) -> list[str]:
    """Return the cell of each sample, as a text: what a store can keep."""
    columns = list(features.values())
    return [json.dumps([column[i] for column in columns]) for i in range(n)]
