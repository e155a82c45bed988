"""The number that a constraint bounds, measured on any predictions: the one definition that everything shows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch

from fairlayer._arrays import host_float64
from fairlayer._typing import FloatArray
from fairlayer.constraints.batch import Batch
from fairlayer.constraints.means import GroupMeans
from fairlayer.constraints.readings import BoundedNumber, StatementNumbers, StatementReading, miss
from fairlayer.constraints.statements import RATIO, Statement, as_float
from fairlayer.constraints.weights import read_sample_weight
from fairlayer.errors import EmptyBatchError, NonFiniteScoresError, ShapeError
from fairlayer.groups import Groups, Vocabulary, read_sensitive_features

if TYPE_CHECKING:
    from fairlayer.constraints.base import Constraint

__all__ = [
    "Measured",
    "headline",
    "measure",
    "measure_columns",
    "measure_statements",
    "read_worst",
    "tolerance_needed",
    "worst_numbers",
    "worst_of",
]

ATOL = 1e-6
Number = TypeVar("Number", bound=BoundedNumber)


@dataclass(frozen=True)
class Measured:
    """What a constraint says about some predictions: the number that it bounds, beside its limit.

    It is that of the worst statement, the one whose number lies furthest beyond (or least within) its limit; which
    number that is, `fairlayer.constraints.statements` says. `float()` of it is the value, NaN where there is none.

    Args:
        constraint: its name.
        statement: the number in words, of the groups that make it, as in "mean[sex=F] - mean[sex=M]".
        value: the number; None where nothing is compared, and for a ratio whose highest mean is not above 0.
        limit: what it is held to, in the same unit.
        excess: by how much the statement fails, <= 0 where it holds; None where nothing is compared. It is the value
            beyond the limit, but for a ratio `ratio * highest - lowest`, in prediction units.
        at_least: whether the limit is a lower one (a ratio, a floor).
        unit: what the number is, in words.
        worst: the groups that make it: the highest and the lowest of a difference or ratio, else the one group or row.
        counts: samples (their weights, where there are any) behind each mean that the constraint reads.
        labels: "given" or "estimates" for a constraint that reads labels, else None.
        column: which column of scores (n, k) it is, else 0.

    Example:
        >>> import fairlayer as fl
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> found = parity.measure([0.9, 0.7, 0.2, 0.4], sensitive_features={"sex": ["F", "F", "M", "M"]})
        >>> found.statement, round(found.value, 3), found.limit, round(found.excess, 3), found.holds
        ('mean[sex=F] - mean[sex=M]', 0.5, 0.1, 0.4, False)
    """

    constraint: str
    statement: str
    value: float | None
    limit: float
    excess: float | None
    at_least: bool
    unit: str
    worst: tuple[str, ...]
    counts: Mapping[str, float] = field(default_factory=dict, hash=False)
    labels: Literal["given", "estimates"] | None = None
    column: int = 0

    def __float__(self) -> float:
        return float("nan") if self.value is None else self.value

    @property
    def is_ratio(self) -> bool:
        """Whether value and limit are a ratio, while the excess is in prediction units."""
        return self.unit == RATIO

    @property
    def holds(self) -> bool:
        """Whether the excess is at most 1e-6; true where nothing is compared."""
        return self.excess is None or self.excess <= ATOL


def measure(constraint: Constraint, batch: Batch, values: FloatArray) -> Measured:
    """Return what a constraint says about the predictions (n,) of a batch, over all processes that share it.

    Example:
        >>> from fairlayer.constraints import DemographicParity
        >>> groups = read_sensitive_features({"sex": ["F", "F", "M"]})
        >>> found = measure(DemographicParity("sex", 0.1), Batch(groups, 3), np.array([0.2, 0.4, 0.8]))
        >>> found.value, found.limit, found.worst
        (0.5, 0.1, ('sex=M', 'sex=F'))
    """
    labels: Literal["given", "estimates"] | None = None
    if constraint.needs_labels:
        labels = "estimates" if batch.labels is None else "given"
    stated = constraint.statements(batch)
    found = measure_statements(constraint.name, stated, lambda means: means.of(values, total=batch.total))
    return replace(found, labels=labels)


def measure_statements(
    name: str, statements: Sequence[Statement], means_of: Callable[[GroupMeans], FloatArray]
) -> Measured:
    """Return what the statements of one constraint say about predictions.

    Args:
        name: the name of the constraint.
        statements: what it states about a batch.
        means_of: the means of the predictions over each row of a measure.
    """
    measures = {statement.means.key: statement.means for statement in statements}
    counts: dict[str, float] = {}
    for means in measures.values():
        counts |= dict(zip(means.names, means.counts.tolist(), strict=True))
    if not statements:
        return Measured(name, "", None, float("nan"), None, False, "nothing", (), counts)
    reading, statement = read_worst(statements, {key: means_of(means) for key, means in measures.items()})
    return Measured(
        constraint=name,
        statement=statement.describe(reading.worst),
        value=reading.value,
        limit=reading.limit,
        excess=reading.excess,
        at_least=reading.at_least,
        unit=statement.unit,
        worst=reading.worst,
        counts=counts,
    )


def read_worst(
    statements: Sequence[Statement], means: Mapping[Hashable, FloatArray]
) -> tuple[StatementReading, Statement]:
    """Return the statement, of at least one, whose number lies furthest beyond its limit, and what it says.

    Args:
        statements: what a constraint states about a batch.
        means: the means of the predictions over each row of every measure, by its key.
    """
    return max(
        ((statement.read(means[statement.means.key]), statement) for statement in statements),
        key=lambda pair: miss(pair[0]),
    )


def worst_numbers(
    stated: Sequence[Sequence[Statement]], means_of: Callable[[GroupMeans], FloatArray], *, times: int = 1
) -> FloatArray:
    """Return what `read_worst` reads, of a constraint at several limits: the numbers alone, NaN where there is none.

    Args:
        stated: the statements at each limit, (t,) of at least one each, which are the same but for the limit.
        means_of: the means of each prediction over each row of a measure, (times * t, rows).
        times: how many predictions there are at each limit: those at all limits, then the next ones at all limits.
    """
    found: list[StatementNumbers] = [
        alike[0].numbers(alike, means_of(alike[0].means)) for alike in zip(*stated, strict=True)
    ]
    if len(found) == 1:
        return found[0].value
    worst = np.argmax([each.miss for each in found], axis=0)
    return np.asarray(np.array([each.value for each in found])[worst, np.arange(times * len(stated))])


def worst_of(measured: Iterable[Number]) -> Number:
    """Return the one whose number lies furthest beyond its limit; of several classes, columns or batches."""
    return max(measured, key=miss)


def headline(measured: Iterable[Measured]) -> float | None:
    """Return one number for several constraints: the largest of those with an upper limit, else the lowest.

    None where nothing is compared. Numbers with an upper and numbers with a lower limit have no common scale, so a
    ratio or a floor counts only where there is nothing else.
    """
    known = [(each.at_least, each.value) for each in measured if each.value is not None]
    upper = [value for at_least, value in known if not at_least]
    if upper:
        return max(upper)
    return min((value for _, value in known), default=None)


def tolerance_needed(statements: Iterable[Statement], values: FloatArray) -> float | None:
    """Return the smallest tolerance at which every statement holds for predictions (n,); None where none compares."""
    needed = []
    for statement in statements:
        excess = statement.excess(statement.means.of(values))
        if excess is not None:
            needed.append(excess + as_float(statement.tolerance))
    return max(needed, default=None)


def measure_columns(
    constraint: Constraint,
    predictions: Any,
    *,
    sensitive_features: Any = None,
    y: Any = None,
    label_probabilities: Any = None,
    sample_weight: Any = None,
    raw_scores: Any = None,
    vocabulary: Vocabulary | None = None,
) -> Measured:
    """Return what a constraint says about predictions (n,), (n, 1) or (n, k): see `Constraint.measure`."""
    table = _table("predictions", predictions)
    n, k = table.shape
    if not n:
        raise EmptyBatchError(f"{constraint.name} was to be measured on an empty batch: there are no predictions.")
    groups = _groups(constraint, sensitive_features, n, vocabulary)
    labels = _beside("y", y, (n, k))
    estimates = _beside("label_probabilities", label_probabilities, (n, k))
    raw = _beside("raw_scores", raw_scores, (n, k))
    raw = table if raw is None else raw
    weights = read_sample_weight(sample_weight, n)
    columns = [j for j in range(k) if constraint.applies_to(j)]
    if not columns:
        raise ShapeError(
            f"{constraint.name} speaks of the classes {constraint.classes}, but the predictions have {k} columns, "
            "numbered from 0. Give the scores of every class, (n, k)."
        )
    found = []
    for j in columns:
        binned = partial(_column, raw, j)
        batch = Batch(groups, n, _pick(labels, j), _pick(estimates, j), binned, weights)
        found.append(replace(measure(constraint, batch, table[:, j]), column=j))
    return worst_of(found)


def _table(name: str, values: Any) -> FloatArray:
    """Return finite numbers as (n, k)."""
    try:
        array = host_float64(values) if isinstance(values, torch.Tensor) else np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"{name} must be numbers, one per sample, but is not ({error}).") from error
    if array.ndim not in {1, 2}:
        raise ShapeError(f"{name} must have shape (n,), (n, 1) or (n, k), but has shape {array.shape}.")
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise NonFiniteScoresError(f"{bad} of {array.size} entries of {name} are NaN or infinite; drop or impute them.")
    return array[:, None] if array.ndim == 1 else array


def _beside(name: str, values: Any, shape: tuple[int, int]) -> FloatArray | None:
    """Return (n, 1) or (n, k), as many rows as there are predictions."""
    if values is None:
        return None
    table = _table(name, values)
    if len(table) != shape[0] or table.shape[1] not in {1, shape[1]}:
        raise ShapeError(f"there are {shape[0]} predictions in {shape[1]} columns, but {name} has shape {table.shape}.")
    return table


def _column(table: FloatArray, column: int) -> FloatArray:
    return table[:, min(column, table.shape[1] - 1)]


def _pick(table: FloatArray | None, column: int) -> FloatArray | None:
    return None if table is None else _column(table, column)


def _groups(constraint: Constraint, features: Any, n: int, vocabulary: Vocabulary | None) -> Groups:
    if features is None:
        return Groups({}, n, vocabulary)
    names = () if isinstance(features, Mapping) else constraint.features
    groups = read_sensitive_features(features, names, vocabulary)
    if groups.names and groups.n != n:
        raise ShapeError(f"there are {n} predictions, but the sensitive features have {groups.n} entries.")
    return groups
