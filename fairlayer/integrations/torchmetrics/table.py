"""The table that group metrics pool: rows, scores and decisions per group and label; plain tensors in and out.

    table[g, l] = (rows, sum of scores, sum of decisions) of group g with label l;    l = 0, 1, or 2 for no label

Where rows have weights, each counts as that many rows.

Tables of batches and of ranks add up, and every rate is a quotient of two sums of them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

__all__ = [
    "DECISIONS",
    "LABELS",
    "ROWS",
    "SCORES",
    "VALUES",
    "largest_difference",
    "rates",
    "smallest_ratio",
    "tabulate",
]

LABELS = 3
ROWS, SCORES, DECISIONS = range(3)
VALUES = 3


def tabulate(  # noqa: PLR0917 - a row of columns, then how to read them
    scores: Tensor, labels: Tensor, groups: Tensor, size: int, threshold: float, weights: Tensor | None = None
) -> Tensor:
    """Return the table (size, 3, 3) of a batch, without waiting for the device.

    Args:
        scores: float64 (n,).
        labels: 0, 1, or 2 (n,).
        groups: codes (n,) from 0 to size - 1, with -1 for rows of no group; or soft membership (n, size).
        size: number of groups.
        threshold: a score at or above it is a decision for 1.
        weights: how many rows each stands for (n,); None for one each.

    Example:
        >>> batch = torch.tensor([0.2, 0.9, 0.6], dtype=torch.float64), torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1])
        >>> tabulate(*batch, size=2, threshold=0.5)[:, 1].tolist()
        [[1.0, 0.9, 1.0], [1.0, 0.6, 1.0]]
    """
    values = torch.stack([torch.ones_like(scores), scores, (scores >= threshold).to(scores)], dim=1)
    values = values if weights is None else values * weights.to(scores).unsqueeze(1)
    if groups.ndim == 2:
        return torch.einsum("nk,nl,nv->klv", groups.to(scores), one_hot(labels, LABELS).to(scores), values)
    cells = torch.where(groups < 0, size, groups) * LABELS + labels
    table = scores.new_zeros((size + 1) * LABELS, VALUES).index_add_(0, cells, values)
    return table.view(size + 1, LABELS, VALUES)[:size]


def rates(table: Tensor, value: int, label: int | None = None) -> Tensor:
    """Return the mean of one value per group (groups,), within one label; NaN for a group that has no row there."""
    cells = table.sum(dim=1) if label is None else table[:, label]
    return cells[:, value] / cells[:, ROWS]


def largest_difference(rates: Tensor) -> Tensor:
    """Return the largest rate minus the smallest, over the groups observed; NaN for fewer than two of them.

    Example:
        >>> largest_difference(torch.tensor([0.25, float("nan"), 1.0]))
        tensor(0.7500)
    """
    low, high = _extremes(rates)
    return high - low


def smallest_ratio(rates: Tensor) -> Tensor:
    """Return the smallest rate over the largest, over the groups observed; NaN for fewer than two, or if all are 0.

    Example:
        >>> smallest_ratio(torch.tensor([0.25, float("nan"), 1.0]))
        tensor(0.2500)
    """
    low, high = _extremes(rates)
    return low / high


def _extremes(rates: Tensor) -> tuple[Tensor, Tensor]:
    seen = ~torch.isnan(rates)
    low = torch.where(seen, rates, torch.inf).amin()
    high = torch.where(seen, rates, -torch.inf).amax()
    enough = seen.sum() >= 2
    return torch.where(enough, low, torch.nan), torch.where(enough, high, torch.nan)
