"""Statements about group means -> limits on the coefficients of a linear model.

With the predictor `z = Z theta` (n,), the means of a statement are `W z`, so it speaks of `v = A theta`, where
A = matrix W Z:

    rows      lower <= v <= upper
    spread    scale (v + o) <= c + tolerance,   c <= v + o           with one free number c

Each face is a row `matrix theta + free c <= limit` (or `==`, where there is no slack) with a multiplier. The
multipliers add up to a force on the coefficients, and the Lagrangian of a loss f is
`f(theta) + force . theta - limit . multipliers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.constraints import GroupMeans, Rows, Spread, Statement
from fairlayer.constraints.statements import as_float

__all__ = ["LinearLimits", "averages"]


@dataclass(frozen=True)
class LinearLimits:
    """Faces `matrix theta + free c <= limit`, or `==` where tied.

    Args:
        matrix: (faces, coefficients).
        free: (faces, spreads); the coefficients of the free numbers.
        limit: (faces,).
        tied: (faces,); whether the face is an equation.
        weight: (faces,); the price of a tolerance is the weighted sum of absolute multipliers.
        owner: (faces,); number of the constraint that states it.
    """

    matrix: FloatArray
    free: FloatArray
    limit: FloatArray
    tied: BoolArray
    weight: FloatArray
    owner: IntArray

    @staticmethod
    def of(statements: Sequence[Statement], owners: Sequence[int], predictors: FloatArray) -> LinearLimits:
        """Read statements, statement j of constraint owners[j], for predictors Z (n, coefficients)."""
        spreads = sum(isinstance(statement, Spread) for statement in statements)
        blocks: list[LinearLimits] = []
        column = 0
        for owner, statement in zip(owners, statements, strict=True):
            A = statement.matrix @ averages(statement.means, predictors)
            for matrix, free, limit, tied, weight in _faces(statement, A):
                into = np.zeros((len(matrix), spreads))
                if isinstance(statement, Spread):
                    into[:, column] = free
                size = len(matrix)
                blocks.append(
                    LinearLimits(matrix, into, limit, np.full(size, tied), np.full(size, weight), np.full(size, owner))
                )
            column += isinstance(statement, Spread)
        if not blocks:
            return _nothing(predictors.shape[1])
        fields = ("matrix", "free", "limit", "tied", "weight", "owner")
        return LinearLimits(*(np.concatenate([getattr(block, field) for block in blocks]) for field in fields))

    def __len__(self) -> int:
        return len(self.limit)

    def transformed(self, T: FloatArray) -> LinearLimits:
        """Return the limits on u, where theta = T u."""
        return replace(self, matrix=self.matrix @ T)

    def balanced(self, multipliers: FloatArray) -> FloatArray:
        """Return the nearest multipliers >= 0 (of any sign where tied) that leave the free numbers free."""
        duals = np.where(self.tied, multipliers, np.maximum(multipliers, 0.0))
        for column in self.free.T:
            high, low = (column < 0) & ~self.tied, (column > 0) & ~self.tied
            total = duals[low].sum()
            duals[low] *= duals[high].sum() / total if total > 0 else 0.0
            duals[high] *= 1.0 if total > 0 else 0.0
            equal = (column != 0) & self.tied
            duals[equal] -= duals[equal].mean() if equal.any() else 0.0
        return duals

    def prices(self, multipliers: FloatArray, constraints: int) -> FloatArray:
        """Return the price of each constraint's tolerance."""
        prices = np.bincount(self.owner, weights=self.weight * np.abs(multipliers), minlength=constraints)
        return np.asarray(prices, dtype=np.float64)


_Faces = tuple[FloatArray, float, FloatArray, bool, float]  # matrix, coefficient of c, limit, tied, weight


def _faces(statement: Statement, A: FloatArray) -> Iterator[_Faces]:
    tolerance = as_float(statement.tolerance)
    if isinstance(statement, Rows):
        yield from _row_faces(A, statement.lower_offset - tolerance, statement.upper_offset + tolerance)
        return
    offset = np.zeros(len(A)) if statement.offset is None else statement.offset
    if tolerance <= 0 and statement.scale == 1.0:
        yield A, -1.0, -offset, True, 0.5  # net highs and net lows have the same sum
        return
    yield statement.scale * A, -1.0, tolerance - statement.scale * offset, False, 1.0
    yield -A, 1.0, offset, False, 0.0


def _row_faces(A: FloatArray, lower: FloatArray, upper: FloatArray) -> Iterator[_Faces]:
    tied = lower == upper
    above, below = np.isfinite(upper) & ~tied, np.isfinite(lower) & ~tied
    yield A[tied], 0.0, upper[tied], True, 1.0
    yield A[above], 0.0, upper[above], False, 1.0
    yield -A[below], 0.0, -lower[below], False, 1.0


def _nothing(coefficients: int) -> LinearLimits:
    none = np.zeros(0)
    return LinearLimits(
        np.zeros((0, coefficients)), np.zeros((0, 0)), none, none.astype(bool), none, none.astype(np.int64)
    )


def averages(means: GroupMeans, values: FloatArray) -> FloatArray:
    """Return the measure of each column of values (n, columns): (rows, columns), 0 for an empty group."""
    return np.stack([means.of(column) for column in np.ascontiguousarray(values.T)], axis=1)
