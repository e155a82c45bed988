"""Evidence from any predictions: one table of sufficient statistics, and every number of an audit read from it."""

from fairlayer._keywords import explain_public
from fairlayer.audit.bounded import bounded_interval
from fairlayer.audit.compatible import BaseRate, Compatibility, JointCriteria, compatibility
from fairlayer.audit.cost import Cost
from fairlayer.audit.covering import Coverage, Covered, coverage
from fairlayer.audit.criteria import CRITERIA
from fairlayer.audit.disparities import Compared, Disparity, GroupNumber, MetricByGroup, disparity
from fairlayer.audit.document import Audit
from fairlayer.audit.errors import MetricError, TablesDifferError
from fairlayer.audit.examination import audit
from fairlayer.audit.frame import Columns, Wanted, audit_frame
from fairlayer.audit.grouping import Grouping
from fairlayer.audit.impact import ImpactAudit, impact_audit
from fairlayer.audit.individual import Flips, Violations, consistency, flip_test, lipschitz_violations
from fairlayer.audit.intervals import Interval, pair_interval, range_interval, ratio_interval
from fairlayer.audit.leakage import column_warnings, score_warnings
from fairlayer.audit.lending import lending_table
from fairlayer.audit.means import Means
from fairlayer.audit.metrics import Metric, mean_of, metric, metric_names, register
from fairlayer.audit.outcome import EXIT_CODES, Limit, Outcome, Verdict, gravest, judge, verdict
from fairlayer.audit.people import Moved, Movement, Sides, movement, sides
from fairlayer.audit.plan import AskedLimit, AuditPlan
from fairlayer.audit.provenance import Provenance, sha256_of
from fairlayer.audit.proxy import Proxies, Proxy, proxies
from fairlayer.audit.public import public_document
from fairlayer.audit.sequential import SequentialTest
from fairlayer.audit.significance import (
    ReferenceComparison,
    Significance,
    StandardisedDifference,
    compare,
    standardised_differences,
)
from fairlayer.audit.strata import Stratified, Stratum, stratify
from fairlayer.audit.supplied import Supplied, read_supplied
from fairlayer.audit.table import AuditTable

__all__ = [
    "CRITERIA",
    "EXIT_CODES",
    "AskedLimit",
    "Audit",
    "AuditPlan",
    "AuditTable",
    "BaseRate",
    "Columns",
    "Compared",
    "Compatibility",
    "Cost",
    "Coverage",
    "Covered",
    "Disparity",
    "Flips",
    "GroupNumber",
    "Grouping",
    "ImpactAudit",
    "Interval",
    "JointCriteria",
    "Limit",
    "Means",
    "Metric",
    "MetricByGroup",
    "MetricError",
    "Moved",
    "Movement",
    "Outcome",
    "Provenance",
    "Proxies",
    "Proxy",
    "ReferenceComparison",
    "SequentialTest",
    "Sides",
    "Significance",
    "StandardisedDifference",
    "Stratified",
    "Stratum",
    "Supplied",
    "TablesDifferError",
    "Verdict",
    "Violations",
    "Wanted",
    "audit",
    "audit_frame",
    "bounded_interval",
    "column_warnings",
    "compare",
    "compatibility",
    "consistency",
    "coverage",
    "disparity",
    "flip_test",
    "gravest",
    "impact_audit",
    "judge",
    "lending_table",
    "lipschitz_violations",
    "mean_of",
    "metric",
    "metric_names",
    "movement",
    "pair_interval",
    "proxies",
    "public_document",
    "range_interval",
    "ratio_interval",
    "read_supplied",
    "register",
    "score_warnings",
    "sha256_of",
    "sides",
    "standardised_differences",
    "stratify",
    "verdict",
]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__)
