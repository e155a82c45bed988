"""The number that a constraint bounds, with an estimate and an interval: what budgets of gaps are held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from fairlayer._arrays import host_float64
from fairlayer._typing import FloatArray
from fairlayer.audit.intervals import Interval, range_interval
from fairlayer.audit.means import Means
from fairlayer.constraints import Batch, Constraint, Spread
from fairlayer.groups import read_sensitive_features

__all__ = ["bounded_interval", "interval_of"]


def bounded_interval(
    constraint: Constraint, predictions: Any, *, sensitive_features: Any, y: Any = None
) -> Interval | None:
    """Return the largest difference between means that a constraint bounds, its estimate, and a 95 % interval.

    The number measured is the range of the groups' means, which in small groups is mostly the noise of measuring. Hold
    a budget against `estimate`, from which that noise is taken out, or against `high`, to be on the safe side.

    Args:
        constraint: one whose statements are plain ranges of the means of known groups.
        predictions: scores or 0/1 decisions (n,).
        sensitive_features: as for `project`.
        y: labels (n,), where the constraint reads labels.

    Returns:
        The interval; None for a constraint that bounds another number, such as a ratio or a floor.

    Raises:
        FairlayerError: a named subclass; see `fairlayer.errors`.

    Example:
        >>> import numpy as np, fairlayer as fl
        >>> hired, sex = np.repeat([1.0, 0.0, 1.0, 0.0], [60, 140, 76, 124]), np.repeat(["f", "m"], 200)
        >>> print(bounded_interval(fl.DemographicParity("sex", 0.02), hired, sensitive_features={"sex": sex}))
        0.052 (0.000 to 0.171), measured 0.080
    """
    constraint.measure(predictions, sensitive_features=sensitive_features, y=y)  # refuses what cannot be measured
    values = _plain(predictions)
    groups = read_sensitive_features(
        sensitive_features, () if isinstance(sensitive_features, Mapping) else constraint.features
    )
    labels = None if y is None else _plain(y)
    return interval_of(constraint, Batch(groups, len(values), labels, raw_scores=lambda: values), values)


def interval_of(constraint: Constraint, batch: Batch, values: FloatArray) -> Interval | None:
    """Return the interval for the predictions (n,) of a batch; None as in `bounded_interval`."""
    blocks = []
    for statement in constraint.statements(batch):
        means = statement.means
        plain = isinstance(statement, Spread) and statement.scale == 1.0 and statement.offset is None
        if not plain or means.codes is None or means.sample_weights is not None:
            return None
        matrix = np.asarray(statement.matrix)
        picked = np.abs(matrix).argmax(axis=1)
        if not np.array_equal(np.abs(matrix), np.eye(matrix.shape[1])[picked]):
            return None
        inside, groups = means.codes >= 0, len(means)
        codes, here = means.codes[inside], values[inside]
        sums: FloatArray = np.bincount(codes, weights=here, minlength=groups).astype(float)
        squares: FloatArray = np.bincount(codes, weights=here**2, minlength=groups).astype(float)
        rates = np.isin(values, (0.0, 1.0)).all()
        block = Means.of_rates(means.counts, sums) if rates else Means.of_numbers(means.counts, sums, squares)
        present = picked[means.counts[picked] > 0]
        if len(present) > 1:
            blocks.append(block.take(present))
    return range_interval(blocks) if blocks else None


def _plain(values: Any) -> FloatArray:
    """Return numbers, one per row."""
    array = host_float64(values) if isinstance(values, torch.Tensor) else np.asarray(values, dtype=np.float64)
    return array.reshape(-1)
