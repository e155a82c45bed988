"""What was asked of an audit: the groups, the limits, and how decisions are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fairlayer.audit.changes import ChangeLimit, read_change
from fairlayer.audit.outcome import Limit
from fairlayer.audit.table import AuditTable
from fairlayer.errors import ParameterError

__all__ = ["AskedLimit", "AuditPlan", "read_groupings", "read_limits"]


@dataclass(frozen=True)
class AskedLimit:
    """A limit with the groups it is put on.

    Args:
        limit: the largest difference, the smallest ratio, or the change, that is allowed.
        by: the features whose categories make the groups.

    Example:
        >>> from fairlayer.audit import Limit
        >>> asked = AskedLimit(Limit("selection_rate", 0.8, "ratio"), by=("sex",))
        >>> print(asked.limit, asked.by)
        selection_rate ratio >= 0.8 ('sex',)
    """

    limit: Limit | ChangeLimit
    by: tuple[str, ...]


@dataclass(frozen=True)
class AuditPlan:
    """The question of an audit.

    Args:
        groupings: the features, alone or crossed, whose groups are compared.
        limits: what must hold, each for the groups named with it.
        level: the level of the intervals.
        practical: the ratio below which a difference is practically significant.
        reference: grouping -> the group that the others are compared with; the best one where none is named.

    Example:
        >>> from fairlayer.audit import audit
        >>> sex = {"sex": ["F", "M"] * 50}
        >>> found = audit(decisions=[1, 0] * 50, sensitive_features=sex, limits=["selection_rate_ratio < 0.8"])
        >>> found.asked.groupings, found.asked.level, [str(asked.limit) for asked in found.asked.limits]
        ((('sex',),), 0.95, ['selection_rate ratio >= 0.8'])
    """

    groupings: tuple[tuple[str, ...], ...]
    limits: tuple[AskedLimit, ...]
    level: float
    practical: float
    reference: dict[tuple[str, ...], str]

    def to_dict(self, table: AuditTable) -> dict[str, Any]:
        """Return plain containers for JSON."""
        return {
            "limits": [f"{asked.limit} by {' x '.join(asked.by)}" for asked in self.limits],
            "groupings": [list(by) for by in self.groupings],
            "threshold": table.threshold,
            "favourable": table.favourable,
            "min_group_size": table.min_group_size,
            "level": self.level,
            "practical": self.practical,
            "task": table.task,
            "estimated_groups": list(table.estimated),
            "reference": {" x ".join(by): name for by, name in self.reference.items()},
        }


def read_groupings(by: Iterable[str | Sequence[str]], features: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the groupings that were named; where none was, every feature alone and all of them crossed.

    Args:
        by: names such as "sex", and crossed ones such as "race+sex" or ("race", "sex").
        features: the sensitive features of the table.

    Raises:
        ParameterError: a feature is not among those of the table.

    Example:
        >>> read_groupings(["sex", "race+sex"], ["sex", "race"])
        (('sex',), ('race', 'sex'))
        >>> read_groupings([], ["sex", "race"])
        (('sex',), ('race',), ('sex', 'race'))
    """
    named = [tuple(one.split("+")) if isinstance(one, str) else tuple(one) for one in by]
    named = [tuple(dict.fromkeys(name.strip() for name in one)) for one in named]
    if not named:
        named = [(name,) for name in features] + ([tuple(features)] if len(features) > 1 else [])
    for name in (name for one in named for name in one):
        if name not in features:
            raise ParameterError(
                f"the groups of '{name}' were asked for, but the sensitive features are {', '.join(features)}. Name "
                "one of them, or several joined by '+'."
            )
    return tuple(dict.fromkeys(named))


def read_limits(
    limits: Iterable[str | Limit], groupings: Sequence[tuple[str, ...]], features: Sequence[str]
) -> tuple[AskedLimit, ...]:
    """Return every limit with every grouping it is put on: all of them, unless the text ends with "by FEATURE".

    Raises:
        ParameterError, MetricError: a text cannot be read, or names what does not exist.

    Example:
        >>> for asked in read_limits(["selection_rate_ratio < 0.8 by race+sex"], [("sex",)], ["race", "sex"]):
        ...     print(asked.limit, asked.by)
        selection_rate ratio >= 0.8 ('race', 'sex')
    """
    found: list[AskedLimit] = []
    for one in limits:
        text, by, named = one.rpartition(" by ") if isinstance(one, str) else ("", "", "")
        limit = one if isinstance(one, Limit) else _limit(text if by else one)
        on = read_groupings([named], features) if by else groupings
        if isinstance(limit, ChangeLimit) and not limit.improvement:
            on = on[:1]  # it speaks of everybody together, and is judged once
        found += [AskedLimit(limit, each) for each in on]
    return tuple(found)


def _limit(text: str) -> Limit | ChangeLimit:
    return read_change(text) or Limit.fails_on(text)
