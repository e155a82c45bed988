"""fairlayer in torchmetrics: group disparities pooled over batches and ranks."""

from fairlayer.integrations.torchmetrics.collection import GroupMetricCollection
from fairlayer.integrations.torchmetrics.constraint_excess import ConstraintExcess
from fairlayer.integrations.torchmetrics.pooled import GroupRow
from fairlayer.integrations.torchmetrics.rates import (
    DemographicParityDifference,
    DemographicParityRatio,
    EqualizedOddsDifference,
    EqualizedOddsRatio,
    EqualOpportunityDifference,
    EqualOpportunityRatio,
    PredictiveEqualityDifference,
    PredictiveEqualityRatio,
    ScoreGap,
)

__all__ = [
    "ConstraintExcess",
    "DemographicParityDifference",
    "DemographicParityRatio",
    "EqualOpportunityDifference",
    "EqualOpportunityRatio",
    "EqualizedOddsDifference",
    "EqualizedOddsRatio",
    "GroupMetricCollection",
    "GroupRow",
    "PredictiveEqualityDifference",
    "PredictiveEqualityRatio",
    "ScoreGap",
]


def __dir__() -> list[str]:
    return list(__all__)
