"""Selection and scoring tables in the form that New York City's rule on hiring tools asks for (6 RCNY 5-301).

    selection rate   people selected / people assessed                       impact ratio   rate / highest rate
    scoring rate     people with a score above the median of the full sample / people assessed

There are three tables (sex; race or ethnicity; both crossed), each with a highest rate of its own. People of an
unknown category are counted, stated, and in no ratio. A category of less than 2 % of the people may be left out of the
ratios by the independent auditor, who then gives the reason; its number and its rate are still printed. The rule names
no limit that a ratio must keep, so nothing here is said to keep or to break one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from fairlayer.audit.grouped import UNKNOWN
from fairlayer.audit.grouping import plain
from fairlayer.audit.reading import numbers
from fairlayer.audit.slots import SELECTED
from fairlayer.audit.table import AuditTable
from fairlayer.errors import ParameterError

__all__ = ["Category", "ImpactAudit", "ImpactTable", "Kind", "impact_audit"]

Kind: TypeAlias = Literal["selection", "scoring"]

SMALL_SHARE = 0.02


@dataclass(frozen=True)
class Category:
    """One line of a table.

    Args:
        name: such as "Female", or "Female, Black or African American".
        assessed: how many people.
        chosen: how many were selected, or scored above the median.
        share: the share of all people assessed, the unknown ones among them.
        left_out: whether it is left out of the ratios, for being less than 2 %.
    """

    name: str
    assessed: float
    chosen: float
    share: float
    left_out: bool

    @property
    def rate(self) -> float:
        """The selection rate, or the scoring rate."""
        return self.chosen / self.assessed if self.assessed else math.nan


@dataclass(frozen=True)
class ImpactTable:
    """One of the three tables.

    Args:
        title: what its categories are.
        categories: the lines.
        unknown: how many people were assessed of whom the category is not known.
    """

    title: str
    categories: tuple[Category, ...]
    unknown: float

    @property
    def highest(self) -> float:
        """The highest rate of a category that takes part in the ratios; NaN where none does."""
        rates = [one.rate for one in self.categories if not one.left_out and one.assessed]
        return max(rates, default=math.nan)

    def ratio(self, category: Category) -> float:
        """Return the impact ratio; NaN for a category that is left out, and where nobody was chosen."""
        return category.rate / self.highest if self.highest > 0 and not category.left_out else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
        return {
            "title": self.title,
            "unknown": self.unknown,
            "categories": [
                {**vars(one), "rate": plain(one.rate), "impact_ratio": plain(self.ratio(one))}
                for one in self.categories
            ],
        }


@dataclass(frozen=True)
class ImpactAudit:
    """The three tables, with what has to stand beside them.

    Args:
        kind: "selection" or "scoring".
        tables: the tables by sex, by race or ethnicity, and by both.
        median: the median of all scores, the unknown people's among them; None for selections.
        at_median: how many people have exactly that score, and so do not count as above it.
        left_out_reason: why categories of less than 2 % were left out; None where none was.

    Example:
        >>> found = impact_audit(sex=["M"] * 4 + ["F"] * 4, race=["A", "B"] * 4, selected=[1, 1, 1, 0, 1, 0, 1, 0])
        >>> found.kind, len(found.tables), found.median
        ('selection', 3, None)
    """

    kind: Kind
    tables: tuple[ImpactTable, ...]
    median: float | None
    at_median: int
    left_out_reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
        return {
            "kind": self.kind,
            "median": self.median,
            "at_median": self.at_median,
            "left_out_reason": self.left_out_reason,
            "tables": [table.to_dict() for table in self.tables],
        }


def impact_audit(
    *,
    sex: Any,
    race: Any,
    scores: Any = None,
    selected: Any = None,
    left_out_reason: str | None = None,
) -> ImpactAudit:
    """Return the selection tables of decisions, or the scoring tables of scores.

    Args:
        sex: (n,) categories; None for unknown.
        race: (n,) categories of race or ethnicity; None for unknown.
        scores: (n,) scores of a tool that scores.
        selected: (n,) of 0 and 1, of a tool that selects. Exactly one of the two is given.
        left_out_reason: the auditor's reason for leaving categories of less than 2 % out of the ratios; all take part
            where none is given.

    Raises:
        ParameterError: not exactly one of scores and selected.
        ShapeError, LabelValueError, NonFiniteScoresError: a column cannot be read.

    Example:
        >>> found = impact_audit(
        ...     sex=["M"] * 4 + ["F"] * 4, race=["A", "B"] * 4, selected=[1, 1, 1, 0, 1, 0, 1, 0]
        ... )
        >>> [(c.name, c.rate, round(found.tables[0].ratio(c), 2)) for c in found.tables[0].categories]
        [('F', 0.5, 0.67), ('M', 0.75, 1.0)]
    """
    if (scores is None) == (selected is None):
        raise ParameterError("give selected= for a tool that selects, or scores= for one that scores.")
    median, at_median = None, 0
    if scores is not None:
        read = numbers("scores", scores, len(scores))
        median = float(np.median(read))
        at_median = int((read == median).sum())
        selected = read > median
    table = AuditTable.of(decisions=selected, sensitive_features={"sex": sex, "race": race})
    titles = {
        ("sex",): "Sex",
        ("race",): "Race or ethnicity",
        ("sex", "race"): "Sex and race or ethnicity together",
    }
    tables = tuple(_table(table, by, title, left_out_reason is not None) for by, title in titles.items())
    kind: Kind = "selection" if scores is None else "scoring"
    return ImpactAudit(kind, tables, median, at_median, left_out_reason)


def _table(table: AuditTable, by: tuple[str, ...], title: str, leave_out: bool) -> ImpactTable:
    grouped = table.by(*by)
    rows = grouped.total("rows")
    chosen = grouped.total("rows", decisions=SELECTED)
    found: Mapping[str, tuple[float, float]] = {
        name: (n, x) for name, n, x in zip(grouped.names, rows.tolist(), chosen.tolist(), strict=True)
    }
    total = float(rows.sum())
    categories = tuple(
        Category(_shown(name, by), n, x, n / total, leave_out and n / total < SMALL_SHARE)
        for name, (n, x) in found.items()
        if name != UNKNOWN
    )
    return ImpactTable(title, categories, found.get(UNKNOWN, (0.0, 0.0))[0])


def _shown(name: str, by: tuple[str, ...]) -> str:
    """Return "F, Black" for "sex=F & race=Black"."""
    for feature in by[1:]:
        name = name.replace(f" & {feature}=", ", ", 1)
    return name.removeprefix(f"{by[0]}=")
