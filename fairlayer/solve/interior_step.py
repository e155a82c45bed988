"""The equations of one step of the interior-point method, in a price per row and a level per spread.

A row answers its prices by S = M K M', and its limits answer by their stiffness T:

    (S + 1/T) dp + a dc = M B (g / D) + h / T          a' dp - e dc = what the prices of a spread miss

with T = T_low + T_high, a = (T_low + T_high / scale) / T, and h what the sides ask. Rows without slack have 1/T = 0.
Of the rows the largest set that shares no statistic is eliminated by its diagonal (see `price_rows`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.passes.class_metric import ClassLayout, ClassMetric
from fairlayer.solve.class_rows import ClassRows
from fairlayer.solve.class_systems import ClassEquations, class_system
from fairlayer.solve.price_rows import PriceRows
from fairlayer.solve.table import RowTable

__all__ = ["RowEquations", "RowStep"]

_SOFT = 1e-12  # 1/T of a row without slack, of the largest entry of S: rows may repeat each other


class RowStep(NamedTuple):
    """The change of the price of each row, and of the level of each spread."""

    price: FloatArray
    level: FloatArray


class RowEquations:
    """What of the equations stays the same from step to step.

    Args:
        table: the rows.
    """

    def __init__(self, table: RowTable) -> None:
        rows = PriceRows(table)
        self.table, self.scale, self.equal = table, rows.scale, rows.fixed
        self.one, self.rest = rows.one, rows.rest
        self.at = np.where(table.tied, table.level, len(table.scale))
        self.classes: ClassRows | None = None
        self.left = np.asarray(table.matrix.take_rows(self.rest))

    def solve(
        self, metric: Any, given: FloatArray, sides: tuple[Any, ...], tied: FloatArray, missed: FloatArray
    ) -> RowStep:
        """Return the step.

        Args:
            metric: K with the weights 1/D, (s,), (s, s) or of blocks.
            given: M B (g / D), what each row would change by at its prices.
            sides: the lower and upper sides of the rows, and by how much their prices must rise.
            tied: the prices of the rows without slack.
            missed: what those rows still have to rise.
        """
        low, high, asked_low, asked_high = sides
        t_low, t_high, scale, equal = low.stiffness, high.stiffness, self.scale, self.equal
        blocks = isinstance(metric, ClassMetric)
        own, square = (self._of_classes(metric.layout).diagonal(metric), None) if blocks else self._square(metric)
        stiff = t_low + t_high
        soft = np.where(equal, _SOFT * max(float(own.max(initial=0.0)), 1e-290), 1.0 / np.maximum(stiff, 1e-290))
        ratio = np.where(equal, 1.0, (t_low + t_high / scale) * soft)
        asked = asked_high - asked_low
        right = given + np.where(equal, -missed, asked * soft)
        # The prices of a spread must cancel: sum (p_high / scale - p_low + p_tied) = 0.
        lacking = np.where(equal, -tied, low.price + asked_low - (high.price + asked_high) / scale + ratio * asked)
        give = np.where(equal, 0.0, t_low + t_high / scale**2 - ratio * (t_low + t_high / scale))
        lacking, give = self.added(lacking), self.added(give)
        if square is not None:
            return self._eliminated(own + soft, square, ratio, right, lacking, give)
        rows, every = self._of_classes(metric.layout), np.arange(len(own))
        system = class_system(ClassEquations(rows, metric, every, soft, ratio, self.table.level, give))
        return RowStep(*system.solve(right, lacking))

    def _of_classes(self, layout: ClassLayout) -> ClassRows:
        if self.classes is None:
            self.classes = ClassRows(self.table.matrix, self.table.block, layout)
        return self.classes

    def added(self, values: FloatArray) -> FloatArray:
        """Return sums of the rows of each spread."""
        count = len(self.table.scale)
        return np.bincount(self.at, values, count + 1)[:count].astype(np.float64, copy=False)

    def _square(self, metric: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the diagonal of S, and its rows of the rows that are left, over all rows."""
        matrix = self.table.matrix
        if metric.ndim == 2:
            whole = np.asarray(matrix) @ metric @ np.asarray(matrix).T
            return np.diag(whole).copy(), whole
        own = np.bincount(matrix.rows, matrix.data**2 * metric[matrix.columns], len(matrix)).astype(
            np.float64, copy=False
        )
        return own, np.asarray(matrix @ (self.left * metric).T).T

    def _eliminated(  # noqa: PLR0917 - a system
        self,
        own: FloatArray,
        square: FloatArray,
        ratio: FloatArray,
        right: FloatArray,
        lacking: FloatArray,
        give: FloatArray,
    ) -> RowStep:
        """Solve: the rows apart by their diagonal, the rest and the levels together."""
        count = len(self.table.scale)
        if len(square) == len(own):  # K is full
            one, rest = np.zeros(0, np.int64), np.arange(len(own))
        else:
            one, rest = self.one, self.rest
        cross, size = square[:, one], len(rest) + count
        system, h = np.zeros((size, size)), np.append(right[rest], lacking)
        kept = square[:, rest]
        kept[np.arange(len(rest)), np.arange(len(rest))] = own[rest]
        system[: len(rest), : len(rest)] = kept - (cross / own[one]) @ cross.T
        levels = np.zeros((len(rest), count + 1))
        levels[np.arange(len(rest)), self.at[rest]] = ratio[rest]
        np.subtract.at(levels.T, self.at[one], (cross * (ratio / own)[one]).T)
        system[: len(rest), len(rest) :] = levels[:, :-1]
        system[len(rest) :, : len(rest)] = levels[:, :-1].T
        places = np.arange(len(rest), size)
        mine = np.bincount(self.at[one], (ratio**2 / own)[one], count + 1)[:count]
        system[places, places] = -give - mine - 1e-14 * (mine + 1e-290)
        h[: len(rest)] -= cross @ (right / own)[one]
        h[len(rest) :] -= np.bincount(self.at[one], (ratio * right / own)[one], count + 1)[:count]
        found: FloatArray = np.asarray(np.linalg.solve(system, h), dtype=np.float64) if size else h
        price, level = np.zeros(len(own)), found[len(rest) :]
        price[rest] = found[: len(rest)]
        tied = ratio[one] * np.append(level, 0.0)[self.at[one]]
        price[one] = (right[one] - found[: len(rest)] @ cross - tied) / own[one]
        return RowStep(price, level)
