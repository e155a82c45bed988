"""The interface of a constraint: one method."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from fairlayer._keywords import explained
from fairlayer.constraints.batch import Batch
from fairlayer.constraints.statements import Statement, Tolerance, as_float
from fairlayer.errors import ConstraintDefinitionError

__all__ = ["Constraint", "as_names", "check_number", "check_tolerance"]


class Constraint(ABC):
    """Something that must hold for the predictions of a batch, as linear statements about group means.

    Write a new one by giving it `on`, `name`, `needs_labels` and `statements`.
    """

    on: tuple[str, ...]
    """Sensitive features it looks at; several names mean their intersections."""

    name: str
    """How reports call it, for example `DemographicParity('sex')`."""

    needs_labels: bool
    """Whether `statements` reads labels (true ones, or estimates at inference)."""

    streamable: bool = True
    """Whether pooled group means can state it, so that a stream can hold it."""

    classes: tuple[int, ...] | None = None
    """Of scores (n, k), the columns that it speaks of; None for each of them, with the same limit."""

    def applies_to(self, column: int) -> bool:
        """Return whether it speaks of a column of the scores."""
        return self.classes is None or column in self.classes

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        if "__init__" in cls.__dict__:  # a keyword that it does not have is answered with the one that is meant
            cls.__init__ = explained(cls.__init__)  # type: ignore[method-assign]

    @property
    def features(self) -> tuple[str, ...]:
        """Names of every sensitive feature that `statements` reads."""
        return self.on

    @abstractmethod
    def statements(self, batch: Batch) -> Sequence[Statement]:
        """Return the statements that this batch must meet."""

    def __repr__(self) -> str:
        return self.name


def as_names(on: str | Sequence[str]) -> tuple[str, ...]:
    """Return `on` as a tuple of feature names."""
    names = (on,) if isinstance(on, str) else tuple(on)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ConstraintDefinitionError(
            f"a constraint needs the name of a sensitive feature, or a tuple of names, but found {on!r}."
        )
    return names


def title(kind: str, names: tuple[str, ...]) -> str:
    """Return the name that reports use: `Kind('a')`, or `Kind(('a', 'b'))`."""
    return f"{kind}({names[0]!r})" if len(names) == 1 else f"{kind}({names!r})"


def check_tolerance(owner: str, tolerance: Tolerance) -> Tolerance:
    """Return a tolerance that is a finite number >= 0 (a float, or a 0-d floating tensor).

    Raises:
        ConstraintDefinitionError: it is negative, not finite, or no scalar.
    """
    check_number(owner, "tolerance", tolerance)
    if as_float(tolerance) < 0:
        raise ConstraintDefinitionError(
            f"{owner} was given tolerance={as_float(tolerance):g}; a tolerance is in prediction units and >= 0 "
            "(0 asks for equality)."
        )
    return tolerance


def check_number(owner: str, what: str, value: Tolerance) -> Tolerance:
    """Return a finite scalar (a float, or a 0-d floating tensor).

    Raises:
        ConstraintDefinitionError: it is not finite, or no scalar.
    """
    if isinstance(value, torch.Tensor) and (value.ndim != 0 or not value.is_floating_point()):
        raise ConstraintDefinitionError(
            f"{owner} was given {what} as a tensor of shape {tuple(value.shape)} and {value.dtype}; "
            "it must be a float or a 0-d floating tensor."
        )
    if not isinstance(value, torch.Tensor | int | float) or isinstance(value, bool):
        raise ConstraintDefinitionError(f"{owner} was given {what}={value!r}; it must be a number.")
    if not math.isfinite(as_float(value)):
        raise ConstraintDefinitionError(f"{owner} was given {what}={as_float(value)}; it must be finite.")
    return value
