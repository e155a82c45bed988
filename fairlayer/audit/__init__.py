"""Evidence from any predictions: one table of sufficient statistics, and every number of an audit read from it."""

from fairlayer.audit.compatibility import BaseRate, Compatibility, Together, compatibility
from fairlayer.audit.coverage import Coverage, Covered, coverage
from fairlayer.audit.criteria import CRITERIA
from fairlayer.audit.disparity import Compared, Disparity, GroupNumber, Part, disparity
from fairlayer.audit.errors import MetricError, TablesDifferError
from fairlayer.audit.individual import Flips, Violations, consistency, flip_test, lipschitz_violations
from fairlayer.audit.intervals import Interval, pair_interval, range_interval, ratio_interval
from fairlayer.audit.means import Means
from fairlayer.audit.metrics import Metric, mean_of, metric, metrics, register
from fairlayer.audit.outcome import EXIT_CODES, Limit, Outcome, Verdict, gravest, judge, verdict
from fairlayer.audit.people import Moved, Movement, Sides, movement, sides
from fairlayer.audit.proxies import Proxies, Proxy, proxies
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
    "Coverage",
    "Covered",
    "Disparity",
    "Flips",
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
    "Proxies",
    "Proxy",
    "Sides",
    "Significance",
    "StandardisedDifference",
    "Stratified",
    "Stratum",
    "TablesDifferError",
    "Together",
    "Verdict",
    "Violations",
    "Watch",
    "compare",
    "compatibility",
    "consistency",
    "coverage",
    "disparity",
    "flip_test",
    "gravest",
    "judge",
    "lipschitz_violations",
    "mean_of",
    "metric",
    "metrics",
    "movement",
    "pair_interval",
    "proxies",
    "range_interval",
    "ratio_interval",
    "register",
    "sides",
    "standardised_differences",
    "stratify",
    "verdict",
]
