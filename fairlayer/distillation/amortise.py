"""From a model and its layer to fixed shifts."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fairlayer.distillation.amortised import AmortisedModel, single_feature
from fairlayer.distillation.shifts import AmortisedShifts
from fairlayer.distillation.without_layer import WithoutLayer, as_scores
from fairlayer.edge import feature_names, read_groups, read_loader
from fairlayer.projection import FairProjection
from fairlayer.projection.labelled import running_scores

__all__ = ["amortise"]


@torch.no_grad()
def amortise(
    plain: WithoutLayer, layer: FairProjection, loader: Iterable[Any], *, proxy: nn.Module | None, on_unknown: str
) -> AmortisedModel:
    """Put the shifts that the layer gives the loader's scores, all at once, in its place.

    Args:
        plain: the model without the layer, in evaluation mode.
        layer: the layer that the shifts stand for.
        loader: batches as `fairlayer.edge.read_batch` reads them.
        proxy: module from x to the probability of each group; copied.
        on_unknown: see `AmortisedShifts`.

    Raises:
        EmptyBatchError: the loader is empty.
    """
    proxy = None if proxy is None else copy.deepcopy(proxy).eval()
    scores, labels, features = _gather(plain, layer, loader, proxy)
    plan = layer.plan
    shifts = AmortisedShifts.fit(
        scores,
        layer.constraints,
        sensitive_features=features,
        y=labels,
        label_probabilities=_estimates(plain, layer, scores, features),
        bounds=plan.options.numeric_bounds,
        margin=plan.options.margin,
        on_infeasible=plan.options.on_infeasible,
        on_unknown=on_unknown,
        vocabulary=layer.vocabulary,
    )
    return AmortisedModel(plain.scores, shifts, proxy).eval()


def _estimates(plain: WithoutLayer, layer: FairProjection, scores: Tensor, features: dict[str, Any]) -> Tensor:
    """Return what stands in for labels: scores moved by the running shifts that the layer learnt, else the scores."""
    moved = running_scores(layer, scores, features, layer.known())
    moved = scores if moved is None else moved
    return moved if plain.bounds == (None, None) else moved.clamp(*plain.bounds)


def _gather(
    plain: WithoutLayer, layer: FairProjection, loader: Iterable[Any], proxy: nn.Module | None
) -> tuple[Tensor, Tensor | None, dict[str, Any]]:
    """Return raw scores, labels where every batch has them, and the features that the layer reads."""
    each: list[tuple[Tensor, Any, dict[str, Any]]] = []
    for x, y, given in read_loader(loader):
        scores = as_scores(plain.scores(x))
        features = given if proxy is None else {single_feature(layer.constraints): proxy(x)}
        raw = read_groups(features, layer.constraints, len(scores), None).raw
        each.append((scores, y, {name: raw[name] for name in feature_names(layer.constraints) if name in raw}))
    columns = {name: np.concatenate([part[name] for *_, part in each]) for name in each[0][2]}
    return torch.cat([scores for scores, *_ in each]), _labels([y for _, y, _ in each]), columns


def _labels(each: Sequence[Any]) -> Tensor | None:
    if any(y is None for y in each):
        return None
    return torch.cat([torch.as_tensor(y) for y in each])
