"""One slab system at many limits: the rows are the same for all, and every number that a limit sets is an array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.solve.slabs import RowSlabs, SlabSystem, SpreadSlabs

__all__ = ["BlockLimits", "SystemsAtLimits", "limits_of_rows", "limits_of_spreads"]


class BlockLimits(NamedTuple):
    """The numbers of one block at each limit.

    Args:
        lower: own lower limits, (t, rows); -inf for the members of a spread.
        upper: own upper limits, (t, rows); inf for the members of a spread.
        offset: what is added to each row, (t, rows); None for nothing.
        scale: the scale of the spread, (t,); None for rows of their own.
        width: the width of the spread, (t,); None for rows of their own.
    """

    lower: FloatArray
    upper: FloatArray
    offset: FloatArray | None = None
    scale: FloatArray | None = None
    width: FloatArray | None = None

    def at(self, row: int, like: RowSlabs | SpreadSlabs) -> RowSlabs | SpreadSlabs:
        """Return the block at one limit, from what it is at another."""
        if isinstance(like, RowSlabs):
            return like._replace(lower=self.lower[row], upper=self.upper[row])
        assert self.scale is not None
        assert self.width is not None
        offset = None if self.offset is None else self.offset[row]
        return like._replace(offset=offset, scale=float(self.scale[row]), width=float(self.width[row]))

    def take(self, which: IntArray) -> BlockLimits:
        """Return the numbers at some of the limits."""
        offset, scale, width = (None if each is None else each[which] for each in self[2:])
        return BlockLimits(self.lower[which], self.upper[which], offset, scale, width)


def limits_of_rows(lower: FloatArray, upper: FloatArray) -> BlockLimits:
    """Return the numbers of rows with limits of their own, (t, rows) each."""
    return BlockLimits(lower, upper)


def limits_of_spreads(rows: int, offset: FloatArray | None, scale: FloatArray, width: FloatArray) -> BlockLimits:
    """Return the numbers of a spread of some rows, (t,) or (t, rows) each."""
    ends = np.full((len(scale), rows), np.inf)
    return BlockLimits(-ends, ends, offset, scale, width)


class SystemsAtLimits:
    """Slab systems that are alike but for their limits; each is written out only when it is asked for.

    Args:
        like: the system at any of the limits, or at another one.
        limits: the numbers of each of its blocks.
        count: the number of limits.
    """

    def __init__(self, like: SlabSystem, limits: Sequence[BlockLimits], count: int) -> None:
        self.like, self.limits, self.count = like, tuple(limits), count

    @staticmethod
    def of(systems: Sequence[SlabSystem]) -> SystemsAtLimits:
        """Gather systems that read the same rows of the statistics."""
        found = [_gathered(alike) for alike in zip(*(each.blocks for each in systems), strict=True)]
        return SystemsAtLimits(systems[0], found, len(systems))

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[SlabSystem]:
        return (self[row] for row in range(self.count))

    def __getitem__(self, row: int) -> SlabSystem:
        return SlabSystem([each.at(row, block) for each, block in zip(self.limits, self.like.blocks, strict=True)])

    def take(self, which: IntArray) -> SystemsAtLimits:
        """Return the systems at some of the limits."""
        return SystemsAtLimits(self.like, [each.take(which) for each in self.limits], len(which))


def _gathered(alike: Sequence[RowSlabs | SpreadSlabs]) -> BlockLimits:
    first = alike[0]
    if isinstance(first, RowSlabs):
        lower, upper = (np.array([each[side] for each in alike]) for side in (1, 2))
        return limits_of_rows(lower, upper)
    _, offset, scale, width, *_ = zip(*alike, strict=True)
    offsets = None if first.offset is None else np.array(offset)
    return limits_of_spreads(len(first.matrix), offsets, np.array(scale, dtype=np.float64), np.array(width))
