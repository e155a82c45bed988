"""The constraints for the optimisers of other libraries: Cooper's, and humancompatible-train's."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from fairlayer.errors import require
from fairlayer.penalties.excess import Excess

__all__ = ["cooper_problem", "dual_optimizer"]


def cooper_problem(excess: Excess, evaluate: Callable[..., tuple[Tensor, Tensor]], **settings: Any) -> Any:
    """Return a `cooper.ConstrainedMinimizationProblem`: minimise the loss subject to `excess <= 0`.

    Args:
        excess: the constraints, after `fit_categories`.
        evaluate: a function that returns (loss, excess of this batch); it gets what
            `roll(compute_cmp_state_kwargs={...})` holds.
        settings: arguments for `cooper.Constraint` (`formulation_type`, `penalty_coefficient`, `multiplier`); by
            default one dense multiplier per entry, in Cooper's Lagrangian formulation.

    Raises:
        MissingExtraError: Cooper is not installed.
        ShapeError: `fit_categories` was not called.

    Source: Gallego-Posada et al. (2025), "Cooper: a library for constrained optimization in deep learning".

    Example:
        >>> import cooper, torch, fairlayer as fl
        >>> excess = Excess(fl.DemographicParity("sex", tolerance=0.1)).fit_categories({"sex": ["F", "M"]})
        >>> scores = torch.tensor([0.9, 0.4], requires_grad=True)
        >>> def evaluate():
        ...     return scores.sum(), excess(scores, sensitive_features={"sex": ["F", "M"]})
        >>> problem = cooper_problem(excess, evaluate)
        >>> violation = problem.compute_cmp_state().observed_constraints[problem.fairness].violation
        >>> [round(value, 3) for value in violation.tolist()]
        [0.4, -0.6]
    """
    cooper = require("cooper", "methods")
    multipliers = require("cooper.multipliers", "methods")
    settings = {"multiplier": multipliers.DenseMultiplier(num_constraints=excess.size), **settings}

    class CooperProblem(cooper.ConstrainedMinimizationProblem):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.fairness = cooper.Constraint(constraint_type=cooper.ConstraintType.INEQUALITY, **settings)

        def compute_cmp_state(self, *args: Any, **kwargs: Any) -> Any:
            loss, violation = evaluate(*args, **kwargs)
            return cooper.CMPState(loss, {self.fairness: cooper.ConstraintState(violation=violation)})

    return CooperProblem()


def dual_optimizer(excess: Excess, kind: Callable[..., Any], **settings: Any) -> Any:
    """Return a dual optimiser of humancompatible-train, with one inequality per entry of `excess`.

    In each step: `dual.forward_update(loss, excess(scores, ...)).backward()`.

    Args:
        excess: the constraints, after `fit_categories`.
        kind: a class of `humancompatible.train.dual_optim`, such as `ALM` or `nuPI`.
        settings: its other arguments.

    Raises:
        ShapeError: `fit_categories` was not called.

    Source: the library `humancompatible-train`.

    Example:
        >>> import torch, fairlayer as fl
        >>> from humancompatible.train.dual_optim import ALM
        >>> excess = Excess(fl.DemographicParity("sex", tolerance=0.1)).fit_categories({"sex": ["F", "M"]})
        >>> dual = dual_optimizer(excess, ALM, lr=0.1)
        >>> scores = torch.tensor([0.9, 0.4], requires_grad=True)
        >>> dual.forward_update(scores.sum(), excess(scores, sensitive_features={"sex": ["F", "M"]})).backward()
        >>> scores.grad is not None
        True
    """
    if "is_ineq" in inspect.signature(kind).parameters:
        settings = {"is_ineq": True, **settings}
    return kind(m=excess.size, **settings)
