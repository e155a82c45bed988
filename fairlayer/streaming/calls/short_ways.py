"""Small batches whose cells are known and whose policy has a short way: one sample, or a block in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlayer._arrays import host_float64
from fairlayer._typing import FloatArray
from fairlayer.streaming.calls.entrance import probabilities, sigmoid
from fairlayer.streaming.calls.lookup import CellLookup
from fairlayer.streaming.machine import Machine
from fairlayer.streaming.setting import Setting

__all__ = ["FLOATS", "read_many", "read_one", "step_many", "step_one"]

_EXACT = (torch.float32, torch.float64)
_NUMPY: dict[torch.dtype, Any] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}

_LARGEST = 1e100

FLOATS = frozenset((*_EXACT, torch.float16, torch.bfloat16))
"""Precisions of scores that the short ways take; predictions of the half ones are of single precision."""


def read_one(scores: Tensor, setting: Setting) -> float | None:
    """Return the raw prediction of one sample; None where it is no number of the domain."""
    raw = scores.item()
    if setting.from_logits:
        if not -_LARGEST <= raw <= _LARGEST:  # the sigmoid of what is no number would be one
            return None
        raw = sigmoid(raw)
    least, most = (0.0, 1.0) if setting.geometry.bounded else (-_LARGEST, _LARGEST)
    return raw if least <= raw <= most else None


def step_one(machine: Machine, lookup: CellLookup, given: tuple[float, Tensor], features: Any) -> Tensor | None:
    """Emit one sample, or return None where it needs the general way, and nothing has changed."""
    raw, scores = given
    cell = lookup.one(features)
    value = None if cell is None else machine.step_one(cell, raw)
    if value is None:
        return None
    dtype = scores.dtype if scores.dtype in _EXACT else torch.float32
    return torch.full(scores.shape, value, dtype=dtype, device=scores.device)


def read_many(scores: Tensor, setting: Setting) -> FloatArray | None:
    """Return raw predictions (n,) of any precision; None where one is no probability, and the geometry wants it."""
    try:
        raw = scores.numpy().ravel()
    except (RuntimeError, TypeError):  # of another device or precision, or with a graph
        raw = host_float64(scores).reshape(-1)
    if not setting.geometry.bounded:
        return raw
    raw = raw.astype(np.float64)  # single precision would squash them otherwise
    if setting.from_logits and not np.abs(raw).max() <= _LARGEST:
        return None
    raw = probabilities(raw, setting.from_logits)
    return raw if raw.min() >= 0.0 and raw.max() <= 1.0 else None


def step_many(machine: Machine, lookup: CellLookup, given: tuple[FloatArray, Tensor], features: Any) -> Tensor | None:
    """Emit a block, or return None where it needs the general way, and nothing has changed."""
    raw, scores = given
    cells = lookup.many(features, len(raw)) if machine.now is None else None  # the general way keeps the time
    emitted = None if cells is None else machine.step_many(cells, raw)
    if emitted is None:
        return None
    result = emitted.astype(_NUMPY[scores.dtype if scores.dtype in _EXACT else torch.float32])  # a copy
    tensor = torch.from_numpy(result.reshape(scores.shape))
    return tensor if scores.is_cpu else tensor.to(scores.device)
