"""What a stream is given, as it works with it: constraints, bounds, raw scores; and its answers as tensors again."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fairlayer._arrays import host_float64
from fairlayer._typing import FloatArray
from fairlayer.constraints import Constraint
from fairlayer.edge import Box, as_columns, plain_bounds
from fairlayer.errors import ConstraintDefinitionError, InvalidBoundsError, NonFiniteScoresError, ShapeError
from fairlayer.geometry import Geometry
from fairlayer.geometry.base import stable_sigmoid
from fairlayer.geometry.probabilities import check_probabilities, inner_margin

__all__ = ["as_scores_again", "flat", "probabilities", "raw_of", "read_bounds", "sigmoid", "streamable"]


def streamable(constraints: tuple[Constraint, ...]) -> tuple[Constraint, ...]:
    """Return the constraints, where a stream can hold all of them.

    Raises:
        ConstraintDefinitionError: it cannot hold one.
    """
    unheld = [constraint.name for constraint in constraints if not constraint.streamable]
    if unheld:
        raise ConstraintDefinitionError(
            f"{', '.join(unheld)} cannot be held in a stream, which knows pooled group means only. Project batches "
            "of at least b_tau, or use constraints on groups."
        )
    return constraints


def read_bounds(bounds: tuple[float | None, float | None] | None, rule: Geometry) -> tuple[float | None, float | None]:
    """Return bounds as numbers; an open domain ends a resolution of float32 before its ends.

    Raises:
        InvalidBoundsError: they are none, or lie outside the domain of the geometry.
    """
    box = Box.read(bounds, 0.0, torch.zeros(1))
    low, high = plain_bounds((box.lower, box.upper), 0.0)
    if not rule.bounded:
        return low, high
    if (low is not None and low < 0.0) or (high is not None and high > 1.0):
        raise InvalidBoundsError(
            f"geometry={rule.name!r} moves probabilities, whose bounds are (0, 1), but bounds={bounds!r} was asked. "
            "Leave bounds out, or use geometry='euclidean'."
        )
    inner = inner_margin(torch.float32, 0.0)
    return max(low or 0.0, inner), min(1.0 if high is None else high, 1.0 - inner)


def sigmoid(score: float) -> float:
    """Return 1 / (1 + exp(-score)) of one score, in plain numbers."""
    if score >= 0.0:
        return 1.0 / (1.0 + math.exp(-score)) if score < 745.0 else 1.0
    small = math.exp(score) if score > -745.0 else 0.0
    return small / (1.0 + small)


def probabilities(raw: FloatArray, from_logits: bool) -> FloatArray:
    """Return raw scores as probabilities."""
    return stable_sigmoid(raw) if from_logits else raw


def flat(scores: Tensor) -> FloatArray:
    """Return raw scores (n,) in double precision on the host.

    Raises:
        ShapeError: they are no one score per sample.
        NonFiniteScoresError: one is NaN or infinite.
    """
    as_columns(scores)
    if scores.ndim == 2 and scores.shape[1] != 1:
        raise ShapeError(
            f"a stream takes one score per sample, (n,) or (n, 1), but found {tuple(scores.shape)}. "
            "Use one InferenceState for each column."
        )
    raw = host_float64(scores).reshape(-1)
    if not np.isfinite(raw).all():
        raise NonFiniteScoresError(f"{int((~np.isfinite(raw)).sum())} of {len(raw)} scores are NaN or infinite.")
    return raw


def raw_of(scores: Tensor, geometry: Geometry, *, from_logits: bool) -> FloatArray:
    """Return raw predictions (n,): the scores, or their sigmoid.

    Raises:
        ProbabilityError: the geometry moves probabilities, and these are none.
    """
    raw = flat(scores)
    if not geometry.bounded:
        return raw
    raw = probabilities(raw, from_logits)
    check_probabilities(float(raw.min()), float(raw.max()), geometry.name)
    return np.clip(raw, 0.0, 1.0)


def as_scores_again(emitted: FloatArray, scores: Tensor) -> Tensor:
    """Return predictions in the shape and on the device of the scores; half precision becomes float32."""
    copied = emitted.astype(np.float64 if scores.dtype is torch.float64 else np.float32)
    return torch.from_numpy(copied.reshape(scores.shape)).to(scores.device)
