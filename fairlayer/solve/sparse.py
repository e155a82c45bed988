"""The equations of rows in force with most entries zero, by the sparse factorisation of SciPy where it is installed.

Two attributes of 1,000 groups that share 2,000 cells leave 1,000 rows of a dense system even when one attribute is
eliminated, though each row has a handful of entries. Here the rows of

    | M K M' + 1/s    A  |  | q |     | h |
    | A'             -r  |  | c |  =  | g |

are eliminated in the order of least degree, which fills in little; few levels c come last. Source: George, Liu
(1989), "The evolution of the minimum degree ordering algorithm".
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fairlayer._rows import SparseRows
from fairlayer._typing import FloatArray, IntArray

__all__ = ["SparseSystem", "library", "mostly_zero", "square_of_rows"]

_FROM = 200  # rows
_ENTRIES = 12  # of M K M' per row
_ALONE = 1e-12  # what a level gives way by, of what its rows would give it
_PIVOT = 0.1  # of the largest entry of a column
_LEVELS = 32  # more than these are eliminated in their turn, and not after the rows


@cache
def library() -> Any:
    """Return `scipy.sparse` with its linear algebra, or None where SciPy is missing or broken."""
    try:
        import scipy.sparse
        import scipy.sparse.linalg
    except Exception:  # a broken SciPy is as good as none
        return None
    return scipy.sparse


def mostly_zero(matrix: SparseRows, rest: int) -> bool:
    """Whether a sparse factorisation of M K M' is worth its ordering.

    Args:
        matrix: the rows M.
        rest: how many of them the dense system has.
    """
    if rest <= _FROM:
        return False
    readers = np.bincount(matrix.columns)
    return int((readers**2).sum()) <= _ENTRIES * len(matrix) and library() is not None


def square_of_rows(matrix: SparseRows, metric: FloatArray, active: IntArray) -> Any:
    """Return M K M' of some of the rows, for a diagonal K."""
    rows = library().csr_array((matrix.data, (matrix.rows, matrix.columns)), shape=matrix.shape)[active]
    return (rows * metric) @ rows.T


class SparseSystem:
    """The factors for one set of rows in force.

    Args:
        square: M K M' of these rows, sparse.
        soft: 1/s of each of them.
        slope: what each adds to its level.
        levels: the level of each, -1 for none.
        loose: r of each level.

    Raises:
        RuntimeError: the system is singular to rounding.
    """

    def __init__(self, square: Any, soft: FloatArray, slope: FloatArray, levels: IntArray, loose: FloatArray) -> None:
        sparse = library()
        tied = np.flatnonzero(levels >= 0)
        ties = sparse.csr_array((slope[tied], (tied, levels[tied])), shape=(len(soft), len(loose)))
        square = square + sparse.diags_array(soft)
        self.ties, self.rows, self.few = ties, len(soft), len(loose) <= _LEVELS
        # A level that stands alone is no pivot before its rows are eliminated.
        answer = np.append(0.0, slope**2 / square.diagonal())
        symmetric = self.few or bool(loose.min() > _ALONE * answer.max())
        if not self.few:
            square = sparse.block_array([[square, ties], [ties.T, -sparse.diags_array(loose)]])
        options, least = {"SymmetricMode": symmetric}, 0.0 if symmetric else _PIVOT
        self.factors = sparse.linalg.splu(square.tocsc(), "MMD_AT_PLUS_A", diag_pivot_thresh=least, options=options)
        if self.few:
            self.answers = np.asarray(self.factors.solve(ties.toarray()))
            self.schur = ties.T @ self.answers + np.diag(loose)

    def solve(self, right: FloatArray, right_level: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the prices of the rows in force and the levels."""
        if not self.few:
            found = np.asarray(self.factors.solve(np.append(right, right_level)))
            return found[: self.rows], found[self.rows :]
        alone = np.asarray(self.factors.solve(right))
        levels = np.linalg.solve(self.schur, self.ties.T @ alone - right_level)
        return alone - self.answers @ levels, levels
