"""How often given intervals, or sets, hold the truth: for everybody, and in every group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairlayer._typing import BoolArray, FloatArray
from fairlayer.audit.disparities import Standing, disparity
from fairlayer.audit.grouped import ALL
from fairlayer.audit.intervals import Interval, group_limits
from fairlayer.audit.metrics import measure
from fairlayer.audit.reading import numbers
from fairlayer.audit.table import AuditTable, names_of
from fairlayer.errors import EmptyBatchError, LabelValueError, NonFiniteScoresError, ParameterError, ShapeError

__all__ = ["Coverage", "Covered", "coverage"]


@dataclass(frozen=True)
class Covered:
    """How often the truth lies inside, for one group.

    Args:
        name: the group, or "all".
        rows: its rows.
        share: how often the truth is inside.
        low: lower limit of that share (Wilson).
        high: upper limit of that share.
        size: mean width of its intervals, or mean number of labels in its sets.
        short: whether the share is below the nominal level by more than chance: the upper limit is below it.
        standing: whether the group is in the headline.

    Example:
        >>> outcomes, sets = [1.0, 2.0, 3.0, 9.0] * 50, ([0, 1, 2, 3] * 50, [2, 3, 4, 5] * 50)
        >>> sex = {"sex": ["F", "F", "M", "M"] * 50}
        >>> men = coverage(outcomes, nominal=0.9, intervals=sets, sensitive_features=sex).groups[1]
        >>> men.name, men.rows, men.share, round(men.low, 2), round(men.high, 2), men.short
        ('sex=M', 100.0, 0.5, 0.4, 0.6, True)
    """

    name: str
    rows: float
    share: float
    low: float
    high: float
    size: float
    short: bool
    standing: Standing


@dataclass(frozen=True)
class Coverage:
    """Marginal coverage beside that of every group: the first may hold while some groups are short.

    Args:
        nominal: the share that was promised.
        everybody: all rows together.
        groups: every group.
        difference: largest minus smallest coverage over the groups of the headline.

    Example:
        >>> outcomes, sets = [1.0, 2.0, 3.0, 9.0] * 50, ([0, 1, 2, 3] * 50, [2, 3, 4, 5] * 50)
        >>> sex = {"sex": ["F", "F", "M", "M"] * 50}
        >>> found = coverage(outcomes, nominal=0.9, intervals=sets, sensitive_features=sex)
        >>> found.nominal, found.everybody.share, found.short
        (0.9, 0.75, ('sex=M',))
    """

    nominal: float
    everybody: Covered
    groups: tuple[Covered, ...]
    difference: Interval

    @property
    def short(self) -> tuple[str, ...]:
        """The groups that are short by more than chance."""
        return tuple(group.name for group in self.groups if group.short)


def coverage(
    y: Any,
    *,
    nominal: float,
    sensitive_features: Any,
    intervals: tuple[Any, Any] | None = None,
    sets: Any = None,
    by: str | Sequence[str] = (),
    min_group_size: int = 30,
) -> Coverage:
    """Count how often intervals, or sets of labels, hold the truth.

    Args:
        y: (n,) the truth: numbers for intervals; for sets, the number of the column, 0 to k - 1.
        nominal: the share that was promised, such as 0.9.
        sensitive_features: a dict of name -> column, or a frame.
        intervals: (low, high), (n,) each; the ends belong to the interval.
        sets: (n, k) of True where the label is in the set.
        by: the features whose categories make the groups; by default all of them, crossed.
        min_group_size: groups of fewer rows take no part in the difference.

    Raises:
        ParameterError: not one of intervals and sets, or a nominal level out of range.
        ShapeError, NonFiniteScoresError, LabelValueError: a column cannot be read.

    Example:
        >>> found = coverage(
        ...     [1.0, 2.0, 3.0, 9.0],
        ...     nominal=0.9,
        ...     intervals=([0, 1, 2, 3], [2, 3, 4, 5]),
        ...     sensitive_features={"sex": ["F", "F", "M", "M"]},
        ... )
        >>> found.everybody.share, [group.share for group in found.groups], found.everybody.size
        (0.75, [1.0, 0.5], 2.0)
    """
    if (intervals is None) == (sets is None):
        raise ParameterError("coverage is that of intervals=(low, high) or of sets=(n, k): give one of the two.")
    if not 0 < nominal < 1:
        raise ParameterError(f"the nominal coverage lies between 0 and 1, such as 0.9, not {nominal!r}.")
    n = len(y)
    if not n:
        raise EmptyBatchError("coverage needs at least one row.")
    truth = numbers("y", y, n)
    if np.isnan(truth).any():
        raise NonFiniteScoresError(f"y must be known to be covered, but {int(np.isnan(truth).sum())} entries are not.")
    inside, size = _inside_intervals(truth, intervals) if intervals is not None else _inside_sets(truth, sets)
    table = AuditTable.of(
        decisions=inside,
        values={"size": size},
        sensitive_features=sensitive_features,
        min_group_size=min_group_size,
    )
    by = names_of(by) or table.features
    found = disparity(table, "selection_rate", by)
    whole = measure(table, "selection_rate", table.by())
    (low,), (high,) = group_limits(whole)
    share = float(whole.value[0])
    everybody = Covered(ALL, float(n), share, float(low), float(high), float(size.mean()), high < nominal, "counted")
    grouped = table.by(*by)
    sizes = grouped.total("size") / grouped.total("weight")
    groups = tuple(
        Covered(g.name, g.rows, g.value, g.low, g.high, mean, g.high < nominal, g.standing)
        for g, mean in zip(found.groups, sizes.tolist(), strict=True)
    )
    return Coverage(nominal, everybody, groups, found.difference)


def _inside_intervals(truth: FloatArray, intervals: tuple[Any, Any]) -> tuple[BoolArray, FloatArray]:
    low = numbers("the low ends", intervals[0], len(truth))
    high = numbers("the high ends", intervals[1], len(truth))
    wrong = ~(np.isfinite(low) & np.isfinite(high) & (low <= high))
    if wrong.any():
        raise NonFiniteScoresError(
            f"the ends of intervals must be finite numbers with low <= high, but in {int(wrong.sum())} of {len(truth)} "
            f"rows, the first of them row {int(wrong.argmax())}, they are not. Use the range of y for an open end."
        )
    return (low <= truth) & (truth <= high), high - low


def _inside_sets(truth: FloatArray, sets: Any) -> tuple[BoolArray, FloatArray]:
    held = np.asarray(sets)
    if held.ndim != 2 or len(held) != len(truth):
        raise ShapeError(f"sets must have shape (n, k) with one row per label, {len(truth)}, but have {held.shape}.")
    member: BoolArray = held.astype(bool)
    label = truth.astype(np.int64)
    if (label != truth).any() or label.min() < 0 or label.max() >= held.shape[1]:
        raise LabelValueError(
            f"y must be the number of the label's column, 0 to {held.shape[1] - 1}, but holds {truth.min():g} to "
            f"{truth.max():g}."
        )
    return member[np.arange(len(label)), label], member.sum(axis=1).astype(np.float64)
