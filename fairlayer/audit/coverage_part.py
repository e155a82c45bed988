"""The part of a document on intervals and sets: how often they hold the truth, for everybody and in every group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fairlayer.audit.covering import Coverage, Covered, coverage
from fairlayer.audit.grouping import plain

__all__ = ["coverage_section"]

_INTERVAL = ("measured", "estimate", "low", "high", "level")


def coverage_section(
    y: Any,
    *,
    nominal: float,
    sensitive_features: Any,
    groupings: Sequence[tuple[str, ...]],
    intervals: tuple[Any, Any] | None = None,
    sets: Any = None,
    min_group_size: int = 30,
) -> list[dict[str, Any]]:
    """Return, for every grouping, how often intervals or sets hold the truth; see `coverage` for the arguments."""
    given: dict[str, Any] = {"intervals": intervals, "sets": sets, "min_group_size": min_group_size}
    what = "intervals" if sets is None else "sets"
    given |= {"nominal": nominal, "sensitive_features": sensitive_features}
    return [_plain(by, coverage(y, by=by, **given), what, len(y)) for by in groupings]


def _plain(by: tuple[str, ...], found: Coverage, what: str, rows: int) -> dict[str, Any]:
    return {
        "by": list(by),
        "what": what,
        "nominal": found.nominal,
        "rows": rows,
        "everybody": _covered(found.everybody),
        "groups": [_covered(group) for group in found.groups],
        "difference": {name: plain(getattr(found.difference, name)) for name in _INTERVAL},
        "sentences": _sentences(found, what),
    }


def _covered(one: Covered) -> dict[str, Any]:
    told = {name: plain(getattr(one, name)) for name in ("rows", "share", "low", "high", "size")}
    return {"name": one.name, **told, "short": bool(one.short), "standing": one.standing}


def _sentences(found: Coverage, what: str) -> list[str]:
    whole, wanted = found.everybody, f"{100 * found.nominal:g} of 100"
    told = [f"{wanted} {what} were to hold the truth; over all people {100 * whole.share:.1f} of 100 do."]
    if whole.short:
        told.append("That is short by more than chance can explain.")
    short = [group for group in found.groups if group.short and group.standing == "counted"]
    told += [
        f"{group.name} is short by more than chance can explain: {100 * group.share:.1f} of 100, of {group.rows:,.0f}."
        for group in short
    ]
    if not whole.short and not short:
        told.append("No group with enough people is short by more than chance can explain.")
    return told
