"""One value of a sweep, over its seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["FrontPoint"]


@dataclass(frozen=True)
class FrontPoint:
    """Measures of one value: mean over seeds, and standard deviation (None with one seed).

    Example:
        >>> point = FrontPoint(0.05, (0, 1), {"auc": 0.86, "gap": 0.04}, {"auc": 0.01, "gap": 0.0})
        >>> point.n, point.mean["auc"]
        (2, 0.86)
    """

    value: Any
    seeds: tuple[int, ...]
    mean: Mapping[str, float]
    sd: Mapping[str, float | None]

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.seeds)
