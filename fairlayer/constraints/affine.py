"""The user's own rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from fairlayer._arrays import host_float64
from fairlayer._typing import FloatArray
from fairlayer.constraints.base import Constraint, as_names
from fairlayer.constraints.batch import Batch
from fairlayer.constraints.statements import Means, Rows, Statement
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

    Raises:
        ConstraintDefinitionError: lower > upper, or no limit at all.
        ShapeError: at projection, when rows do not fit the batch.

    Source: design of this package; the general form of every other constraint here.
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
    ) -> None:
        self.on = () if on is None else as_names(on)
        self.streamable = on is not None
        self.name = f"Affine({', '.join(map(repr, self.on))})"
        self.rows = rows
        self.lower = -np.inf if lower is None else _numbers(lower)
        self.upper = np.inf if upper is None else _numbers(upper)
        if lower is None and upper is None:
            raise ConstraintDefinitionError(f"{self.name} was given neither lower nor upper; give at least one.")
        if np.any(np.isnan(self.lower)) or np.any(np.isnan(self.upper)) or np.any(self.lower > self.upper):
            raise ConstraintDefinitionError(
                f"{self.name} was given lower={lower} > upper={upper} (or NaN); no prediction can meet that."
            )

    def statements(self, batch: Batch) -> Sequence[Statement]:
        """Return the rows with their limits."""
        rows = np.atleast_2d(_numbers(self.rows(batch) if callable(self.rows) else self.rows))
        means, matrix = self._measure(batch, rows)
        names = tuple(f"row {j}" for j in range(len(rows)))
        lower = np.broadcast_to(self.lower, len(rows)).astype(np.float64)
        upper = np.broadcast_to(self.upper, len(rows)).astype(np.float64)
        return [Rows(means, matrix, lower, upper, names)]

    def _measure(self, batch: Batch, rows: FloatArray) -> tuple[Means, FloatArray]:
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
