"""The result of a projection: the value, what it cost, and the proof."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fairlayer._notebook import facts_html
from fairlayer._typing import FloatArray
from fairlayer.errors import ShapeError
from fairlayer.groups import Groups
from fairlayer.projection.assembly import Assembly
from fairlayer.projection.certificate import Certificate
from fairlayer.projection.options import Options

__all__ = ["ActiveSlab", "Projection", "SolvedProblem"]


@dataclass(frozen=True)
class ActiveSlab:
    """A statement that holds with equality, and its multiplier (loss per unit of its limit, >= 0).

    Example:
        >>> import torch, fairlayer as fl
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> result = fl.project(torch.tensor([0.9, 0.3]), parity, sensitive_features={"sex": ["F", "M"]})
        >>> [(active.constraint, round(active.multiplier, 3)) for active in result.active]
        [("DemographicParity('sex')", 0.25)]
    """

    constraint: str
    statement: str
    multiplier: float


class SolvedProblem(Protocol):
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
    @property
    def clipped(self) -> int: ...
    def prices(self) -> FloatArray: ...
    def shift(self) -> FloatArray: ...
    def active(self) -> list[tuple[int, int, str, float]]: ...


class Projection:
    """A projected batch, with what it cost and the proof.

    Args:
        value: predictions, of the shape and device of the scores; same dtype (float32 for half precision).
        names: name of each constraint.
        columns: one solved problem per column of scores; a single one for all of them on the simplex.
        groups: the groups of the batch.
        options: how it was projected.
        labels: what label-based constraints looked at: "given", "estimates", "running shifts", or None where none looks
            at labels.
        at_the_ends: scores of exactly 0 or 1 that a geometry of probabilities first moved inside.

    Example:
        >>> import torch, fairlayer as fl
        >>> scores, groups = torch.tensor([0.9, 0.7, 0.2, 0.4]), {"sex": ["F", "F", "M", "M"]}
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> result = fl.project(scores, parity, sensitive_features=groups, bounds=(0.0, 1.0))
        >>> result.status, result.cells, [round(shift, 3) for shift in result.shift.tolist()]
        ('projected', ('sex=F', 'sex=M'), [-0.2, 0.2])
        >>> {name: round(price.item(), 3) for name, price in result.multipliers.items()}
        {"DemographicParity('sex')": 0.4}
    """

    def __init__(  # noqa: PLR0917 - the fields of a result
        self,
        value: Tensor,
        names: tuple[str, ...],
        columns: tuple[SolvedProblem, ...],
        groups: Groups,
        options: Options | None = None,
        labels: str | None = None,
        at_the_ends: int = 0,
    ) -> None:
        self.value, self.names, self.columns, self.groups = value, names, columns, groups
        self.options, self.labels, self.at_the_ends = options or Options(), labels, at_the_ends

    def column(self, index: int) -> Projection:
        """Return the result of one column of scores (n, k) by itself.

        Raises:
            ShapeError: the columns were projected together, as rows of class probabilities.
        """
        if self.options.on_simplex:
            raise ShapeError('with bounds="simplex" the columns are one problem; read the result as a whole.')
        value = self.value if self.value.ndim == 1 else self.value[:, index]
        return self._with(value, (self.columns[index],))

    def detached(self) -> Projection:
        """Return the same result without the graph of its value."""
        return self._with(self.value.detach(), self.columns)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy and a pickle keep: everything but the graph of the value."""
        return {**self.__dict__, "value": self.value.detach()}

    def _with(self, value: Tensor, columns: tuple[SolvedProblem, ...]) -> Projection:
        return Projection(value, self.names, columns, self.groups, self.options, self.labels, self.at_the_ends)

    def __repr__(self) -> str:
        rows = "\n".join(f"  {what:<10} {said}" for what, said in self.summary())
        return f"Projection({self.status})\n{rows}"

    def _repr_html_(self) -> str:
        return facts_html(f"Projection: {self.status}", self.summary())

    def summary(self) -> list[tuple[str, str]]:
        """Return what a reader asks first, as (what, in words)."""
        proof, rule = self.certificate, self.options.rule
        labels = {None: "", "given": ", labels given", "estimates": ", label estimates instead of labels"}.get(
            self.labels, ", labels unknown: running shifts of the groups, which no batch bounds"
        )
        limits = f", every limit widened by {self.widening:.3g}" if self.widening > 0 else ""
        rows = [
            ("bounded", f"mean scores of this batch of {self.rows}{labels}{limits}"),
            ("violation", f"{_violation(proof)}; certificate {_holds(proof)}"),
            *self._too_fine(proof),
            ("geometry", f"{rule.name}, {'simplex' if self.options.on_simplex else 'box'}; shifts in {rule.unit}"),
            ("clipped", f"{self.clipped:.1%} of the predictions are held by a bound"),
        ]
        groups = [f"{name} {count}" for name, count in list(self.columns[0].assembly.sample_counts().items())[:8]]
        rows.append(("groups", ", ".join(groups) or "none compared"))
        if self.absent:
            rows.append(("absent", "; ".join(f"{group} ({name})" for name, group in self.absent[:8])))
        unknown = {name: count for name, count in self.unknown.items() if count}
        if unknown:
            rows.append(("unknown", ", ".join(f"{count} of {name}" for name, count in unknown.items())))
        if self.at_the_ends:
            rows.append(("ends", f"{self.at_the_ends} scores of 0 or 1 were first moved inside"))
        return rows

    def _too_fine(self, proof: Certificate) -> list[tuple[str, str]]:
        """Say that a tolerance is finer than the dtype can hold, where it is."""
        if proof.resolution == 0.0 or proof.resolution < proof.atol:
            return []
        dtype = str(self.value.dtype).removeprefix("torch.")
        return [("too fine", f"{dtype} cannot hold the tolerance at scores of this size, only {proof.resolution:.0e}")]

    @property
    def clipped(self) -> float:
        """Share of the predictions here that a bound holds, so that their gradient is 0."""
        return sum(column.clipped for column in self.columns) / max(1, len(self.value) * len(self.columns))

    @property
    def status(self) -> str:
        """`unchanged` (the scores met the constraints), `projected`, or `relaxed` (limits were widened).

        `running shift`: a layer in evaluation without labels moved each group by what it learnt in training.
        """
        if self.labels == "running shifts":
            return "running shift"
        if self.widening > 0:
            return "relaxed"
        return "projected" if any(column.changed for column in self.columns) else "unchanged"

    @cached_property
    def multipliers(self) -> dict[str, Tensor]:
        """Price of each constraint: minus the derivative of the optimal `sum_i d(value_i, score_i)` by its limit.

        The sum of its slabs' multipliers, in units of the distance per unit of tolerance (squared prediction units in
        the Euclidean geometry, nats in the others); 0-d, or (k,) for k columns or classes.
        """
        prices = np.concatenate([column.prices() for column in self.columns], axis=1)
        return {name: self._per_column(prices[j]) for j, name in enumerate(self.names)}

    @cached_property
    def shift(self) -> Tensor:
        """How far each cell was moved, in the unit of the geometry: `value = clip(scores + shift[cell])` in prediction
        units in the Euclidean one, `log-odds(value) = log-odds(score) + shift[cell]` in the entropic one.

        Shape (cells,), or (cells, k); named by `cells`. For a dense row (a covariance, label estimates) it is the
        amount per unit of the row's weight.
        """
        size = len(self.cells)  # raises where the columns' cells differ
        if self.options.on_simplex:
            return torch.from_numpy(np.ascontiguousarray(self.columns[0].shift()))
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
        """Samples in each cell (weighted ones, where there are sample weights); dense rows are not cells."""
        _ = self.cells  # raises where the columns' cells differ
        return self.columns[0].assembly.sample_counts()

    @cached_property
    def certificate(self) -> Certificate:
        """Proof on the returned value; the worst over columns of scores."""
        each = [column.certificate for column in self.columns]
        loosest = max(each, key=lambda c: c.duality_gap / c.gap_atol)
        worst = max(each, key=lambda c: c.violation / c.atol)
        return Certificate(
            violation=worst.violation,
            bound_violation=max(c.bound_violation for c in each),
            duality_gap=loosest.duality_gap,
            distance=math.sqrt(sum(c.distance**2 for c in each)),
            atol=worst.atol,
            gap_atol=loosest.gap_atol,
            resolution=worst.resolution,
        )

    @cached_property
    def active(self) -> tuple[ActiveSlab, ...]:
        """The statements that hold with equality, with their multipliers."""
        return tuple(
            ActiveSlab(self.names[owner], statement, multiplier)
            for column in self.columns
            for owner, _, statement, multiplier in column.active()
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


def _violation(proof: Certificate) -> str:
    if proof.violation == -math.inf:
        return "nothing to measure, as no statement speaks of this batch"
    return f"{proof.violation:.2e} of {proof.atol:.0e} promised"


def _holds(proof: Certificate) -> str:
    return "holds" if proof.holds else "DOES NOT HOLD"
