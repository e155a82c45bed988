"""Weights under which groups and labels are independent in the training rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairlayer.data.cells import read_groups_and_labels

__all__ = ["inverse_frequency_weights", "reweighing_weights"]


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
    Limits: it bounds no prediction. A model may still separate the groups through its features.

    Example:
        >>> reweighing_weights(["F", "F", "F", "M", "M", "M"], [1, 0, 0, 1, 1, 0]).tolist()
        [1.5, 0.75, 0.75, 0.75, 0.75, 1.5]
    """
    codes = read_groups_and_labels(groups, y, "reweighing_weights")
    in_group, in_label, in_both = (np.bincount(code)[code] for code in codes)
    return np.asarray(in_group * in_label / (len(codes.both) * in_both), dtype=np.float64)


def inverse_frequency_weights(groups: Any, y: Any = None) -> NDArray[np.float64]:
    """Return a weight per row under which every group, or every combination of group and label, counts the same.

        w = n / (k n_c)      for a row of one of the k cells c that occur, which has n_c rows; the weights sum to n

    Without labels each group keeps its label rate. With labels every group is given the rate of 1/2 (of two classes),
    so that scores learnt with these weights are not probabilities of the population; `reweighing_weights` keeps the
    label rate of all rows, and the share of each group.

    Args:
        groups: as for `reweighing_weights`.
        y: labels (n,), of a few classes; None to weigh by groups alone.

    Raises:
        ColumnError: lengths differ, no rows, or more distinct values than could be groups.

    Limits: it bounds no prediction. The rows of a small cell are repeated, as it were, with their noise.

    Example:
        >>> inverse_frequency_weights(["F", "M", "M", "M"]).round(3).tolist()
        [2.0, 0.667, 0.667, 0.667]
        >>> inverse_frequency_weights(["F", "F", "M", "M"], [0, 1, 1, 1]).round(3).tolist()
        [1.333, 1.333, 0.667, 0.667]
    """
    labels = np.zeros(_length(groups), dtype=np.int64) if y is None else y
    cell = read_groups_and_labels(groups, labels, "inverse_frequency_weights").both
    _, code, counts = np.unique(cell, return_inverse=True, return_counts=True)
    return np.asarray(len(cell) / (len(counts) * counts[code]), dtype=np.float64)


def _length(groups: Any) -> int:
    return len(next(iter(groups.values()))) if isinstance(groups, Mapping) else len(groups)
