"""Evidence from any predictions: one table of sufficient statistics, and every number of an audit read from it."""

from fairlayer.audit.compatibility import BaseRate, Compatibility, Together, compatibility
from fairlayer.audit.criteria import CRITERIA
from fairlayer.audit.disparity import Compared, Disparity, GroupNumber, Part, disparity
from fairlayer.audit.errors import MetricError, TablesDifferError
from fairlayer.audit.intervals import Interval, pair_interval, range_interval, ratio_interval
from fairlayer.audit.means import Means
from fairlayer.audit.metrics import Metric, mean_of, metric, metrics, register
from fairlayer.audit.outcome import EXIT_CODES, Limit, Outcome, Verdict, gravest, judge, verdict
from fairlayer.audit.people import Moved, Movement, Sides, movement, sides
from fairlayer.audit.sequential import Watch
from fairlayer.audit.significance import (
    Comparison,
    Significance,
    StandardisedDifference,
    compare,
    standardised_differences,
)
from fairlayer.audit.strata import Stratified, Stratum, stratify
from fairlayer.audit.table import AuditTable

__all__ = [
    "CRITERIA",
    "EXIT_CODES",
    "AuditTable",
    "BaseRate",
    "Compared",
    "Comparison",
    "Compatibility",
    "Disparity",
    "GroupNumber",
    "Interval",
    "Limit",
    "Means",
    "Metric",
    "MetricError",
    "Moved",
    "Movement",
    "Outcome",
    "Part",
    "Sides",
    "Significance",
    "StandardisedDifference",
    "Stratified",
    "Stratum",
    "TablesDifferError",
    "Together",
    "Verdict",
    "Watch",
    "compare",
    "compatibility",
    "disparity",
    "gravest",
    "judge",
    "mean_of",
    "metric",
    "metrics",
    "movement",
    "pair_interval",
    "range_interval",
    "ratio_interval",
    "register",
    "sides",
    "standardised_differences",
    "stratify",
    "verdict",
]
