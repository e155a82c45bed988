"""Disparities of group rates: differences and ratios of scores and of decisions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fairlayer.errors import ConstraintDefinitionError
from fairlayer.integrations.torchmetrics.pooled import PooledByGroup
from fairlayer.integrations.torchmetrics.reading import Categories
from fairlayer.integrations.torchmetrics.table import (
    DECISIONS,
    SCORES,
    largest_difference,
    rates,
    smallest_ratio,
)

__all__ = [
    "DemographicParityDifference",
    "DemographicParityRatio",
    "EqualOpportunityDifference",
    "EqualOpportunityRatio",
    "EqualizedOddsDifference",
    "EqualizedOddsRatio",
    "PredictiveEqualityDifference",
    "PredictiveEqualityRatio",
    "ScoreGap",
]


class ScoreGap(PooledByGroup):
    """Difference of mean scores: the number that `DemographicParity` bounds.

        max_g mean(score | g) - min_g mean(score | g)

    Example:
        >>> metric = ScoreGap(2)
        >>> metric.update(torch.tensor([0.2, 0.4, 0.9]), None, torch.tensor([0, 0, 1]))
        >>> round(float(metric.compute()), 6)
        0.6
    """

    higher_is_better = False

    def value(self, table: Tensor) -> Tensor:
        """Return the difference."""
        return largest_difference(rates(table, SCORES))


class DemographicParityDifference(PooledByGroup):
    """Difference of selection rates.

        max_g P(decision 1 | g) - min_g P(decision 1 | g)

    Example:
        >>> metric = DemographicParityDifference(["F", "M"])
        >>> metric.update(torch.tensor([0.2, 0.8, 0.9]), None, ["F", "F", "M"])
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    higher_is_better = False

    def value(self, table: Tensor) -> Tensor:
        """Return the difference."""
        return largest_difference(rates(table, DECISIONS))


class DemographicParityRatio(PooledByGroup):
    """Ratio of selection rates; NaN if nobody is selected.

        min_g P(decision 1 | g) / max_g P(decision 1 | g)

    Example:
        >>> metric = DemographicParityRatio(2)
        >>> metric.update(torch.tensor([0.2, 0.8, 0.9]), None, torch.tensor([0, 0, 1]))
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    higher_is_better = True

    def value(self, table: Tensor) -> Tensor:
        """Return the ratio."""
        return smallest_ratio(rates(table, DECISIONS))


class EqualOpportunityDifference(PooledByGroup):
    """Difference of true positive rates, over the groups with positives.

        max_g P(decision 1 | g, label 1) - min_g P(decision 1 | g, label 1)

    Example:
        >>> metric = EqualOpportunityDifference(2)
        >>> metric.update(torch.tensor([0.2, 0.8, 0.9]), torch.tensor([1, 1, 1]), torch.tensor([0, 0, 1]))
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    higher_is_better = False
    needs_labels = True

    def value(self, table: Tensor) -> Tensor:
        """Return the difference."""
        return largest_difference(rates(table, DECISIONS, 1))


class EqualOpportunityRatio(PooledByGroup):
    """Ratio of true positive rates, over the groups with positives; NaN if all rates are 0.

        min_g P(decision 1 | g, label 1) / max_g P(decision 1 | g, label 1)

    Example:
        >>> metric = EqualOpportunityRatio(2)
        >>> metric.update(torch.tensor([0.2, 0.8, 0.9]), torch.tensor([1, 1, 1]), torch.tensor([0, 0, 1]))
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    higher_is_better = True
    needs_labels = True

    def value(self, table: Tensor) -> Tensor:
        """Return the ratio."""
        return smallest_ratio(rates(table, DECISIONS, 1))


class PredictiveEqualityDifference(PooledByGroup):
    """Difference of false positive rates, over the groups with negatives.

        max_g P(decision 1 | g, label 0) - min_g P(decision 1 | g, label 0)

    Example:
        >>> metric = PredictiveEqualityDifference(2)
        >>> metric.update(torch.tensor([0.2, 0.8, 0.9]), torch.tensor([0, 0, 0]), torch.tensor([0, 0, 1]))
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    higher_is_better = False
    needs_labels = True

    def value(self, table: Tensor) -> Tensor:
        """Return the difference."""
        return largest_difference(rates(table, DECISIONS, 0))


class PredictiveEqualityRatio(PooledByGroup):
    """Ratio of false positive rates, over the groups with negatives; NaN if all rates are 0.

        min_g P(decision 1 | g, label 0) / max_g P(decision 1 | g, label 0)

    Example:
        >>> metric = PredictiveEqualityRatio(2)
        >>> metric.update(torch.tensor([0.2, 0.8, 0.9]), torch.tensor([0, 0, 0]), torch.tensor([0, 0, 1]))
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    higher_is_better = True
    needs_labels = True

    def value(self, table: Tensor) -> Tensor:
        """Return the ratio."""
        return smallest_ratio(rates(table, DECISIONS, 0))


class EqualizedOddsDifference(PooledByGroup):
    """The larger, or the mean, of the differences of true and of false positive rates.

        worst_case: max(D_1, D_0)      mean: (D_1 + D_0) / 2,
        D_l = max_g P(decision 1 | g, label l) - min_g P(decision 1 | g, label l), over the groups that have label l

    NaN where either label was observed in fewer than two groups.

    Args:
        categories: see `PooledByGroup`.
        agg: "worst_case" or "mean".
        threshold: a score at or above it is a decision for 1.
        options: the options of `torchmetrics.Metric`.

    Example:
        >>> metric = EqualizedOddsDifference(2)
        >>> metric.update(torch.tensor([0.2, 0.8, 0.9, 0.1]), torch.tensor([1, 0, 1, 0]), torch.tensor([0, 0, 1, 1]))
        >>> metric.compute()
        tensor(1., dtype=torch.float64)
    """

    higher_is_better = False
    needs_labels = True

    def __init__(
        self, categories: Categories, *, agg: str = "worst_case", threshold: float = 0.5, **options: Any
    ) -> None:
        super().__init__(categories, threshold=threshold, **options)
        self.agg = _checked(agg)

    def value(self, table: Tensor) -> Tensor:
        """Return the larger difference, or the mean."""
        both = torch.stack([largest_difference(rates(table, DECISIONS, label)) for label in (1, 0)])
        return both.amax() if self.agg == "worst_case" else both.mean()


class EqualizedOddsRatio(PooledByGroup):
    """The smaller, or the mean, of the ratios of true and of false positive rates.

        worst_case: min(R_1, R_0)      mean: (R_1 + R_0) / 2,
        R_l = min_g P(decision 1 | g, label l) / max_g P(decision 1 | g, label l), over the groups that have label l

    NaN where either label was observed in fewer than two groups, or all its rates are 0.

    Args:
        categories: see `PooledByGroup`.
        agg: "worst_case" or "mean".
        threshold: a score at or above it is a decision for 1.
        options: the options of `torchmetrics.Metric`.

    Example:
        >>> metric = EqualizedOddsRatio(2, agg="mean")
        >>> metric.update(torch.tensor([0.6, 0.8, 0.9, 0.1]), torch.tensor([1, 0, 1, 0]), torch.tensor([0, 0, 1, 1]))
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    higher_is_better = True
    needs_labels = True

    def __init__(
        self, categories: Categories, *, agg: str = "worst_case", threshold: float = 0.5, **options: Any
    ) -> None:
        super().__init__(categories, threshold=threshold, **options)
        self.agg = _checked(agg)

    def value(self, table: Tensor) -> Tensor:
        """Return the smaller ratio, or the mean."""
        both = torch.stack([smallest_ratio(rates(table, DECISIONS, label)) for label in (1, 0)])
        return both.amin() if self.agg == "worst_case" else both.mean()


def _checked(agg: str) -> str:
    if agg in ("worst_case", "mean"):
        return agg
    raise ConstraintDefinitionError(f"agg={agg!r} was given; it is 'worst_case' or 'mean'.")
