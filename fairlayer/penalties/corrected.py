"""The squared gap of one batch less what sampling noise adds to it: for a loss that has no memory.

    d^2 - scale^2 s_hi^2 / n_hi - s_lo^2 / n_lo          of a spread, with the groups that make its gap d
    d^2 - s^2 / n                                        of a row outside its limits

with s^2 the variance within a group (n - 1). On average it is the square of the true gap where two groups are compared;
of many groups the largest difference still favours those that noise puts at the ends. It can be negative. Groups of one
sample have no variance and are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlayer.constraints import Spread, Statement
from fairlayer.constraints.means import GroupMeans, like
from fairlayer.errors import ConstraintDefinitionError
from fairlayer.penalties.means import Bounded

__all__ = ["corrected_squares"]


def corrected_squares(
    scores: Tensor, measured: Sequence[Bounded], width_of: Callable[[Statement], Any]
) -> list[Tensor]:
    """Return the corrected square of each statement.

    Args:
        scores: (n,) that the statements read.
        measured: the statements with their values.
        width_of: a function from a statement to the limit that its gap is measured from, see
            `fairlayer.penalties.norms`.

    Raises:
        ConstraintDefinitionError: memberships are soft, or a row is not a mean, so that no variance can be taken out.
    """
    found = []
    for m in measured:
        statement = m.statement
        variance = _variances(scores, statement.means)
        enough = ~(np.asarray(statement.matrix) != 0)[:, statement.means.counts < 2].any(axis=1) & m.present
        rows = torch.as_tensor(np.flatnonzero(enough), device=scores.device)
        noise = (like(np.asarray(statement.matrix) ** 2, scores) @ variance)[rows]
        values = m.values[rows]
        if isinstance(statement, Spread):
            if len(values) > 1:
                high, low = int(values.argmax()), int(values.argmin())
                gap = statement.scale * values[high] - values[low]
                found.append(torch.where(gap > 0, gap**2 - statement.scale**2 * noise[high] - noise[low], 0.0))
            continue
        width = torch.as_tensor(np.broadcast_to(np.asarray(width_of(statement), dtype=float), len(enough)).copy())
        gaps = statement.gaps(m.values)[rows] - width.to(values)[rows]
        found.append(torch.where(gaps > 0, gaps**2 - noise, 0.0).sum())
    return found


def _variances(scores: Tensor, means: GroupMeans) -> Tensor:
    """Return the variance of each mean, s^2 / n."""
    if means.codes is None or means.sample_weights is not None:
        raise ConstraintDefinitionError(
            "norm='corrected' takes the variance within groups out, but here memberships are soft. Use norm='squared' "
            "in a Penalty, which remembers earlier batches."
        )
    k = len(means)
    codes = torch.from_numpy(np.where(means.codes < 0, k, means.codes)).to(scores.device)
    counts = like(np.maximum(means.counts, 2.0), scores)
    sums = scores.new_zeros(k + 1).index_add(0, codes, scores)[:k]
    squares = scores.new_zeros(k + 1).index_add(0, codes, scores**2)[:k]
    return (squares - sums**2 / counts).clamp_min(0.0) / (counts - 1.0) / counts
