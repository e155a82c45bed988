"""One pass over the batch: let each sample answer its pull, and return the statistics.

This is the only place where a solver touches n numbers. With statistics s = B y (B averages each hard cell, then come
the dense rows), dual nu, and the geometry's step y(x, q):

    y = y(x, B' nu),     s = B y,     K = B W B'   (W = -dy/dq)

NumPy and torch for single numbers, compiled sweeps where they are there, NumPy for rows of class probabilities, and any
of them over the processes of a group, of which each holds a part of the batch and only s and K travel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fairlayer.geometry import EUCLIDEAN, Geometry
from fairlayer.passes.arrays import NumpyPasses
from fairlayer.passes.base import Cells, Passes, Point, WholeBatch
from fairlayer.passes.compiled import CompiledPasses
from fairlayer.passes.ranks import RankPasses
from fairlayer.passes.simplex import SimplexPasses
from fairlayer.passes.tensors import TorchPasses

__all__ = [
    "Cells",
    "CompiledPasses",
    "NumpyPasses",
    "Passes",
    "Point",
    "RankPasses",
    "SimplexPasses",
    "TorchPasses",
    "WholeBatch",
    "make_passes",
]

_NUMPY_UP_TO = 50_000


def make_passes(
    scores: torch.Tensor, cells: Cells, lower: Any, upper: Any, geometry: Geometry = EUCLIDEAN
) -> NumpyPasses | TorchPasses | SimplexPasses | CompiledPasses:
    """Choose the implementation for a copy of the scores, in float64.

    Args:
        scores: (n,) in the coordinate of the geometry; (n, k) for one on the simplex.
        cells: the statistics.
        lower: None, a float or a tensor (n,).
        upper: likewise.
        geometry: how a sample answers a pull.
    """
    readable = scores if scores.dtype in (torch.float64, torch.float32) else scores.float()
    if geometry.on_simplex:
        return SimplexPasses(_to_host(readable).astype(np.float64), cells, geometry, scores.device)
    if CompiledPasses.serve(readable, cells, lower, upper, geometry):
        return CompiledPasses(readable, cells, lower, upper, geometry)
    if cells.weights is not None or (scores.device.type == "cpu" and len(scores) <= _NUMPY_UP_TO):
        host = _to_host(readable).astype(np.float64)
        return NumpyPasses(host, cells, _to_host(lower), _to_host(upper), geometry)
    return TorchPasses(scores.to(torch.float64, copy=True), cells, lower, upper, geometry)


def _to_host(array: Any) -> Any:
    return array.cpu().numpy() if isinstance(array, torch.Tensor) else array


def __dir__() -> list[str]:
    return list(__all__)
