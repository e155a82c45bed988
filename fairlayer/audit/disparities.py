"""How a metric differs between groups: to the best, to all, to a reference; who is worse off; within what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from fairlayer._typing import IntArray
from fairlayer.audit.criteria import metrics_of, title_of
from fairlayer.audit.grouped import ALL, UNKNOWN
from fairlayer.audit.intervals import Interval, group_limits, pair_interval, range_interval, ratio_interval
from fairlayer.audit.means import Means
from fairlayer.audit.metrics import measure, metric
from fairlayer.audit.table import AuditTable
from fairlayer.errors import CategoryError, ParameterError

__all__ = ["Compared", "Disparity", "GroupNumber", "MetricByGroup", "Standing", "disparity"]

# counted: in the headline. small: fewer rows than min_group_size. unknown: the group is not known.
# empty: no row from which the number could be computed.
Standing: TypeAlias = Literal["counted", "small", "unknown", "empty"]


@dataclass(frozen=True)
class GroupNumber:
    """A metric of one group.

    Args:
        name: such as "sex=F".
        rows: the rows that the number stands on (for a true positive rate, those with label 1).
        value: the number, NaN where it cannot be computed.
        low: lower limit of this group alone.
        high: upper limit of this group alone.
        standing: whether it is in the headline, and if not, why.

    Example:
        >>> decided, sex = [1] * 30 + [0] * 70 + [1] * 60 + [0] * 40, ["F"] * 100 + ["M"] * 100
        >>> table = AuditTable.of(decisions=decided, sensitive_features={"sex": sex})
        >>> women = table.disparity("selection_rate", by="sex").parts[0].groups[0]
        >>> women.name, women.rows, women.value, round(women.low, 3), round(women.high, 3)
        ('sex=F', 100.0, 0.3, 0.219, 0.396)
    """

    name: str
    rows: float
    value: float
    low: float
    high: float
    standing: Standing


@dataclass(frozen=True)
class Compared:
    """A group beside another, or beside all.

    Args:
        name: the group.
        to: what it is compared with.
        difference: its number minus the other.
        ratio: its number over the other, NaN where the other is 0.
        interval: limits of the difference, where the other group was named beforehand; else None.

    Example:
        >>> decided, sex = [1] * 30 + [0] * 70 + [1] * 60 + [0] * 40, ["F"] * 100 + ["M"] * 100
        >>> table = AuditTable.of(decisions=decided, sensitive_features={"sex": sex})
        >>> [women, *_] = table.disparity("selection_rate", by="sex").parts[0].to("sex=M")
        >>> women.name, women.to, round(women.difference, 3), women.ratio, str(women.interval)
        ('sex=F', 'sex=M', -0.3, 0.5, '-0.300 (-0.422 to -0.163), measured -0.300')
    """

    name: str
    to: str
    difference: float
    ratio: float
    interval: Interval | None = None


@dataclass(frozen=True)
class MetricByGroup:
    """One metric of every group.

    Args:
        metric: its name.
        groups: every group, the small and the unknown ones among them.
        overall: the number of all rows together, the unknown ones among them.
        worse_off: the group of the headline that is worse off, "" where none is.
        better_off: the group of the headline that is better off, "" where none is.
        means: what the intervals are made from.
        level: the level of the intervals.

    Example:
        >>> decided, sex = [1] * 30 + [0] * 70 + [1] * 60 + [0] * 40, ["F"] * 100 + ["M"] * 100
        >>> table = AuditTable.of(decisions=decided, sensitive_features={"sex": sex})
        >>> part = table.disparity("selection_rate", by="sex").parts[0]
        >>> part.metric, part.overall, part.worse_off, part.better_off
        ('selection_rate', 0.45, 'sex=F', 'sex=M')
    """

    metric: str
    groups: tuple[GroupNumber, ...]
    overall: float
    worse_off: str
    better_off: str
    means: Means
    level: float

    def to_best(self) -> tuple[Compared, ...]:
        """Compare every group with the best one of the headline, chosen by these very rows (so without limits)."""
        return self._to(self.better_off, self._value(self.better_off)) if self.better_off else ()

    def to_all(self) -> tuple[Compared, ...]:
        """Compare every group with all rows together."""
        return self._to(ALL, self.overall)

    def to(self, reference: str) -> tuple[Compared, ...]:
        """Compare every group with one that was named beforehand.

        Raises:
            CategoryError: there is no such group.
        """
        names = [group.name for group in self.groups]
        if reference not in names:
            raise CategoryError(f"there is no group '{reference}' to compare with, only {', '.join(names)}.")
        place = names.index(reference)
        return tuple(
            Compared(
                c.name, c.to, c.difference, c.ratio, pair_interval(self.means, names.index(c.name), place, self.level)
            )
            for c in self._to(reference, self._value(reference))
        )

    def _value(self, name: str) -> float:
        return next(group.value for group in self.groups if group.name == name)

    def _to(self, name: str, other: float) -> tuple[Compared, ...]:
        return tuple(
            Compared(group.name, name, group.value - other, group.value / other if other else math.nan)
            for group in self.groups
            if group.name != name and group.standing != "empty"
        )


@dataclass(frozen=True)
class Disparity:
    """How far groups are apart, in one number with its limits, and group by group.

    Args:
        name: the criterion or metric.
        by: the features whose categories make the groups.
        parts: the metrics; a criterion of two rates has two.
        difference: largest minus smallest over the groups of the headline; of several metrics, the worst.
        ratio: smallest over largest, likewise.
        with_small: the difference with the small groups in it; None where there is none.

    Example:
        >>> table = AuditTable.of(
        ...     decisions=[1] * 60 + [0] * 140 + [1] * 76 + [0] * 124 + [1, 0, 0],
        ...     sensitive_features={"sex": ["F"] * 200 + ["M"] * 200 + ["X"] * 3},
        ... )
        >>> found = table.disparity("demographic_parity", by="sex")
        >>> print(found)
        demographic_parity by sex: 0.052 (0.000 to 0.171), measured 0.080; worse off: sex=F; left out: sex=X (3 rows)
        >>> [(group.name, group.value, group.standing) for group in found.groups]
        [('sex=F', 0.3, 'counted'), ('sex=M', 0.38, 'counted'), ('sex=X', 0.3333333333333333, 'small')]
        >>> print(found.with_small)
        0.037 (0.000 to 0.496), measured 0.080
    """

    name: str
    by: tuple[str, ...]
    parts: tuple[MetricByGroup, ...]
    difference: Interval
    ratio: Interval
    with_small: Interval | None

    @property
    def worst(self) -> MetricByGroup:
        """The metric with the largest measured difference."""
        return max(self.parts, key=_spread)

    @property
    def groups(self) -> tuple[GroupNumber, ...]:
        """The groups of the worst metric."""
        return self.worst.groups

    @property
    def left_out(self) -> tuple[GroupNumber, ...]:
        """The small groups, which take no part in the headline."""
        return tuple(group for part in self.parts for group in part.groups if group.standing == "small")

    def beyond(self, limit: float) -> tuple[str, ...]:
        """Return the small groups that are certainly further than the limit from the groups of the headline."""
        return tuple(dict.fromkeys(name for part in self.parts for name in _beyond(part, limit)))

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON; NaN is None."""
        return {
            "name": self.name,
            "by": list(self.by),
            "difference": _plain_interval(self.difference),
            "ratio": _plain_interval(self.ratio),
            "with_small": None if self.with_small is None else _plain_interval(self.with_small),
            "metrics": [_plain_part(part) for part in self.parts],
        }

    def __str__(self) -> str:
        text = f"{self.name} by {' x '.join(self.by)}: {self.difference}"
        if self.worst.worse_off:
            text += f"; worse off: {self.worst.worse_off}"
        if self.left_out:
            text += "; left out: " + ", ".join(f"{g.name} ({g.rows:g} rows)" for g in self.left_out)
        return text


def disparity(table: AuditTable, name: str | Sequence[str], by: Sequence[str], *, level: float = 0.95) -> Disparity:
    """Compare groups by a criterion, a metric, or the worst of several metrics.

    Args:
        name: the name of a metric.
        level: the level of the intervals.

    Raises:
        MetricError: a metric is unknown, or needs what the table does not hold.
        ParameterError: no feature was named.

    Example:
        >>> decided, sex = [1] * 30 + [0] * 70 + [1] * 60 + [0] * 40, ["F"] * 100 + ["M"] * 100
        >>> table = AuditTable.of(decisions=decided, sensitive_features={"sex": sex})
        >>> print(disparity(table, "demographic_parity", by=["sex"]))
        demographic_parity by sex: 0.285 (0.143 to 0.422), measured 0.300; worse off: sex=F
    """
    if not by:
        raise ParameterError(f"groups are compared by a feature: one or more of {', '.join(table.features)}.")
    parts = tuple(_part(table, each, tuple(by), level) for each in metrics_of(name))
    headline = [part.means.take(_positions(part, "counted")) for part in parts]
    everyone = [part.means.take(_positions(part, "counted", "small")) for part in parts]
    small = any(group.standing == "small" for part in parts for group in part.groups)
    return Disparity(
        title_of(name),
        tuple(by),
        parts,
        range_interval(headline, level),
        ratio_interval(headline, level),
        range_interval(everyone, level) if small else None,
    )


def _part(table: AuditTable, name: str, by: tuple[str, ...], level: float) -> MetricByGroup:
    grouped = table.by(*by)
    means = measure(table, name, grouped)
    low, high = group_limits(means, level)
    groups = tuple(
        GroupNumber(label, rows, value, down, up, _standing(label, rows, value, table.min_group_size))
        for label, rows, value, down, up in zip(
            grouped.names, means.rows.tolist(), means.value.tolist(), low.tolist(), high.tolist(), strict=True
        )
    )
    counted = sorted((g for g in groups if g.standing == "counted"), key=lambda g: g.value)
    ends = (counted[0].name, counted[-1].name) if counted and counted[0].value < counted[-1].value else ("", "")
    worse, better = ends if metric(name).lower_is_worse(table.favourable) else ends[::-1]
    return MetricByGroup(name, groups, table.overall(name), worse, better, means, level)


def _standing(name: str, rows: float, value: float, smallest: int) -> Standing:
    if math.isnan(value):
        return "empty"
    if name == UNKNOWN:
        return "unknown"
    return "small" if rows < smallest else "counted"


def _positions(part: MetricByGroup, *standing: Standing) -> IntArray:
    return np.array([i for i, group in enumerate(part.groups) if group.standing in standing], dtype=np.int64)


def _spread(part: MetricByGroup) -> float:
    counted = part.means.value[_positions(part, "counted")]
    return float(np.ptp(counted)) if len(counted) > 1 else -1.0


def _beyond(part: MetricByGroup, limit: float) -> list[str]:
    counted, small = _positions(part, "counted"), _positions(part, "small")
    within = range_interval(part.means.take(counted), part.level)
    if len(counted) == 0 or within.low > limit:
        return []
    return [
        part.groups[i].name
        for i in small.tolist()
        if range_interval(part.means.take(np.append(counted, i)), part.level).low > limit
    ]


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def _plain_interval(interval: Interval) -> dict[str, Any]:
    return {
        "measured": _plain(interval.measured),
        "estimate": _plain(interval.estimate),
        "low": _plain(interval.low),
        "high": _plain(interval.high),
        "level": interval.level,
    }


def _plain_part(part: MetricByGroup) -> dict[str, Any]:
    return {
        "metric": part.metric,
        "overall": _plain(part.overall),
        "worse_off": part.worse_off or None,
        "better_off": part.better_off or None,
        "groups": [
            {
                "name": group.name,
                "rows": group.rows,
                "value": _plain(group.value),
                "low": _plain(group.low),
                "high": _plain(group.high),
                "standing": group.standing,
            }
            for group in part.groups
        ],
    }
