"""Which faces of the statements hold, read off the conditions that hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fairlayer.projection.reference.conditions import Condition
from fairlayer.projection.reference.ending import ACTIVE
from fairlayer.solve.slabs import FaceKey

__all__ = ["faces_of"]


def faces_of(held: Iterable[tuple[Condition, float]]) -> Iterator[tuple[FaceKey, float]]:
    """Yield each face with its multiplier, from conditions with theirs (of an equality, signed)."""
    ends: dict[int, tuple[dict[int, float], dict[int, float]]] = {}
    for condition, multiplier in held:
        if condition.role in {"upper", "lower", "equal"}:
            side = -1 if condition.role == "lower" or multiplier < 0 else 1
            yield (condition.block, condition.row, side), abs(multiplier)
        elif condition.role != "width":
            high, low = ends.setdefault(condition.block, ({}, {}))
            (low if condition.role == "low" or multiplier < 0 else high)[condition.row] = abs(multiplier)
    for block, (high, low) in ends.items():
        for i, j, multiplier in _pairs(high, low):
            yield (block, i, j), multiplier


def _pairs(high: dict[int, float], low: dict[int, float]) -> Iterator[tuple[int, int, float]]:
    """Split the multipliers of both ends of a spread into pairs, in one of many ways (north-west corner)."""
    total, rest = sum(high.values()), list(low.items())
    for i, amount in high.items():
        share = amount / total * sum(low.values())  # the high end carries `scale` times the low end
        while rest and share > ACTIVE * total:
            j, left = rest.pop(0)
            taken = min(share, left)
            yield i, j, taken
            share -= taken
            if left - taken > ACTIVE * total:
                rest.insert(0, (j, left - taken))
