"""What gap is left without the layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fairlayer._arrays import host_float64
from fairlayer._typing import FloatArray
from fairlayer.constraints import Batch, Constraint, GroupCalibration, Measured
from fairlayer.constraints.measure import measure, worst_of
from fairlayer.distillation.amortised import AmortisedModel
from fairlayer.edge import (
    LoaderBatch,
    Stated,
    as_columns,
    as_constraints,
    feature_names,
    pick,
    read_groups,
    read_loader,
    read_per_sample,
)
from fairlayer.groups import Groups

__all__ = ["RemainingGap", "remaining_gap"]


@dataclass(frozen=True)
class RemainingGap:
    """One constraint, measured on predictions that nothing holds to it.

    Args:
        constraint: its name.
        scores: the number that it bounds (for a parity the largest difference of group means, for a ratio the lowest
            over the highest), None where there is nothing to compare.
        violation: how much it misses the constraint, 0 where it is met.
        decisions: the same number as `scores` for the decisions `prediction >= threshold`.
        counts: samples of each group it compares.
        measured: `scores` with its limit, its direction and its unit.

    Example:
        >>> import torch, fairlayer as fl
        >>> batch = {"x": torch.tensor([[0.2], [0.4], [0.9]]), "sensitive_features": {"sex": ["F", "F", "M"]}}
        >>> [gap] = remaining_gap(torch.nn.Identity(), [batch], [fl.DemographicParity("sex", tolerance=0.02)])
        >>> gap.constraint, gap.measured.statement, gap.measured.limit
        ("DemographicParity('sex')", 'mean[sex=M] - mean[sex=F]', 0.02)
    """

    constraint: str
    scores: float | None
    violation: float
    decisions: float | None
    counts: Mapping[str, float]
    measured: Measured


@torch.no_grad()
def remaining_gap(
    model: nn.Module,
    loader: Iterable[Any],
    constraints: Stated,
    *,
    threshold: float | None = 0.5,
) -> tuple[RemainingGap, ...]:
    """Apply a model without a layer to data, and measure each constraint on all its predictions pooled.

    Args:
        model: what `FairModel.without_layer()` or `.amortised(...)` returns, or any module from x to scores (n,),
            (n, 1) or (n, k); put it in evaluation mode. Of k columns the worst is reported.
        loader: batches (x, y, sensitive_features), pairs of x and a dict of columns, or dicts with the keys x, y,
            sensitive_features.
        constraints: what to measure; those that read labels need y in every batch. Score bins are those of the
            predictions.
        threshold: the threshold of the decisions; None where there are none (regression).

    Raises:
        MissingLabelsError: a constraint reads labels, and a batch has none.
        EmptyBatchError: the loader is empty.

    Example:
        >>> import torch, fairlayer as fl
        >>> parity = fl.DemographicParity("sex", tolerance=0.02)
        >>> batch = {"x": torch.tensor([[0.2], [0.4], [0.9]]), "sensitive_features": {"sex": ["F", "F", "M"]}}
        >>> [gap] = remaining_gap(torch.nn.Identity(), [batch], [parity])
        >>> round(gap.scores, 6), round(gap.violation, 6), gap.decisions, gap.counts
        (0.6, 0.58, 1.0, {'sex=F': 2.0, 'sex=M': 1.0})
    """
    stated = as_constraints(constraints)
    parts = [_apply(model, batch, stated) for batch in read_loader(loader)]
    pool = _pool(parts)
    return tuple(_measure(constraint, pool, threshold) for constraint in stated)


@dataclass(frozen=True)
class _Pool:
    """Predictions (n, k) with what constraints read: columns by name, and labels (n, 1) or (n, k)."""

    predictions: FloatArray
    features: Mapping[str, Any]
    labels: FloatArray | None

    def batch(self, column: int) -> Batch:
        n = len(self.predictions)
        values = self.predictions[:, column]
        return Batch(Groups(self.features, n), n, pick(self.labels, column), raw_scores=lambda: values)


def _apply(model: nn.Module, batch: LoaderBatch, constraints: Sequence[Constraint]) -> _Pool:
    x, y, features = batch
    shifted = isinstance(model, AmortisedModel) and model.proxy is None
    predictions: Tensor = model(x, cells=model.encode(features)) if shifted else model(x)  # type: ignore[operator]
    values = np.stack([host_float64(column) for column in as_columns(predictions)], axis=1)
    groups = read_groups(features, constraints, len(values), None)
    read = {name: groups.raw[name] for name in feature_names(constraints) if name in groups.raw}
    return _Pool(values, read, read_per_sample("y", y, tuple(predictions.shape)))


def _pool(parts: Sequence[_Pool]) -> _Pool:
    names = [name for name in parts[0].features if all(name in part.features for part in parts)]
    labels = [part.labels for part in parts if part.labels is not None]
    return _Pool(
        np.concatenate([part.predictions for part in parts]),
        {name: np.concatenate([part.features[name] for part in parts]) for name in names},
        np.concatenate(labels) if len(labels) == len(parts) else None,
    )


def _measure(constraint: Constraint, pool: _Pool, threshold: float | None) -> RemainingGap:
    scores = _worst(constraint, pool, pool.predictions)
    decisions = None
    if threshold is not None and not isinstance(constraint, GroupCalibration):  # a decision has no score bin
        decisions = _worst(constraint, pool, (pool.predictions >= threshold).astype(np.float64)).value
    return RemainingGap(constraint.name, scores.value, max(0.0, scores.excess or 0.0), decisions, scores.counts, scores)


def _worst(constraint: Constraint, pool: _Pool, values: FloatArray) -> Measured:
    """Return the worst of the columns that the constraint speaks of."""
    columns = [j for j in range(values.shape[1]) if values.shape[1] == 1 or constraint.applies_to(j)]
    return worst_of(replace(measure(constraint, pool.batch(j), values[:, j]), column=j) for j in columns)
