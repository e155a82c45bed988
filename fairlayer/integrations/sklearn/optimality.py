"""The proof that a fitted model is the optimum of its convex program."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fairlayer._typing import FloatArray

__all__ = ["Optimality"]


@dataclass(frozen=True)
class Optimality:
    """How far a solution may be from the optimum, computed on the training data from the returned coefficients.

    Args:
        objective: value of the loss at the solution.
        lower_bound: value of the dual: no coefficients that meet the constraints have a smaller loss.
        violation: by how much the worst statement exceeds its limit, in units of the linear predictor; 0 if none does.
        gap_atol: duality gap up to which `holds`; 1e-8 of the loss without any model.
        atol: violation up to which `holds`; 1e-9 of the largest prediction, or of 1.

    Example:
        >>> proof = Optimality(objective=2.0, lower_bound=1.5, violation=0.0, gap_atol=1e-8)
        >>> proof.duality_gap, proof.holds
        (0.5, False)
    """

    objective: float
    lower_bound: float
    violation: float
    gap_atol: float
    atol: float = 1e-9

    @staticmethod
    def measured(
        objective: float, lower_bound: float, violation: float, *, start: float, predictions: FloatArray
    ) -> Optimality:
        """Set the accuracies by the size of the problem; `start` is the loss of predicting 0."""
        size = max(1.0, float(np.abs(predictions).max()))
        return Optimality(objective, lower_bound, violation, 1e-8 * start, 1e-9 * size)

    @property
    def duality_gap(self) -> float:
        """Largest possible excess of the objective over the optimum, up to rounding."""
        return self.objective - self.lower_bound

    @property
    def holds(self) -> bool:
        """Whether the duality gap and the violation are within their accuracies."""
        return abs(self.duality_gap) <= self.gap_atol and self.violation <= self.atol
