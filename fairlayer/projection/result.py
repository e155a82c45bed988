"""The result of a projection: the value, what it cost, and the proof."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fairlayer._typing import FloatArray
from fairlayer.errors import ShapeError
from fairlayer.groups import Groups
from fairlayer.projection.assembly import Assembly
from fairlayer.projection.certificate import Certificate

__all__ = ["ActiveSlab", "Projection", "SolvedColumn"]


@dataclass(frozen=True)
class ActiveSlab:
    """A statement that holds with equality, and its multiplier (loss per unit of its limit, >= 0)."""

    constraint: str
    statement: str
    multiplier: float


class SolvedColumn(Protocol):
    """One projected column of scores, whichever backend solved it."""

    assembly: Assembly
    value: Tensor  # (n,), detached

    @property
    def certificate(self) -> Certificate: ...
    @property
    def widening(self) -> float: ...
    @property
    def passes(self) -> int: ...
    @property
    def changed(self) -> bool: ...
    @property
    def rows(self) -> int: ...
    def prices(self) -> FloatArray: ...
    def shift(self) -> FloatArray: ...
    def active(self) -> list[tuple[int, str, float]]: ...


class Projection:
    """A projected batch, with what it cost and the proof.

    Args:
        value: predictions, of the shape and device of the scores; same dtype (float32 for half precision).
        names: name of each constraint.
        columns: one solved problem per column of scores.
        groups: the groups of the batch.
    """

    def __init__(
        self, value: Tensor, names: tuple[str, ...], columns: tuple[SolvedColumn, ...], groups: Groups
    ) -> None:
        self.value, self.names, self.columns, self.groups = value, names, columns, groups

    def column(self, index: int) -> Projection:
        """Return the result of one column of scores (n, k) by itself."""
        value = self.value if self.value.ndim == 1 else self.value[:, index]
        return Projection(value, self.names, (self.columns[index],), self.groups)

    @property
    def status(self) -> str:
        """`unchanged` (the scores met the constraints), `projected`, or `relaxed` (limits were widened)."""
        if self.widening > 0:
            return "relaxed"
        return "projected" if any(column.changed for column in self.columns) else "unchanged"

    @cached_property
    def multipliers(self) -> dict[str, Tensor]:
        """Price of each constraint: minus the derivative of the optimal `1/2 |value - scores|^2` by its tolerance.

        The sum of its slabs' multipliers, in squared prediction units per unit of tolerance; 0-d, or (k,) for k
        columns of scores.
        """
        prices = np.array([column.prices() for column in self.columns])
        return {name: self._per_column(prices[:, j]) for j, name in enumerate(self.names)}

    @cached_property
    def shift(self) -> Tensor:
        """How far each cell was moved, in prediction units: `value = clip(scores + shift[cell])`.

        Shape (cells,), or (cells, k); named by `cells`. For a dense row (a covariance, label estimates) it is the
        amount per unit of the row's weight.
        """
        size = len(self.cells)  # raises where the columns' cells differ
        shifts = np.array([column.shift() for column in self.columns]).reshape(len(self.columns), size)
        return self._per_column(shifts.T, axis=1)

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of the cells, in the order of `shift`.

        Raises:
            ShapeError: the columns of scores have different cells (score bins); ask `column(j)`.
        """
        names = self.columns[0].assembly.cell_names
        if any(column.assembly.cell_names != names for column in self.columns[1:]):
            raise ShapeError(
                "cells, counts and shift were asked of all columns of scores, but their cells differ, as constraints "
                "bin each column's own scores. Ask result.column(j).cells, and so on."
            )
        return names

    @property
    def counts(self) -> dict[str, int]:
        """Samples in each cell; dense rows are no cells."""
        counts = self.columns[0].assembly.samples
        return dict(zip(self.cells, (int(c) for c in counts), strict=False))

    @cached_property
    def certificate(self) -> Certificate:
        """Proof on the returned value; the worst over columns of scores."""
        each = [column.certificate for column in self.columns]
        loosest = max(each, key=lambda c: c.duality_gap / c.gap_atol)
        return Certificate(
            violation=max(c.violation for c in each),
            bound_violation=max(c.bound_violation for c in each),
            duality_gap=loosest.duality_gap,
            distance=math.sqrt(sum(c.distance**2 for c in each)),
            atol=min(c.atol for c in each),
            gap_atol=loosest.gap_atol,
        )

    @cached_property
    def active(self) -> tuple[ActiveSlab, ...]:
        """The statements that hold with equality, with their multipliers."""
        return tuple(
            ActiveSlab(self.names[owner], statement, multiplier)
            for column in self.columns
            for owner, statement, multiplier in column.active()
        )

    @property
    def rows(self) -> int:
        """Samples of the whole batch, over all processes that share it."""
        return self.columns[0].rows

    @property
    def absent(self) -> tuple[tuple[str, str], ...]:
        """Groups that a constraint compares and this batch lacks, as (constraint, group)."""
        return tuple(dict.fromkeys(pair for column in self.columns for pair in column.assembly.absent))

    @property
    def unknown(self) -> dict[str, int]:
        """Samples of unknown category, per sensitive feature; no constraint on that feature moves them."""
        return self.groups.unknown_counts()

    @property
    def widening(self) -> float:
        """By how much every limit was widened, in its own units (0 unless `on_infeasible="relax"` had to)."""
        return max(column.widening for column in self.columns)

    @property
    def passes(self) -> int:
        """Passes over the batch that the solver took; the most over columns of scores."""
        return max(column.passes for column in self.columns)

    def _per_column(self, array: FloatArray, axis: int = 0) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor if self.value.ndim == 2 and self.value.shape[1] > 1 else tensor.select(axis, 0)
