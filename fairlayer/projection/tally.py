"""What a path says of each limit: distance, gaps and decisions, from sums over cells wherever those say it all.

A condensed batch gives the distance, and how many predictions of each cell reach the threshold, at all dual points at
once, and a compiled sweep gives them at one, without a prediction being written. Samples of a cell all move the same
way, so that those whose decision changed are the difference of two counts. Otherwise predictions are written, and read
once.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from fairlayer._typing import FloatArray
from fairlayer.constraints.means import GroupMeans
from fairlayer.constraints.measure import read_worst
from fairlayer.passes import CompiledPasses, CondensedPasses, Passes, Point
from fairlayer.passes.pairs import PairPasses
from fairlayer.projection.assembly import Assembly
from fairlayer.projection.certificate import RawBatch
from fairlayer.solve import GridSolution

__all__ = ["Numbers", "Tallies", "Tally"]


class Numbers(NamedTuple):
    """Predictions, or decisions, as constraints read them.

    Args:
        statistics: the statistics of the batch, (s,); None where they do not say it all.
        values: (n,), where they were written.
    """

    statistics: FloatArray | None
    values: FloatArray | None

    def of(self, owner: int, assembly: Assembly) -> float:
        """Return the number that one of the constraints, by its index, bounds; NaN where there is none."""
        stated = zip(assembly.stated, assembly.owners, strict=True)
        statements = [statement for (statement, _), of in stated if of == owner]
        if not statements:
            return math.nan
        measures = {statement.means.key: statement.means for statement in statements}
        reading, _ = read_worst(statements, {key: self._means(each, assembly) for key, each in measures.items()})
        return math.nan if reading.value is None else reading.value

    def _means(self, means: GroupMeans, assembly: Assembly) -> FloatArray:
        if self.statistics is not None:
            return assembly.means_of(means, self.statistics)
        assert self.values is not None
        return means.of(self.values, total=assembly.batch.total)


class Tally(NamedTuple):
    """A solution in numbers.

    Args:
        distance: sum_i weight_i d(value_i, score_i).
        moved: share of the decisions that changed.
        predictions: the predictions whose numbers the constraints bound.
        decisions: likewise, 1 where a prediction reaches the threshold.
    """

    distance: float
    moved: float
    predictions: Numbers
    decisions: Numbers


class Tallies:
    """How solutions of one batch are read.

    Args:
        passes: the batch as the solver sees it.
        raw: the batch as it came.
        threshold: the score from which on a prediction is a yes.
    """

    def __init__(self, passes: Passes, raw: RawBatch, threshold: float) -> None:
        self.passes, self.raw, self.threshold = passes, raw, threshold
        # Rows of several processes, and pairs, are not all read by the statistics of the solver.
        self.by_statistics = passes.parts == 1 and not isinstance(passes, PairPasses)

    def of_grid(self, found: GridSolution) -> list[Tally | None]:
        """Read the solutions at several limits; None where there is none."""
        if isinstance(self.passes, CondensedPasses):
            return self._condensed(self.passes, found)
        rows = zip(found.nu, found.points, strict=True)
        return [None if point is None else self.at(nu, point) for nu, point in rows]

    def at(self, nu: FloatArray, point: Point) -> Tally:
        """Read a solution: the dual point, and the predictions there."""
        tally = self._of_cells(nu, point)
        return self._written(point) if tally is None else tally

    def _condensed(self, passes: CondensedPasses, found: GridSolution) -> list[Tally | None]:
        batch, counts, nu = passes.batch, passes.cells.counts, np.nan_to_num(found.nu)
        pulls = np.pad(nu / counts, ((0, 0), (0, 1)))  # the last are in no cell
        before, decided = (
            batch.reaching(np.zeros((1, len(counts) + 1)), self.threshold),
            batch.reaching(pulls, self.threshold),
        )
        moved = np.abs(decided - before).sum(axis=1) / batch.whole.sum()
        numbers = zip(
            batch.distance(pulls).tolist(), moved.tolist(), found.statistics, decided[:, :-1] / counts, strict=True
        )
        return [
            None if np.isnan(statistics).any() else Tally(d, m, Numbers(statistics, None), Numbers(decisions, None))
            for d, m, statistics, decisions in numbers
        ]

    def _of_cells(self, nu: FloatArray, point: Point) -> Tally | None:
        if not isinstance(self.passes, CompiledPasses) or self._before is None:
            return None
        found = self.passes.tally(nu, self.threshold)
        if found is None:
            return None
        distance, decided = found
        moved = float(np.abs(decided - self._before).sum()) / self.passes.n
        decisions = decided[:-1] / self.passes.cells.counts  # the last are in no cell
        return Tally(distance, moved, Numbers(point.statistics, None), Numbers(decisions, None))

    @cached_property
    def _before(self) -> FloatArray | None:
        """How many raw scores of each cell reach the threshold."""
        assert isinstance(self.passes, CompiledPasses)
        found = self.passes.tally(np.zeros(len(self.passes.cells.counts)), self.threshold)
        return None if found is None else found[1]

    def _written(self, point: Point) -> Tally:
        raw, (x, was) = self.raw, self._raw
        value = self._plain(point.value)
        decided = np.asarray(value >= self.threshold, dtype=np.float64)
        weights = np.ones(len(value)) if raw.weights is None else raw.weights
        return Tally(
            float(weights @ raw.geometry.divergence(value, x, None, None)),
            float(weights @ (decided != was) / weights.sum()),
            Numbers(point.statistics if self.by_statistics else None, value),
            Numbers(self._statistics(decided) if self.by_statistics else None, decided),
        )

    def _statistics(self, decided: FloatArray) -> FloatArray:
        return self.passes.measure(self.passes.from_tensor(torch.from_numpy(decided).to(self.raw.scores.device)))

    @cached_property
    def _raw(self) -> tuple[FloatArray, FloatArray]:
        """The scores in the coordinate of the geometry, and the decisions that they make."""
        x = self._plain(self.passes.scores)
        before = self.raw.geometry.step(x, None, self.passes.lower, self.passes.upper)[0]
        return x, np.asarray(before >= self.threshold, dtype=np.float64)

    def _plain(self, array: Any) -> FloatArray:
        found: FloatArray = self.passes.as_tensor(array).double().cpu().numpy()
        return found
