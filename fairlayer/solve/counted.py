"""Passes that count themselves, whichever method asks for them, and whether or not it gets there."""

from __future__ import annotations

import math
from typing import Any

from fairlayer._typing import FloatArray
from fairlayer.passes import Passes, Point

__all__ = ["CountedPasses", "count"]


class CountedPasses:
    """Passes that know how often they swept over the batch.

    Args:
        base: the passes; everything but the count is theirs.
    """

    def __init__(self, base: Passes) -> None:
        self.base, self.count = base, 0

    def at(self, nu: FloatArray | None) -> Point:
        """See `Passes.at`."""
        self.count += 1
        return self.base.at(nu)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)


def count(passes: Any, sweeps: float) -> None:
    """Count sweeps that a method made by itself."""
    if isinstance(passes, CountedPasses):
        passes.count += math.ceil(sweeps)
