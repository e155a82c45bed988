"""The tables of lending practice: adverse impact ratio and standardised difference to a named reference group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fairlayer.audit.grouping import plain
from fairlayer.audit.significance import compare, standardised_differences
from fairlayer.audit.table import AuditTable, names_of
from fairlayer.errors import ParameterError

__all__ = ["lending_table"]


def lending_table(
    table: AuditTable, by: str | Sequence[str], reference: str | None, *, level: float = 0.95, practical: float = 0.8
) -> dict[str, Any]:
    """Return every group beside one reference group, which is named beforehand and is not the best one by chance.

        AIR   rate of favourable decisions of the group / that of the reference
        SMD   (mean score of the group - that of the reference) / standard deviation, pooled or of everybody

    Args:
        table: a table with decisions, and with scores for the SMD.
        by: the features whose categories make the groups.
        reference: the name of the reference group, such as "sex=Male".
        level: the level of the intervals.
        practical: a ratio below this is practically significant.

    Raises:
        ParameterError: no reference was named.
        CategoryError: there is no such group.
        MetricError: the table has no decisions.

    Example:
        >>> table = AuditTable.of(
        ...     decisions=[1] * 39 + [0] * 61 + [1] * 50 + [0] * 50,
        ...     sensitive_features={"sex": ["F"] * 100 + ["M"] * 100},
        ... )
        >>> found = lending_table(table, "sex", "sex=M")
        >>> found["groups"][0]["air"], found["groups"][0]["shortfall"]
        (0.78, 11.0)
    """
    by = names_of(by)
    if reference is None:
        names = ", ".join(name for name in table.by(*by).names if name != "unknown")
        raise ParameterError(
            f"a lending table compares with one reference group that is named beforehand. Name one of {names} "
            "(--reference)."
        )
    found = compare(table, "selection_rate", by, reference=reference, level=level, practical=practical)
    scored = "scores" in table.holds
    smd = {one.name: one for one in standardised_differences(table, by, reference=reference)} if scored else {}
    rates = table.values("selection_rate", by)
    return {
        "by": list(by),
        "reference": reference,
        "reference_rate": plain(rates[reference]),
        "practical": practical,
        "groups": [
            {
                "name": one.name,
                "rows": one.rows,
                "rate": plain(one.rate),
                "air": plain(one.ratio),
                "difference": plain(one.difference),
                "low": plain(one.interval.low),
                "high": plain(one.interval.high),
                "test": one.test,
                "p": plain(one.p),
                "q": plain(one.q),
                "odds_ratio": plain(one.odds_ratio),
                "shortfall": plain(one.shortfall),
                "ratio_with_one_more": plain(one.ratio_with_one_more),
                "one_person_changes_it": one.one_person_changes_it,
                "statistical": one.statistical,
                "practical": one.practical,
                "smd_pooled": plain(smd[one.name].of_pooled) if one.name in smd else None,
                "smd_population": plain(smd[one.name].of_population) if one.name in smd else None,
                "smd_p": plain(smd[one.name].p) if one.name in smd else None,
                "small": one.small,
            }
            for one in found.groups
        ],
    }
