"""What must hold: (groups, labels) -> linear statements about group means. One idea per file."""

from fairlayer._keywords import explain_public
from fairlayer.constraints.affine import Affine
from fairlayer.constraints.base import Constraint
from fairlayer.constraints.batch import Batch
from fairlayer.constraints.conditional_parity import ConditionalParity
from fairlayer.constraints.convex import Convex, without_convex
from fairlayer.constraints.covariance import CovarianceBound
from fairlayer.constraints.demographic_parity import DemographicParity
from fairlayer.constraints.disparate_impact import DisparateImpactRatio
from fairlayer.constraints.error_rate import BoundedGroupLoss, ErrorRateParity
from fairlayer.constraints.group_calibration import GroupCalibration
from fairlayer.constraints.label_parity import EqualizedOdds, EqualOpportunity, PredictiveEquality
from fairlayer.constraints.lipschitz import LipschitzFairness
from fairlayer.constraints.means import GroupMeans
from fairlayer.constraints.measure import Measured
from fairlayer.constraints.minimum_rate import MinimumRate
from fairlayer.constraints.residual_parity import MeanResidualParity
from fairlayer.constraints.statements import Rows, Spread, Statement

__all__ = [
    "Affine",
    "Batch",
    "BoundedGroupLoss",
    "ConditionalParity",
    "Constraint",
    "Convex",
    "CovarianceBound",
    "DemographicParity",
    "DisparateImpactRatio",
    "EqualOpportunity",
    "EqualizedOdds",
    "ErrorRateParity",
    "GroupCalibration",
    "GroupMeans",
    "LipschitzFairness",
    "MeanResidualParity",
    "Measured",
    "MinimumRate",
    "PredictiveEquality",
    "Rows",
    "Spread",
    "Statement",
    "without_convex",
]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__, inner=("Batch", "GroupMeans", "Rows", "Spread"))
