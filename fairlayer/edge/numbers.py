"""Numbers in any container -> an array of numbers on the host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fairlayer._arrays import host_array
from fairlayer.errors import FairlayerError
from fairlayer.groups.categories import is_missing

__all__ = ["as_numbers"]


def as_numbers(values: Any) -> NDArray[Any]:
    """Return a tensor, array, list, series or frame of numbers as an array of them, NaN where one is missing.

    Raises:
        TypeError: it holds no numbers, or has no order; the text says what it is, for an error of the caller's own.

    Example:
        >>> as_numbers([1.0, None, 2.5]).tolist(), as_numbers([True, False]).dtype
        ([1.0, nan, 2.5], dtype('bool'))
    """
    array = _as_array(values)
    if array.dtype.kind == "O":
        return np.array([_number(value) for value in array.reshape(-1)], dtype=np.float64).reshape(array.shape)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"it holds {_content(array)}")
    return array


def _as_array(values: Any) -> NDArray[Any]:
    if isinstance(values, Tensor):
        try:
            return np.asarray(host_array(values))
        except FairlayerError:
            raise
        except (TypeError, RuntimeError) as error:
            raise TypeError(f"the tensor has no plain data: {error}") from error
    if isinstance(values, np.ma.MaskedArray):
        return np.where(np.ma.getmaskarray(values), np.nan, values.data)
    if isinstance(values, np.ndarray):
        return values
    if values is None or isinstance(values, str | bytes | bytearray | Mapping | Set | Iterator):
        raise TypeError(f"it is a {type(values).__name__}")
    if hasattr(type(values), "collect") and not hasattr(values, "to_numpy"):
        raise TypeError(f"it is a {type(values).__name__}: call .collect() first")
    try:
        return np.asarray(values.to_numpy() if hasattr(values, "to_numpy") and not _is_arrow(values) else values)
    except (ValueError, RuntimeError) as error:
        raise TypeError(f"it cannot be read as an array: {error}") from error


def _is_arrow(values: Any) -> bool:
    """Return whether `to_numpy` refuses to copy, as an array of pyarrow does."""
    return type(values).__module__.startswith("pyarrow")


def _number(value: Any) -> float:
    if is_missing(value):
        return np.nan
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise TypeError(f"it holds {value!r}")
    return float(value)


def _content(array: NDArray[Any]) -> str:
    return f"text such as {array.reshape(-1)[:3].tolist()}" if array.dtype.kind in "UST" else f"values of {array.dtype}"
