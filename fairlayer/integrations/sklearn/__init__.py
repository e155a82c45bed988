"""Linear models as scikit-learn estimators, with the constraints inside the convex program that fits them."""

from fairlayer.integrations.sklearn.logistic import FairLogisticRegression, LogisticGaps
from fairlayer.integrations.sklearn.optimality import Optimality
from fairlayer.integrations.sklearn.ridge import FairRidge

__all__ = ["FairLogisticRegression", "FairRidge", "LogisticGaps", "Optimality"]
