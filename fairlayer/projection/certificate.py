"""Proof, on the returned value, that a projection is feasible and nearest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fairlayer.passes import Passes
from fairlayer.solve.slabs import SlabSystem
from fairlayer.solve.solution import Solution

__all__ = ["Certificate", "certify"]


@dataclass(frozen=True)
class Certificate:
    """How far a returned value is from feasible, and from nearest.

    Args:
        violation: largest violation of any slab (<= 0: all hold with room to spare), in prediction units: a row that
            moves by r > 1 per unit of prediction (a covariance with a large feature) counts 1/r.
        bound_violation: largest distance of any prediction outside the bounds.
        duality_gap: `1/2 |value - scores|^2` minus the dual value at the multipliers. A feasible value is within
            `sqrt(2 duality_gap)` of the nearest one. Rounding may leave it slightly negative.
        distance: `|value - scores|`, Euclidean over the batch.
        atol: the violation promised: 1e-6 for float32, 1e-10 for float64, times max(1, largest score or limit).
        gap_atol: the duality gap that moving each of n predictions by `atol` can make: `atol sqrt(n) max(1, distance)`.
    """

    violation: float
    bound_violation: float
    duality_gap: float
    distance: float
    atol: float
    gap_atol: float

    @property
    def holds(self) -> bool:
        """Whether violations are within `atol` and the duality gap is within `gap_atol`."""
        nearest = self.duality_gap <= self.gap_atol
        return self.violation <= self.atol and self.bound_violation <= self.atol and nearest


def certify(passes: Passes, slabs: SlabSystem, solution: Solution, value: torch.Tensor) -> Certificate:
    """Compute the certificate of a returned value, after its last cast."""
    final = value.detach().double()
    scores = passes.as_tensor(passes.scores)
    share = passes.share(passes.from_tensor(final))
    exact = passes.as_tensor(solution.value)
    outside = _outside(final, passes.lower, passes.upper)
    moved, moved_exactly = float(((final - scores) ** 2).sum()), float(((exact - scores) ** 2).sum())
    parts = passes.gather(np.append(share, [moved, moved_exactly, outside]))
    violation, _ = slabs.worst(parts[:, : len(share)].sum(axis=0))
    primal, dual = 0.5 * parts[:, -3:-1].sum(axis=0)
    sigma = float(sum(m * face.limit for m, face in zip(solution.multipliers, solution.faces, strict=True)))
    gap = float(primal - dual) - float(solution.nu @ solution.statistics) + sigma
    distance = math.sqrt(2.0 * float(primal))
    atol = (1e-10 if value.dtype == torch.float64 else 1e-6) * max(1.0, passes.size, slabs.size())
    return Certificate(
        violation=violation,
        bound_violation=float(parts[:, -1].max()),
        duality_gap=gap,
        distance=distance,
        atol=atol,
        gap_atol=atol * math.sqrt(passes.n) * max(1.0, distance),
    )


def _outside(value: torch.Tensor, lower: Any, upper: Any) -> float:
    if not len(value):
        return 0.0
    below = 0.0 if lower is None else float((_like(lower, value) - value).max())
    above = 0.0 if upper is None else float((value - _like(upper, value)).max())
    return max(0.0, below, above)


def _like(bound: Any, value: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(bound, dtype=torch.float64, device=value.device)
