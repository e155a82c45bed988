"""The area under the ROC curve within each group: how well its members are put into order."""

from __future__ import annotations

import numpy as np

from fairlayer.audit.grouped import Grouped
from fairlayer.audit.means import Means
from fairlayer.audit.metrics.base import Metric, register
from fairlayer.audit.slots import CLASSES

__all__: list[str] = []


def _area(grouped: Grouped) -> Means:
    areas = grouped.areas()
    rarer = np.minimum(*(grouped.total("rows", label) for label in CLASSES))
    return Means.of_areas(np.array([a.value for a in areas]), np.array([a.variance for a in areas]), rarer)


register(
    Metric(
        "auc",
        "share of pairs of a person with label 1 and one with label 0 that the scores put in the right order",
        "share",
        ("order", "classes"),
        "lower",
        _area,
    )
)
