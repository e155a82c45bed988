"""What counts as a number where a user gives one: a finite number of Python or NumPy, and no truth value."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = ["is_number", "is_whole"]


def is_number(value: Any) -> TypeIs[float]:
    """Return whether it is a finite number of Python or NumPy, and no truth value.

    Example:
        >>> import numpy as np
        >>> is_number(np.float32(0.02)), is_number(True), is_number(float("nan"))
        (True, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: Any) -> TypeIs[int]:
    """Return whether it is a whole number of a type that holds nothing else, and no truth value.

    Example:
        >>> import numpy as np
        >>> is_whole(np.int64(3)), is_whole(True), is_whole(3.0)
        (True, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool)
