"""Sums per group and label, kept on the device of the predictions; disparities of their means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlayer.errors import CategoryError, ShapeError
from fairlayer.integrations.torchmetrics.table import (
    DECISIONS,
    LABELS,
    ROWS,
    SCORES,
    VALUES,
    largest_difference,
    rates,
    tabulate,
)

__all__ = ["Counted", "Disparities", "GroupSums", "disparities", "merged"]

# A step adds to a table of fixed size, so that it need not wait for the device to know how many groups there are.
CAPACITY = 1024

Counted = dict[Any, Tensor]  # group -> (labels, values), see `fairlayer.integrations.torchmetrics.table`


class GroupSums:
    """Rows, scores and decisions, summed per group of one sensitive feature and per label.

    The groups need not be known beforehand: integer codes are counted as they come, names are given codes.

    Args:
        name: of the feature, for errors.
        threshold: a score at or above it is a decision for 1; None where there are no decisions.
    """

    def __init__(self, name: str, threshold: float | None) -> None:
        self.name = name
        self._threshold = math.inf if threshold is None else threshold
        self._table: Tensor | None = None
        self._unreadable = torch.zeros((), dtype=torch.long)
        self._codes: dict[Any, int] = {}  # of names

    def update(self, scores: Tensor, y: Any, column: Any) -> None:
        """Add a batch: scores (n,), labels (n,) or None, and the feature's column (n,), or (n, k) for soft groups."""
        wide = scores.to(torch.float32 if scores.device.type == "mps" else torch.float64)
        if isinstance(column, Tensor) and column.ndim == 2 and column.is_floating_point():
            groups = torch.nan_to_num(column.to(wide))
        else:
            groups = self._groups(column, scores.device)
        if len(groups) != len(scores):
            raise ShapeError(f"'{self.name}' has {len(groups)} entries, but there are {len(scores)} predictions.")
        table = tabulate(wide, _labels(y, scores), groups, CAPACITY, self._threshold)
        if self._table is None:
            self._table = wide.new_zeros(CAPACITY, LABELS, VALUES)
        self._table[: len(table)] += table

    def counted(self) -> Counted:
        """Return the sums of the groups that were seen, on the host.

        Raises:
            CategoryError: the column held something that cannot be a group.
        """
        if int(self._unreadable):
            raise CategoryError(
                f"sensitive feature '{self.name}' holds {int(self._unreadable)} values that are no group: integers "
                f"below {CAPACITY}, -1 or NaN for unknown, or names are read. Code it as groups (batch_adapter=)."
            )
        if self._table is None:
            return {}
        table = self._table.cpu()
        names = {code: name for name, code in self._codes.items()}
        seen = table[..., ROWS].sum(dim=1).nonzero().flatten().tolist()
        return {names.get(code, code): table[code] for code in seen}

    def _groups(self, column: Any, device: torch.device) -> Tensor:
        if not isinstance(column, Tensor):
            array = np.asarray(column)
            column = torch.from_numpy(array) if array.dtype.kind in "biuf" else self._codes_of(array)
        column = column.to(device).reshape(-1)
        readable = column < CAPACITY
        if column.is_floating_point():
            known = ~column.isnan() & (column >= 0)
            readable = (readable & (column == column.round())) | ~known
            column = torch.where(known, column, -1.0)
        self._unreadable = self._unreadable.to(device) + (~readable).sum()
        return torch.where(readable & (column >= 0), column.long(), -1)

    def _codes_of(self, names: Any) -> Tensor:
        codes = self._codes
        rows = [-1 if _is_missing(name) else codes.setdefault(name, len(codes)) for name in names.tolist()]
        return torch.tensor(rows, dtype=torch.long)


def _is_missing(name: Any) -> bool:
    return name is None or (isinstance(name, float) and math.isnan(name))


def _labels(y: Any, scores: Tensor) -> Tensor:
    if y is None:
        return torch.full(scores.shape, LABELS - 1, dtype=torch.long, device=scores.device)
    labels = torch.as_tensor(y, device=scores.device).reshape(-1)
    if len(labels) != len(scores):
        raise ShapeError(f"y has {len(labels)} entries, but there are {len(scores)} predictions.")
    return torch.where(labels == 1, 1, torch.where(labels == 0, 0, LABELS - 1))


def merged(parts: Sequence[Counted]) -> Counted:
    """Return the sums over several processes, group by group.

    Example:
        >>> one = torch.ones(3, 3)
        >>> {group: float(sums[0, 0]) for group, sums in merged([{"f": one}, {"f": one, "m": one}]).items()}
        {'f': 2.0, 'm': 1.0}
    """
    groups = dict.fromkeys(group for part in parts for group in part)
    return {group: torch.stack([part[group] for part in parts if group in part]).sum(dim=0) for group in groups}


@dataclass(frozen=True)
class Disparities:
    """Largest minus smallest group mean of pooled rows; NaN where fewer than two groups were seen, or scores are NaN.

    Args:
        score_gap: of scores.
        demographic_parity_difference: of decisions (selection rates).
        equalized_odds_difference: of decisions within label 1, or within label 0, whichever is larger; NaN where
            either label was seen in fewer than two groups.
        smallest_group: rows of the smallest group seen.
        groups: number of groups seen.
    """

    score_gap: float
    demographic_parity_difference: float
    equalized_odds_difference: float
    smallest_group: float
    groups: int


def disparities(counted: Mapping[Any, Tensor]) -> Disparities:
    """Return the disparities of pooled group sums.

    Example:
        >>> sums = GroupSums("sex", 0.5)
        >>> sums.update(torch.tensor([0.2, 0.8, 0.9]), torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))
        >>> found = disparities(sums.counted())
        >>> round(found.score_gap, 3), found.demographic_parity_difference, found.equalized_odds_difference
        (0.4, 0.5, nan)
    """
    if not counted or bool(torch.isnan(table := torch.stack(list(counted.values()))).any()):
        return Disparities(math.nan, math.nan, math.nan, 0.0, len(counted))
    odds = torch.stack([largest_difference(rates(table, DECISIONS, label)) for label in (1, 0)])
    return Disparities(
        score_gap=float(largest_difference(rates(table, SCORES))),
        demographic_parity_difference=float(largest_difference(rates(table, DECISIONS))),
        equalized_odds_difference=float(odds.amax()),  # NaN if either is
        smallest_group=float(table[..., ROWS].sum(dim=1).min()),
        groups=len(counted),
    )
