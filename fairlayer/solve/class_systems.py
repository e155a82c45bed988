"""The equations of rows that read the means of classes, for one K of blocks and one set of rows in force.

    | S + soft    A      |  | p |     | h |
    | A'         -loose  |  | c |  =  | g |          S = M K M'

Bundles of rows that share no cell (see `class_rows`) are eliminated by their small blocks, all at once. What is left,
the other rows and the levels, is solved densely, or where that is large by a sparse factorisation of everything.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.passes.class_metric import ClassMetric
from fairlayer.solve.class_rows import ClassRows
from fairlayer.solve.sparse import SparseSystem, library

__all__ = ["ClassEquations", "ClassSystem", "FactoredSystem", "class_system"]

_DENSE = 2e7  # products for the rows and levels that are left, up to which they are solved densely


class FactoredSystem(Protocol):
    """The factors of such equations."""

    def solve(self, right: FloatArray, right_level: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the prices of the rows in force and the levels."""


class ClassEquations(NamedTuple):
    """What the equations are made of.

    Args:
        rows: the rows.
        metric: K.
        active: which rows are in force, (a,).
        soft: what is added to the diagonal of S for each of them, > 0.
        slope: what each adds to its level.
        levels: the level of each, -1 for none.
        loose: (levels,), >= 0.
    """

    rows: ClassRows
    metric: ClassMetric
    active: IntArray
    soft: FloatArray
    slope: FloatArray
    levels: IntArray
    loose: FloatArray


class ClassSystem:
    """The equations, with the bundles eliminated."""

    def __init__(self, equations: ClassEquations) -> None:
        rows, metric, active, soft, slope, levels, loose = equations
        self.bundles, self.width, self.left = rows.bundles, rows.width, len(rows.rest)
        size = self.bundles * self.width
        place = rows.place[active]
        self.inner, self.outer = (np.flatnonzero(each) for each in (rows.bundle[active] >= 0, rows.bundle[active] < 0))
        self.line = rows.bundle[active[self.inner]] * self.width + place[self.inner]
        self.rank = place[self.outer]

        # The blocks of the bundles; a row that is not in force has a 1 on the diagonal and nothing else.
        force, own = np.zeros(size), np.ones(size)
        force[self.line], own[self.line] = 1.0, soft[self.inner]
        of_bundle = force.reshape(self.bundles, self.width)
        inside = rows.inside.at(metric, size * self.width).reshape(self.bundles, self.width, self.width)
        inside *= of_bundle[:, :, None] * of_bundle[:, None, :]
        inside.reshape(self.bundles, -1)[:, :: self.width + 1] += own.reshape(self.bundles, self.width)
        self.inverse = np.linalg.inv(inside)

        # What ties them to the rows that are left and to the levels.
        kept = np.zeros(self.left)
        kept[self.rank] = 1.0
        across = np.zeros((size, self.left + len(loose)))
        if self.left:
            across[:, : self.left] = rows.across.at(metric, size * self.left).reshape(size, self.left)
            across[:, : self.left] *= force[:, None] * kept
        tied = levels[self.inner] >= 0
        across[self.line[tied], self.left + levels[self.inner[tied]]] = slope[self.inner[tied]]
        given = self.inverse @ across.reshape(self.bundles, self.width, -1)
        self.across, self.given = across, given.reshape(size, -1)

        square = np.diag(np.append(1.0 - kept, -loose))
        among = rows.among.at(metric, self.left**2).reshape(self.left, self.left)
        square[: self.left, : self.left] += among * np.outer(kept, kept)
        square[self.rank, self.rank] += soft[self.outer]
        tied = levels[self.outer] >= 0
        at = self.rank[tied], self.left + levels[self.outer[tied]]
        square[at] = square[at[1], at[0]] = slope[self.outer[tied]]
        self.square = square - across.T @ self.given

    def solve(self, right: FloatArray, right_level: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See `FactoredSystem.solve`."""
        h, outer = np.zeros(len(self.across)), np.append(np.zeros(self.left), right_level)
        h[self.line], outer[self.rank] = right[self.inner], right[self.outer]
        alone = (self.inverse @ h.reshape(self.bundles, self.width, 1)).ravel()
        outer -= self.across.T @ alone
        found: FloatArray = np.asarray(np.linalg.solve(self.square, outer), np.float64) if len(outer) else outer
        price = np.zeros(len(right))
        price[self.inner] = (alone - self.given @ found)[self.line]
        price[self.outer] = found[self.rank]
        return price, found[self.left :]


def class_system(equations: ClassEquations) -> FactoredSystem:
    """Return the equations in the form that serves best."""
    rows, metric, active, soft, slope, levels, loose = equations
    products = rows.bundles * rows.width * (len(rows.rest) + len(loose)) ** 2
    if (rows.bundles and products <= _DENSE) or library() is None:
        return ClassSystem(equations)
    size, (places, sums) = len(rows), rows.pattern
    entries = sums.at(metric, len(places)), (places // size, places % size)
    square: Any = library().csr_array(entries, shape=(size, size))
    return SparseSystem(square[active][:, active], soft, slope, levels, loose)
