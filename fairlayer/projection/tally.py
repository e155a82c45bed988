"""What a path says of each limit: distance, gaps and decisions, from sums over cells wherever those say it all.

A compiled sweep gives the distance, and how many predictions of each cell reach the threshold, at a dual point, without
a prediction being written. Samples of a cell all move the same way, so that those whose decision changed are the
difference of two counts. Otherwise predictions are written, and read once.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from fairlayer._typing import FloatArray
from fairlayer.constraints.means import GroupMeans
from fairlayer.constraints.measure import measure_statements
from fairlayer.passes import CompiledPasses, Passes
from fairlayer.passes.pairs import PairPasses
from fairlayer.projection.assembly import Assembly
from fairlayer.projection.certificate import RawBatch
from fairlayer.solve import Solution

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

        def means_of(means: GroupMeans) -> FloatArray:
            if self.statistics is not None:
                return assembly.means_of(means, self.statistics)
            assert self.values is not None
            return means.of(self.values, total=assembly.batch.total)

        return float(measure_statements("", statements, means_of))


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

    def at(self, solution: Solution) -> Tally:
        """Read a solution."""
        found = self._of_cells(solution)
        return self._written(solution) if found is None else found

    def _of_cells(self, solution: Solution) -> Tally | None:
        if not isinstance(self.passes, CompiledPasses) or self._before is None:
            return None
        found = self.passes.tally(solution.nu, self.threshold)
        if found is None:
            return None
        distance, decided = found
        moved = float(np.abs(decided - self._before).sum()) / self.passes.n
        decisions = decided[:-1] / self.passes.cells.counts  # the last are in no cell
        return Tally(distance, moved, Numbers(solution.statistics, None), Numbers(decisions, None))

    @cached_property
    def _before(self) -> FloatArray | None:
        """How many raw scores of each cell reach the threshold."""
        assert isinstance(self.passes, CompiledPasses)
        found = self.passes.tally(np.zeros(len(self.passes.cells.counts)), self.threshold)
        return None if found is None else found[1]

    def _written(self, solution: Solution) -> Tally:
        raw, (x, was) = self.raw, self._raw
        value = self._plain(solution.value)
        decided = np.asarray(value >= self.threshold, dtype=np.float64)
        weights = np.ones(len(value)) if raw.weights is None else raw.weights
        return Tally(
            float(weights @ raw.geometry.divergence(value, x, None, None)),
            float(weights @ (decided != was) / weights.sum()),
            Numbers(solution.statistics if self.by_statistics else None, value),
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
