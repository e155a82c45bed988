"""What a solver hands over."""

from __future__ import annotations

from collections.abc import Sequence
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

    point: Point  # the predictions there, and their statistics
    nu: FloatArray
    faces: Sequence[Face]
    multipliers: FloatArray
    passes: int

    @property
    def value(self) -> Any:
        """The predictions, (n,), or (n, k) on the simplex; float64, NumPy or torch."""
        return self.point.value

    @property
    def free(self) -> Any:
        """Which samples the geometry can move there; None: all."""
        return self.point.free

    @property
    def statistics(self) -> FloatArray:
        """The statistics of the predictions, (s,)."""
        return self.point.statistics

    def scaled(self, factor: float) -> Solution:
        """Return it with other multipliers, as a place to start from."""
        return self._replace(nu=factor * self.nu, multipliers=factor * self.multipliers)

    @staticmethod
    def unmoved(start: Point) -> Solution:
        """Build from the first pass, where nothing but the domain acts."""
        return Solution(start, np.zeros(len(start.statistics)), (), np.zeros(0), 1)

    @staticmethod
    def at(point: Point, nu: FloatArray, faces: Sequence[Face], multipliers: FloatArray, *, passes: int) -> Solution:
        """Build from the last pass."""
        return Solution(point, nu, faces, multipliers, passes)
