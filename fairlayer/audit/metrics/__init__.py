"""The metrics of the audit: each a function of a table's sums, by name."""

from fairlayer._keywords import explain_public
from fairlayer.audit.metrics import area, calibration, losses, predictive, rates
from fairlayer.audit.metrics.base import Metric, mean_of, measure, metric, metric_names, register

__all__ = [
    "Metric",
    "area",
    "calibration",
    "losses",
    "mean_of",
    "measure",
    "metric",
    "metric_names",
    "predictive",
    "rates",
    "register",
]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__)
