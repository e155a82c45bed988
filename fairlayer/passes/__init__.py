"""One pass over the batch: shift each sample by its cell's share, clip, and return the statistics.

This is the only place where a solver touches n numbers. With statistics s = B y (B averages each hard cell, then come
the dense rows) and dual nu:

    y = clip(z - B' nu),     s = B y,     K = B F B'   (F: the unclipped samples)

Three implementations with the same methods: NumPy, torch, and either of them over the processes of a group, of which
each holds a part of the batch and only s and K travel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fairlayer.passes.arrays import NumpyPasses
from fairlayer.passes.base import Cells, Passes, Point
from fairlayer.passes.ranks import RankPasses
from fairlayer.passes.tensors import TorchPasses

__all__ = ["Cells", "NumpyPasses", "Passes", "Point", "RankPasses", "TorchPasses", "make_passes"]

_NUMPY_UP_TO = 50_000


def make_passes(scores: torch.Tensor, cells: Cells, lower: Any, upper: Any) -> NumpyPasses | TorchPasses:
    """Choose the implementation for a copy of the scores, in float64; bounds are None, floats or tensors (n,)."""
    if cells.weights is not None or (scores.device.type == "cpu" and len(scores) <= _NUMPY_UP_TO):
        readable = scores if scores.dtype in (torch.float64, torch.float32) else scores.float()
        return NumpyPasses(readable.numpy().astype(np.float64), cells, _to_host(lower), _to_host(upper))
    return TorchPasses(scores.to(torch.float64, copy=True), cells, lower, upper)


def _to_host(bound: Any) -> Any:
    return bound.cpu().numpy() if isinstance(bound, torch.Tensor) else bound
