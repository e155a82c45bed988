"""A MetricCollection in which metrics of groups stand beside those of torchmetrics."""

from __future__ import annotations

from typing import Any

from torchmetrics import MetricCollection

__all__ = ["GroupMetricCollection"]


class GroupMetricCollection(MetricCollection):
    """A `MetricCollection` that is called as `metrics(preds, target, groups)`, whatever metrics are in it.

    torchmetrics hands positional arguments to each metric, so that a metric without groups refuses the third. Here each
    one gets those of `preds`, `target`, `groups` and `sample_weight` that its `update` names.

    Args:
        metrics: the metrics, as `MetricCollection` takes them, together with its other arguments.

    Example:
        >>> import torch
        >>> from torchmetrics.classification import BinaryAccuracy
        >>> from fairlayer.integrations.torchmetrics import ScoreGap
        >>> metrics = GroupMetricCollection([BinaryAccuracy(), ScoreGap(2)])
        >>> found = metrics(torch.tensor([0.2, 0.9]), torch.tensor([0, 1]), torch.tensor([0, 1]))
        >>> {name: round(float(value), 2) for name, value in found.items()}
        {'BinaryAccuracy': 1.0, 'ScoreGap': 0.7}
    """

    def update(self, preds: Any, target: Any = None, groups: Any = None, sample_weight: Any = None) -> None:
        """Add a batch; the arguments are those of `PooledByGroup.update`."""
        super().update(**_named(preds, target, groups, sample_weight))

    def forward(self, preds: Any, target: Any = None, groups: Any = None, sample_weight: Any = None) -> dict[str, Any]:
        """Add a batch, and return its own numbers."""
        found: dict[str, Any] = super().forward(**_named(preds, target, groups, sample_weight))
        return found


def _named(preds: Any, target: Any, groups: Any, sample_weight: Any) -> dict[str, Any]:
    given = {"preds": preds, "target": target, "groups": groups}
    return given if sample_weight is None else {**given, "sample_weight": sample_weight}
