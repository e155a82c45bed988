"""Weights under which groups and labels are independent in the training rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairlayer.data.cells import read_groups_and_labels

__all__ = ["reweighing_weights"]


def reweighing_weights(groups: Any, y: Any) -> NDArray[np.float64]:
    """Return a weight per row under which the label does not depend on the group.

        w = P(group) P(label) / P(group, label)      with shares of these rows

    If every group has every label, the weights sum to n and each group keeps its weight; a group that lacks a label
    keeps a label rate of its own, whatever the weights. Use them as `sample_weight=`, or in a weighted mean loss.

    Args:
        groups: a column (n,) of group names or codes; or a dict or frame of columns, whose intersections are meant.
            Unknown (None, NaN) is a group of its own.
        y: labels (n,), of a few classes.

    Raises:
        ColumnError: lengths differ, no rows, or more distinct values than could be groups.

    Source: Kamiran, Calders (2012), "Data preprocessing techniques for classification without discrimination".
    Limits: bounds no prediction; a model may still separate the groups through its features.

    Example:
        >>> reweighing_weights(["F", "F", "F", "M", "M", "M"], [1, 0, 0, 1, 1, 0]).tolist()
        [1.5, 0.75, 0.75, 0.75, 0.75, 1.5]
    """
    codes = read_groups_and_labels(groups, y, "reweighing_weights")
    in_group, in_label, in_both = (np.bincount(code)[code] for code in codes)
    return np.asarray(in_group * in_label / (len(codes.both) * in_both), dtype=np.float64)
