"""The two aids of layers whose constraints read labels: the anchor in training, running shifts in evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fairlayer._arrays import outside_transforms, plain_tensor
from fairlayer.constraints import Constraint
from fairlayer.edge import feature_names, read_groups, read_per_sample
from fairlayer.groups import Vocabulary
from fairlayer.projection.anchor import anchored
from fairlayer.projection.running import RunningShifts
from fairlayer.tracing import outside_graphs

if TYPE_CHECKING:
    from fairlayer.projection.layer import FairProjection
    from fairlayer.projection.options import Options
    from fairlayer.projection.result import Projection

__all__ = ["NOTHING_LEARNT", "anchors", "held_in_training", "running_scores", "running_shifts_of"]

NOTHING_LEARNT = (
    "{name} reads labels, none are given in evaluation, and the layer has seen no training batch with labels from "
    "which it could have learnt a shift for each group: predictions are not moved. Train through the layer, or pass y "
    "or label_probabilities."
)


def anchors(constraints: Sequence[Constraint]) -> bool:
    """Return whether a constraint leaves the level of the raw scores free while labels are shown."""
    return any(constraint.frees_level for constraint in constraints)


def running_shifts_of(constraints: Sequence[Constraint], options: Options) -> RunningShifts | None:
    """Return what learns the shifts in training, where every constraint moves whole groups whatever their labels."""
    moves_groups = bool(constraints) and all(constraint.shifts_groups for constraint in constraints)
    if not moves_groups or options.on_simplex or options.ranks is not None:
        return None
    return RunningShifts(feature_names(constraints), log_odds=options.rule.bounded)


@outside_graphs
def running_scores(
    layer: FairProjection, scores: Tensor, sensitive_features: Any, vocabulary: Vocabulary
) -> Tensor | None:
    """Return predictions moved by the running shifts; None where there are none to use.

    They are predictions, also where the scores are log-odds, and are cut off at the bounds.
    """
    running = layer.running
    if layer.training or running is None or not running.learnt:
        return None
    groups = read_groups(sensitive_features, layer.constraints, len(scores), vocabulary)
    moved = running.apply_to(_predictions(scores, layer.options), groups)
    if moved is None:
        return None
    box = layer.options.box(moved if moved.ndim == 1 else moved[:, 0])
    low = None if box.lower is None else torch.as_tensor(box.lower, dtype=moved.dtype, device=moved.device)
    high = None if box.upper is None else torch.as_tensor(box.upper, dtype=moved.dtype, device=moved.device)
    if moved.ndim == 2:
        low, high = (end if end is None or end.ndim == 0 else end[:, None] for end in (low, high))
    moved = moved if low is None else torch.maximum(moved, low)
    return moved if high is None else torch.minimum(moved, high)


@outside_graphs
def held_in_training(layer: FairProjection, scores: Tensor, result: Projection, y: Any) -> Tensor:
    """Return the value of a result; in training with the anchor, and after the running shifts have seen it."""
    if y is None or not layer.training or not layer.anchors:
        return result.value
    value = result.value
    if layer.anchor > 0:
        raw = _predictions(scores, layer.options).to(value.dtype)
        value = anchored(value, raw, _labels(y, value, layer.options), layer.anchor)
    if layer.running is not None:
        with outside_transforms():
            before = _predictions(plain_tensor(scores), layer.options)
            layer.running.observe(before, plain_tensor(result.value), result.groups)
    return value


def _predictions(scores: Tensor, options: Options) -> Tensor:
    """Return the raw scores as what they would be emitted as."""
    if not options.from_logits:
        return scores
    return torch.softmax(scores, dim=-1) if options.on_simplex else torch.sigmoid(scores)


def _labels(y: Any, value: Tensor, options: Options) -> Tensor:
    """Return the labels in the shape of the value; class labels as indicators."""
    read = read_per_sample("y", y, tuple(value.shape))
    assert read is not None
    labels = torch.as_tensor(read, dtype=value.dtype, device=value.device)
    if options.on_simplex and labels.shape[1] == 1:
        return torch.nn.functional.one_hot(labels[:, 0].long(), value.shape[1]).to(value.dtype)
    columns = value.shape[1] if value.ndim == 2 else 1
    return labels.expand(len(value), columns).reshape(value.shape)
