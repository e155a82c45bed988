"""A constraint in one line of Python: its class with every argument that is not the default."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from fairlayer._arrays import host_array

__all__ = ["said"]

_SHOWN = 12  # entries of an array that are written out
_NO_ARGUMENTS = frozenset({"on", "name", "needs_labels", "streamable"})


def said(constraint: Any) -> str:
    """Return `Kind('feature', argument=value, ...)`.

    An argument is read from the attribute of its name. Where a class keeps an argument under another name, its other
    attributes are shown instead, so that nothing that makes it act is left out.

    Example:
        >>> import fairlayer as fl
        >>> said(fl.DemographicParity("sex", tolerance=0.02))
        "DemographicParity('sex', tolerance=0.02)"
    """
    kind = type(constraint)
    attributes = vars(constraint)
    parameters = list(inspect.signature(kind).parameters.values())
    named = [each for each in parameters if each.name in attributes]
    parts = [
        _value(attributes[each.name]) if each is parameters[0] else f"{each.name}={_value(attributes[each.name])}"
        for each in named
        if not _same(attributes[each.name], each.default)
    ]
    if len(named) < len(parameters):
        rest = attributes.keys() - {each.name for each in named} - _NO_ARGUMENTS
        parts += [f"{name}={_value(attributes[name])}" for name in sorted(rest)]
    return f"{kind.__name__}({', '.join(parts)})"


def _same(value: Any, default: Any) -> bool:
    if isinstance(value, tuple | Mapping) and not value:
        return not default
    alike = isinstance(value, str | int | float) and type(value) is type(default)
    return value is default or (alike and bool(value == default))


def _value(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        value = host_array(value)
    if isinstance(value, np.ndarray | np.generic):
        return _array(np.asarray(value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return _sequence(value)
    return _function(value) if callable(value) else repr(value)


def _sequence(values: list[Any] | tuple[Any, ...]) -> str:
    if isinstance(values, tuple) and len(values) == 1:
        return _value(values[0])  # a feature, or a class, that was given alone
    inner = ", ".join(map(_value, values))
    return f"[{inner}]" if isinstance(values, list) else f"({inner})"


def _array(array: Any) -> str:
    if array.ndim == 0:
        return str(array)  # the shortest digits that tell it from its neighbours
    if array.size <= _SHOWN:
        return repr(array.tolist())
    digest = hashlib.sha256(array.tobytes()).hexdigest()[:8]
    return f"<{' x '.join(map(str, array.shape))} {array.dtype}, {digest}>"


def _function(function: Any) -> str:
    """Return the address under which it can be imported, else Python's own way, which tells one object from another."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    found: Any = sys.modules.get(module) if isinstance(module, str) else None
    for part in (name or "").split("."):
        found = getattr(found, part, None)
    return f"{module}.{name}" if found is function else repr(function)
