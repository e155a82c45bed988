"""Scores -> probabilities strictly inside (0, 1): the one place that decides what an end of the interval means.

A geometry of probabilities lives on the open interval. A raw score of exactly 0 or 1 (from trees, or from a sigmoid
that rounds) has no finite log-odds and could not move, so probabilities are first moved into
(margin, 1 - margin). Where no margin is given it is the resolution of the dtype. Log-odds need none.
"""

from __future__ import annotations

from typing import Any

import torch

from fairlayer._arrays import held_by_host
from fairlayer.errors import InvalidBoundsError, ProbabilityError

__all__ = ["at_the_ends", "check_probabilities", "check_rows", "inner_margin", "inside_unit_interval", "moved_inside"]


def inner_margin(dtype: torch.dtype, margin: float) -> float:
    """Return the margin that applies: the one given, or the resolution of the dtype."""
    least = float(torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps)
    if margin >= 0.5:
        raise InvalidBoundsError(f"margin={margin:g} leaves nothing of (0, 1); give a margin below 0.5.")
    return max(float(margin), least)


def moved_inside(probabilities: torch.Tensor, margin: float, *, most: bool = True) -> torch.Tensor:
    """Return float64 probabilities within [margin, 1 - margin] (`most`: also from above), differentiably.

    Raises:
        ProbabilityError: a score is below 0 or above 1 by more than rounding.
    """
    inner = inner_margin(probabilities.dtype, margin)
    return probabilities.double().clamp(inner, 1.0 - inner if most else None)


def check_probabilities(low: float, high: float, geometry: str) -> None:
    """Raise where plain scores are not probabilities.

    Raises:
        ProbabilityError: the range [low, high] is not within [0, 1], up to rounding.
    """
    if low < -1e-6 or high > 1.0 + 1e-6:
        raise ProbabilityError(
            f"geometry={geometry!r} moves probabilities, but the scores range from {low:.4g} to {high:.4g}. "
            "Pass from_logits=True if they are log-odds, apply a sigmoid, or use geometry='euclidean'."
        )


def check_rows(probabilities: torch.Tensor, geometry: str) -> None:
    """Raise where rows of class probabilities do not sum to 1.

    Raises:
        ProbabilityError: a row is off by more than 1e-3, and by more than its dtype rounds.
    """
    off = float((probabilities.double().sum(dim=1) - 1.0).abs().max())
    if off > max(1e-3, float(torch.finfo(probabilities.dtype).eps)):
        raise ProbabilityError(
            f"geometry={geometry!r} on the simplex moves rows of class probabilities, but rows of the scores sum to "
            f"something else than 1, by up to {off:.3g}. Apply a softmax, pass from_logits=True if they are logits, or "
            "use geometry='euclidean', which projects any rows onto the simplex."
        )


def at_the_ends(probabilities: torch.Tensor, margin: float) -> int:
    """Return how many probabilities `moved_inside` moves."""
    inner, numbers = inner_margin(probabilities.dtype, margin), held_by_host(probabilities)
    return int(((numbers < inner) | (numbers > 1.0 - inner)).sum())


def inside_unit_interval(value: Any) -> Any:
    """Return probabilities as their dtype holds them, but never exactly 0 or 1."""
    if not isinstance(value, torch.Tensor):
        return value.clip(5e-324, 1.0 - 2.0**-53)
    info = torch.finfo(value.dtype)
    return value.clamp(info.tiny, 1.0 - info.eps / 2.0)
