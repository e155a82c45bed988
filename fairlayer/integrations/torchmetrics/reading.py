"""What a training loop hands to a metric, as tensors on the device of the predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairlayer._numbers import is_whole
from fairlayer._typing import Category
from fairlayer.constraints import Batch
from fairlayer.edge import as_numbers
from fairlayer.errors import CategoryError, ConstraintDefinitionError, ShapeError
from fairlayer.groups import Groups, Vocabulary, group_labels, read_column, read_sensitive_features
from fairlayer.groups.naming import category_texts
from fairlayer.groups.reading import ReadColumns, named_columns

__all__ = [
    "Categories",
    "FixedGroups",
    "Read",
    "as_tensor",
    "read_groups",
    "read_labels",
    "read_scores",
    "read_weights",
]

Categories = int | Sequence[Category] | Mapping[str, int | Sequence[Category]]
_ONE = "group"  # the name of the feature where only one is spoken of


class Read(NamedTuple):
    """Values fit for the table, and how many entries were not, a 0-d tensor."""

    values: Tensor
    unfit: Tensor


@dataclass(frozen=True)
class FixedGroups:
    """The groups that a metric compares, fixed in advance so that batches and ranks mean the same by a code.

    Args:
        features: (name, categories) of each sensitive feature; of several, the intersections are compared.
        names: the names of the groups, in the order of their codes.
    """

    features: tuple[tuple[str, tuple[Category, ...]], ...]
    names: tuple[str, ...]

    @staticmethod
    def of(categories: Categories) -> FixedGroups:
        """Return the groups of one feature (a number, or the categories), or of several (a mapping of them).

        Raises:
            ConstraintDefinitionError: fewer than two groups, or a category twice.
        """
        named = categories if isinstance(categories, Mapping) else {_ONE: categories}
        features = tuple((str(name), _listed(given)) for name, given in named.items())
        names = [""]
        for name, each in features:
            labels = group_labels(name, each) if isinstance(categories, Mapping) else category_texts(each)
            names = [f"{old} & {label}" if old else label for old in names for label in labels]
        if len(names) < 2 or any(len(set(each)) < len(each) for _, each in features):
            raise ConstraintDefinitionError(
                f"a metric over groups was given categories={categories!r}; it needs at least two groups, each named "
                "once: a number of them, their names, or a dict of feature -> either, for intersections."
            )
        return FixedGroups(features, tuple(names))

    def __len__(self) -> int:
        return len(self.names)


def as_tensor(values: Any) -> Tensor:
    """Return numbers in any form as a tensor without graph; Python floats become float64.

    Raises:
        ShapeError: they are not numbers.
    """
    if isinstance(values, Tensor):
        return values.detach()
    try:
        return torch.tensor(as_numbers(values))
    except TypeError as error:
        raise ShapeError(f"a metric reads numbers, but {type(values).__name__} was given ({error}).") from error


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


def read_groups(groups: Any, cells: FixedGroups, scores: Tensor) -> Read:
    """Return codes (n,), -1 for unknown, or soft membership (n, k); codes that name no group are counted and -1.

    Integer tensors on an accelerator stay there; everything else is read as sensitive features are.

    Raises:
        CategoryError: a category that the metric was not built with.
        ShapeError: no column, or another length than the predictions.
    """
    columns = [_Given.of(name, column) for name, column in _columns(groups, cells).items()]
    if any(column.is_soft for column in columns):
        return _soft({column.name: column.values for column in columns}, cells, scores)
    codes, unfit = torch.zeros_like(scores, dtype=torch.long), scores.new_zeros((), dtype=torch.long)
    for column, (_, categories) in zip(columns, cells.features, strict=True):
        each = column.codes(categories).to(scores.device)
        _check_length(f"groups, {column.name!r}," if len(columns) > 1 else "groups", each, scores)
        beyond = (each < -1) | (each >= len(categories))
        unfit = unfit + beyond.sum()
        known = (each >= 0) & ~beyond & (codes >= 0)
        codes = torch.where(known, codes * len(categories) + each, -1)
    return Read(codes, unfit)


class _Given(NamedTuple):
    """One column: a tensor of whole numbers on an accelerator, or an array on the host."""

    name: str
    values: Any

    @staticmethod
    def of(name: str, column: Any) -> _Given:
        """Read a column, unless it is to stay on an accelerator."""
        there = isinstance(column, Tensor) and column.device.type not in ("cpu", "meta")
        stays = there and not column.is_floating_point() and column.ndim == 1
        return _Given(name, column if stays else read_column(name, column))

    @property
    def is_soft(self) -> bool:
        """Whether it is a membership (n, k)."""
        return bool(self.values.ndim == 2)

    def codes(self, categories: tuple[Category, ...]) -> Tensor:
        """Return a code per row; a whole number is a code itself where the categories are names, or 0, 1, ..."""
        positions = categories == tuple(range(len(categories))) or all(isinstance(c, str) for c in categories)
        if isinstance(self.values, Tensor) and positions:
            return self.values.long()
        raw = read_column(self.name, self.values)
        if positions and raw.dtype.kind in "iub":
            return torch.from_numpy(raw.astype(np.int64))
        known = tuple(range(len(categories))) if positions and raw.dtype.kind == "f" else categories
        codes = Groups({self.name: raw}, len(raw), Vocabulary({self.name: known}, open=False)).column(self.name).codes
        assert codes is not None
        return torch.from_numpy(codes)


def _columns(groups: Any, cells: FixedGroups) -> Mapping[str, Any]:
    """Return one column for each feature of the metric, none of them read yet."""
    names = [name for name, _ in cells.features]
    holds_names = isinstance(groups, Mapping) or hasattr(groups, "columns") or hasattr(groups, "column_names")
    if not holds_names and len(names) == 1:
        single = isinstance(groups, Tensor | np.ndarray) and groups.ndim == 2 and groups.shape[1] == 1
        return {names[0]: groups[:, 0] if single else groups}
    given = ReadColumns(named_columns(groups, names), None)
    if len(names) == 1 and len(given) == 1:
        return {names[0]: given.column(next(iter(given)))}
    missing = [name for name in names if name not in given]
    if missing:
        raise ShapeError(f"groups must have the columns {names}, but {missing} are not among {list(given)}.")
    return {name: given.column(name) for name in names}


def _soft(features: Mapping[str, Any], cells: FixedGroups, scores: Tensor) -> Read:
    """Return memberships, which multiply over the features; a hard column is a membership of ones and zeros."""
    vocabulary = Vocabulary(dict(cells.features), open=False)
    groups = read_sensitive_features(features, tuple(features), vocabulary)
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
    return tuple(range(categories)) if is_whole(categories) else tuple(categories)
