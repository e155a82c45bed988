"""From a summed-up table to one shift per signature, how far that is from exact, and where to look more closely."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from fairlayer._typing import FloatArray, IntArray
from fairlayer.constraints import Batch, Constraint, Measured
from fairlayer.constraints.measure import measure
from fairlayer.edge import Box
from fairlayer.groups import Groups
from fairlayer.projection.assembly import assemble
from fairlayer.projection.exact import project_exactly
from fairlayer.projection.options import Options
from fairlayer.projection.result import Projection
from fairlayer.scoring.sketch import Grid, TableSketch

__all__ = ["Settings", "SolvedSketch"]

_MOST_BINS, _FEWEST_BINS, _ALL_BINS = 4096, 16, 2**20


class Settings:
    """What is asked of a table.

    Args:
        constraints: what must hold.
        names: one for each constraint.
        box: common bounds.
        on_empty: see `project`.
        relax: whether limits may be widened.
    """

    def __init__(
        self, constraints: Sequence[Constraint], names: tuple[str, ...], box: Box, *, on_empty: str, relax: bool
    ) -> None:
        self.constraints, self.names, self.box = tuple(constraints), names, box
        self.on_empty, self.relax = on_empty, relax

    @property
    def bounds(self) -> tuple[float, ...]:
        """The bounds that there are."""
        return tuple(bound for bound in (self.box.lower, self.box.upper) if bound is not None)


class SolvedSketch:
    """The exact projection of the table in which every bin that a bound cuts has all its rows at their mean."""

    def __init__(self, sketch: TableSketch, settings: Settings) -> None:
        self.sketch, self.settings = sketch, settings
        self.rows = sketch.rows()
        groups, labels = self._groups(), sketch.labels()
        self.batch = batch = Batch(
            groups,
            len(self.rows.scores),
            None if labels is None else labels[self.rows.signatures],
            raw_scores=lambda: self.rows.scores,
            weights=self.rows.counts,
        )
        self.assembly = assemble(settings.constraints, batch, on_empty=settings.on_empty)
        scores = torch.from_numpy(self.rows.scores)
        options = Options(on_infeasible="relax" if settings.relax else "raise")
        value, self.column = project_exactly(
            scores, torch.float64, settings.constraints, self.assembly, settings.box, options
        )
        self.projection = Projection(value, settings.names, (self.column,), groups)

    def _groups(self) -> Groups:
        codes = {name: column[self.rows.signatures] for name, column in self.sketch.signatures.codes().items()}
        return Groups.from_codes(codes, self.sketch.signatures.words)

    @cached_property
    def cells(self) -> IntArray:
        """The cell of each signature; the number of cells where it is in none."""
        return self._by_signature(self.assembly.cells.codes, len(self.assembly.cells.counts))

    @cached_property
    def shifts(self) -> FloatArray:
        """What is added to the scores of each signature."""
        return np.append(self.column.shift(), 0.0)[self.cells]

    @cached_property
    def _cut(self) -> FloatArray:
        """For each bound and row: the width of the bin that the bound cuts, 0 where it cuts none."""
        at = np.array(self.settings.bounds)[:, None] - self.shifts[self.rows.signatures]
        moves = self.cells[self.rows.signatures] < len(self.assembly.cells.counts)
        through = (self.rows.low < at) & (at < self.rows.high) & moves
        return np.where(through, self.rows.high - self.rows.low, 0.0)

    @cached_property
    def accuracy(self) -> float:
        """How far any shift can be from that of the exact projection.

        The sketch moves rows by at most half their bin, and only rows of cut bins count. A projection moves no
        further than what it projects, so |value - exact| <= |moved rows| over the table. All k unclipped rows of a
        cell differ by the error of its shift, which is therefore at most |moved rows| / sqrt(k).
        """
        widest = self._cut.max(axis=0, initial=0.0)
        moved = float(np.sqrt((self.rows.counts * (0.5 * widest) ** 2).sum()))
        if moved == 0.0:
            return 0.0
        value = self.projection.value.numpy()
        free = np.ones(len(value), dtype=bool)
        for bound, cut in zip(self.settings.bounds, self._cut, strict=True):
            free &= (value != bound) & (cut == 0.0)
        cells = self.cells[self.rows.signatures]
        unclipped = np.bincount(cells, weights=self.rows.counts * free, minlength=len(self.assembly.cells.counts) + 1)
        touched = np.bincount(cells, weights=free | (widest > 0), minlength=len(unclipped)) > 0
        return moved / float(np.sqrt(max(1.0, unclipped[:-1][touched[:-1]].min(initial=np.inf))))

    def closer(self) -> Grid:
        """Return a grid that is fine where the bounds cut, as far around as the shifts can be wrong."""
        size = len(self.sketch.signatures)
        bins = min(max(_ALL_BINS // (size * len(self.settings.bounds)), _FEWEST_BINS), _MOST_BINS)
        centres = np.array(self.settings.bounds)[:, None] - self.shifts
        halves = np.maximum(self.accuracy, 64 * np.spacing(np.abs(centres) + self.size))
        for half, cut in zip(halves, self._cut, strict=True):
            np.maximum.at(half, self.rows.signatures, 2.0 * cut)
        return Grid(centres - halves, 2.0 * halves / bins, bins)

    @property
    def size(self) -> float:
        """Largest absolute score."""
        return float(max(self.rows.high.max(initial=0.0), -self.rows.low.min(initial=0.0)))

    def violation_of(self, sums: FloatArray) -> float:
        """Return the largest violation, given the sum of the emitted values by signature."""
        k = len(self.assembly.cells.counts)
        cells = np.bincount(self.cells, weights=sums, minlength=k + 1)[:k]
        return self.column.solved.slabs.violation(cells / self.assembly.cells.counts)

    def measure(self, seen: FloatArray, sums: FloatArray) -> list[Measured]:
        """Return what each constraint says about the emitted values, given their number and sum by signature.

        Every mean of a constraint is over whole signatures, so each row may stand at the mean of its own.
        """
        values = (sums / np.maximum(seen, 1.0))[self.rows.signatures]
        return [measure(constraint, self.batch, values) for constraint in self.settings.constraints]

    def _by_signature(self, codes: IntArray | None, outside: int) -> IntArray:
        by = np.full(len(self.sketch.signatures), outside, dtype=np.int64)
        if codes is not None:
            by[self.rows.signatures] = codes
        return by
