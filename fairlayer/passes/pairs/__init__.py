"""Samples whose predictions hold each other in pairs: |y_i - y_j| <= c_ij."""

from __future__ import annotations

from fairlayer.passes.pairs.graph import Pairs
from fairlayer.passes.pairs.passes import PairPasses

__all__ = ["PairPasses", "Pairs"]


def __dir__() -> list[str]:
    return list(__all__)
