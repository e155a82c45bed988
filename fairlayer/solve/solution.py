"""What a solver hands over."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.passes import Point
from fairlayer.solve.slabs import Face

__all__ = ["Solution"]


class Solution(NamedTuple):
    """A solved projection: predictions, dual point, and the faces that hold it.

    `value = y(scores, B' nu)`, the geometry's step, with `nu = sum_j multipliers[j] * faces[j].normal`.
    """

    value: Any  # (n,), or (n, k) on the simplex; float64, NumPy or torch
    free: Any  # which samples the geometry can move there; None: all
    statistics: FloatArray
    nu: FloatArray
    faces: tuple[Face, ...]
    multipliers: FloatArray
    passes: int

    @staticmethod
    def unmoved(start: Point) -> Solution:
        """Build from the first pass, where nothing but the domain acts."""
        zero = np.zeros(len(start.statistics))
        return Solution(start.value, start.free, start.statistics, zero, (), np.zeros(0), 1)

    @staticmethod
    def at(point: Point, nu: FloatArray, faces: tuple[Face, ...], multipliers: FloatArray, *, passes: int) -> Solution:
        """Build from the last pass."""
        return Solution(point.value, point.free, point.statistics, nu, faces, multipliers, passes)
