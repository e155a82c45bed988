"""One value of a sweep, over its seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["FrontPoint"]


@dataclass(frozen=True)
class FrontPoint:
    """Measures of one value: mean over seeds, and standard deviation (None with one seed)."""

    value: Any
    seeds: tuple[int, ...]
    mean: Mapping[str, float]
    sd: Mapping[str, float | None]

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.seeds)
