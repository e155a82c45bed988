"""A parameter with a few values."""

from __future__ import annotations

from fairlayer.errors import ParameterError

__all__ = ["check_choice"]


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Return the value if it is one of the choices.

    Raises:
        ParameterError: it is not.
    """
    if value not in choices:
        raise ParameterError(f"{name} must be one of {', '.join(map(repr, choices))}, but is {value!r}.")
    return value
