"""One pass over the batch: let each sample answer its pull, and return the statistics.

This is the only place where a solver touches n numbers. With statistics s = B y (B averages each hard cell, then come
the dense rows), dual nu, and the geometry's step y(x, q):

    y = y(x, B' nu),     s = B y,     K = B W B'   (W = -dy/dq)

A pass is made by NumPy on the host, by torch on a device, or by compiled sweeps where they are there; rows of class
probabilities are NumPy's. Any of them works over the processes of a group: each holds a part of the batch, and only s
and K travel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fairlayer.geometry import EUCLIDEAN, Geometry
from fairlayer.passes.arrays import NumpyPasses
from fairlayer.passes.base import WHOLE, Cells, Passes, Point, WholeBatch
from fairlayer.passes.compiled import CompiledPasses
from fairlayer.passes.condensed import CondensedBatch, CondensedPasses
from fairlayer.passes.ranks import RankPasses
from fairlayer.passes.simplex import SimplexPasses
from fairlayer.passes.sorting import sorted_by_cell
from fairlayer.passes.tensors import TorchPasses

__all__ = [
    "WHOLE",
    "Cells",
    "CompiledPasses",
    "CondensedBatch",
    "CondensedPasses",
    "NumpyPasses",
    "Passes",
    "Point",
    "RankPasses",
    "SimplexPasses",
    "TorchPasses",
    "WholeBatch",
    "make_passes",
    "sorted_by_cell",
]

_ON_HOST = frozenset({"cpu"})  # devices whose batches NumPy serves


def make_passes(
    scores: torch.Tensor,
    cells: Cells,
    lower: Any,
    upper: Any,
    geometry: Geometry = EUCLIDEAN,
    *,
    owned: bool = False,
) -> NumpyPasses | TorchPasses | SimplexPasses | CompiledPasses:
    """Choose the implementation for the scores, in float64.

    Args:
        scores: (n,) in the coordinate of the geometry; (n, k) for one on the simplex.
        cells: the statistics.
        lower: None, a float or a tensor (n,).
        upper: likewise.
        geometry: how a sample answers a pull.
        owned: nobody else has these scores, so that they need no copy.
    """
    readable = scores if scores.dtype in (torch.float64, torch.float32) else scores.float()
    if geometry.on_simplex:
        return SimplexPasses(_to_host(readable).astype(np.float64), cells, geometry, scores.device)
    if scores.device.type not in _ON_HOST:
        return TorchPasses(scores.to(torch.float64, copy=not owned), cells, lower, upper, geometry)
    host = _to_host(readable).astype(np.float64, copy=not owned)
    if CompiledPasses.serve(readable, cells, lower, upper, geometry):
        return CompiledPasses(host, cells, lower, upper, geometry)
    return NumpyPasses(host, cells, _to_host(lower), _to_host(upper), geometry, scores.device)


def _to_host(array: Any) -> Any:
    return array.cpu().numpy() if isinstance(array, torch.Tensor) else array


def __dir__() -> list[str]:
    return list(__all__)
