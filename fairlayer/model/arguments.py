"""What a FairModel is made of, checked once: backbone, batch size, columns of x and what they are held to."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

from torch import nn

from fairlayer._numbers import is_whole
from fairlayer.constraints import Constraint, DemographicParity
from fairlayer.constraints.statements import Tolerance
from fairlayer.errors import ConstraintDefinitionError, OutputError, ParameterError
from fairlayer.networks import WithoutColumns

__all__ = ["as_backbone", "as_batch_size", "as_indices", "column_constraints", "hidden_from"]


def as_backbone(backbone: Any) -> nn.Module | None:
    """Return the backbone if it can be called on tensors.

    Raises:
        OutputError: it is a class, or an estimator that fits and predicts arrays.
    """
    estimator = hasattr(backbone, "fit") and hasattr(backbone, "predict")
    if backbone is None or isinstance(backbone, nn.Module):
        return backbone
    if isinstance(backbone, type):
        raise OutputError(f"the backbone is the class {backbone.__name__}. Pass an instance: {backbone.__name__}(...).")
    if callable(backbone) and not estimator:
        return backbone  # type: ignore[no-any-return]  # a function of tensors
    advice = (
        "An estimator goes into FairPostprocessor(estimator, constraints) of fairlayer.integrations.sklearn, or its "
        "predictions, as arrays, into fairlayer.project(...), decide(...) or DecisionRule.fit(...)."
        if estimator
        else "Pass a torch.nn.Module, or a function of tensors."
    )
    raise OutputError(f"the backbone is a {type(backbone).__name__}, which is not called on tensors. {advice}")


def hidden_from(backbone: nn.Module | None, columns: tuple[int, ...]) -> nn.Module:
    """Return the backbone with columns of x kept from it.

    Raises:
        ParameterError: there is no backbone to keep them from, or nothing says which columns.
    """
    if isinstance(backbone, nn.Module) and columns:
        return WithoutColumns(backbone, columns)
    lacking = "protected_attr_idx= says which columns of x are hidden" if not columns else "it needs a backbone module"
    raise ParameterError(
        f"hide_features=True was given, but {lacking}. Sensitive features that are passed as sensitive_features= are "
        "not shown to the backbone anyway."
    )


def as_batch_size(b_tau: Any) -> Any:
    """Return the number of samples as it is.

    Raises:
        ConstraintDefinitionError: it is no number, or below 0.
    """
    if isinstance(b_tau, Real) and float(b_tau) >= 0:  # numpy's numbers among them
        return b_tau
    raise ConstraintDefinitionError(f"b_tau must be a number of samples >= 0, but is {b_tau!r}.")


def as_indices(index: int | Sequence[int] | None) -> tuple[int, ...]:
    """Return the numbers of the columns of x that were named."""
    if index is None:
        return ()
    return (int(index),) if is_whole(index) else tuple(int(i) for i in index)


def column_constraints(indices: tuple[int, ...], tolerance: Tolerance | None) -> list[Constraint]:
    """Return one parity for each column of x.

    Raises:
        ConstraintDefinitionError: there is a tolerance, and no column.
    """
    if tolerance is None:
        return []
    if not indices:
        raise ConstraintDefinitionError(
            "tolerance= goes with protected_attr_idx=; otherwise give the tolerance to each constraint."
        )
    return [DemographicParity(f"x[{i}]", tolerance) for i in indices]
