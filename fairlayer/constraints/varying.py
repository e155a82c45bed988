"""A constraint at another limit, whoever wrote it and whatever its argument is called."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

from fairlayer.constraints.base import Constraint
from fairlayer.constraints.probe import limit_of
from fairlayer.errors import ConstraintDefinitionError

__all__ = ["checked_at_limit", "checked_at_limits", "copy_at_limit"]


def copy_at_limit(constraint: Constraint, limit: Any) -> Constraint:
    """Return a copy of a constraint whose limit argument holds another limit, a number or a tensor.

    A constraint without a limit argument is copied as it is.

    Example:
        >>> import fairlayer as fl
        >>> copy_at_limit(fl.MinimumRate("sex", 0.2), 0.3)
        MinimumRate('sex', floor=0.3)
    """
    twin = copy.copy(constraint)
    if constraint.limit_argument is not None:
        object.__setattr__(twin, constraint.limit_argument, limit)  # a frozen dataclass too: the copy is nobody else's
    return twin


def checked_at_limit(constraint: Constraint, limit: float) -> Constraint:
    """Return the constraint with another limit, checked as its own would be.

    Raises:
        ConstraintDefinitionError: it has no single limit, refuses the number, or does not act on it.

    Example:
        >>> import fairlayer as fl
        >>> checked_at_limit(fl.MinimumRate("sex", 0.2), 0.3)
        MinimumRate('sex', floor=0.3)
    """
    return checked_at_limits(constraint, [limit])[0]


def checked_at_limits(constraint: Constraint, limits: Sequence[float]) -> list[Constraint]:
    """Return the constraint with each of several limits, as `checked_at_limit`."""
    name = constraint.limit_argument
    if name is None:
        raise ConstraintDefinitionError(
            f"{constraint!r} has no single limit that could be varied. Use constraints with a tolerance, cap, floor or "
            "ratio, or name the argument that states the limit in its class, as in limit_argument = 'most'."
        )
    parameters = _parameters(type(constraint))
    if name in parameters and all(each in vars(constraint) for each in parameters):
        given = _arguments(constraint, parameters)
        twins = [_made({**given, name: limit}, constraint) for limit in limits]
    else:
        twins = [_made_again(copy_at_limit(constraint, limit), constraint, parameters) for limit in limits]
    if _states(constraint, name):
        for twin in {id(twin): twin for twin in (twins[0], twins[-1])}.values():  # of a grid, its ends tell
            _check_that_it_says(twin, name)
    return twins


def _check_that_it_says(twin: Constraint, name: str) -> None:
    """Refuse a constraint whose statements do not hold their number to the limit that it was set to."""
    said, limit = limit_of(twin), float(getattr(twin, name))
    if said is not None and not _equal(said, limit):
        raise ConstraintDefinitionError(
            f"{twin.name} was set to {name}={limit:g}, but its statements still hold their number to {said:g}. "
            f"Let its statements read self.{name}, which limit_argument names."
        )


def _states(constraint: Constraint, name: str) -> bool:
    """Return whether the limit of its number is what the argument holds, and not, say, 0 beyond an allowed slope."""
    said = limit_of(constraint)
    return said is not None and _equal(said, float(getattr(constraint, name)))


def _equal(said: float, limit: float) -> bool:
    return math.isclose(said, limit, rel_tol=1e-9, abs_tol=1e-12)


@lru_cache(maxsize=256)
def _parameters(kind: type[Constraint]) -> tuple[str, ...]:
    return tuple(inspect.signature(kind).parameters)


def _made_again(twin: Constraint, constraint: Constraint, parameters: Collection[str]) -> Constraint:
    """Return what its constructor makes of its arguments, if it keeps them all; it refuses what it does not take."""
    if not all(hasattr(twin, each) for each in parameters):
        return twin
    made = type(twin)(**_arguments(twin, parameters))
    return made if made.on == constraint.on else twin


def _made(arguments: dict[str, Any], constraint: Constraint) -> Constraint:
    """Return the same of arguments that are plain attributes, but for the limit."""
    made = type(constraint)(**arguments)
    if made.on == constraint.on:
        return made
    name = constraint.limit_argument
    assert name is not None
    return copy_at_limit(constraint, arguments[name])


def _arguments(constraint: Constraint, parameters: Collection[str]) -> dict[str, Any]:
    """Return what a constructor was given; one that takes one name gets it as a user's would expect it."""
    arguments = {each: getattr(constraint, each) for each in parameters}
    if "on" in arguments and len(constraint.on) == 1:
        arguments["on"] = constraint.on[0]
    return arguments
