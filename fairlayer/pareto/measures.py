"""A gap as a sweep should return it: measured, estimated, and the upper end of its interval."""

from __future__ import annotations

from typing import Any

from fairlayer.audit import bounded_interval
from fairlayer.constraints import Constraint
from fairlayer.pareto.errors import MeasureError

__all__ = ["gap_measures"]


def gap_measures(
    name: str, constraint: Constraint, predictions: Any, *, sensitive_features: Any, y: Any = None
) -> dict[str, float]:
    """Return what a constraint bounds under three names: NAME as measured, NAME_estimate, NAME_high.

    Args:
        name: such as "val_gap".
        constraint: a range of means of groups; its limit is not read.
        predictions: scores or 0/1 decisions (n,).
        sensitive_features: as for `project`.
        y: labels (n,), where the constraint reads labels.

    Raises:
        MeasureError: the constraint bounds another number, of which no estimate is known.

    Example:
        >>> import numpy as np, fairlayer as fl
        >>> decided, sex = np.repeat([1.0, 0.0, 1.0, 0.0], [60, 140, 76, 124]), np.repeat(["f", "m"], 200)
        >>> found = gap_measures("val_gap", fl.DemographicParity("sex", 0), decided, sensitive_features={"sex": sex})
        >>> {key: round(value, 3) for key, value in found.items()}
        {'val_gap': 0.08, 'val_gap_estimate': 0.052, 'val_gap_high': 0.171}
    """
    interval = bounded_interval(constraint, predictions, sensitive_features=sensitive_features, y=y)
    if interval is None:
        raise MeasureError(
            f"{constraint.name} bounds no range of group means, so that no estimate of its gap is known. Return "
            "constraint.measure(...).value under a name of your own."
        )
    return {name: interval.measured, f"{name}_estimate": interval.estimate, f"{name}_high": interval.high}
