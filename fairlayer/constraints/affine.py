"""The user's own rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from fairlayer._arrays import host_float64
from fairlayer._typing import FloatArray
from fairlayer.constraints.base import Classes, Constraint, as_names, check_classes, shown_classes
from fairlayer.constraints.batch import Batch
from fairlayer.constraints.means import GroupMeans
from fairlayer.constraints.statements import Rows, Statement
from fairlayer.errors import ConstraintDefinitionError, ShapeError

__all__ = ["Affine"]


class Affine(Constraint):
    """Any linear statements, about samples or about group means.

        lower <= rows @ y <= upper               without `on`: rows has shape (m, n)
        lower <= rows @ mean(y) <= upper         with `on`: rows has shape (m, groups)

    Args:
        rows: array or tensor (m, n) or (m, groups); one row may be given as a vector. Or a function of the
            batch (`fairlayer.constraints.Batch`) that returns it. Groups are in the vocabulary's order.
        lower: scalar or (m,); None for no lower limit.
        upper: scalar or (m,); None for no upper limit.
        on: None, or a sensitive feature (or a tuple of them) whose group means the rows speak of.
        classes: which columns of scores (n, k) it speaks of, one or several; None for all, each by itself.

    Raises:
        ConstraintDefinitionError: lower > upper, or no limit at all.
        ShapeError: at projection, when rows do not fit the batch.

    Source: the design of this package. It is the general form of every other constraint here.
    Limits: rows given as an array fix the batch size. Over several processes, each gives the
        columns of its own samples.

    Example:
        >>> import torch, fairlayer as fl
        >>> total = fl.Affine(torch.ones(1, 3), upper=1.5)          # at most 1.5 expected approvals
        >>> fl.project(torch.tensor([0.7, 0.7, 0.7]), [total]).value
        tensor([0.5000, 0.5000, 0.5000])
    """

    needs_labels = False

    def __init__(
        self,
        rows: Any | Callable[[Batch], Any],
        *,
        lower: Any = None,
        upper: Any = None,
        on: str | Sequence[str] | None = None,
        classes: Classes = None,
    ) -> None:
        self.on = () if on is None else as_names(on)
        self.streamable = on is not None
        self.classes = check_classes("Affine", classes)
        which = () if self.classes is None else (f"classes={shown_classes(self.classes)}",)
        self.name = f"Affine({', '.join((*map(repr, self.on), *which))})"
        self.rows = rows
        self.lower = None if lower is None else _numbers(lower)
        self.upper = None if upper is None else _numbers(upper)
        if lower is None and upper is None:
            raise ConstraintDefinitionError(f"{self.name} was given neither lower nor upper; give at least one.")
        low, high = self._limits()
        if np.any(np.isnan(low)) or np.any(np.isnan(high)) or np.any(low > high):
            raise ConstraintDefinitionError(
                f"{self.name} was given lower={lower} > upper={upper} (or NaN); no prediction can meet that."
            )

    def statements(self, batch: Batch) -> Sequence[Statement]:
        """Return the rows with their limits."""
        rows = np.atleast_2d(_numbers(self.rows(batch) if callable(self.rows) else self.rows))
        means, matrix = self._measure(batch, rows)
        names = tuple(f"row {j}" for j in range(len(rows)))
        lower, upper = (np.broadcast_to(limit, len(rows)).astype(np.float64) for limit in self._limits())
        return [Rows(means, matrix, lower, upper, names)]

    @property
    def limit(self) -> float | None:
        """The one limit that all rows share; None where they have several, and `measure` says that of the worst."""
        low, high = (np.ravel(limit) for limit in self._limits())
        if np.array_equal(low, high):
            return 0.0  # distance from the targets
        found = {float(limit) for limit in (*low, *high) if np.isfinite(limit)}
        return found.pop() if len(found) == 1 else None

    def _limits(self) -> tuple[FloatArray, FloatArray]:
        low = np.asarray(-np.inf) if self.lower is None else self.lower
        return low, np.asarray(np.inf) if self.upper is None else self.upper

    def _measure(self, batch: Batch, rows: FloatArray) -> tuple[GroupMeans, FloatArray]:
        means = batch.means(self.on) if self.on else None
        width, of = (batch.n, "samples") if means is None else (len(means), "groups")
        if rows.shape[1] != width:
            raise ShapeError(f"{self.name} has rows of length {rows.shape[1]}, but there are {width} {of}.")
        if means is not None:
            return means, rows
        names = tuple(f"row {j}" for j in range(len(rows)))
        return batch.rows(self.name, names, rows), np.eye(len(rows))


def _numbers(value: Any) -> FloatArray:
    return host_float64(value) if isinstance(value, torch.Tensor) else np.asarray(value, dtype=np.float64)
