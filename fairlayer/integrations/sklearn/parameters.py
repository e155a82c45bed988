"""Parameters of the convex models."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from fairlayer.errors import ParameterError

__all__ = ["check_positive"]


def check_positive(owner: str, name: str, value: Any) -> float:
    """Return a finite number > 0.

    Raises:
        ParameterError: it is something else.

    Example:
        >>> check_positive("FairRidge", "alpha", 1)
        1.0
    """
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not 0 < number < math.inf:
        raise ParameterError(
            f"{owner} was given {name}={value!r}; it must be a finite number > 0, which makes the optimum unique."
        )
    return number
