"""Is a gap more than chance, and does it matter: tests, shortfalls in persons, and strata.

Statistical significance says that chance alone rarely makes such a gap; with many rows it does so for gaps that do not
matter. Practical significance says that the gap is large: a ratio below a bound, a number of persons. Each is printed
beside the other, together with whether one person more would change either of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.audit.disparities import MetricByGroup, disparity
from fairlayer.audit.errors import MetricError
from fairlayer.audit.intervals import Interval, pair_interval
from fairlayer.audit.metrics import measure, metric
from fairlayer.audit.table import AuditTable, names_of
from fairlayer.errors import CategoryError, ParameterError, require

__all__ = ["ReferenceComparison", "Significance", "StandardisedDifference", "compare", "standardised_differences"]

_WHOLE = 1e-9  # how far a number of persons may be from a whole number


@dataclass(frozen=True)
class Significance:
    """A group beside the reference group, in a rate.

    Args:
        name: the group.
        rows: the persons that its rate stands on (effective ones, where rows are weighted).
        hits: how many of them count.
        rate: hits / rows.
        difference: its rate minus the reference's.
        interval: limits of the difference (Newcombe).
        ratio: its rate over the reference's, NaN where that is 0.
        odds_ratio: odds over odds, NaN where not defined.
        z: the difference in standard deviations, with the pooled rate.
        p_z: two-sided p-value of z; that of the chi-squared test of the two-by-two table.
        p_fisher: two-sided p-value of Fisher's exact test; NaN where rows are weighted.
        test: "Fisher" where an expected count is below 5, else "z": whose p-value counts.
        p: that p-value.
        q: the same by Benjamini and Hochberg, over all groups compared.
        adverse: whether the group is worse off than the reference.
        shortfall: by how many persons the group falls short of the reference's rate; negative where it is above.
        statistical: whether q is below alpha.
        practical: whether the ratio, the smaller over the larger, is below the bound.
        ratio_with_one_more: the ratio, were one person more of this group treated well.
        one_person_changes_it: whether that person would change `statistical` (by p) or `practical`.
        small: whether the group has fewer rows than `min_group_size`.

    Example:
        >>> decided, sex = [1] * 39 + [0] * 61 + [1] * 50 + [0] * 50, ["F"] * 100 + ["M"] * 100
        >>> table = AuditTable.of(decisions=decided, sensitive_features={"sex": sex})
        >>> women = compare(table, "selection_rate", "sex", reference="sex=M").groups[0]
        >>> women.ratio, women.practical, women.statistical, round(women.p, 3)
        (0.78, True, False, 0.118)
    """

    name: str
    rows: float
    hits: float
    rate: float
    difference: float
    interval: Interval
    ratio: float
    odds_ratio: float
    z: float
    p_z: float
    p_fisher: float
    test: str
    p: float
    q: float
    adverse: bool
    shortfall: float
    statistical: bool
    practical: bool
    ratio_with_one_more: float
    one_person_changes_it: bool
    small: bool

    def __str__(self) -> str:
        text = (
            f"{self.name}: ratio {self.ratio:.2f}, difference {100 * self.difference:+.1f} points, z {self.z:+.1f}, "
            f"{self.test} p {self.p:.3g} (q {self.q:.3g}), shortfall {self.shortfall:.0f} people, "
            f"one person more: {self.ratio_with_one_more:.2f}"
        )
        return f"{text}, which changes the finding" if self.one_person_changes_it else text


@dataclass(frozen=True)
class ReferenceComparison:
    """All groups beside one reference group.

    Args:
        metric: the rate compared.
        by: the features whose categories make the groups.
        reference: the group that the others are compared with.
        groups: the others.
        chi_squared: the statistic of the test that all groups, the reference among them, have one rate.
        degrees: its degrees of freedom.
        p: its p-value.
        alpha: the share of chance findings that is allowed.
        practical: the bound of the ratio.

    Example:
        >>> table = AuditTable.of(
        ...     decisions=[1] * 39 + [0] * 61 + [1] * 50 + [0] * 50,
        ...     sensitive_features={"sex": ["F"] * 100 + ["M"] * 100},
        ... )
        >>> print(compare(table, "selection_rate", "sex", reference="sex=M").groups[0])
        sex=F: ratio 0.78, difference -11.0 points, z -1.6, z p 0.118 (q 0.118), shortfall 11 people, one person
        more: 0.80, which changes the finding
    """

    metric: str
    by: tuple[str, ...]
    reference: str
    groups: tuple[Significance, ...]
    chi_squared: float
    degrees: int
    p: float
    alpha: float
    practical: float


def compare(
    table: AuditTable,
    name: str,
    by: str | Sequence[str],
    *,
    reference: str | None = None,
    alpha: float = 0.05,
    practical: float = 0.8,
    level: float = 0.95,
) -> ReferenceComparison:
    """Test every group against a reference.

    Args:
        table: what was counted.
        name: a metric that is a rate, such as "selection_rate".
        by: the features whose categories make the groups.
        reference: the name of a group; by default the best one of the headline, which favours finding a gap.
        alpha: the share of chance findings that is allowed.
        practical: a ratio below this is practically significant.
        level: the level of the intervals.

    Raises:
        MetricError: the metric is not a rate, or the table cannot answer it.
        CategoryError: there is no such reference.
        ParameterError: alpha or practical is not between 0 and 1.

    Source: 29 CFR 1607.4 D for the two kinds of significance; Benjamini and Hochberg (1995) for q.

    Example:
        >>> decided, sex = [1] * 39 + [0] * 61 + [1] * 50 + [0] * 50, ["F"] * 100 + ["M"] * 100
        >>> table = AuditTable.of(decisions=decided, sensitive_features={"sex": sex})
        >>> found = compare(table, "selection_rate", "sex", reference="sex=M")
        >>> [(group.name, group.ratio, round(group.p, 3)) for group in found.groups]
        [('sex=F', 0.78, 0.118)]
    """
    for what, value in (("alpha", alpha), ("practical", practical)):
        if not 0 < value < 1:
            raise ParameterError(f"{what} lies between 0 and 1, but is {value!r}.")
    (part,) = disparity(table, metric(name).name, names_of(by), level=level).parts
    if part.means.kind != "rate":
        raise MetricError(f"persons are counted for a rate, and '{name}' is none: use standardised_differences.")
    names = [group.name for group in part.groups]
    reference = reference or part.better_off or next((g.name for g in part.groups if g.standing == "counted"), "")
    if reference not in names:
        raise CategoryError(f"there is no group '{reference}' to compare with, only {', '.join(names)}.")
    base = names.index(reference)
    setting = _Setting(metric(name).lower_is_worse(table.favourable), alpha, practical)
    found = [
        _significance(part, place, base, setting)
        for place, group in enumerate(part.groups)
        if place != base and group.standing in ("counted", "small")
    ]
    chi_squared, degrees, p = _homogeneity(part)
    return ReferenceComparison(
        name, names_of(by), reference, _with_rates(found, alpha), chi_squared, degrees, p, alpha, practical
    )


@dataclass(frozen=True)
class StandardisedDifference:
    """A group's mean score beside the reference's, in standard deviations (SMD).

    Args:
        name: the group.
        rows: its rows.
        difference: its mean minus the reference's, in units of the score.
        of_pooled: the difference over the pooled deviation within the two groups.
        of_population: the difference over the deviation of all rows.
        p: two-sided p-value of Welch's test, with effective rows.
        q: the same by Benjamini and Hochberg, over all groups compared.

    Example:
        >>> table = AuditTable.of(scores=[0.2, 0.4, 0.5, 0.7], sensitive_features={"sex": ["F", "F", "M", "M"]})
        >>> [women] = standardised_differences(table, "sex", reference="sex=M")
        >>> women.name, round(women.difference, 3), round(women.of_pooled, 3), round(women.of_population, 3)
        ('sex=F', -0.3, -2.121, -1.441)
    """

    name: str
    rows: float
    difference: float
    of_pooled: float
    of_population: float
    p: float
    q: float


def standardised_differences(
    table: AuditTable, by: str | Sequence[str], *, reference: str, name: str = "mean_score"
) -> tuple[StandardisedDifference, ...]:
    """Return the standardised mean difference of every group from a reference.

    Args:
        by: the features whose categories make the groups.
        name: the name of the number that is compared.

    Raises:
        MetricError: the metric is not a mean, or the table cannot answer it.
        CategoryError: there is no such reference.

    Example:
        >>> table = AuditTable.of(scores=[0.2, 0.4, 0.5, 0.7], sensitive_features={"sex": ["F", "F", "M", "M"]})
        >>> round(standardised_differences(table, "sex", reference="sex=M")[0].of_pooled, 3)
        -2.121
    """
    stats = require("scipy.stats", "audit")
    grouped = table.by(*names_of(by))
    means = measure(table, name, grouped)
    if means.kind != "mean":
        raise MetricError(f"a standardised difference is one of means, and '{name}' is none. Use compare for rates.")
    if reference not in grouped.names:
        raise CategoryError(f"there is no group '{reference}' to compare with, only {', '.join(grouped.names)}.")
    base = grouped.names.index(reference)
    everybody = measure(table, name, table.by())
    population = _deviation(everybody.spread[0], everybody.count[0])
    variance = [_deviation(spread, count) ** 2 for spread, count in zip(means.spread, means.count, strict=True)]
    found = []
    for place in grouped.known.tolist():
        if place == base or not means.seen[place]:
            continue
        difference = float(means.value[place] - means.value[base])
        degrees = means.count[place] + means.count[base] - 2
        pooled = math.sqrt((means.spread[place] + means.spread[base]) / degrees) if degrees > 0 else math.nan
        welch = stats.ttest_ind_from_stats(
            means.value[place],
            math.sqrt(variance[place]),
            means.count[place],
            means.value[base],
            math.sqrt(variance[base]),
            means.count[base],
            equal_var=False,
        )
        found.append(
            StandardisedDifference(
                grouped.names[place],
                float(means.rows[place]),
                difference,
                _quotient(difference, pooled),
                _quotient(difference, population),
                float(welch.pvalue),
                math.nan,
            )
        )
    return tuple(replace(one, q=q) for one, q in zip(found, adjusted([one.p for one in found]), strict=True))


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Return the p-values by Benjamini and Hochberg; NaN stays NaN and counts for nothing.

    Example:
        >>> [round(q, 3) for q in adjusted([0.01, 0.04, 0.03])]
        [0.03, 0.04, 0.04]
    """
    stats = require("scipy.stats", "audit")
    p = np.array(p_values, dtype=np.float64)
    q, known = p.copy(), ~np.isnan(p)
    if known.any():
        q[known] = stats.false_discovery_control(p[known], method="bh")
    return [float(value) for value in q]


@dataclass(frozen=True)
class _Setting:
    lower_is_worse: bool
    alpha: float
    practical: float


def _significance(part: MetricByGroup, place: int, base: int, setting: _Setting) -> Significance:
    n, x = _counts(part, place)
    n0, x0 = _counts(part, base)
    rate, other = x / n, x0 / n0
    z, p_z, p_fisher, test, p = _tests(x, n, x0, n0)
    sign = 1 if setting.lower_is_worse else -1
    better = min(max(x + sign, 0.0), n)
    p_better = _tests(better, n, x0, n0)[4]
    ratio, ratio_better = _quotient(rate, other), _quotient(better / n, other)
    changes = (p < setting.alpha) != (p_better < setting.alpha) or _low(ratio, setting) != _low(ratio_better, setting)
    return Significance(
        part.groups[place].name,
        n,
        x,
        rate,
        rate - other,
        pair_interval(part.means, place, base, part.level),
        ratio,
        _quotient(x * (n0 - x0), (n - x) * x0),
        z,
        p_z,
        p_fisher,
        test,
        p,
        math.nan,
        sign * (rate - other) < 0,
        sign * (other * n - x),
        False,
        _low(ratio, setting),
        ratio_better,
        changes,
        part.groups[place].standing == "small",
    )


def _with_rates(found: list[Significance], alpha: float) -> tuple[Significance, ...]:
    """Return the groups with their q, over all of them."""
    rates = adjusted([one.p for one in found])
    return tuple(replace(one, q=q, statistical=q < alpha) for one, q in zip(found, rates, strict=True))


def _counts(part: MetricByGroup, place: int) -> tuple[float, float]:
    n = float(part.means.count[place])
    return n, float(part.means.value[place]) * n


def _tests(x: float, n: float, x0: float, n0: float) -> tuple[float, float, float, str, float]:
    """Return z, its p-value, Fisher's p-value, the test that counts, and its p-value."""
    stats = require("scipy.stats", "audit")
    pooled = (x + x0) / (n + n0)
    deviation = math.sqrt(max(pooled * (1 - pooled), 0.0) * (1 / n + 1 / n0))
    z = (x / n - x0 / n0) / deviation if deviation > 0 else 0.0
    p_z = float(2 * stats.norm.sf(abs(z)))
    cells = [x, n - x, x0, n0 - x0]
    whole = all(abs(cell - round(cell)) < _WHOLE * max(1.0, cell) for cell in cells)
    p_fisher = math.nan
    if whole:
        p_fisher = float(stats.fisher_exact(np.array(cells).round().astype(np.int64).reshape(2, 2)).pvalue)
    few = min(n, n0) * min(pooled, 1 - pooled) < 5
    return (z, p_z, p_fisher, "Fisher", p_fisher) if few and whole else (z, p_z, p_fisher, "z", p_z)


def _homogeneity(part: MetricByGroup) -> tuple[float, int, float]:
    """Return the chi-squared test that all groups shown, but the unknown one, have one rate."""
    stats = require("scipy.stats", "audit")
    places = [i for i, group in enumerate(part.groups) if group.standing in ("counted", "small")]
    cells = np.array([[x, n - x] for n, x in (_counts(part, place) for place in places)], dtype=np.float64)
    if len(cells) < 2 or (cells.sum(axis=0) <= 0).any():
        return 0.0, max(len(cells) - 1, 0), 1.0
    result = stats.chi2_contingency(cells, correction=False)
    return float(result.statistic), int(result.dof), float(result.pvalue)


def _low(ratio: float, setting: _Setting) -> bool:
    return not math.isnan(ratio) and min(ratio, _quotient(1.0, ratio)) < setting.practical if ratio else ratio == 0


def _deviation(spread: FloatArray | float, count: FloatArray | float) -> float:
    return math.sqrt(float(spread) / (float(count) - 1)) if count > 1 else math.nan


def _quotient(a: Any, b: Any) -> float:
    return float(a) / float(b) if b else math.nan
