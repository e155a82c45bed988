"""One batch as it came -> columns of scores, and what the constraints see beside them, checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairlayer._arrays import held_by_host, host_float64, transforming
from fairlayer._typing import FloatArray
from fairlayer.collective import Ranks
from fairlayer.constraints import Batch, Constraint
from fairlayer.edge import (
    Box,
    as_columns,
    as_score_tensor,
    check_alike,
    check_row_order,
    pick,
    read_groups,
    read_per_sample,
    read_sample_weight,
)
from fairlayer.errors import LabelValueError, ShapeError
from fairlayer.geometry.probabilities import at_the_ends, check_probabilities, check_rows
from fairlayer.groups import Groups, Vocabulary
from fairlayer.projection.exact import check_finite
from fairlayer.projection.options import Options

__all__ = ["BatchReader", "ReadBatch"]


class ReadBatch(NamedTuple):
    """One batch as `project` reads it.

    Args:
        scores: (n,) or (n, k).
        columns: each of their columns.
        views: the batch as the constraints see it, of each column.
        box: the bounds.
        groups: the groups of the batch.
        labels: what stands behind label-based constraints, as in the result.
        ends: scores of exactly 0 or 1 that are first moved inside.
    """

    scores: Tensor
    columns: Sequence[Tensor]
    views: Sequence[Batch]
    box: Box
    groups: Groups
    labels: str | None
    ends: int


@dataclass(frozen=True)
class BatchReader:
    """Reads batches for a plan.

    Args:
        constraints: what must hold.
        names: their names.
        options: how they are projected.
    """

    constraints: Sequence[Constraint]
    names: tuple[str, ...]
    options: Options

    def read(  # noqa: PLR0917 - as `project`
        self,
        scores: Any,
        sensitive_features: Any,
        y: Any,
        label_probabilities: Any,
        sample_weight: Any,
        vocabulary: Vocabulary | None,
        *,
        ranks: Ranks | None,
    ) -> ReadBatch:
        """Read one batch; arguments as for `project`, `ranks`: the processes that share it."""
        check_row_order(
            scores=scores,
            sensitive_features=sensitive_features,
            y=y,
            label_probabilities=label_probabilities,
            sample_weight=sample_weight,
        )
        scores = as_score_tensor(scores)
        columns = as_columns(scores, empty=ranks is not None)
        n, shape = len(columns[0]), tuple(scores.shape)
        self._check_classes(len(columns))
        groups = read_groups(sensitive_features, self.constraints, n, vocabulary, ranks)
        labels = self._read_labels(y, shape)
        estimates = read_per_sample("label_probabilities", label_probabilities, shape)
        weights = read_sample_weight(sample_weight, n)
        box = self.options.box(columns[0])
        if ranks is not None:
            given = {"y": labels, "label_probabilities": estimates, "sample_weight": weights}
            check_alike(ranks, self.names, columns, box, groups, **given)
        ends = self._check_range(scores)
        raw, simplex = self._raw_scores(scores), self.options.on_simplex
        first = Batch(groups, n, pick(labels, 0), pick(estimates, 0), partial(raw, 0), weights, ranks)
        others = range(0 if simplex else 1, len(columns))
        views = [] if simplex else [first]
        for j in others:
            seen = pick(labels, j), pick(estimates, j), partial(raw, j)
            views.append(first.of_column(j, *seen, one_class=simplex))
        about = _labels_of(self.constraints, labels, estimates)
        return ReadBatch(scores, columns, views, box, groups, about, ends)

    def _check_classes(self, columns: int) -> None:
        for constraint in self.constraints:
            if constraint.classes is not None and max(constraint.classes) >= columns:
                raise ShapeError(
                    f"{constraint!r} speaks of class {max(constraint.classes)}, but the scores have {columns} "
                    f"column{'s' if columns > 1 else ''}, counted from 0. Give one column per class, or other classes."
                )

    def _read_labels(self, y: Any, shape: tuple[int, ...]) -> FloatArray | None:
        """Return the labels (n, 1) or (n, k); of rows of classes always (n, k), 1 in the column of the class."""
        if not self.options.on_simplex:
            return read_per_sample("y", y, shape)
        if len(shape) != 2 or shape[1] < 2:
            raise ShapeError(
                f'bounds="simplex" needs scores (n, k) with k >= 2 classes, but they have shape {shape}. Give one '
                "column per class, or bounds=(0, 1) for a single probability."
            )
        labels = read_per_sample("y", y, shape)
        if labels is None or labels.shape[1] == shape[1]:
            return labels
        return class_indicators(labels[:, 0], shape[1])

    def _raw_scores(self, scores: Tensor) -> Callable[[int], FloatArray]:
        """Return what reads the raw scores of one column as constraints that bin by score do: as probabilities."""
        return _RawScores(scores, self.options.from_logits, self.options.on_simplex)

    def _check_range(self, scores: Tensor) -> int:
        """Refuse what are not probabilities where some are needed; return how many lie at an end of their domain."""
        if not self.options.rule.bounded or self.options.from_logits or transforming():
            return 0
        plain = scores.detach()
        if not plain.numel():
            return 0
        numbers = held_by_host(plain)
        low, high = map(float, torch.aminmax(plain) if numbers is plain else (numbers.min(), numbers.max()))
        if math.isinf(low) or math.isinf(high):
            check_finite(plain)
        if math.isfinite(low + high):  # NaN is found, and named, by the solver's own check
            check_probabilities(low, high, self.options.rule.name)
            if self.options.on_simplex:
                check_rows(plain, self.options.rule.name)
        return at_the_ends(plain, self.options.margin)


@dataclass(frozen=True)
class _RawScores:
    """The raw scores of each column, as probabilities, read when a constraint asks; a pickle has no graph."""

    scores: Tensor
    from_logits: bool
    on_simplex: bool

    def __call__(self, column: int) -> FloatArray:
        given = self.scores.double() if self.from_logits else self.scores
        if self.from_logits and self.on_simplex:
            given = torch.softmax(given, dim=1)
        elif self.from_logits:
            given = torch.sigmoid(given)
        return host_float64(given if given.ndim == 1 else given[:, column])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "scores": self.scores.detach()}


def class_indicators(labels: FloatArray, classes: int) -> FloatArray:
    """Return class labels (n,) as (n, classes), 1 in the column of the class.

    Raises:
        LabelValueError: a label is not a class.
    """
    codes = labels.astype(np.int64)
    if not np.array_equal(codes, labels) or (len(codes) and not 0 <= codes.min() <= codes.max() < classes):
        raise LabelValueError(
            f"y must hold class labels 0, ..., {classes - 1} for {classes} columns of scores, or be of shape "
            f"(n, {classes}), but it holds {labels[:3].tolist()} ... up to {labels.max():g}."
        )
    return np.eye(classes)[codes]


def _labels_of(constraints: Sequence[Constraint], labels: Any, estimates: Any) -> str | None:
    """Return what stands behind label-based constraints: "given", "estimates", or None where none looks at labels."""
    if not any(constraint.needs_labels for constraint in constraints):
        return None
    return "given" if labels is not None else "estimates" if estimates is not None else None
