"""Shares of people with a decision: of all, and of those with one label."""

from __future__ import annotations

from fairlayer.audit.means import mean_of_sum, share_of_rows
from fairlayer.audit.metrics.base import Metric, register
from fairlayer.audit.slots import CLASSES, LABELS, NEGATIVE, POSITIVE, REJECTED, SELECTED

__all__: list[str] = []

_ALL = tuple(range(LABELS))
_BOTH = ("decisions", "classes")

register(
    Metric(
        "selection_rate",
        "share of people with a positive decision",
        "share",
        ("decisions",),
        "less_favour",
        lambda g: share_of_rows(g, _ALL, (SELECTED,)),
    )
)
register(
    Metric(
        "true_positive_rate",
        "share of the people with label 1 who have a positive decision",
        "share",
        _BOTH,
        "less_favour",
        lambda g: share_of_rows(g, (POSITIVE,), (SELECTED,), (POSITIVE,)),
    )
)
register(
    Metric(
        "false_positive_rate",
        "share of the people with label 0 who have a positive decision",
        "share",
        _BOTH,
        "less_favour",
        lambda g: share_of_rows(g, (NEGATIVE,), (SELECTED,), (NEGATIVE,)),
    )
)
register(
    Metric(
        "false_negative_rate",
        "share of the people with label 1 who have a negative decision",
        "share",
        _BOTH,
        "more_favour",
        lambda g: share_of_rows(g, (POSITIVE,), (REJECTED,), (POSITIVE,)),
    )
)
register(
    Metric(
        "true_negative_rate",
        "share of the people with label 0 who have a negative decision",
        "share",
        _BOTH,
        "more_favour",
        lambda g: share_of_rows(g, (NEGATIVE,), (REJECTED,), (NEGATIVE,)),
    )
)
register(
    Metric(
        "base_rate",
        "share of people with label 1, whatever was predicted",
        "share",
        ("classes",),
        "lower",
        lambda g: share_of_rows(g, (POSITIVE,), (0, 1, 2), CLASSES, (0, 1, 2)),
    )
)
register(
    Metric(
        "mean_score",
        "mean score",
        "score",
        ("scores",),
        "less_favour",
        lambda g: mean_of_sum(g, "score"),
    )
)
