"""Group means of scores as differentiable torch, from the same statements as the projection."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairlayer._typing import BoolArray, FloatArray
from fairlayer.constraints import Means, Spread, Statement

__all__ = ["Measured", "mean_scores", "measure"]


class Measured(NamedTuple):
    """A statement with the values that it bounds: `matrix @ means` (plus the offset of a spread)."""

    statement: Statement
    values: Tensor  # (members,), meaningless where not present
    present: BoolArray  # (members,): every mean that the member reads has a sample


def mean_scores(scores: Tensor, means: Means) -> Tensor:
    """Return the mean of the scores (n,) over each row of a measure, 0 for an empty row.

    Example:
        >>> groups = Means("key", ("a", "b"), ("",), np.array([2.0, 0.0]), codes=np.array([0, 0, -1]))
        >>> mean_scores(torch.tensor([1.0, 3.0, 9.0]), groups)
        tensor([2., 0.])
    """
    if means.weights is not None:
        return _like(means.weights, scores) @ scores
    assert means.codes is not None
    k = len(means)
    codes = torch.from_numpy(np.where(means.codes < 0, k, means.codes)).to(scores.device)
    weighted = scores if means.sample_weights is None else scores * _like(means.sample_weights, scores)
    sums = scores.new_zeros(k + 1).index_add(0, codes, weighted)[:k]
    return sums / _like(np.where(means.counts > 0, means.counts, 1.0), scores)


def measure(scores: Tensor, statements: Sequence[Statement]) -> list[Measured]:
    """Return the values of each statement for scores (n,); one pass over the scores per distinct measure."""
    known: dict[Hashable, Tensor] = {}
    measured = []
    for statement in statements:
        means = statement.means
        if means.key not in known:
            known[means.key] = mean_scores(scores, means)
        values = _like(statement.matrix, scores) @ known[means.key]
        if isinstance(statement, Spread) and statement.offset is not None:
            values = values + _like(statement.offset, scores)
        measured.append(Measured(statement, values, _present(statement)))
    return measured


def _present(statement: Statement) -> BoolArray:
    empty = statement.means.counts == 0
    absent: BoolArray = (statement.matrix[:, empty] != 0).any(axis=1)
    return ~absent


def _like(array: FloatArray, scores: Tensor) -> Tensor:
    return torch.tensor(array, dtype=scores.dtype, device=scores.device)
