"""Sums per cell of one stream, as sums per cell of another that numbers its cells otherwise."""

from __future__ import annotations

import numpy as np

from fairlayer._typing import FloatArray, IntArray

__all__ = ["gathered"]


def gathered(values: FloatArray, rows: IntArray, cells: int) -> FloatArray:
    """Return values (kinds, cells, ...) summed into other cells, the i-th into `rows[i]`.

    Example:
        >>> gathered(np.array([[1.0, 2.0, 4.0]]), np.array([1, 0, 1]), 2).tolist()
        [[2.0, 5.0]]
    """
    found = np.zeros((values.shape[0], cells, *values.shape[2:]))
    for i, row in enumerate(rows.tolist()):
        found[:, row] += values[:, i]
    return found
