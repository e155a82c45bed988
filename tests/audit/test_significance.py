"""Tests of pairs and of strata, against SciPy and the formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fairlayer.audit import AuditTable, MetricError, compare, sides, standardised_differences, stratify
from fairlayer.errors import CategoryError, ParameterError

stats = pytest.importorskip("scipy.stats")
pytest.importorskip("statsmodels")

TOLERANCE = 1e-9


def counted(*groups: tuple[int, int], strata: int = 1) -> AuditTable:
    """Return a table of decisions: (positive ones, rows) of each group, and of each stratum one after the other."""
    decisions = [d for hits, rows in groups for d in [1] * hits + [0] * (rows - hits)]
    size = len(groups) // strata
    place = [(i % size, i // size) for i, (_, rows) in enumerate(groups) for _ in range(rows)]
    return AuditTable.of(
        decisions=decisions,
        sensitive_features={"group": [f"g{g}" for g, _ in place]},
        strata={"job": [f"job{s}" for _, s in place]} if strata > 1 else None,
    )


@pytest.mark.parametrize("seed", range(100))
def test_pairs_equal_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(5, 400, 4)
    hits = rng.binomial(rows, rng.uniform(0.1, 0.9, 4))
    found = compare(
        counted(*zip(hits.tolist(), rows.tolist(), strict=True)), "selection_rate", "group", reference="group=g0"
    )
    cells = np.stack([hits, rows - hits], axis=1)
    p_values = []
    for one, cell in zip(found.groups, cells[1:], strict=True):
        pair = np.stack([cell, cells[0]])
        assert one.p_fisher == pytest.approx(stats.fisher_exact(pair).pvalue, abs=TOLERANCE)
        if pair.sum(axis=0).all():
            chi = stats.chi2_contingency(pair, correction=False)
            assert one.p_z == pytest.approx(chi.pvalue, abs=TOLERANCE)
            assert one.z**2 == pytest.approx(chi.statistic, abs=1e-7)
            assert one.test == ("Fisher" if chi.expected_freq.min() < 5 else "z")
        p_values.append(one.p_fisher if one.test == "Fisher" else one.p_z)
        assert one.shortfall == pytest.approx(hits[0] / rows[0] * one.rows - one.hits)
        assert one.adverse == (one.rate < hits[0] / rows[0])
    expected = stats.false_discovery_control(p_values)
    assert [one.q for one in found.groups] == pytest.approx(expected.tolist(), abs=TOLERANCE)
    if cells.sum(axis=0).all():
        chi = stats.chi2_contingency(cells, correction=False)
        assert (found.chi_squared, found.degrees, found.p) == pytest.approx(
            (chi.statistic, chi.dof, chi.pvalue), abs=1e-7
        )


def test_one_person_may_change_the_finding() -> None:
    """39 of 100 against 50 of 100 is a ratio of 0.78; with one person more it is 0.80."""
    found = compare(counted((39, 100), (50, 100)), "selection_rate", "group", reference="group=g1").groups[0]
    assert found.ratio == pytest.approx(0.78)
    assert found.ratio_with_one_more == pytest.approx(0.80)
    assert found.practical
    assert found.one_person_changes_it
    sure = compare(counted((30, 100), (50, 100)), "selection_rate", "group", reference="group=g1").groups[0]
    assert sure.practical
    assert sure.statistical
    assert not sure.one_person_changes_it
    assert sure.shortfall == pytest.approx(20)


def test_a_large_gap_on_few_people_and_a_small_gap_on_many() -> None:
    few = compare(counted((3, 10), (6, 10)), "selection_rate", "group", reference="group=g1").groups[0]
    assert (few.practical, few.statistical, few.small, few.test) == (True, False, True, "Fisher")
    many = compare(counted((29_000, 60_000), (30_000, 60_000)), "selection_rate", "group", reference="group=g1").groups[
        0
    ]
    assert (many.practical, many.statistical) == (False, True)


def test_the_reference_is_the_best_by_default_and_may_be_named() -> None:
    table = counted((30, 100), (50, 100), (40, 100))
    assert compare(table, "selection_rate", "group").reference == "group=g1"
    named = compare(table, "selection_rate", "group", reference="group=g2")
    assert [one.name for one in named.groups] == ["group=g0", "group=g1"]
    assert [one.adverse for one in named.groups] == [True, False]


def test_errors_that_are_a_burden_fall_short_the_other_way() -> None:
    """20 of 100 false negatives against 10 of 100: ten people too many, and the group is worse off."""
    table = AuditTable.of(
        decisions=[0] * 20 + [1] * 80 + [0] * 10 + [1] * 90,
        y=[1] * 200,
        sensitive_features={"sex": ["F"] * 100 + ["M"] * 100},
    )
    found = compare(table, "false_negative_rate", "sex", reference="sex=M").groups[0]
    assert found.adverse
    assert found.shortfall == pytest.approx(10)
    assert found.practical  # 2.0 is as far from 1 as 0.5
    assert found.ratio_with_one_more == pytest.approx(1.9)


def test_weighted_rows_have_no_exact_test() -> None:
    table = AuditTable.of(
        decisions=[1, 0, 0, 1] * 20,
        sensitive_features={"sex": ["F", "F", "M", "M"] * 20},
        sample_weight=np.linspace(0.5, 1.5, 80),
    )
    found = compare(table, "selection_rate", "sex", reference="sex=M").groups[0]
    assert math.isnan(found.p_fisher)
    assert found.test == "z"


def test_what_cannot_be_compared_is_an_error() -> None:
    table = counted((30, 100), (50, 100))
    with pytest.raises(CategoryError, match="no group 'group=g7'"):
        compare(table, "selection_rate", "group", reference="group=g7")
    with pytest.raises(ParameterError, match="alpha lies between 0 and 1"):
        compare(table, "selection_rate", "group", alpha=5)
    scores = AuditTable.of(scores=[0.1, 0.9], sensitive_features={"sex": ["F", "M"]})
    with pytest.raises(MetricError, match="use standardised_differences"):
        compare(scores, "mean_score", "sex")
    with pytest.raises(MetricError, match="Use compare for rates"):
        standardised_differences(scores, "sex", reference="sex=M", name="selection_rate")


def test_standardised_differences_equal_scipy() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.4, 0.1, 80), rng.normal(0.5, 0.2, 120)
    table = AuditTable.of(scores=np.r_[first, second], sensitive_features={"sex": ["F"] * 80 + ["M"] * 120})
    (found,) = standardised_differences(table, "sex", reference="sex=M")
    pooled = math.sqrt((79 * first.var(ddof=1) + 119 * second.var(ddof=1)) / 198)
    gap = first.mean() - second.mean()
    assert found.of_pooled == pytest.approx(gap / pooled, abs=TOLERANCE)
    assert found.of_population == pytest.approx(gap / np.r_[first, second].std(ddof=1), abs=TOLERANCE)
    assert found.p == pytest.approx(stats.ttest_ind(first, second, equal_var=False).pvalue, abs=TOLERANCE)
    assert found.q == found.p


# Strata


def by_hand(tables: list[np.ndarray]) -> tuple[float, float, float]:
    """Return the odds ratio of Mantel-Haenszel, the p-values of CMH and of Breslow-Day with Tarone's correction."""
    R = sum(t[0, 0] * t[1, 1] / t.sum() for t in tables)
    S = sum(t[0, 1] * t[1, 0] / t.sum() for t in tables)
    odds = R / S
    excess = sum(t[0, 0] - t[0].sum() * t[:, 0].sum() / t.sum() for t in tables)
    variance = sum(
        t[0].sum() * t[1].sum() * t[:, 0].sum() * t[:, 1].sum() / (t.sum() ** 2 * (t.sum() - 1)) for t in tables
    )
    cmh = stats.chi2.sf(excess**2 / variance, 1)
    statistic = difference = spread = 0.0
    for t in tables:
        n1, m1, total = t[0].sum(), t[:, 0].sum(), t.sum()
        # the a with a (total - n1 - m1 + a) = odds (n1 - a) (m1 - a)
        roots = np.roots([1 - odds, total - n1 - m1 + odds * (n1 + m1), -odds * n1 * m1])
        a = next(r for r in roots if max(0, n1 + m1 - total) - 1e-9 <= r <= min(n1, m1) + 1e-9)
        v = 1 / (1 / a + 1 / (n1 - a) + 1 / (m1 - a) + 1 / (total - n1 - m1 + a))
        statistic += (t[0, 0] - a) ** 2 / v
        difference += t[0, 0] - a
        spread += v
    return float(odds), float(cmh), float(stats.chi2.sf(statistic - difference**2 / spread, len(tables) - 1))


@pytest.mark.parametrize("seed", range(100))
def test_strata_equal_the_formulas(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(20, 200, 6)
    hits = np.clip(rng.binomial(rows, rng.uniform(0.2, 0.8, 6)), 1, rows - 1)
    table = counted(*zip(hits.tolist(), rows.tolist(), strict=True), strata=3)
    found = stratify(table, "selection_rate", "group", group="group=g1", reference="group=g0")
    cells = np.stack([hits, rows - hits], axis=1)
    odds, cmh, breslow_day = by_hand([cells[[i + 1, i]].astype(float) for i in (0, 2, 4)])
    assert found.odds_ratio == pytest.approx(odds, abs=TOLERANCE)
    assert found.p_cmh == pytest.approx(cmh, abs=TOLERANCE)
    assert found.p_breslow_day == pytest.approx(breslow_day, abs=TOLERANCE)
    pooled = hits[1::2].sum() / rows[1::2].sum() - hits[::2].sum() / rows[::2].sum()
    weights = rows[1::2] * rows[::2] / (rows[1::2] + rows[::2])
    within = np.average(hits[1::2] / rows[1::2] - hits[::2] / rows[::2], weights=weights)
    assert found.pooled == pytest.approx(pooled, abs=TOLERANCE)
    assert found.stratified == pytest.approx(within, abs=TOLERANCE)
    assert found.reversal == (pooled * within < 0)


def test_a_reversal_within_strata_is_a_headline() -> None:
    """Kidney stones (Charig et al., 1986): treatment A is better for small and for large stones, and worse pooled."""
    table = counted((234, 270), (81, 87), (55, 80), (192, 263), strata=2)  # B, A in small stones; B, A in large ones
    found = stratify(table, "selection_rate", "group", group="group=g1", reference="group=g0")
    assert found.pooled == pytest.approx(273 / 350 - 289 / 350)
    assert found.stratified > 0
    assert found.reversal
    assert found.headline.startswith("REVERSED WITHIN STRATA: group=g1 against group=g0")
    assert [stratum.difference > 0 for stratum in found.strata] == [True, True]


def test_strata_in_which_nobody_is_compared_are_shown_and_say_nothing() -> None:
    table = counted((5, 20), (10, 20), (7, 30), (0, 0), strata=2)
    found = stratify(table, "selection_rate", "group", group="group=g1", reference="group=g0")
    assert found.strata[1].rows == 0
    assert math.isnan(found.strata[1].difference)
    assert found.stratified == pytest.approx(0.25)
    assert math.isnan(found.p_breslow_day)
    nobody = counted((0, 20), (0, 20), (0, 20), (0, 20), strata=2)
    assert math.isnan(stratify(nobody, "selection_rate", "group", group="group=g1", reference="group=g0").p_cmh)


def test_strata_that_are_missing_are_an_error() -> None:
    with pytest.raises(ParameterError, match="there are no strata"):
        stratify(counted((1, 2), (1, 2)), "selection_rate", "group", group="group=g0", reference="group=g1")
    table = counted((5, 20), (10, 20), (7, 30), (9, 30), strata=2)
    with pytest.raises(CategoryError, match="no group 'group=g9', only group=g0, group=g1"):
        stratify(table, "selection_rate", "group", group="group=g9", reference="group=g1")
    assert sides(table, table, "selection_rate", "group").reversed is False
