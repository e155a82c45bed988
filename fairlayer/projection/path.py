"""What a tolerance costs: the projection along a grid of limits, solved together on one condensed batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from fairlayer._notebook import table_html
from fairlayer._typing import FloatArray
from fairlayer.constraints.varying import checked_at_limits
from fairlayer.edge import Stated, as_constraints
from fairlayer.errors import ConstraintDefinitionError, ShapeError, require
from fairlayer.passes import CondensedPasses
from fairlayer.passes.pairs import PairPasses
from fairlayer.projection.assembly import Assembly, assemble
from fairlayer.projection.at_limits import alike_statements
from fairlayer.projection.options import ProjectionOptions, options_of
from fairlayer.projection.plan import Plan, PosedProblem
from fairlayer.projection.tally import PathTally, Tallies, Tally
from fairlayer.solve import ClashingFaces, GridSolution, prices_by_block, solve_grid
from fairlayer.solve.coupled import solve_coupled

__all__ = ["FairnessPath", "fairness_path"]


@dataclass(frozen=True)
class FairnessPath:
    """The projection of one batch at each limit of a grid; rows follow `tolerances`.

    Args:
        tolerances: the limits, (t,), rising.
        distance: `sum_i weight_i d(value_i, score_i)` at each, (t,): squared prediction units halved in the Euclidean
            geometry, nats in the others. NaN where nothing within the bounds meets the limit.
        multipliers: price of each constraint, (t, constraints): by how much the distance falls per unit of its limit.
        shifts: the shifts of each cell, in the unit of the geometry, (t, cells).
        gaps: the number that each constraint bounds, of the predictions, (t, constraints).
        decision_gaps: the same of the decisions `value >= threshold`, (t, constraints).
        moved: share of the decisions that changed, (t,).
        names: the names of the constraints.
        cells: names of the cells.
        threshold: the threshold of the decisions.

    Example:
        >>> import torch, fairlayer as fl
        >>> scores, groups = torch.tensor([0.9, 0.7, 0.2, 0.4]), {"sex": ["F", "F", "M", "M"]}
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> path = fl.fairness_path(scores, parity, [0.1, 0.3], sensitive_features=groups, bounds=(0.0, 1.0))
        >>> path.names, path.cells, path.shifts.round(3).tolist()
        (("DemographicParity('sex')",), ('sex=F', 'sex=M'), [[-0.2, 0.2], [-0.1, 0.1]])
        >>> path.gaps[:, 0].round(3).tolist(), path.decision_gaps[:, 0].round(3).tolist()
        ([0.1, 0.3], [0.0, 1.0])
    """

    tolerances: FloatArray
    distance: FloatArray
    multipliers: FloatArray
    shifts: FloatArray
    gaps: FloatArray
    decision_gaps: FloatArray
    moved: FloatArray
    names: tuple[str, ...]
    cells: tuple[str, ...]
    threshold: float

    def __repr__(self) -> str:
        head = f"{'tolerance':>10} {'distance':>11} {'price':>11} {'gap':>8} {'decisions':>10} {'changed':>8}"
        rows = [
            f"{t:>10.4g} {d:>11.4g} {p.max(initial=0.0):>11.4g} {g.max():>8.4f} {y.max():>10.4f} {m:>8.2%}"
            for t, d, p, g, y, m in zip(
                self.tolerances, self.distance, self.multipliers, self.gaps, self.decision_gaps, self.moved, strict=True
            )
        ]
        return "\n".join([f"FairnessPath({', '.join(self.names)}; decisions at {self.threshold:g})", head, *rows])

    def _repr_html_(self) -> str:
        head = ("tolerance", "distance", "price", "gap", "decision gap", "decisions changed")
        rows = [
            (float(t), float(d), float(p.max(initial=0.0)), float(g.max()), float(y.max()), f"{m:.2%}")
            for t, d, p, g, y, m in zip(
                self.tolerances, self.distance, self.multipliers, self.gaps, self.decision_gaps, self.moved, strict=True
            )
        ]
        return table_html(f"Path of {', '.join(self.names)}; decisions at {self.threshold:g}", head, rows)

    def plot(self, axes: Any = None) -> Any:
        """Draw distance, gaps and changed decisions over the tolerance, for a person to pick one; return the figure.

        Args:
            axes: matplotlib axes, or None for a new figure.

        Raises:
            MissingExtraError: Matplotlib is not installed.
        """
        if axes is None:
            axes = require("matplotlib.figure", "train").Figure(figsize=(7, 4.5), layout="constrained").subplots()
        gap = axes.twinx()
        (changed,) = gap.plot(self.tolerances, self.moved, color="tab:green", linestyle="-.")
        (cost,) = axes.plot(self.tolerances, self.distance, color="tab:blue", marker="o", markersize=3)
        (decided,) = gap.plot(self.tolerances, self.decision_gaps.max(axis=1), color="tab:orange", linestyle="--")
        (scored,) = gap.plot(self.tolerances, self.gaps.max(axis=1), color="0.5", linestyle=":")
        axes.set(xlabel="tolerance", ylabel="distance of the predictions from the raw scores")
        gap.set(ylabel=f"gaps, and share of decisions (at {self.threshold:g}) changed", ylim=(0.0, None))
        lines = {
            "distance (left)": cost,
            "gap of scores": scored,
            "gap of decisions": decided,
            "decisions changed": changed,
        }
        above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 4}  # where no line runs through it
        axes.legend(list(lines.values()), list(lines), fontsize="small", frameon=False, **above)
        axes.spines["top"].set_visible(False)
        gap.spines["top"].set_visible(False)
        return axes.figure


def fairness_path(
    scores: Any,
    constraints: Stated,
    tolerances: Sequence[float],
    *,
    sensitive_features: Any = None,
    y: Any = None,
    sample_weight: Any = None,
    label_probabilities: Any = None,
    threshold: float = 0.5,
    **options: Unpack[ProjectionOptions],
) -> FairnessPath:
    """Return what each limit of a grid costs: distance, prices, shifts and gaps of the projection at it.

        d(t) = min_y sum_i weight_i d(y_i, score_i)   subject to   every constraint at the limit t, bounds

    The batch is read, and its samples are sorted into cells, once.

    Args:
        scores: (n,) or (n, 1), see `project`.
        constraints: the constraints whose limit (`tolerance`, `cap`, `floor`, `ratio`) is put to each number in turn,
            of all at once.
        tolerances: the limits, finite, in any order.
        sensitive_features: see `project`.
        y: labels.
        sample_weight: see `project`.
        label_probabilities: see `project`.
        threshold: the score from which on a prediction is a yes.
        options: as for `project`.

    Raises:
        ConstraintDefinitionError: a constraint has no single limit, or refuses one of the numbers.
        ShapeError: the scores have several columns.
        FairlayerError: a named subclass, as for `project`.

    Source: the price is the derivative of the optimal value by its limit; Boyd, Vandenberghe (2004), section 5.6.2.

    Example:
        >>> import torch, fairlayer as fl
        >>> scores, groups = torch.tensor([0.9, 0.7, 0.2, 0.4]), {"sex": ["F", "F", "M", "M"]}
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> path = fl.fairness_path(scores, parity, [0.0, 0.1, 0.5], sensitive_features=groups, bounds=(0.0, 1.0))
        >>> path.distance.round(3).tolist(), path.multipliers[:, 0].round(3).tolist()
        ([0.125, 0.08, 0.0], [0.5, 0.4, 0.0])
    """
    stated = as_constraints(constraints)
    grid = _read_tolerances(tolerances)
    at_limits = list(zip(*(checked_at_limits(each, grid.tolist()) for each in stated), strict=True))
    read = options_of("fairness_path", options, ("threshold", "y", "sample_weight", "label_probabilities"))
    plan = Plan(at_limits[-1], read)
    posed = plan.pose(scores, sensitive_features, y, label_probabilities, sample_weight, None)
    if posed is None:
        raise ShapeError(
            "fairness_path takes one column of scores, (n,) or (n, 1), on a box, by the exact backend. Call project at "
            "each limit for the rest."
        )
    made = posed.assembly
    alike = alike_statements(at_limits, made)
    if alike is not None:
        passes = CondensedPasses.of(posed.passes) or posed.passes
        found = solve_grid(passes, alike.systems, relax=read.relax)
        tally = Tallies(passes, posed.raw, threshold).of_grid(found)
        prices = _by_constraint(made, found.prices)
        gaps, decision_gaps = tally.gaps(made, alike.stated)
    else:
        assemblies = [assemble(each, made.batch, on_empty=read.on_empty, like=made) for each in at_limits]
        found, tally = _one_by_one(posed, assemblies, threshold, relax=read.relax)
        prices = np.array([_by_constraint(*each) for each in zip(assemblies, found.prices, strict=True)])
        gaps, decision_gaps = tally.gaps_of_each(assemblies)
    m = len(made.cells.counts)
    return FairnessPath(
        tolerances=grid,
        distance=tally.distance,
        multipliers=prices,
        shifts=0.0 - np.hstack([found.nu[:, :m] / made.cells.counts, found.nu[:, m:]]),
        gaps=gaps,
        decision_gaps=decision_gaps,
        moved=tally.moved,
        names=plan.names,
        cells=made.cell_names,
        threshold=threshold,
    )


def _read_tolerances(tolerances: Sequence[float]) -> FloatArray:
    try:
        grid = np.unique(np.asarray(list(tolerances), dtype=np.float64))
    except (TypeError, ValueError):
        grid = np.empty(0)
    if not len(grid) or not np.isfinite(grid).all():
        raise ConstraintDefinitionError(
            f"tolerances must be finite numbers, at least one, but are {tolerances!r}. Give a list, for example "
            "[0.0, 0.01, 0.02]."
        )
    return grid


def _by_constraint(assembly: Assembly, prices: FloatArray) -> FloatArray:
    """Return the prices of statements, (..., statements), as those of constraints, (..., constraints)."""
    found = np.zeros((*prices.shape[:-1], assembly.constraints))
    for place, owner in enumerate(assembly.owners):
        found[..., owner] += prices[..., place]
    return found


def _one_by_one(
    posed: PosedProblem, assemblies: Sequence[Assembly], threshold: float, *, relax: bool
) -> tuple[GridSolution, PathTally]:
    """Solve a batch whose statements are others at other limits, or are about pairs of samples."""
    if isinstance(posed.passes, PairPasses):
        return _of_pairs(posed, assemblies, threshold)
    found = solve_grid(posed.passes, [each.slabs for each in assemblies], relax=relax)
    return found, Tallies(posed.passes, posed.raw, threshold).of_grid(found)


def _of_pairs(posed: PosedProblem, assemblies: Sequence[Assembly], threshold: float) -> tuple[GridSolution, PathTally]:
    """Solve a batch of which some samples are held together, by other limits each time."""
    passes, tallies = posed.passes, Tallies(posed.passes, posed.raw, threshold)
    assert isinstance(passes, PairPasses)
    grid = GridSolution.blank(len(assemblies), posed.assembly.cells.size, len(posed.assembly.owners))
    found: list[Tally | None] = [None] * len(assemblies)
    for row, assembly in enumerate(assemblies):
        here = passes.at_other(assembly.pairs)
        try:
            solved = solve_coupled(here, assembly.slabs)
        except ClashingFaces:
            continue
        solution = solved.solution
        grid.nu[row], grid.statistics[row] = solution.nu, solution.statistics
        grid.prices[row] = prices_by_block(solution, len(assembly.owners))
        for place, _, _, price in assembly.held_pairs(here.multipliers(solution.point, solution.nu)):
            grid.prices[row, place] += price
        found[row] = tallies.at(solution.nu, solution.point)
    return grid, tallies.together(found)
