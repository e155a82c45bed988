"""The backend: one column of scores in, the differentiable value and its report out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fairlayer.constraints import Constraint
from fairlayer.edge import Box
from fairlayer.errors import NonFiniteScoresError
from fairlayer.projection.assembly import Assembly
from fairlayer.projection.reference.gradient import differentiable
from fairlayer.projection.reference.problem import ReferenceProblem
from fairlayer.projection.reference.solving import solve
from fairlayer.projection.reference.task import Task, TaskInputs

__all__ = ["solve_by_reference"]


def solve_by_reference(
    scores: Tensor,
    constraints: Sequence[Constraint],
    assembly: Assembly,
    box: Box,
    relax: bool,
) -> tuple[Tensor, ReferenceProblem]:
    """Project one column of scores (n,), differentiably in scores, tolerances, bounds and convex parameters.

    Args:
        scores: (n,), floating.
        constraints: all of them.
        assembly: the statements of those that are not `Convex`, and the batch that these may look at.
        box: the bounds.
        relax: widen the limits of all statements by the least amount where nothing meets them.

    Raises:
        NonFiniteScoresError: scores hold NaN or infinity.
        InfeasibleConstraintsError: nothing within the bounds meets the constraints.
        ConstraintDefinitionError: a `Convex` constraint is not DPP.
        SolverError: the accuracy was not reached, forwards or backwards.

    Example:
        >>> import torch, fairlayer as fl
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> given = {"sensitive_features": {"sex": ["F", "M"]}, "bounds": (0.0, 1.0)}
        >>> result = fl.project(torch.tensor([0.9, 0.3]), parity, backend="cvxpylayers", **given)
        >>> [round(value, 3) for value in result.value.tolist()]
        [0.65, 0.55]
    """
    _check_finite(scores)
    inputs = TaskInputs.read(scores, constraints, assembly, box)
    task = Task.of(constraints, assembly, assembly.batch, inputs)
    solved = solve(task, relax)
    dtype = torch.float64 if scores.dtype == torch.float64 else torch.float32
    returned = differentiable(solved, inputs).to(device=scores.device, dtype=dtype)
    return returned, ReferenceProblem.of(task, solved, returned.detach())


def _check_finite(scores: Tensor) -> None:
    bad = int((~torch.isfinite(scores.detach())).sum())
    if bad:
        raise NonFiniteScoresError(
            f"{bad} of {len(scores)} scores are NaN or infinite. Look for a diverged backbone, a log of 0, "
            "or missing values in its input."
        )
