"""Sums per group and label, kept on the device of the predictions; disparities of their means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fairlayer.errors import CategoryError, LabelValueError, ShapeError
from fairlayer.groups import Groups, Vocabulary, read_column
from fairlayer.groups.encoding import judge_signs
from fairlayer.integrations.torchmetrics.table import (
    DECISIONS,
    LABELS,
    ROWS,
    SCORES,
    largest_difference,
    rates,
    tabulate,
)

__all__ = ["Counted", "Disparities", "GroupSums", "disparities", "merged"]

CAPACITY = 1024  # codes that are counted on an accelerator

Counted = dict[Any, Tensor]  # group -> (labels, values), see `fairlayer.integrations.torchmetrics.table`


class GroupSums:
    """Rows, scores and decisions, summed per group of one sensitive feature and per label.

    The groups need not be known beforehand. A column on the host is read as any sensitive feature is, and an error
    comes at once. A tensor of codes on an accelerator stays there: a step adds to a table of fixed size, so that it
    need not wait for the device, and what cannot be read is counted and told by `counted`.

    Args:
        name: the name of the feature, for errors.
        threshold: a score at or above it is a decision for 1; None where there are no decisions.
    """

    def __init__(self, name: str, threshold: float | None) -> None:
        self.name = name
        self._threshold = math.inf if threshold is None else threshold
        self._table: Tensor | None = None
        self._words = Vocabulary()
        self._unreadable = torch.zeros((), dtype=torch.long)  # on an accelerator
        self._unknown_codes = torch.zeros((), dtype=torch.long)
        self._odd_labels = torch.zeros((), dtype=torch.long)

    def update(self, scores: Tensor, y: Any, column: Any) -> None:
        """Add a batch: scores (n,), labels (n,) or None, and the feature's column (n,), or (n, k) for soft groups."""
        wide = scores.to(torch.float32 if scores.device.type == "mps" else torch.float64)
        on_device = isinstance(column, Tensor) and column.device.type not in ("cpu", "meta") and column.ndim == 1
        groups, size = self._codes_there(column) if on_device else self._groups(column, wide)
        if len(groups) != len(scores):
            raise ShapeError(f"'{self.name}' has {len(groups)} entries, but there are {len(scores)} predictions.")
        labels, odd = _labels(y, scores)
        if not math.isinf(self._threshold):
            self._odd_labels = self._odd_labels.to(odd.device) + odd
            if odd.device.type == "cpu":
                self._check_labels()
        self._add(tabulate(wide, labels, groups.to(scores.device), size, self._threshold))

    def counted(self) -> Counted:
        """Return the sums of the groups that were seen, on the host.

        Raises:
            CategoryError: a column on an accelerator held something that cannot be a group.
            LabelValueError: labels on an accelerator were neither 0 nor 1.
        """
        if int(self._unreadable):
            raise CategoryError(
                f"sensitive feature '{self.name}' holds {int(self._unreadable)} values that do not name a group: on an "
                f"accelerator whole numbers from 0 to {CAPACITY - 1} are read, with -1 or NaN for unknown. Code it as "
                "groups (batch_adapter=), or give the column on the host."
            )
        self._check_labels()
        if self._table is None:
            return {}
        table = self._table.cpu()
        names = self._words.categories.get(self.name, ())
        seen = table[..., ROWS].sum(dim=1).nonzero().flatten().tolist()
        if seen == [1] and not names and int(self._unknown_codes):
            judge_signs(self.name, int(self._unknown_codes), int(table[1, :, ROWS].sum()), "judge")
        return {names[code] if names else code: table[code] for code in seen}

    def _check_labels(self) -> None:
        if int(self._odd_labels):
            raise LabelValueError(
                f"decisions are compared within the labels 0 and 1 (NaN: unknown), but the batches held "
                f"{int(self._odd_labels)} labels of other values. Recode them, for example with batch_adapter=lambda "
                "batch: (x, (y > 0).float(), sensitive) for labels -1 and +1, or pass threshold=None where the "
                "predictions are not decisions (regression)."
            )

    def _add(self, table: Tensor) -> None:
        if self._table is None:
            self._table = table
        elif len(table) > len(self._table):
            self._table = table.index_add(0, torch.arange(len(self._table), device=table.device), self._table)
        else:
            self._table[: len(table)] += table

    def _groups(self, column: Any, like: Tensor) -> tuple[Tensor, int]:
        """Return codes (n,), or memberships (n, k), and the number of groups."""
        raw = read_column(self.name, column)
        read = Groups({self.name: raw}, len(raw), self._words)
        found = read.column(self.name)
        self._words = read.vocabulary.with_categories(self.name, found.categories)
        if found.membership is not None:
            return torch.from_numpy(found.membership).to(like), len(found.categories)
        return torch.tensor(found.codes), len(found.categories)

    def _codes_there(self, column: Tensor) -> tuple[Tensor, int]:
        missing = column.isnan() if column.is_floating_point() else torch.zeros_like(column, dtype=torch.bool)
        unknown_code = column == -1
        whole = column == column.round() if column.is_floating_point() else ~missing
        readable = missing | unknown_code | (whole & (column >= 0) & (column < CAPACITY))
        self._unreadable = self._unreadable.to(column.device) + (~readable).sum()
        self._unknown_codes = self._unknown_codes.to(column.device) + unknown_code.sum()
        return torch.where(readable & ~missing & ~unknown_code, column, -1).long(), CAPACITY


def _labels(y: Any, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return labels 0, 1, and 2 for all else; and how many were neither 0, nor 1, nor NaN, a 0-d tensor."""
    if y is None:
        unknown = torch.full(scores.shape, LABELS - 1, dtype=torch.long, device=scores.device)
        return unknown, torch.zeros((), dtype=torch.long)
    labels = torch.as_tensor(y, device=scores.device).reshape(-1)
    if len(labels) != len(scores):
        raise ShapeError(f"y has {len(labels)} entries, but there are {len(scores)} predictions.")
    missing = labels.isnan() if labels.is_floating_point() else torch.zeros_like(labels, dtype=torch.bool)
    odd = (labels != 0) & (labels != 1) & ~missing
    return torch.where(labels == 1, 1, torch.where(labels == 0, 0, LABELS - 1)), odd.sum()


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
        score_gap: the gap of scores.
        demographic_parity_difference: the difference of decisions (selection rates).
        equalized_odds_difference: the difference of decisions within label 1, or within label 0, whichever is larger;
            NaN where either label was seen in fewer than two groups.
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
