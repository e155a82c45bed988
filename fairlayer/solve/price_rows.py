"""The rows of a program of prices: which of them can be eliminated by their diagonal, and what adds up to the rest.

Of the rows the largest set that shares no statistic is eliminated by its diagonal; what is left is solved densely, or
by a sparse factorisation. All of that is the same from step to step.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.passes.class_metric import ClassLayout
from fairlayer.solve.class_rows import ClassRows
from fairlayer.solve.parts import Cross, Entries, Places, square_of, sums
from fairlayer.solve.sparse import mostly_zero
from fairlayer.solve.table import RowTable

__all__ = ["PriceRows"]


class PriceRows:
    """One table of rows.

    Args:
        table: the rows.
        part: the part of each row, where rows of different parts share neither a statistic nor a level, so that their
            equations are solved part by part; None for one part.
        layout: of the statistics, where K is of blocks (see `class_rows`); None for a diagonal K.
    """

    def __init__(self, table: RowTable, part: IntArray | None = None, layout: ClassLayout | None = None) -> None:
        self.table, self.layout = table, layout
        self.part = np.zeros(len(table.level), dtype=np.int64) if part is None else part
        self.scale = np.append(table.scale, 1.0)[table.level]
        self.width = np.append(table.width, 0.0)[table.level]
        tied_up = (self.width <= 0) & (self.scale == 1.0)
        self.fixed = np.where(table.tied, tied_up, table.lower == table.upper)  # rows without slack, of either sign

    @cached_property
    def apart(self) -> BoolArray:
        """Rows of which no two read the same statistic: of the sets of blocks that allow it, the one with most rows."""
        table = self.table
        entries = np.split(np.argsort(table.block[table.matrix.rows], kind="stable"), _cuts(table))
        sizes = np.bincount(table.block)
        taken: list[BoolArray] = []
        members: list[list[int]] = []
        for block in np.argsort(-sizes, kind="stable").tolist():
            columns = table.matrix.columns[entries[block]]
            if len(np.unique(columns)) < len(columns):
                continue
            at = next((i for i, seen in enumerate(taken) if not seen[columns].any()), len(taken))
            if at == len(taken):
                taken.append(np.zeros(table.matrix.shape[1], dtype=bool))
                members.append([])
            taken[at][columns] = True
            members[at].append(block)
        best = max(members, key=lambda blocks: sizes[blocks].sum(), default=[])
        return np.isin(table.block, best)

    @cached_property
    def one(self) -> IntArray:
        """The rows apart."""
        return np.flatnonzero(self.apart)

    @cached_property
    def rest(self) -> IntArray:
        """The other rows; none where K is of blocks."""
        return np.flatnonzero(~self.apart) if self.layout is None else np.zeros(0, dtype=np.int64)

    @cached_property
    def of_classes(self) -> ClassRows:
        """What adds up where K is of blocks."""
        assert self.layout is not None
        return ClassRows(self.table.matrix, self.table.block, self.layout)

    @cached_property
    def places(self) -> Places:
        """Where the other rows and the levels stand within their parts."""
        return Places.of(self.part[self.rest], self.table, self.part)

    @cached_property
    def sparse(self) -> bool:
        """Whether a sparse factorisation serves better than elimination."""
        return self.layout is None and mostly_zero(self.table.matrix, self.places.rows)

    @cached_property
    def entries(self) -> tuple[Cross, Entries]:
        """What adds up to S between the rows apart and the others, and among the others."""
        others = self.table.matrix.take_rows(self.rest)
        cross = Cross.of(self.table.matrix.take_rows(self.one), others, self.places)
        return cross, square_of(others, self.places)

    def factor(self, q: FloatArray) -> FloatArray:
        """Return how much of its level each row in force takes: scale at its upper limit, 1 at its lower one."""
        return np.where(q > 0, self.scale, 1.0)

    def added(self, values: FloatArray) -> FloatArray:
        """Return sums of the rows of each spread."""
        table = self.table
        rows = table.tied
        return sums(table.level[rows], values[rows], len(table.scale))


def _cuts(table: RowTable) -> IntArray:
    blocks = int(table.block.max(initial=-1)) + 1
    return np.cumsum(np.bincount(table.block[table.matrix.rows], minlength=blocks))[:-1]
