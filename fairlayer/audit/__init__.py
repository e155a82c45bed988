"""Evidence from any predictions: one table of sufficient statistics, and every number of an audit read from it."""

from fairlayer.audit.criteria import CRITERIA
from fairlayer.audit.disparity import Compared, Disparity, GroupNumber, Part, disparity
from fairlayer.audit.errors import MetricError, TablesDifferError
from fairlayer.audit.intervals import Interval, pair_interval, range_interval, ratio_interval
from fairlayer.audit.means import Means
from fairlayer.audit.metrics import Metric, mean_of, metric, metrics, register
from fairlayer.audit.outcome import EXIT_CODES, Limit, Outcome, Verdict, gravest, judge, verdict
from fairlayer.audit.table import AuditTable

__all__ = [
    "CRITERIA",
    "EXIT_CODES",
    "AuditTable",
    "Compared",
    "Disparity",
    "GroupNumber",
    "Interval",
    "Limit",
    "Means",
    "Metric",
    "MetricError",
    "Outcome",
    "Part",
    "TablesDifferError",
    "Verdict",
    "disparity",
    "gravest",
    "judge",
    "mean_of",
    "metric",
    "metrics",
    "pair_interval",
    "range_interval",
    "ratio_interval",
    "register",
    "verdict",
]
