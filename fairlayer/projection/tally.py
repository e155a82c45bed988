"""What a path says of each limit: distance, gaps and decisions, from sums over cells wherever those say it all.

A condensed batch gives the distance, and how many predictions of each cell reach the threshold, at all dual points at
once, and a compiled sweep gives them at one, without a prediction being written. Samples of a cell all move the same
way, so that those whose decision changed are the difference of two counts. Otherwise predictions are written, and read
once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch

from fairlayer._typing import FloatArray, IntArray
from fairlayer.constraints import Statement
from fairlayer.constraints.means import GroupMeans
from fairlayer.constraints.measure import worst_numbers
from fairlayer.passes import CompiledPasses, CondensedPasses, Passes, Point
from fairlayer.passes.pairs import PairPasses
from fairlayer.projection.assembly import Assembly
from fairlayer.projection.certificate import RawBatch
from fairlayer.solve import GridSolution

__all__ = ["PathTally", "Tallies", "Tally"]


class Tally(NamedTuple):
    """A solution in numbers.

    Args:
        distance: sum_i weight_i d(value_i, score_i).
        moved: share of the decisions that changed.
        predictions: the statistics of the predictions, (s,); where these do not say it all, the predictions, (n,).
        decisions: likewise, 1 where a prediction reaches the threshold.
    """

    distance: float
    moved: float
    predictions: FloatArray
    decisions: FloatArray


class PathTally(NamedTuple):
    """Solutions at several limits in numbers, NaN where there is none.

    Args:
        distance: as in `Tally`, (t,).
        moved: likewise.
        numbers: the predictions of each limit, then the decisions, (2 t, s) or (2 t, n).
        by_statistics: whether those are statistics.
    """

    distance: FloatArray
    moved: FloatArray
    numbers: FloatArray
    by_statistics: bool

    @staticmethod
    def of(tallies: Sequence[Tally | None], by_statistics: bool) -> PathTally:
        """Put together the tallies at several limits; None where there is no solution."""
        size = next((len(each.predictions) for each in tallies if each is not None), 0)
        none = np.full(size, math.nan)
        filled = [Tally(math.nan, math.nan, none, none) if each is None else each for each in tallies]
        distance, moved, predictions, decisions = zip(*filled, strict=True)
        return PathTally(np.array(distance), np.array(moved), np.array([*predictions, *decisions]), by_statistics)

    def gaps(self, like: Assembly, stated: Sequence[Sequence[Statement]]) -> tuple[FloatArray, FloatArray]:
        """Return the number that each constraint bounds, of the predictions and of the decisions, (t, constraints).

        Args:
            like: the assembly at one of the limits.
            stated: its statements at each limit, (t,).
        """
        found = np.full((len(self.numbers), like.constraints), math.nan)
        self._read(like, stated, np.arange(len(self.numbers)), found)
        return found[: len(stated)], found[len(stated) :]

    def gaps_of_each(self, assemblies: Sequence[Assembly]) -> tuple[FloatArray, FloatArray]:
        """Return the same of constraints that may state other things at other limits."""
        limits = len(assemblies)
        found = np.full((2 * limits, assemblies[0].constraints), math.nan)
        for row, assembly in enumerate(assemblies):
            self._read(assembly, [assembly.statements], np.array([row, row + limits]), found)
        return found[:limits], found[limits:]

    def _read(
        self, assembly: Assembly, stated: Sequence[Sequence[Statement]], rows: IntArray, found: FloatArray
    ) -> None:
        means_of = partial(self._means, assembly, rows)
        for owner in sorted(set(assembly.owners)):
            own = [place for place, of in enumerate(assembly.owners) if of == owner]
            some = stated if len(own) == len(assembly.owners) else [[each[place] for place in own] for each in stated]
            found[rows, owner] = worst_numbers(some, means_of, times=2)

    def _means(self, assembly: Assembly, rows: IntArray, means: GroupMeans) -> FloatArray:
        numbers = self.numbers[rows]
        if self.by_statistics:
            return assembly.means_of(means, numbers)
        return np.array([means.of(each, total=assembly.batch.total) for each in numbers])


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

    def of_grid(self, found: GridSolution) -> PathTally:
        """Read the solutions at several limits."""
        if isinstance(self.passes, CondensedPasses):
            return self._condensed(self.passes, found)
        rows = zip(found.nu, found.points, strict=True)
        return self.together([None if point is None else self.at(nu, point) for nu, point in rows])

    def together(self, tallies: Sequence[Tally | None]) -> PathTally:
        """Put together what was read at several limits; None where there is no solution."""
        return PathTally.of(tallies, self.by_statistics)

    def at(self, nu: FloatArray, point: Point) -> Tally:
        """Read a solution: the dual point, and the predictions there."""
        tally = self._of_cells(nu, point)
        return self._written(point) if tally is None else tally

    def _condensed(self, passes: CondensedPasses, found: GridSolution) -> PathTally:
        batch, counts = passes.batch, passes.cells.counts
        unsolved = np.asarray(np.isnan(found.statistics).any(axis=1))
        pulls = batch.pulls(np.where(unsolved[:, None], 0.0, found.nu))
        # The raw scores are those at no pull.
        reached = batch.reaching(np.concatenate([np.zeros((1, pulls.shape[1])), pulls]), self.threshold)
        before, decided = reached[0], reached[1:]
        moved = np.abs(decided - before).sum(axis=1) / batch.whole.sum()
        numbers = np.concatenate([found.statistics, decided[:, :-1] / counts])
        distance = batch.distance(pulls)
        if unsolved.any():
            numbers[np.concatenate([unsolved, unsolved])] = distance[unsolved] = moved[unsolved] = math.nan
        return PathTally(distance, moved, numbers, self.by_statistics)

    def _of_cells(self, nu: FloatArray, point: Point) -> Tally | None:
        if not isinstance(self.passes, CompiledPasses) or self._before is None:
            return None
        found = self.passes.tally(nu, self.threshold)
        if found is None:
            return None
        distance, decided = found
        moved = float(np.abs(decided - self._before).sum()) / self.passes.n
        decisions = decided[:-1] / self.passes.cells.counts  # the last are in no cell
        return Tally(distance, moved, point.statistics, decisions)

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
            point.statistics if self.by_statistics else value,
            self._statistics(decided) if self.by_statistics else decided,
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
