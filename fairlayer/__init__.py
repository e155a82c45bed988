"""fairlayer: predictions that meet affine fairness constraints, by an exact differentiable projection."""

from fairlayer import errors
from fairlayer._keywords import explain_public
from fairlayer._version import __version__ as __version__
from fairlayer.adversarial import Adversary
from fairlayer.constraints import (
    Affine,
    BoundedGroupLoss,
    ConditionalParity,
    Constraint,
    Convex,
    CovarianceBound,
    DemographicParity,
    DisparateImpactRatio,
    EqualizedOdds,
    EqualOpportunity,
    ErrorRateParity,
    GroupCalibration,
    LipschitzFairness,
    MeanResidualParity,
    MinimumRate,
    PredictiveEquality,
)
from fairlayer.decisions import DecisionRule, Decisions, DecisionStream, decide
from fairlayer.errors import FairlayerError, FairlayerWarning
from fairlayer.model import FairModel
from fairlayer.networks import mlp
from fairlayer.penalties import HSIC, MMD, AugmentedLagrangian, Penalty
from fairlayer.projection import FairProjection, project
from fairlayer.projection.many import ManyProjections, project_many
from fairlayer.projection.path import FairnessPath, fairness_path
from fairlayer.projection.result import Projection
from fairlayer.streaming import Anytime, InferenceState, PerBatch, Phase, Present, Tracking

__all__ = [
    "HSIC",
    "MMD",
    "Adversary",
    "Affine",
    "Anytime",
    "AugmentedLagrangian",
    "BoundedGroupLoss",
    "ConditionalParity",
    "Constraint",
    "Convex",
    "CovarianceBound",
    "DecisionRule",
    "DecisionStream",
    "Decisions",
    "DemographicParity",
    "DisparateImpactRatio",
    "EqualOpportunity",
    "EqualizedOdds",
    "ErrorRateParity",
    "FairModel",
    "FairProjection",
    "FairlayerError",
    "FairlayerWarning",
    "FairnessPath",
    "GroupCalibration",
    "InferenceState",
    "LipschitzFairness",
    "ManyProjections",
    "MeanResidualParity",
    "MinimumRate",
    "Penalty",
    "PerBatch",
    "Phase",
    "PredictiveEquality",
    "Present",
    "Projection",
    "Tracking",
    "decide",
    "errors",
    "fairness_path",
    "mlp",
    "project",
    "project_many",
]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


explain_public(__name__, inner=("FairModel.forward", "FairModel.scores"))  # `forward` answers keywords itself
