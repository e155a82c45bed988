"""One batch through the projection: in training, in evaluation, and alone in production."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fairlayer.edge import plain_bounds
from fairlayer.errors import BackendError, MissingLabelsError
from fairlayer.projection import FairProjection
from fairlayer.projection.labelled import NOTHING_LEARNT

__all__ = ["check_shifting", "project_alone", "project_batch"]


def project_batch(
    layer: FairProjection,
    scores: Tensor,
    features: Any,
    label_based: tuple[str, ...],
    *,
    y: Any,
    label_probabilities: Any,
    sample_weight: Any,
    training: bool,
) -> Tensor:
    """Return the projected scores of a batch of training or evaluation.

    Args:
        label_based: names of the constraints that look at labels.
        training: whether labels are needed; in evaluation the scores stand in for them.

    Raises:
        MissingLabelsError: a constraint looks at labels, and training gives none.
    """
    if label_based and y is None and label_probabilities is None and not layer.uses_running_shifts:
        if training:
            raise MissingLabelsError(
                f"{label_based[0]} looks at labels, but no y was given in training mode. Pass y=labels; "
                "in evaluation mode (model.eval()) label estimates are used instead."
            )
        label_probabilities = _estimated_labels(layer, scores, label_based[0])
    projected: Tensor = layer(
        scores,
        sensitive_features=features,
        y=y,
        label_probabilities=label_probabilities,
        sample_weight=sample_weight,
    )
    return projected


def project_alone(
    layer: FairProjection,
    scores: Tensor,
    features: Any,
    label_based: tuple[str, ...],
    *,
    y: Any,
    label_probabilities: Any,
) -> Tensor:
    """Return the projected scores of a batch of production, by this process alone, whatever the module's mode."""
    if label_based and y is None and label_probabilities is None and not layer.uses_running_shifts:
        label_probabilities = _estimated_labels(layer, scores, label_based[0])
    return layer.alone(scores, sensitive_features=features, y=y, label_probabilities=label_probabilities)


def _estimated_labels(layer: FairProjection, scores: Tensor, name: str) -> Tensor:
    """Return raw scores that are probabilities, which stand in for the labels that the named constraint reads."""
    if layer.running is not None:  # scores in place of labels: such a constraint moves nobody
        layer.plan.once.warn("nothing learnt", NOTHING_LEARNT.format(name=name))
    options, plain = layer.options, scores.detach()
    if options.from_logits:
        return torch.softmax(plain, dim=-1) if options.on_simplex else torch.sigmoid(plain)
    low, high = plain_bounds(options.numeric_bounds, options.margin)
    return plain.clamp(low, high) if (low, high) != (None, None) else plain


def check_shifting(layer: FairProjection, what: str) -> None:
    """Refuse a geometry whose predictions are not scores that are shifted by group and clipped.

    Raises:
        BackendError: the geometry moves predictions in another way.
    """
    options = layer.options
    if options.rule.name != "euclidean" or options.on_simplex:
        where = ' with bounds="simplex"' if options.on_simplex else ""
        raise BackendError(
            f"{what} shifts scores in the euclidean geometry, but this model has geometry="
            f"{options.rule.name!r}{where}. Use geometry='euclidean' and bounds=(lower, upper), or call the model "
            "without inference=True, which projects each batch by itself."
        )
