"""What a training loop hands to a metric, as tensors on the device of the predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairlayer._typing import Category
from fairlayer.constraints import Batch
from fairlayer.errors import CategoryError, ConstraintDefinitionError, ShapeError
from fairlayer.groups import Vocabulary, read_sensitive_features

__all__ = ["Categories", "Cells", "Read", "as_tensor", "read_groups", "read_labels", "read_scores", "read_weights"]

Categories = int | Sequence[Category] | Mapping[str, int | Sequence[Category]]
_ONE = "group"  # the name of the feature where only one is spoken of


class Read(NamedTuple):
    """Values fit for the table, and how many entries were not, a 0-d tensor."""

    values: Tensor
    unfit: Tensor


@dataclass(frozen=True)
class Cells:
    """The groups that a metric compares, fixed in advance so that batches and ranks mean the same by a code.

    Args:
        features: (name, categories) of each sensitive feature; of several, the intersections are compared.
        names: of the groups, in the order of their codes.
    """

    features: tuple[tuple[str, tuple[Category, ...]], ...]
    names: tuple[str, ...]

    @staticmethod
    def of(categories: Categories) -> Cells:
        """Return the groups of one feature (a number, or the categories), or of several (a mapping of them).

        Raises:
            ConstraintDefinitionError: fewer than two groups, or a category twice.
        """
        named = categories if isinstance(categories, Mapping) else {_ONE: categories}
        features = tuple((str(name), _listed(given)) for name, given in named.items())
        names = [""]
        for name, each in features:
            prefix = f"{name}=" if isinstance(categories, Mapping) else ""
            names = [f"{old} & {prefix}{c}" if old else f"{prefix}{c}" for old in names for c in each]
        if len(names) < 2 or any(len(set(each)) < len(each) for _, each in features):
            raise ConstraintDefinitionError(
                f"a metric over groups was given categories={categories!r}; it needs at least two groups, each named "
                "once: a number of them, their names, or a dict of feature -> either, for intersections."
            )
        return Cells(features, tuple(names))

    def __len__(self) -> int:
        return len(self.names)


def as_tensor(values: Any) -> Tensor:
    """Return numbers in any form as a tensor without graph; Python floats become float64."""
    return values.detach() if isinstance(values, Tensor) else torch.tensor(np.asarray(values))


def read_scores(preds: Any) -> Read:
    """Return scores, or decisions 0 and 1, as float64 (n,); entries that are neither are counted and made 0.

    Raises:
        ShapeError: not (n,) or (n, 1).
    """
    preds = as_tensor(preds)
    preds = preds.squeeze(1) if preds.ndim == 2 and preds.shape[1] == 1 else preds
    if preds.ndim != 1 or preds.is_complex():
        raise ShapeError(
            f"preds must be scores or decisions of shape (n,) or (n, 1), but have shape {tuple(preds.shape)} and "
            f"{preds.dtype}. For several classes use one metric per class, on preds[:, c]."
        )
    scores = preds.to(torch.float64)
    fit = torch.isfinite(scores) if preds.is_floating_point() else (preds == 0) | (preds == 1)
    return Read(torch.where(fit, scores, 0.0), (~fit).sum())


def read_labels(target: Any, scores: Tensor) -> Read:
    """Return labels as 0 and 1, with 2 where there is none (no target, or NaN); other values are counted too."""
    if target is None:
        return Read(torch.full_like(scores, 2, dtype=torch.long), scores.new_zeros((), dtype=torch.long))
    labels = as_tensor(target).to(scores.device)
    labels = labels.squeeze(1) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    _check_length("target", labels, scores)
    missing = torch.isnan(labels) if labels.is_floating_point() else torch.zeros_like(labels, dtype=torch.bool)
    unfit = (labels != 0) & (labels != 1) & ~missing
    return Read(torch.where(labels == 1, 1, torch.where(labels == 0, 0, 2)), unfit.sum())


def read_weights(sample_weight: Any, scores: Tensor) -> Read:
    """Return weights as float64 (n,), 1 where None is given; negative or infinite ones and NaN are counted and made 0.

    Raises:
        ShapeError: another length than the predictions.
    """
    if sample_weight is None:
        return Read(torch.ones_like(scores), scores.new_zeros((), dtype=torch.long))
    weights = as_tensor(sample_weight).to(device=scores.device, dtype=torch.float64)
    weights = weights.squeeze(1) if weights.ndim == 2 and weights.shape[1] == 1 else weights
    _check_length("sample_weight", weights, scores)
    fit = torch.isfinite(weights) & (weights >= 0)
    return Read(torch.where(fit, weights, 0.0), (~fit).sum())


def read_groups(groups: Any, cells: Cells, scores: Tensor) -> Read:
    """Return codes (n,), -1 for unknown, or soft membership (n, k); codes that name no group are counted and -1.

    Integer tensors are codes, and stay on their device; everything else is read as sensitive features are.

    Raises:
        CategoryError: a category that the metric was not built with.
        ShapeError: another length than the predictions.
    """
    columns = _columns(groups, cells)
    if any(_is_soft(column) for column in columns):
        return _soft(columns, cells, scores)
    codes, unfit = torch.zeros_like(scores, dtype=torch.long), scores.new_zeros((), dtype=torch.long)
    for column, (name, categories) in zip(columns, cells.features, strict=True):
        each = _codes(column, name, categories).to(scores.device)
        _check_length(f"groups, {name!r}," if len(columns) > 1 else "groups", each, scores)
        beyond = (each < -1) | (each >= len(categories))
        unfit = unfit + beyond.sum()
        known = (each >= 0) & ~beyond & (codes >= 0)
        codes = torch.where(known, codes * len(categories) + each, -1)
    return Read(codes, unfit)


def _columns(groups: Any, cells: Cells) -> list[Any]:
    names = [name for name, _ in cells.features]
    if isinstance(groups, Mapping) or hasattr(groups, "columns"):
        given = [str(name) for name in getattr(groups, "columns", groups)]
        if len(names) == 1 and len(given) == 1:
            return [groups[given[0]]]
        missing = [name for name in names if name not in given]
        if missing:
            raise ShapeError(f"groups must have the columns {names}, but {missing} are not among {given}.")
        return [groups[name] for name in names]
    if len(names) == 1:
        return [groups]
    if isinstance(groups, Tensor | np.ndarray) and groups.ndim == 2 and groups.shape[1] == len(names):
        return [groups[:, i] for i in range(len(names))]
    raise ShapeError(f"groups must be a dict with the columns {names}, or of shape (n, {len(names)}) in that order.")


def _codes(column: Any, name: str, categories: tuple[Category, ...]) -> Tensor:
    coded = categories == tuple(range(len(categories))) or all(isinstance(c, str) for c in categories)
    if isinstance(column, Tensor) and not column.is_floating_point() and coded:
        return (column.squeeze(1) if column.ndim == 2 and column.shape[1] == 1 else column).long()
    vocabulary = Vocabulary({name: categories}, open=False)
    codes = read_sensitive_features({name: column}, (), vocabulary).column(name).codes
    assert codes is not None
    return torch.tensor(codes)


def _is_soft(column: Any) -> bool:
    if isinstance(column, Tensor):
        return column.is_floating_point() and column.ndim == 2 and column.shape[1] > 1
    return isinstance(column, np.ndarray) and column.dtype.kind == "f" and column.ndim == 2 and column.shape[1] > 1


def _soft(columns: Sequence[Any], cells: Cells, scores: Tensor) -> Read:
    """Memberships multiply over the features; a hard column is a membership of ones and zeros."""
    features = {name: column for (name, _), column in zip(cells.features, columns, strict=True)}
    vocabulary = Vocabulary(dict(cells.features), open=False)
    groups = read_sensitive_features(features, (), vocabulary)
    means = Batch(groups, groups.n).means(tuple(features))
    if means.weights is None or len(means) != len(cells):
        raise CategoryError(f"soft groups must have {len(cells)} columns, one for each of {list(cells.names)}.")
    membership = torch.as_tensor((means.weights * means.counts[:, None]).T, device=scores.device)
    _check_length("groups", membership[:, 0], scores)
    return Read(membership, scores.new_zeros((), dtype=torch.long))


def _check_length(name: str, column: Tensor, scores: Tensor) -> None:
    if column.shape != scores.shape:
        raise ShapeError(
            f"there are {len(scores)} predictions, but {name} has shape {tuple(column.shape)}. Give one entry per "
            "prediction."
        )


def _listed(categories: int | Sequence[Category]) -> tuple[Category, ...]:
    return tuple(range(categories)) if isinstance(categories, int) else tuple(categories)
