"""Everything that is said about one grouping: its groups, how far they are apart, and who was moved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fairlayer.audit.criteria import CRITERIA, metrics_of
from fairlayer.audit.disparities import Disparity, MetricByGroup, disparity
from fairlayer.audit.grouped import UNKNOWN
from fairlayer.audit.metrics import metric, metric_names
from fairlayer.audit.people import Movement, Sides, sides
from fairlayer.audit.significance import ReferenceComparison, compare
from fairlayer.audit.table import AuditTable

__all__ = ["Grouping", "grouping_of"]

# The metrics of which a reader asks whether two groups have changed sides; the first ones that a table answers.
_SIDES = ("selection_rate", "mean_score", "mean_residual")


@dataclass(frozen=True)
class Grouping:
    """The groups of one feature, or of several crossed.

    Args:
        by: the features.
        asked: whether the caller named this grouping, or it is shown for its counts alone.
        rows: group -> number of people.
        disparities: criterion or metric -> how far the groups are apart.
        before: the same before, where predictions from before were given.
        comparison: every group's rate of positive decisions beside the reference's; None without decisions.
        sides: who is worse off before and after.
        movement: who was moved; None where nothing from before was given.
        unseen: combinations of categories that nobody has.
        min_group_size: groups of fewer people are small.

    Example:
        >>> from fairlayer.audit import audit
        >>> found = audit(decisions=[1, 0] * 100, sensitive_features={"sex": ["F"] * 150 + ["M"] * 50})
        >>> [grouping] = found.groupings
        >>> grouping.by, grouping.rows, grouping.min_group_size
        (('sex',), {'sex=F': 150.0, 'sex=M': 50.0}, 30)
    """

    by: tuple[str, ...]
    asked: bool
    rows: dict[str, float]
    disparities: dict[str, Disparity]
    before: dict[str, Disparity]
    comparison: ReferenceComparison | None
    sides: tuple[Sides, ...]
    movement: Movement | None
    unseen: tuple[str, ...]
    min_group_size: int

    def standing(self, name: str) -> str:
        """Return "unknown", "small" or "counted", by the number of people."""
        if name == UNKNOWN:
            return "unknown"
        return "small" if self.rows[name] < self.min_group_size else "counted"

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
        total = sum(self.rows.values())
        parts, old = _parts(self.disparities), _parts(self.before)
        return {
            "by": list(self.by),
            "asked": self.asked,
            "groups": [
                {
                    "name": name,
                    "rows": count,
                    "share": count / total,
                    "standing": self.standing(name),
                    "numbers": {each: _number(part, name) for each, part in parts.items()},
                    "before": {each: _number(part, name) for each, part in old.items()},
                }
                for name, count in self.rows.items()
            ],
            "overall": {each: plain(part.overall) for each, part in parts.items()},
            "overall_before": {each: plain(part.overall) for each, part in old.items()},
            "disparities": [_plain_disparity(found, self.before.get(name)) for name, found in self.disparities.items()],
            "decisions": None if self.comparison is None else _plain_comparison(self.comparison),
            "sides": [_plain_sides(each) for each in self.sides],
            "movement": None if self.movement is None else self.movement.to_dict(),
            "unseen": list(self.unseen),
        }


def grouping_of(
    table: AuditTable,
    by: Sequence[str],
    *,
    asked: bool,
    before: AuditTable | None,
    movement: Movement | None,
    reference: str | None,
    level: float,
    practical: float,
) -> Grouping:
    """Compute everything that is said about one grouping."""
    by = tuple(by)
    grouped = table.by(*by)
    rows = dict(zip(grouped.names, grouped.total("rows").tolist(), strict=True))
    return Grouping(
        by,
        asked,
        rows,
        _disparities(table, by, level),
        {} if before is None else _disparities(before, by, level),
        _compared(table, by, reference, level, practical),
        () if before is None else _sides(before, table, by, level),
        movement,
        table.unseen(*by),
        table.min_group_size,
    )


def plain(value: float | None) -> float | None:
    """Return a number that JSON can hold: None for NaN and for infinity."""
    return None if value is None or not math.isfinite(value) else value


def _disparities(table: AuditTable, by: tuple[str, ...], level: float) -> dict[str, Disparity]:
    answered = set(metric_names(table))
    wanted = [name for name, parts in CRITERIA.items() if answered.issuperset(parts)]
    held = {metrics_of(name) for name in wanted}
    wanted += [name for name in metric_names(table) if (name,) not in held]
    return {name: disparity(table, name, by, level=level) for name in wanted}


def _compared(
    table: AuditTable, by: tuple[str, ...], reference: str | None, level: float, practical: float
) -> ReferenceComparison | None:
    if "decisions" not in table.holds:
        return None
    (part,) = disparity(table, "selection_rate", by, level=level).parts
    if reference is None and not any(group.standing == "counted" for group in part.groups):
        return None  # no group has enough people to be a reference
    return compare(table, "selection_rate", by, reference=reference, level=level, practical=practical)


def _sides(before: AuditTable, after: AuditTable, by: tuple[str, ...], level: float) -> tuple[Sides, ...]:
    both = set(metric_names(before)) & set(metric_names(after))
    return tuple(sides(before, after, name, by, level=level) for name in _SIDES if name in both)


def _parts(disparities: dict[str, Disparity]) -> dict[str, MetricByGroup]:
    return {part.metric: part for found in disparities.values() for part in found.parts}


def _number(part: MetricByGroup, name: str) -> dict[str, Any] | None:
    for group in part.groups:
        if group.name == name:
            return {
                "value": plain(group.value),
                "low": plain(group.low),
                "high": plain(group.high),
                "rows": group.rows,
                "standing": group.standing,
            }
    return None


def _plain_disparity(found: Disparity, before: Disparity | None) -> dict[str, Any]:
    told = found.to_dict()
    worst = found.worst
    return {
        "name": found.name,
        "metrics": [part.metric for part in found.parts],
        "words": " and ".join(metric(part.metric).words for part in found.parts),
        "unit": metric(worst.metric).unit,
        "difference": told["difference"],
        "ratio": told["ratio"],
        "with_small": told["with_small"],
        "worst_metric": worst.metric,
        "worse_off": worst.worse_off or None,
        "better_off": worst.better_off or None,
        "left_out": list(dict.fromkeys(group.name for group in found.left_out)),
        "before": None if before is None else before.to_dict()["difference"],
        "worse_off_before": None if before is None else before.worst.worse_off or None,
    }


def _plain_comparison(found: ReferenceComparison) -> dict[str, Any]:
    return {
        "metric": found.metric,
        "reference": found.reference,
        "practical": found.practical,
        "alpha": found.alpha,
        "chi_squared": plain(found.chi_squared),
        "degrees": found.degrees,
        "p": plain(found.p),
        "groups": [
            {
                "name": one.name,
                "rows": one.rows,
                "selected": one.hits,
                "rate": plain(one.rate),
                "difference": plain(one.difference),
                "low": plain(one.interval.low),
                "high": plain(one.interval.high),
                "ratio": plain(one.ratio),
                "odds_ratio": plain(one.odds_ratio),
                "z": plain(one.z),
                "test": one.test,
                "p": plain(one.p),
                "q": plain(one.q),
                "worse_off": one.adverse,
                "shortfall": plain(one.shortfall),
                "statistical": one.statistical,
                "practical": one.practical,
                "ratio_with_one_more": plain(one.ratio_with_one_more),
                "one_person_changes_it": one.one_person_changes_it,
                "small": one.small,
            }
            for one in found.groups
        ],
    }


def _plain_sides(found: Sides) -> dict[str, Any]:
    return {
        "metric": found.metric,
        "before": plain(found.before.measured),
        "after": plain(found.after.measured),
        "worse_before": found.worse_before or None,
        "better_before": found.better_before or None,
        "worse_after": found.worse_after or None,
        "better_after": found.better_after or None,
        "reversed": found.reversed,
        "certain": found.certain,
        "headline": found.headline,
    }
