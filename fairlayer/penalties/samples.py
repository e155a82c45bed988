"""What a dependence measure reads of a batch: the scores, the features and the labels of its known samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairlayer._typing import BoolArray, FloatArray
from fairlayer.edge import read_features as read_groups_of
from fairlayer.edge import read_per_sample
from fairlayer.errors import EmptyBatchError, LabelValueError, MissingLabelsError, ShapeError
from fairlayer.groups import Groups, read_sensitive_features
from fairlayer.penalties.reading import finite, result_dtype

__all__ = [
    "Feature",
    "check_columns",
    "crossed_membership",
    "label_strata",
    "read_features",
    "read_points",
    "rows_of",
]


class Feature(NamedTuple):
    """One sensitive feature: membership (n, groups), or an amount (n, 1)."""

    rows: FloatArray
    known: BoolArray  # (n,)
    is_amount: bool


def read_points(scores: Tensor) -> Tensor:
    """Return scores (n,), or representations (n, d), as (n, d).

    Raises:
        ShapeError: not a floating tensor of such a shape.
        EmptyBatchError: no samples.
        NonFiniteScoresError: NaN or infinity among them.
    """
    if not isinstance(scores, Tensor) or not scores.is_floating_point() or scores.ndim not in (1, 2):
        found = f"{tuple(scores.shape)}, {scores.dtype}" if isinstance(scores, Tensor) else type(scores).__name__
        raise ShapeError(f"scores must be a floating tensor (n,), or representations (n, d), but found {found}.")
    if scores.numel() == 0:
        raise EmptyBatchError(f"the batch is empty: scores have shape {tuple(scores.shape)}. Skip such a batch.")
    return finite(scores).reshape(len(scores), -1).to(result_dtype(scores))


def read_features(sensitive_features: Any, on: Sequence[str], n: int, continuous: Sequence[str] = ()) -> list[Feature]:
    """Return the features `on` of n samples.

    Raises:
        ShapeError: lengths differ.
        CategoryError, MissingSensitiveFeatureError: a feature cannot be read as asked, or is not there.
    """
    groups = read_groups_of(sensitive_features, on, n)
    return [_amount(groups, name) if name in continuous else _membership(groups, name) for name in on]


def check_columns(sensitive_features: Any, on: Sequence[str], continuous: Sequence[str] = ()) -> None:
    """Refuse sensitive features that lack one of `on`, or hold one that cannot be read as asked.

    Raises:
        CategoryError, MissingSensitiveFeatureError, ShapeError: such a feature.
    """
    read_features(sensitive_features, on, read_sensitive_features(sensitive_features, tuple(on)).n, continuous)


def label_strata(y: Any, n: int, asked_by: str) -> list[BoolArray]:
    """Return which samples carry each label, for whole-numbered labels.

    Raises:
        MissingLabelsError: no labels.
        LabelValueError: a label is not a whole number.
    """
    labels = read_per_sample("y", y, (n,))
    if labels is None:
        raise MissingLabelsError(f"{asked_by} conditions on the label, but no y was given. Pass y=labels.")
    flat = labels[:, 0]
    if not np.array_equal(flat, np.round(flat)):
        raise LabelValueError(
            f"{asked_by} needs classes as labels, but y holds {flat[flat != np.round(flat)][:3].tolist()}. "
            "Give whole numbers, one per class, or cut the amounts into bands."
        )
    return [flat == label for label in np.unique(flat)]


def crossed_membership(features: Sequence[Feature]) -> FloatArray:
    """Return the membership (n, intersections) of the features' groups."""
    crossed = features[0].rows
    for feature in features[1:]:
        crossed = (crossed[:, :, None] * feature.rows[:, None, :]).reshape(len(crossed), -1)
    return crossed


def _amount(groups: Groups, name: str) -> Feature:
    values = groups.values(name)
    known = np.isfinite(values)
    return Feature(np.where(known, values, 0.0)[:, None], known, is_amount=True)


def _membership(groups: Groups, name: str) -> Feature:
    column = groups.column(name)
    if column.codes is None:
        assert column.membership is not None
        return Feature(column.membership, column.membership.sum(axis=1) > 0, is_amount=False)
    rows = np.eye(len(column.categories) + 1)[column.codes][:, :-1]
    return Feature(rows, column.codes >= 0, is_amount=False)


def rows_of(mask: BoolArray, like: Tensor) -> Tensor:
    """Return the positions where the mask holds, on the device of a tensor."""
    return torch.as_tensor(np.flatnonzero(mask), device=like.device)
