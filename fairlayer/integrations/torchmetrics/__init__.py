"""fairlayer in torchmetrics: group disparities pooled over batches and ranks."""

from fairlayer._keywords import explain_public
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


explain_public(__name__)
