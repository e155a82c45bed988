"""The interface of a constraint: one method."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence, Set
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch

from fairlayer._keywords import explained
from fairlayer.constraints.batch import Batch
from fairlayer.constraints.measure import Measured, measure_columns
from fairlayer.constraints.probe import limit_of
from fairlayer.constraints.saying import said
from fairlayer.constraints.statements import Statement, Tolerance, as_float
from fairlayer.errors import ConstraintDefinitionError
from fairlayer.groups import Vocabulary

__all__ = [
    "Classes",
    "Constraint",
    "as_names",
    "check_classes",
    "check_number",
    "check_tolerance",
    "shown_classes",
    "title",
]

Classes = int | Sequence[int] | None


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

    frees_level: bool = False
    """Whether, given labels, it can be met at any level of a group's raw scores, which `anchor` then keeps in place."""

    shifts_groups: bool = False
    """Whether it moves all members of a group alike, whatever their labels, so that a running shift can replace it."""

    streamable: bool = True
    """Whether pooled group means can state it, so that a stream can hold it."""

    classes: tuple[int, ...] | None = None
    """Which columns of scores (n, k) it speaks of, each by itself and with the same limit; None for all of them."""

    limit_argument: ClassVar[str | None] = None
    """The argument that states its limit, such as "tolerance"; None where no single one does."""

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        if "__init__" in cls.__dict__:  # a keyword that it does not have is answered with the one that is meant
            cls.__init__ = explained(cls.__init__)  # type: ignore[method-assign]

    def limit_value(self) -> Any:
        """Return what its limit argument holds, a number or a tensor; None where no single argument names it."""
        if self.limit_argument is None:
            return None
        try:
            return getattr(self, self.limit_argument)
        except AttributeError as error:
            raise ConstraintDefinitionError(
                f"{self.name} says limit_argument={self.limit_argument!r}, but holds no attribute of this name. Keep "
                f"the limit as self.{self.limit_argument}, or leave limit_argument out: the limit is then read off the "
                "statements."
            ) from error

    def spread_over(self) -> str | None:
        """Return the feature whose group means may differ by at most `self.tolerance`, if that is all that must hold.

        None where the constraint asks for more than that, or does not tell.
        """
        return None

    @property
    def features(self) -> tuple[str, ...]:
        """Names of every sensitive feature that `statements` reads."""
        return self.on

    @abstractmethod
    def statements(self, batch: Batch) -> Sequence[Statement]:
        """Return the statements that this batch must meet."""

    @property
    def limit(self) -> float | None:
        """What the number that `measure` returns is held to, in its unit.

        Where no `limit_argument` names it, it is read off the statements about two small made-up batches. None where
        their rows have limits of their own, or the limits depend on the batch: `measure` then says that of the worst.
        """
        if self.limit_argument is not None:
            return as_float(self.limit_value())
        return limit_of(self)

    def measure(
        self,
        predictions: Any,
        *,
        sensitive_features: Any = None,
        y: Any = None,
        label_probabilities: Any = None,
        sample_weight: Any = None,
        raw_scores: Any = None,
        vocabulary: Vocabulary | None = None,
    ) -> Measured:
        """Return the number that the limit bounds, for any predictions: the same wherever it is shown.

        Args:
            predictions: scores or 0/1 decisions, (n,), (n, 1) or (n, k); numbers in an array, a tensor or a list. Of k
                columns, those that the constraint speaks of are measured, and the worst is returned.
            sensitive_features: as for `project`.
            y: labels (n,), one column of which serves all columns of predictions, or (n, k).
            label_probabilities: estimates of the labels in [0, 1], used where y is None.
            sample_weight: how many samples each row stands for (n,); None for one each.
            raw_scores: the scores that a constraint bins by; None where they are the predictions themselves.
            vocabulary: known categories; without one, those of these samples.

        Raises:
            FairlayerError: a named subclass; see `fairlayer.errors`.

        Example:
            >>> import fairlayer as fl
            >>> parity = fl.DemographicParity("sex", tolerance=0.1)
            >>> found = parity.measure([0.9, 0.7, 0.2, 0.4], sensitive_features={"sex": ["F", "F", "M", "M"]})
            >>> round(found.value, 6), found.limit, found.statement
            (0.5, 0.1, 'mean[sex=F] - mean[sex=M]')
        """
        return measure_columns(
            self,
            predictions,
            sensitive_features=sensitive_features,
            y=y,
            label_probabilities=label_probabilities,
            sample_weight=sample_weight,
            raw_scores=raw_scores,
            vocabulary=vocabulary,
        )

    def applies_to(self, column: int) -> bool:
        """Return whether it speaks of one column of scores (n, k), counted from 0."""
        return self.classes is None or column in self.classes

    def __repr__(self) -> str:
        """Show all that makes it act, so that constraints of one repr are equal in effect."""
        return said(self)


def as_names(on: str | Sequence[str]) -> tuple[str, ...]:
    """Return `on` as a tuple of feature names."""
    if type(on) is str and on:
        return (on,)
    ordered = isinstance(on, Iterable) and not isinstance(on, Set | Mapping)  # a set has no order to name cells by
    names = (on,) if isinstance(on, str) else tuple(on) if ordered else ()
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ConstraintDefinitionError(
            f"a constraint needs the name of a sensitive feature, or a tuple of distinct names, but found {on!r}."
        )
    return names


def title(kind: str, names: tuple[str, ...], classes: tuple[int, ...] | None = None, more: str = "") -> str:
    """Return the name that reports use: `Kind('a')`, or `Kind(('a', 'b'))`, with the classes if they are not all."""
    which = "" if classes is None else f", classes={shown_classes(classes)}"
    return f"{kind}({(names[0] if len(names) == 1 else names)!r}{more}{which})"


def shown_classes(classes: tuple[int, ...]) -> int | tuple[int, ...]:
    """Return the classes as a name shows them: one by itself, several as a tuple.

    Example:
        >>> shown_classes((2,)), shown_classes((0, 2))
        (2, (0, 2))
    """
    return classes[0] if len(classes) == 1 else classes


def check_classes(owner: str, classes: Classes) -> tuple[int, ...] | None:
    """Return the columns of scores that a constraint speaks of, rising; None for all of them.

    Raises:
        ConstraintDefinitionError: they are not distinct integers >= 0, or there are none.
    """
    if classes is None:
        return None
    given: list[Any] = list(classes) if isinstance(classes, Sequence | np.ndarray) else [classes]
    whole = all(isinstance(each, int | np.integer) and not isinstance(each, bool) and each >= 0 for each in given)
    if not given or not whole or len(set(given)) < len(given):
        raise ConstraintDefinitionError(
            f"{owner} was given classes={classes!r}; give one column of the scores (n, k), or several distinct ones, "
            "counted from 0, or None for all of them."
        )
    return tuple(sorted(int(each) for each in given))


def check_tolerance(owner: str, tolerance: Tolerance) -> Tolerance:
    """Return a tolerance that is a finite number >= 0 (a float, or a 0-d floating tensor).

    Raises:
        ConstraintDefinitionError: it is negative, not finite, or no scalar.
    """
    tolerance = check_number(owner, "tolerance", tolerance)
    if (tolerance if type(tolerance) is float else as_float(tolerance)) < 0:
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
    if type(value) is float and math.isfinite(value):  # the usual case, told apart without asking for tensors
        return value
    if isinstance(value, torch.Tensor) and (value.ndim != 0 or not value.is_floating_point()):
        raise ConstraintDefinitionError(
            f"{owner} was given {what} as a tensor of shape {tuple(value.shape)} and {value.dtype}; "
            "it must be a float or a 0-d floating tensor."
        )
    if not isinstance(value, torch.Tensor | Real) or isinstance(value, bool):
        raise ConstraintDefinitionError(f"{owner} was given {what}={value!r}; it must be a number.")
    if not math.isfinite(as_float(value)):
        raise ConstraintDefinitionError(f"{owner} was given {what}={as_float(value)}; it must be finite.")
    return value if isinstance(value, torch.Tensor | int | float) else float(value)
