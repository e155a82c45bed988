"""The statements of a batch with the values that they bound, as differentiable torch."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from torch import Tensor

from fairlayer._typing import BoolArray
from fairlayer.constraints import Statement

__all__ = ["Bounded", "members_of"]


class Bounded(NamedTuple):
    """A statement with the values that it bounds."""

    statement: Statement
    values: Tensor  # (members,), meaningless where not present
    present: BoolArray  # (members,): every mean that the member reads has a sample


def members_of(scores: Tensor, statements: Sequence[Statement]) -> list[Bounded]:
    """Return the values of each statement for scores (n,); one pass over the scores per distinct measure."""
    known: dict[Hashable, Tensor] = {}
    found = []
    for statement in statements:
        means = statement.means
        if means.key not in known:
            known[means.key] = means.of(scores)
        found.append(Bounded(statement, statement.members(known[means.key]), statement.present))
    return found
