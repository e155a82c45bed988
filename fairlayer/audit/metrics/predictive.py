"""How often a decision is right: overall, among the positive ones, and among the negative ones."""

from __future__ import annotations

from fairlayer.audit.grouped import Grouped
from fairlayer.audit.means import Means, share_of_rows, shares_of_pairs
from fairlayer.audit.metrics.base import Metric, register
from fairlayer.audit.slots import CLASSES, DECIDED, NEGATIVE, POSITIVE, REJECTED, SELECTED

__all__: list[str] = []

_NEEDS = ("decisions", "classes")


def _accuracy(grouped: Grouped) -> Means:
    right = grouped.total("weight", POSITIVE, SELECTED) + grouped.total("weight", NEGATIVE, REJECTED)
    return shares_of_pairs(grouped, right, (CLASSES, DECIDED))


register(
    Metric("accuracy", "share of decisions that equal the label", "share", _NEEDS, "lower", _accuracy),
)
register(
    Metric(
        "positive_predictive_value",
        "share of the positive decisions whose label is 1",
        "share",
        _NEEDS,
        "lower",
        lambda g: share_of_rows(g, (POSITIVE,), (SELECTED,), CLASSES, (SELECTED,)),
    )
)
register(
    Metric(
        "negative_predictive_value",
        "share of the negative decisions whose label is 0",
        "share",
        _NEEDS,
        "lower",
        lambda g: share_of_rows(g, (NEGATIVE,), (REJECTED,), CLASSES, (REJECTED,)),
    )
)
