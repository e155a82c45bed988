"""Names for the array types that pass between stages, and what a type checker is told of calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]
ByteArray: TypeAlias = NDArray[np.uint8]
Category: TypeAlias = str | int | bool

F = TypeVar("F", bound=Callable[..., Any])


def called_like(method: F) -> Callable[[Callable[..., Any]], F]:
    """Give the signature of `forward` to the `__call__` of a module, for type checkers; it does nothing when run."""
    return lambda _: method
