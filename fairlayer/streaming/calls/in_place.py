"""A call of a stream in one compiled step, on scores and predictions where tensors hold them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlayer.fused import stream_loaded
from fairlayer.streaming.calls.lookup import CellLookup
from fairlayer.streaming.machine import Machine

__all__ = ["reads_in_place", "step_in_place"]

_NOTHING = np.zeros(0, dtype=np.int64), np.zeros(0)
_FLOAT32, _FLOAT64, _NEVER = torch.float32, torch.float64, math.inf  # looked up once


def reads_in_place(scores: Tensor, dtype: torch.dtype) -> bool:
    """Return whether a compiled call can read the scores, of this precision, and write predictions, where they are."""
    return (
        (dtype is _FLOAT32 or dtype is _FLOAT64)
        and stream_loaded() is not None
        and type(scores) is Tensor
        and scores.is_cpu
        and scores.is_contiguous()
        and not scores.is_neg()
    )


def step_in_place(stream: Machine, lookup: CellLookup, given: tuple[Tensor, int, bool], features: Any) -> Tensor | None:
    """Emit scores of a tensor in one compiled call, where the policy has one, else None (nothing has changed).

    Args:
        stream: the stream whose step it is.
        lookup: tables for the cells that the stream has met.
        given: the scores (n,) or (n, 1), in memory, row by row; n; and whether they are of double precision.
        features: the sensitive features, as they were given.
    """
    scores, n, wide = given
    own, history, rule = stream.own, stream.history, stream.rule
    quick = stream.policy.compiled(own, stream)
    if quick is None or stream.lease is not None or n > history.longest_draft or n >= own.get("wait", _NEVER):
        return None
    try:
        edge, at = lookup.edge(features, n), scores.data_ptr()
    except RuntimeError:  # a tensor without memory of its own, as transforms make them
        return None
    if edge is None:
        return None
    due = rule.samples >= own.get("next_refresh", _NEVER)
    rested = due and quick.rests(own, stream)
    if (due and not rested) or stream.now is not None:
        if not quick.takes((edge, at, wide, n, history.place(n))):
            return None  # before anything is solved, so that a call that raises changes nothing
        if due and not rested:
            stream.prepare(*_NOTHING)
            own, quick = stream.own, stream.policy.compiled(stream.own, stream)
            assert quick is not None
        if stream.now is not None:
            stream.tick(stream.now)
    first, emitted = history.place(n), torch.empty_like(scores)
    found = quick.answer(own, (edge, at, wide, n, first), emitted.data_ptr())
    if found is None:
        return None
    if rested and own["next_refresh"] > 0.0:  # it is 0 where the scores of the call tell of a change
        own["next_refresh"] = rule.samples + own["wait"]  # type: ignore[index]
    history.wrote(n)
    correction, widening = found
    rule.observe(n, correction, widening)
    if rule.cold:
        stream.look_for_groups(history.journal[0][first : first + n].tolist())
    return emitted
