"""Evidence from any predictions: one table of sufficient statistics, and every number of an audit read from it."""

from fairlayer.audit.errors import MetricError, TablesDifferError
from fairlayer.audit.intervals import Interval, pair_interval, range_interval, ratio_interval
from fairlayer.audit.means import Means
from fairlayer.audit.metrics import Metric, mean_of, metric, metrics, register
from fairlayer.audit.table import AuditTable

__all__ = [
    "AuditTable",
    "Interval",
    "Means",
    "Metric",
    "MetricError",
    "TablesDifferError",
    "mean_of",
    "metric",
    "metrics",
    "pair_interval",
    "range_interval",
    "ratio_interval",
    "register",
]
