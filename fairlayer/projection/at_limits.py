"""The statements of the same constraints at many limits about one batch: alike but for numbers, which become arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fairlayer.constraints import Constraint, Rows, Statement
from fairlayer.constraints.statements import as_float
from fairlayer.projection.assembly import Assembly, present_part
from fairlayer.solve import RowSlabs, SpreadSlabs, SystemsAtLimits
from fairlayer.solve.limits import BlockLimits, limits_of_rows, limits_of_spreads

__all__ = ["AlikeStatements", "alike_statements"]

Constraints = Sequence[Constraint]


class AlikeStatements(NamedTuple):
    """Statements that read the same rows at every limit.

    Args:
        systems: what must hold at each limit.
        stated: the statements that are not vacuous, (t,) of those of an assembly, in its order.
    """

    systems: SystemsAtLimits
    stated: Sequence[Sequence[Statement]]


def alike_statements(at_limits: Sequence[Constraints], like: Assembly) -> AlikeStatements | None:
    """Return what constraints state at several limits; None where they are about pairs, or say other things elsewhere.

    Args:
        at_limits: the same constraints at each limit.
        like: an assembly of them at one of the limits.
    """
    if like.pairs is not None:
        return None
    stated = [_stated(each, like) for each in at_limits]
    places = list(zip(like.statements, zip(*stated, strict=False), strict=False))
    as_many = all(len(each) == len(like.stated) for each in stated)
    if not as_many or not all(first.reads_like(each) for first, alike in places for each in alike):
        return None
    limits = [_limits(block, alike) for block, (_, alike) in zip(like.slabs.blocks, places, strict=True)]
    return AlikeStatements(SystemsAtLimits(like.slabs, limits, len(stated)), stated)


def _stated(constraints: Constraints, like: Assembly) -> Sequence[Statement]:
    """Return the statements of constraints at one limit; none at all where other constraints own them."""
    found = [constraint.statements(like.batch) for constraint in constraints]
    if like.absent or sum(map(len, found)) != len(like.stated):
        found = [[each for each in map(present_part, some) if each is not None] for some in found]
    owners = [owner for owner, some in enumerate(found) for _ in some]
    return [each for some in found for each in some] if owners == [*like.owners] else []


def _limits(block: RowSlabs | SpreadSlabs, alike: Sequence[Any]) -> BlockLimits:
    """Return the numbers of a block from its statement at each limit."""
    tolerance = np.array([as_float(each.tolerance) for each in alike])
    if isinstance(block, RowSlabs):
        rows: Sequence[Rows] = alike
        lower, upper = (np.array([each[side] for each in rows]) for side in (2, 3))
        return limits_of_rows((lower - tolerance[:, None]) / block.scale, (upper + tolerance[:, None]) / block.scale)
    offset = None if block.offset is None else np.array([each.offset for each in alike])
    scale = np.array([each.scale for each in alike], dtype=np.float64)
    return limits_of_spreads(len(block.matrix), offset, scale, tolerance)
