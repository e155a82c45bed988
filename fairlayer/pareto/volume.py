"""Dominance and hypervolume, for any number of losses (lower is better)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairlayer._typing import BoolArray, FloatArray

__all__ = ["hypervolume", "non_dominated"]


def non_dominated(losses: NDArray[Any]) -> BoolArray:
    """Return which rows no other row dominates: is nowhere larger and somewhere smaller; equal rows keep each other.

    Example:
        >>> non_dominated(np.array([[0.0, 2.0], [1.0, 1.0], [1.0, 2.0]])).tolist()
        [True, True, False]
    """
    no_worse = (losses[:, None, :] <= losses[None, :, :]).all(axis=-1)
    better = (losses[:, None, :] < losses[None, :, :]).any(axis=-1)
    return np.asarray(~(no_worse & better).any(axis=0))


def hypervolume(losses: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return the volume that the rows of losses dominate below a reference point.

        volume of { r : some row <= r <= reference }

    Exact, by slices along the last loss, each the hypervolume of one loss less: a sum of boxes, of order
    n^(losses - 1).

    Args:
        losses: (n, d), lower is better.
        reference: (d,); rows that are not below it in every loss add nothing.

    Source: Zitzler, Thiele (1999) for the indicator; the slices are Knowles's and While's (HSO).

    Example:
        >>> hypervolume(np.array([[0.0, 2.0], [1.0, 1.0]]), np.array([3.0, 3.0]))
        5.0
    """
    points, corner = np.asarray(losses, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    below = points[(points < corner).all(axis=1)]
    return _volume(below, corner) if len(below) else 0.0


def _volume(points: FloatArray, corner: FloatArray) -> float:
    if points.shape[1] == 1:
        return float(corner[0] - points.min())
    points = points[non_dominated(points)]
    points = points[np.argsort(points[:, -1], kind="stable")]
    ends = np.append(points[1:, -1], corner[-1])
    depths = ends - points[:, -1]
    return sum(float(d) * _volume(points[: i + 1, :-1], corner[:-1]) for i, d in enumerate(depths) if d > 0)
