"""Systems of the form (diagonal + weighted graph Laplacian) x = b, which is what pairs of samples make.

With D >= 0 a diagonal and edges (i, j) of weight w, the matrix is D + sum w (e_i - e_j)(e_i - e_j)'. A graph that is
nearly a forest has factors without fill, and is factored where SciPy is installed. Graphs of nearest neighbours in many
dimensions fill up, but are conditioned well: conjugate gradients solve them, with the diagonal as preconditioner.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray, IntArray

__all__ = ["solve_laplacian"]

_DENSE_UP_TO = 120  # unknowns
_NEARLY_FOREST = 1.3  # edges per unknown, up to which factors stay sparse
_MOST_STEPS = 20_000


def solve_laplacian(  # noqa: PLR0917 - a matrix by its entries, and a right-hand side
    diagonal: FloatArray, first: IntArray, second: IntArray, weight: float, right: FloatArray, rtol: float
) -> FloatArray:
    """Return x with (diag(diagonal) + weight * sum over edges) x = right.

    Args:
        diagonal: (n,), > 0.
        first: one end of each edge.
        second: the other end.
        weight: the weight of every edge.
        right: (n,).
        rtol: the accuracy of the residual, relative to the right-hand side; factors go as far as their numbers do.
    """
    n = len(right)
    if not len(first):
        return np.asarray(right / diagonal)
    if n <= _DENSE_UP_TO:
        return np.asarray(np.linalg.solve(_dense(diagonal, first, second, weight), right))
    sparse = _sparse_library()
    if sparse is not None:
        matrix = _sparse(sparse, diagonal, first, second, weight)
        if len(first) <= _NEARLY_FOREST * n:
            options = {"SymmetricMode": True}
            with contextlib.suppress(RuntimeError):  # singular to rounding: entries of very unlike size
                factors = sparse.linalg.splu(
                    matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options
                )
                return np.asarray(factors.solve(right))
        return _conjugate_gradients(lambda v: matrix @ v, matrix.diagonal(), right, rtol)
    degree = np.bincount(first, minlength=n) + np.bincount(second, minlength=n)

    def times(v: FloatArray) -> FloatArray:
        flow = weight * (v[first] - v[second])
        return diagonal * v + np.bincount(first, flow, n) - np.bincount(second, flow, n)

    return _conjugate_gradients(times, diagonal + weight * degree, right, rtol)


def _dense(diagonal: FloatArray, first: IntArray, second: IntArray, weight: float) -> FloatArray:
    matrix = np.diag(diagonal)
    for row, column, sign in ((first, first, 1), (second, second, 1), (first, second, -1), (second, first, -1)):
        np.add.at(matrix, (row, column), sign * weight)
    return matrix


def _sparse(library: Any, diagonal: FloatArray, first: IntArray, second: IntArray, weight: float) -> Any:
    n, own = len(diagonal), np.arange(len(diagonal))
    rows = np.concatenate([own, first, second, first, second])
    columns = np.concatenate([own, first, second, second, first])
    edge = np.full(len(first), weight)
    return library.csr_matrix((np.concatenate([diagonal, edge, edge, -edge, -edge]), (rows, columns)), shape=(n, n))


def _sparse_library() -> Any:
    try:
        import scipy.sparse
        import scipy.sparse.linalg
    except ImportError:  # the core has no SciPy, and needs none for this
        return None
    return scipy.sparse


def _conjugate_gradients(times: Any, preconditioner: FloatArray, right: FloatArray, rtol: float) -> FloatArray:
    x, residual = np.zeros_like(right), right.copy()
    goal = rtol * float(np.linalg.norm(right))
    scaled = residual / preconditioner
    direction, product = scaled.copy(), float(residual @ scaled)
    for _ in range(_MOST_STEPS):
        if float(np.linalg.norm(residual)) <= goal or product <= 0.0:
            break
        image = times(direction)
        step = product / float(direction @ image)
        x += step * direction
        residual -= step * image
        scaled = residual / preconditioner
        product, last = float(residual @ scaled), product
        direction = scaled + (product / last) * direction
    return x
