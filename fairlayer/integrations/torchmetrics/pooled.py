"""What the group metrics share: the pooled table, and the report by group."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from fairlayer.errors import (
    CategoryError,
    ConstraintDefinitionError,
    LabelValueError,
    MissingLabelsError,
    NonFiniteScoresError,
    ParameterError,
)
from fairlayer.integrations.torchmetrics.beginning import begin_metric
from fairlayer.integrations.torchmetrics.reading import (
    Categories,
    FixedGroups,
    read_groups,
    read_labels,
    read_scores,
    read_weights,
)
from fairlayer.integrations.torchmetrics.states import alike, check_saved, identity
from fairlayer.integrations.torchmetrics.table import DECISIONS, LABELS, ROWS, SCORES, VALUES, rates, tabulate

__all__ = ["GroupRow", "PooledByGroup"]


@dataclass(frozen=True)
class GroupRow:
    """One group, as far as it was observed; a rate over no rows is NaN.

    Args:
        name: the name of the group.
        count: rows (a sum of memberships or weights, where there are any); 0 means not observed.
        positives: rows with label 1.
        negatives: rows with label 0.
        mean_score: the mean score over all rows.
        selection_rate: share of decisions for 1, over all rows.
        true_positive_rate: the same over rows with label 1.
        false_positive_rate: the same over rows with label 0.

    Example:
        >>> GroupRow("sex=F", 100.0, 40.0, 60.0, 0.42, 0.35, 0.7, 0.1).selection_rate
        0.35
    """

    name: str
    count: float
    positives: float
    negatives: float
    mean_score: float
    selection_rate: float
    true_positive_rate: float
    false_positive_rate: float


class PooledByGroup(Metric, ABC):
    """Pools rows, scores and decisions by group and label over batches and ranks; a subclass says what of them.

    Args:
        categories: number of groups (codes 0, 1, ...), their names, or a dict of feature -> either, for the
            intersections of several features. Fixed here, so that a group that never comes is known to be absent.
        threshold: a score at or above it is a decision for 1.
        options: the options of `torchmetrics.Metric`.
    """

    full_state_update = False
    is_differentiable = False
    needs_labels = False

    table: Tensor
    unfit: Tensor
    about: Tensor

    def __init__(self, categories: Categories, *, threshold: float = 0.5, **options: Any) -> None:
        begin_metric(self, options, ("categories", "threshold"))
        if not math.isfinite(threshold):
            raise ConstraintDefinitionError(
                f"threshold={threshold!r} was given; decisions are scores at or above it, so it must be finite."
            )
        self.cells = FixedGroups.of(categories)
        self.threshold = threshold
        self.add_state("table", torch.zeros(len(self.cells), LABELS, VALUES, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("unfit", torch.zeros(4, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("about", identity(self.cells, threshold), dist_reduce_fx=alike)

    def update(self, preds: Any, target: Any, groups: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            preds: scores, or decisions 0 and 1, (n,) or (n, 1).
            target: labels 0 and 1, NaN where unknown; None if there are none.
            groups: integer codes (n,), -1 unknown; names; soft membership (n, groups); or with several features a
                dict of columns, or codes (n, features).
            sample_weight: how many rows each stands for (n,), 0 or more; None for one each.

        Raises:
            MissingLabelsError: the metric looks at labels, and there is no target.
            ShapeError: lengths differ.
            NonFiniteScoresError, LabelValueError, CategoryError, ParameterError: values that cannot be read. On an
                accelerator they are counted, so that a step need not wait for it, and `compute` raises.
        """
        if target is None and self.needs_labels:
            raise MissingLabelsError(f"{type(self).__name__} looks at labels, but target is None. Pass the labels.")
        scores, unfit_scores = read_scores(preds)
        scores = scores.to(self.table.device)
        labels, unfit_labels = read_labels(target, scores)
        codes, unfit_codes = read_groups(groups, self.cells, scores)
        weights, unfit_weights = read_weights(sample_weight, scores)
        counts = (unfit_scores, unfit_labels, unfit_codes, unfit_weights)
        unfit = torch.stack([each.to(scores.device) for each in counts])
        if unfit.device.type == "cpu":
            self._refuse(unfit)
        self.table = self.table + tabulate(scores, labels, codes, len(self.cells), self.threshold, weights)
        self.unfit = self.unfit + unfit

    @abstractmethod
    def value(self, table: Tensor) -> Tensor:
        """Return the number that the pooled table says."""

    def compute(self) -> Tensor:
        """Return the number over everything seen, on all ranks; NaN where fewer than two groups were observed."""
        self._refuse(self.unfit)
        return self.value(self.table)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Return a figure and its axes: of `compute()`, or of one or several values given, as torchmetrics does."""
        return self._plot(val, ax)

    def by_group(self) -> tuple[GroupRow, ...]:
        """Return every group with its counts and rates, over all ranks (each must then call this)."""
        with self.sync_context():
            self._refuse(self.unfit)
            table = self.table.cpu()
        columns = [
            table[:, :, ROWS].sum(dim=1),
            table[:, 1, ROWS],
            table[:, 0, ROWS],
            rates(table, SCORES),
            rates(table, DECISIONS),
            rates(table, DECISIONS, 1),
            rates(table, DECISIONS, 0),
        ]
        numbers = torch.stack(columns, dim=1).tolist()
        return tuple(GroupRow(name, *row) for name, row in zip(self.cells.names, numbers, strict=True))

    def not_observed(self) -> tuple[str, ...]:
        """Return the names of the groups of which no row was seen, over all ranks (each must then call this)."""
        return tuple(row.name for row in self.by_group() if row.count == 0)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        check_saved(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _refuse(self, unfit: Tensor) -> None:
        scores, labels, codes, weights = unfit.tolist()
        name = type(self).__name__
        if scores:
            raise NonFiniteScoresError(
                f"{name} was given {scores} predictions that are NaN or infinite, or integers other than 0 and 1. "
                "Pass scores as floats, or decisions as 0 and 1."
            )
        if labels and self.needs_labels:
            raise LabelValueError(
                f"{name} reads labels 0 and 1 (NaN: unknown), but target holds {labels} other values. Recode it, for "
                "example (target == positive)."
            )
        if codes:
            raise CategoryError(
                f"{name} compares {len(self.cells)} groups, {list(self.cells.names)}, so codes run from 0 to "
                f"{len(self.cells) - 1} per combination, with -1 for unknown; {codes} codes do not. Build it with "
                "every category, or recode."
            )
        if weights:
            raise ParameterError(
                f"{name} reads sample_weight as how many rows each stands for, but {weights} weights are negative, "
                "infinite or NaN. Give finite weights, and 0 to leave a row out."
            )
