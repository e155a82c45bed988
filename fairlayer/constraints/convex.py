"""The user's own convex constraints, written in cvxpy and served by the reference backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from fairlayer.constraints.base import Classes, Constraint, as_names, check_classes
from fairlayer.constraints.batch import Batch
from fairlayer.constraints.statements import Statement
from fairlayer.errors import BackendError, ConstraintDefinitionError

__all__ = ["Convex", "without_convex"]


class Convex(Constraint):
    """Any convex constraints on the predictions, written in cvxpy by its rules (DCP and DPP).

        build(prediction, batch, **parameters)        a list of cvxpy constraints on prediction (n,)

    Args:
        build: a function of a `cvxpy.Variable` (n,), the batch (`fairlayer.constraints.Batch`) and one
            `cvxpy.Parameter` per entry of `parameters` to a list of cvxpy constraints. Called for each batch.
        name: how results call it.
        on: a sensitive feature that `build` reads from the batch, or a tuple of them.
        parameters: numbers, arrays or tensors; a tensor that requires a gradient gets one. What has no
            negative entry is declared nonnegative to cvxpy.
        needs_labels: whether `build` reads the labels of the batch.
        classes: which columns of scores (n, k) it speaks of, one or several; None for all, each by itself.

    Raises:
        ConstraintDefinitionError: a name that is none, or a parameter that is not a number; at projection, when
            what was built is not a list of DPP constraints over the prediction and these parameters.
        BackendError: it met another backend than "cvxpylayers"; penalties and streams cannot serve it.

    Source: Agrawal et al. (2019), "Differentiable convex optimization layers", section 3 (DPP).
    Limits: `on_infeasible="relax"` does not widen it, and it has no shift per cell. Its multiplier is the sum
        of the duals of its inequalities and equalities, and NaN where it holds a cone (SOC, PSD) of its own.

    Example:
        >>> import cvxpy as cp, torch, fairlayer as fl
        >>> calm = fl.Convex(lambda y, batch, radius: [cp.norm(y) <= radius], parameters={"radius": 1.0})
        >>> fl.project(torch.tensor([3.0, 4.0]), [calm], backend="cvxpylayers").value
        tensor([0.6000, 0.8000])
    """

    streamable = False

    def __init__(
        self,
        build: Callable[..., Sequence[Any]],
        *,
        name: str = "Convex",
        on: str | Sequence[str] = (),
        parameters: Mapping[str, Any] | Sequence[tuple[str, Any]] = (),
        needs_labels: bool = False,
        classes: Classes = None,
    ) -> None:
        if not callable(build) or not isinstance(name, str) or not name:
            raise ConstraintDefinitionError(
                f"Convex needs a function that builds cvxpy constraints, and a name, but found {build!r} and {name!r}."
            )
        self.on = as_names(on) if on else ()
        self.name = name
        self.needs_labels = needs_labels
        self.classes = check_classes(name, classes)
        self.build = build
        self.parameters = {key: _as_parameter(name, key, value) for key, value in dict(parameters).items()}

    def statements(self, batch: Batch) -> Sequence[Statement]:
        """Refuse: these are not linear statements about group means."""
        raise BackendError(
            f"{self.name} is a Convex constraint, not a set of linear statements about group means, so this "
            'backend cannot serve it. Use backend="cvxpylayers" in project, FairProjection or FairModel.'
        )


def without_convex(constraints: Sequence[Constraint]) -> tuple[Constraint, ...]:
    """Return the constraints that are linear statements.

    Example:
        >>> import fairlayer as fl
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> steady = fl.Convex(lambda y: [y >= 0.2])
        >>> without_convex([parity, steady]) == (parity,)
        True
    """
    return tuple(constraint for constraint in constraints if not isinstance(constraint, Convex))


def _as_parameter(owner: str, key: str, value: Any) -> torch.Tensor:
    try:
        tensor = value if isinstance(value, torch.Tensor) else torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        text = f"{owner}: parameter {key!r} must be numbers, but is {value!r}."
        raise ConstraintDefinitionError(text) from error
    if not bool(torch.isfinite(tensor).all()):
        raise ConstraintDefinitionError(f"{owner}: parameter {key!r} must be finite, but is {value!r}.")
    return tensor
