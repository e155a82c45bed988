"""What a call states: its constraints, as objects or as text, and parameters that take one of a few values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from fairlayer.constraints import Constraint
from fairlayer.constraints.text import parse_constraint
from fairlayer.errors import ConstraintDefinitionError, ParameterError

__all__ = ["Stated", "as_constraints", "check_choice", "feature_names"]

Stated: TypeAlias = Constraint | str | Sequence[Constraint | str]


def as_constraints(constraints: Stated) -> tuple[Constraint, ...]:
    """Return a constraint, its text, or a list of either, as a tuple of constraints.

    Raises:
        ConstraintDefinitionError: it is something else, a text that says no constraint, or a constraint that does not
            hold the limit that its class names.

    Example:
        >>> as_constraints("demographic_parity(sex, 0.02)")
        (DemographicParity('sex', tolerance=0.02),)
    """
    given = (constraints,) if isinstance(constraints, Constraint | str) else constraints
    if isinstance(given, Sequence) and all(map(_is_stated, given)):
        read = tuple(parse_constraint(each) if isinstance(each, str) else each for each in given)
        for each in read:
            each.limit_value()  # a limit argument that is not an attribute is refused before anything reads it
        return read
    raise ConstraintDefinitionError(
        "constraints must be a constraint, its text such as 'demographic_parity(sex, 0.02)', or a list of either, but "
        f"found {constraints!r}."
    )


def feature_names(constraints: Sequence[Constraint]) -> tuple[str, ...]:
    """Return the sensitive features that the constraints read, in the order in which they name them."""
    return tuple(dict.fromkeys(name for constraint in constraints for name in constraint.features))


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Return the value if it is one of the choices.

    Raises:
        ParameterError: it is not.
    """
    if value not in choices:
        raise ParameterError(f"{name} must be one of {', '.join(map(repr, choices))}, but is {value!r}.")
    return value


def _is_stated(constraint: object) -> bool:
    """Return whether it is a constraint, or a text that calls one by its name."""
    return isinstance(constraint, Constraint) or (isinstance(constraint, str) and "(" in constraint)
