"""The metrics of the audit: each a function of a table's sums, by name."""

from fairlayer.audit.metrics import area, calibration, losses, predictive, rates
from fairlayer.audit.metrics.base import Metric, mean_of, measure, metric, metrics, register

__all__ = [
    "Metric",
    "area",
    "calibration",
    "losses",
    "mean_of",
    "measure",
    "metric",
    "metrics",
    "predictive",
    "rates",
    "register",
]
