"""A module's arguments as plain data, so that a checkpoint is enough to build it again."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from fairlayer.constraints import Constraint
from fairlayer.constraints.text import write_constraint
from fairlayer.errors import ConstraintDefinitionError
from fairlayer.integrations.lightning.errors import NotKeptError

__all__ = ["check_kept", "plain_data"]

_NOT_KEPT = "not kept: "


def plain_data(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint keeps: numbers, words, constraints as text; of all else, only what it was.

    Example:
        >>> from torch import nn
        >>> plain_data({"hidden": (8,), "backbone": nn.Linear(3, 1)})
        {'hidden': (8,), 'backbone': 'not kept: Linear'}
    """
    return {name: _plain(value) for name, value in arguments.items()}


def check_kept(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of which a checkpoint kept only what they were.

    Raises:
        NotKeptError: there are such.
    """
    lost = {name: value for name, value in arguments.items() if _is_lost(value)}
    if lost:
        named = ", ".join(f"{name} ({value.removeprefix(_NOT_KEPT)})" for name, value in lost.items())
        raise NotKeptError(
            f"the checkpoint does not hold {named}, which is not plain data. Pass what was there: "
            f"load_from_checkpoint(path, {', '.join(f'{name}=...' for name in lost)})."
        )


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Constraint):
        return _as_text(value)
    if isinstance(value, list | tuple):
        parts = tuple(_plain(part) for part in value)
        return next((part for part in parts if _is_lost(part)), parts)
    if isinstance(value, Real):  # numpy's numbers among them
        return int(value) if isinstance(value, Integral) else float(value)
    return _NOT_KEPT + type(value).__name__


def _as_text(constraint: Constraint) -> str:
    try:
        return write_constraint(constraint)
    except ConstraintDefinitionError:
        return _NOT_KEPT + constraint.name


def _is_lost(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(_NOT_KEPT)
