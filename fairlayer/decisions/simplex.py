"""A small linear program, solved from a feasible basis to which columns may be added.

    maximise costs @ x   subject to   columns @ x = right,   x >= 0

The revised simplex method with an explicit inverse of the basis: tens of rows, hundreds of columns. The entering column
is the one of largest reduced cost, and the first one (Bland's rule, which cannot cycle) while nothing moves.
Source: Bland (1977), "New finite pivoting rules for the simplex method".
"""

from __future__ import annotations

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.errors import SolverError

__all__ = ["Simplex"]

_OPTIMAL = 1e-11  # reduced cost that counts as none
_PIVOT = 1e-9  # entry that counts as zero
_REFRESH = 64  # pivots after which the inverse is computed anew


class Simplex:
    """A basis of the columns, the values of its variables, and the prices of the rows.

    Args:
        columns: (rows, variables).
        right: (rows,).
        basis: one variable per row, whose columns are independent and whose values are >= 0.

    Example:
        >>> program = Simplex(np.array([[1.0, 2.0, 1.0]]), np.array([4.0]), np.array([2]))
        >>> program.maximise(np.array([1.0, 1.0, 0.0])).tolist(), program.solution().tolist()
        ([1.0], [4.0, 0.0, 0.0])
    """

    def __init__(self, columns: FloatArray, right: FloatArray, basis: IntArray) -> None:
        self.columns, self.right, self.basis = columns, right, basis.copy()
        self.banned = np.zeros(columns.shape[1], dtype=bool)
        self.inverse, self.values = _basic(columns[:, basis], right)

    def append(self, columns: FloatArray) -> None:
        """Add variables, at zero."""
        self.columns = np.hstack([self.columns, columns])
        self.banned = np.append(self.banned, np.zeros(columns.shape[1], dtype=bool))

    def maximise(self, costs: FloatArray) -> FloatArray:
        """Move to an optimal basis and return the price of each row (d optimum / d right).

        Raises:
            SolverError: it did not settle.
        """
        stalled, limit = 0, 200 * (len(self.right) + 10)
        for pivot in range(limit):
            prices = costs[self.basis] @ self.inverse
            first = stalled > len(self.right)
            entering = self._entering(costs - prices @ self.columns, first=first)
            if entering is None:
                self._refresh()
                return np.asarray(costs[self.basis] @ self.inverse)
            step = self.pivot(entering, self._leaving(self.inverse @ self.columns[:, entering], first=first))
            stalled = 0 if step > 1e-13 else stalled + 1
            if pivot % _REFRESH == _REFRESH - 1:
                self._refresh()
        raise SolverError(f"the linear program over {len(self.right)} rows did not settle in {limit} pivots.")

    def pivot(self, entering: int, row: int) -> float:
        """Exchange the basic variable of one row, and return the new one's value."""
        direction = self.inverse @ self.columns[:, entering]
        step = float(self.values[row] / direction[row])
        self.values = self.values - step * direction
        self.values[row] = step
        self.inverse[row] /= direction[row]
        direction[row] = 0.0
        self.inverse -= np.outer(direction, self.inverse[row])
        self.basis[row] = entering
        return step

    def drop(self, variable: int) -> None:
        """Keep a variable, which is zero, out of the basis from now on."""
        self.banned[variable] = True
        for row in np.flatnonzero(self.basis == variable):
            entries = np.abs(self.inverse[row] @ self.columns)
            entries[self.banned] = 0.0
            self.pivot(int(entries.argmax()), int(row))
            self._refresh()

    def solution(self) -> FloatArray:
        """Return the value of every variable."""
        x = np.zeros(self.columns.shape[1])
        x[self.basis] = np.maximum(self.values, 0.0)
        return x

    def _entering(self, reduced: FloatArray, *, first: bool) -> int | None:
        reduced[self.basis] = 0.0
        reduced[self.banned] = 0.0
        best = int((reduced > _OPTIMAL).argmax() if first else reduced.argmax())
        return best if reduced[best] > _OPTIMAL else None

    def _leaving(self, direction: FloatArray, *, first: bool) -> int:
        falling = np.flatnonzero(direction > _PIVOT)
        if not len(falling):
            raise SolverError("the linear program is unbounded: a statement has a coefficient that is not finite.")
        lengths = np.maximum(self.values[falling], 0.0) / direction[falling]
        tied = falling[lengths <= lengths.min() + 1e-13]
        return int(tied[self.basis[tied].argmin() if first else direction[tied].argmax()])

    def _refresh(self) -> None:
        self.inverse, self.values = _basic(self.columns[:, self.basis], self.right)


def _basic(basic: FloatArray, right: FloatArray) -> tuple[FloatArray, FloatArray]:
    inverse = np.linalg.inv(basic).astype(np.float64, copy=False)
    return inverse, inverse @ right
