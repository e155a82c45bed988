"""Pooled beside stratified: whether a gap is one within jobs, regions or months, or only between them.

With a table of two groups by hit or miss in every stratum s (a_s hits of n_s rows against c_s of m_s, N_s together):

    stratified difference   sum_s w_s (a_s / n_s - c_s / m_s) / sum_s w_s,      w_s = n_s m_s / N_s    (Mantel-Haenszel)

The Cochran-Mantel-Haenszel test asks whether the odds are equal within the strata, that of Breslow and Day (with
Tarone's correction) whether the odds ratio is one and the same in all of them. Where the pooled and the stratified
difference have opposite signs, the pooled one misleads (Simpson): that is a headline.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairlayer.audit.errors import MetricError
from fairlayer.audit.metrics import measure
from fairlayer.audit.table import AuditTable, names_of
from fairlayer.errors import CategoryError, ParameterError, require

__all__ = ["Stratified", "Stratum", "stratify"]


@dataclass(frozen=True)
class Stratum:
    """Two groups within one stratum.

    Args:
        name: such as "region=north".
        hits: how many people of the group the rate counts.
        rows: the people of the group (effective ones, where rows are weighted).
        reference_hits: how many people of the reference the rate counts.
        reference_rows: the people of the reference.
        difference: the group's rate minus the reference's; NaN where one of them has no row.

    Example:
        >>> table = AuditTable.of(
        ...     decisions=[1] * 56 + [0] * 24 + [1] * 15 + [0] * 5 + [1] * 4 + [0] * 16 + [1] * 20 + [0] * 60,
        ...     sensitive_features={"sex": ["M"] * 80 + ["F"] * 20 + ["M"] * 20 + ["F"] * 80},
        ...     strata={"job": ["easy"] * 100 + ["hard"] * 100},
        ... )
        >>> easy = stratify(table, "selection_rate", "sex", group="sex=F", reference="sex=M").strata[0]
        >>> easy.name, easy.rows, easy.reference_rows, round(easy.difference, 3)
        ('job=easy', 20.0, 80.0, 0.05)
    """

    name: str
    hits: float
    rows: float
    reference_hits: float
    reference_rows: float
    difference: float


@dataclass(frozen=True)
class Stratified:
    """The gap of two groups pooled, and within strata.

    Args:
        metric: the rate.
        group: the group.
        reference: what it is compared with.
        strata: every stratum with its counts, those that compare nothing among them.
        pooled: the difference of the two rates over all strata, rows of an unknown stratum among them.
        stratified: the mean of the differences within strata, by the weights of Mantel and Haenszel.
        odds_ratio: the pooled odds ratio of Mantel and Haenszel.
        p_cmh: p-value of the Cochran-Mantel-Haenszel test: are the odds equal within strata?
        p_breslow_day: p-value of the Breslow-Day test: is the odds ratio the same in all strata?
        reversal: whether the pooled and the stratified difference have opposite signs.

    Example:
        >>> table = AuditTable.of(
        ...     decisions=[1] * 56 + [0] * 24 + [1] * 15 + [0] * 5 + [1] * 4 + [0] * 16 + [1] * 20 + [0] * 60,
        ...     sensitive_features={"sex": ["M"] * 80 + ["F"] * 20 + ["M"] * 20 + ["F"] * 80},
        ...     strata={"job": ["easy"] * 100 + ["hard"] * 100},
        ... )
        >>> found = stratify(table, "selection_rate", "sex", group="sex=F", reference="sex=M")
        >>> found.headline[:74]
        'REVERSED WITHIN STRATA: sex=F against sex=M in selection_rate: -0.250 pool'
    """

    metric: str
    group: str
    reference: str
    strata: tuple[Stratum, ...]
    pooled: float
    stratified: float
    odds_ratio: float
    p_cmh: float
    p_breslow_day: float
    reversal: bool

    @property
    def headline(self) -> str:
        """A sentence; a reversal comes first."""
        text = (
            f"{self.group} against {self.reference} in {self.metric}: {self.pooled:+.3f} pooled, "
            f"{self.stratified:+.3f} within strata (CMH p {self.p_cmh:.3g}, Breslow-Day p {self.p_breslow_day:.3g})."
        )
        return f"REVERSED WITHIN STRATA: {text}" if self.reversal else text


def stratify(
    table: AuditTable,
    name: str,
    by: str | Sequence[str],
    *,
    group: str,
    reference: str,
    strata: str | Sequence[str] = (),
) -> Stratified:
    """Compare two groups pooled and within strata.

    Args:
        table: a table that was made with `strata=`.
        name: a metric that is a rate, such as "selection_rate".
        by: the features whose categories make the groups.
        group: the name of a group, such as "sex=F".
        reference: the name of the other.
        strata: the columns within which they are compared; by default all strata of the table, crossed.

    Raises:
        ParameterError: the table has no strata.
        CategoryError: there is no such group.
        MetricError: the metric is not a rate, or the table cannot answer it.
        MissingExtraError: statsmodels is not installed.

    Source: Mantel and Haenszel (1959), Breslow and Day (1980), Tarone (1985); the tests are those of statsmodels.

    Example:
        >>> table = AuditTable.of(
        ...     decisions=[1] * 56 + [0] * 24 + [1] * 15 + [0] * 5 + [1] * 4 + [0] * 16 + [1] * 20 + [0] * 60,
        ...     sensitive_features={"sex": ["M"] * 80 + ["F"] * 20 + ["M"] * 20 + ["F"] * 80},
        ...     strata={"job": ["easy"] * 100 + ["hard"] * 100},
        ... )
        >>> found = stratify(table, "selection_rate", "sex", group="sex=F", reference="sex=M")
        >>> round(found.pooled, 3), round(found.stratified, 3), found.reversal
        (-0.25, 0.05, True)
    """
    columns = names_of(strata) or table.strata
    if not columns:
        raise ParameterError("there are no strata to compare within: make the table with strata={'name': column}.")
    overall = _stratum("all", table, name, names_of(by), (group, reference), strict=True)
    sizes = [table.categories[(table.features + table.strata).index(column)] for column in columns]
    found = tuple(
        _stratum(
            " & ".join(f"{column}={category}" for column, category in zip(columns, chosen, strict=True)),
            table.within(**dict(zip(columns, chosen, strict=True))),
            name,
            names_of(by),
            (group, reference),
        )
        for chosen in itertools.product(*sizes)
    )
    compared = [stratum for stratum in found if stratum.rows > 0 and stratum.reference_rows > 0]
    odds_ratio, p_cmh, p_breslow_day = _tests(compared)
    stratified = _mantel_haenszel(compared)
    return Stratified(
        name,
        group,
        reference,
        found,
        overall.difference,
        stratified,
        odds_ratio,
        p_cmh,
        p_breslow_day,
        overall.difference * stratified < 0,
    )


def _stratum(
    label: str, table: AuditTable, name: str, by: tuple[str, ...], pair: tuple[str, str], *, strict: bool = False
) -> Stratum:
    grouped = table.by(*by)
    counts = []
    for wanted in pair:
        if wanted not in grouped.names:
            if strict:
                raise CategoryError(f"there is no group '{wanted}', only {', '.join(grouped.names)}.")
            counts += [0.0, 0.0]
            continue
        means = measure(table, name, grouped)
        if means.kind != "rate":
            raise MetricError(f"strata are compared by a rate, and '{name}' is none.")
        place = grouped.names.index(wanted)
        rows = float(means.count[place])
        counts += [rows * float(means.value[place]) if rows else 0.0, rows]
    hits, rows, reference_hits, reference_rows = counts
    known = rows > 0 and reference_rows > 0
    difference = hits / rows - reference_hits / reference_rows if known else math.nan
    return Stratum(label, hits, rows, reference_hits, reference_rows, difference)


def _mantel_haenszel(strata: Sequence[Stratum]) -> float:
    weights = [s.rows * s.reference_rows / (s.rows + s.reference_rows) for s in strata]
    if not weights:
        return math.nan
    return sum(w * s.difference for w, s in zip(weights, strata, strict=True)) / sum(weights)


def _tests(strata: Sequence[Stratum]) -> tuple[float, float, float]:
    """Return the pooled odds ratio and the two p-values; NaN where the tables say nothing."""
    tables = [
        np.array([[s.hits, s.rows - s.hits], [s.reference_hits, s.reference_rows - s.reference_hits]])
        for s in strata
        if 0 < s.hits + s.reference_hits < s.rows + s.reference_rows
    ]
    if not tables:
        return math.nan, math.nan, math.nan
    contingency = require("statsmodels.stats.contingency_tables", "audit")
    stratified = contingency.StratifiedTable(tables)
    with np.errstate(divide="ignore", invalid="ignore"):
        odds_ratio = float(stratified.oddsratio_pooled)
        equal = math.nan
        if len(tables) > 1 and 0 < odds_ratio < math.inf:
            equal = float(stratified.test_equal_odds(adjust=True).pvalue)
        return odds_ratio, float(stratified.test_null_odds(correction=False).pvalue), equal
