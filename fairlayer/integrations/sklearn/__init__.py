"""scikit-learn estimators: linear models with the constraints in their program, and any model with them behind it."""

from fairlayer._keywords import explain_public
from fairlayer.integrations.sklearn.logistic import FairLogisticRegression, LogisticGaps
from fairlayer.integrations.sklearn.optimality import Optimality
from fairlayer.integrations.sklearn.postprocessor import FairPostprocessor
from fairlayer.integrations.sklearn.ridge import FairRidge
from fairlayer.integrations.sklearn.wrapped import FairClassifier, FairRegressor

__all__ = [
    "FairClassifier",
    "FairLogisticRegression",
    "FairPostprocessor",
    "FairRegressor",
    "FairRidge",
    "LogisticGaps",
    "Optimality",
]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__)
