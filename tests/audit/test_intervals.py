"""Intervals cover the truth of populations that are known, contain their estimate, and never draw a random number."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from fairlayer.audit import AuditTable, Interval, Means, pair_interval, range_interval, ratio_interval
from fairlayer.audit.intervals import group_limits, rows_needed, tukey
from fairlayer.errors import ParameterError
from tests.audit.cases import Case, Seen, all_cases, seen

stats = pytest.importorskip("scipy.stats")

LOWEST, HIGHEST = 0.94, 1.0  # the share of 1,000 draws in which a 95 % interval has to hold the truth
FAST = [
    Case(groups, gap, sizes, 0.3, "one")
    for groups, gap, sizes in [(2, 0.0, "200 each"), (10, 0.05, "3,000 ... 5"), (20, 0.2, "200 each")]
]


def rates(case: Case, draws: int) -> Seen:
    return seen([range_interval(means) for means in case.rates(draws)], case.gap)


def ratios(case: Case, draws: int) -> Seen:
    found = seen([ratio_interval(means) for means in case.rates(draws)], case.means.min() / case.means.max())
    return found._replace(above_zero=0.0)


def odds(case: Case, draws: int) -> Seen:
    return seen([range_interval(blocks) for blocks in case.odds(draws)], case.gap)


def scores(case: Case, draws: int) -> Seen:
    return seen([range_interval(means) for means in case.scores(draws)], case.gap)


KINDS = {"rates": rates, "ratios": ratios, "odds": odds, "scores": scores}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", FAST, ids=str)
def test_the_truth_is_inside(case: Case, kind: str) -> None:
    found = KINDS[kind](case, 200)
    assert found.covered >= 0.92  # 95 % less two deviations of 200 draws
    assert found.contained == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("groups", [2, 5, 10, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_the_truth_is_inside_in_every_case(groups: int, kind: str) -> None:
    bases = (0.12, 0.3, 0.5) if kind == "rates" else (0.3,)
    cases = [case for case in all_cases(bases=bases) if case.groups == groups]
    if kind != "rates":
        cases = [case for case in cases if case.pattern == "one"]
    for case in cases:
        found = KINDS[kind](case, 1000)
        assert LOWEST <= found.covered <= HIGHEST, (case, found)
        assert found.contained == 1.0, (case, found)
        if case.gap == 0:
            assert found.above_zero <= 0.045, (case, found)


@pytest.mark.slow
@pytest.mark.parametrize("groups", [2, 5, 10, 20])
def test_no_gap_is_found_where_there_is_none_also_for_rare_decisions(groups: int) -> None:
    for base in (0.02, 0.05):
        found = rates(Case(groups, 0.0, "3,000 ... 5", base, "one"), 1000)
        assert found.above_zero <= 0.045
        assert found.covered >= LOWEST
        assert found.contained == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(200, 200), (1000, 1000), (200, 200, 200, 200, 200), (1000, 300, 100, 60, 40)])
def test_the_true_gap_of_areas_is_inside(sizes: tuple[int, ...]) -> None:
    """Normal scores, shifted by d for label 1, have the area Phi(d / sqrt 2)."""
    shifts = np.where(np.arange(len(sizes)) == 0, 1.0, 1.5)
    areas = stats.norm.cdf(shifts / np.sqrt(2))
    rng, group = np.random.default_rng(5), np.repeat(np.arange(len(sizes)), sizes)
    intervals = []
    for _ in range(400):
        y = rng.random(len(group)) < 0.4
        table = AuditTable.of(
            scores=rng.normal(size=len(group)) + shifts[group] * y,
            y=y,
            sensitive_features={"group": group},
            min_group_size=0,
        )
        intervals.append(table.disparity("auc", "group").difference)
    found = seen(intervals, np.ptp(areas))
    assert LOWEST <= found.covered <= HIGHEST, found
    assert found.contained == 1.0


@pytest.mark.slow
def test_the_headline_covers_the_groups_that_it_speaks_of() -> None:
    """Groups of 5 to 3,000 rows, weighted: the truth of the headline is that of the groups of 30 rows and more."""
    sizes = np.array([3000, 800, 200, 60, 12, 5])
    true = np.array([0.30, 0.30, 0.33, 0.35, 0.30, 0.60])
    rng, group = np.random.default_rng(6), np.repeat(np.arange(6), sizes)
    headline, everybody = [], []
    for _ in range(1000):
        decisions = rng.random(len(group)) < true[group]
        table = AuditTable.of(
            decisions=decisions,
            sensitive_features={"group": group},
            sample_weight=rng.choice([0.5, 1.0, 1.5], len(group)),
        )
        found = table.disparity("demographic_parity", "group")
        headline.append(found.difference)
        everybody.append(found.with_small)
    assert LOWEST <= seen(headline, 0.05).covered <= HIGHEST
    assert LOWEST <= seen(everybody, 0.30).covered <= HIGHEST  # type: ignore[arg-type]
    assert seen(headline, 0.05).width < seen(everybody, 0.30).width / 2  # type: ignore[arg-type]


@pytest.mark.slow
def test_intervals_are_no_wider_than_they_have_to_be() -> None:
    """When the method was chosen, its mean width over these numbers of groups and gaps was 0.190."""
    cases = [case._replace(groups=groups) for case in all_cases(sizes=("200 each",)) for groups in (2, 3, 5, 10, 20)]
    widths = [rates(case, 100).width for case in set(cases)]
    assert np.mean(widths) <= 1.05 * 0.190


@pytest.mark.slow
@pytest.mark.parametrize("groups", [2, 5, 10, 20])
@pytest.mark.parametrize("sizes", ["200 each", "2,000 each"])
def test_the_estimate_is_near_the_truth(groups: int, sizes: str) -> None:
    for gap in (0.0, 0.02, 0.05, 0.2):
        for pattern in ("one", "spread"):
            case = Case(groups, gap, sizes, 0.3, pattern)
            means = list(case.rates(400))
            bias = seen([range_interval(m) for m in means], gap).bias
            plug_in = np.mean([np.ptp(m.value) for m in means]) - gap
            assert abs(bias) <= 0.03, (case, bias)
            if groups == 20 and gap == 0 and sizes == "200 each":
                assert plug_in > 0.11


@pytest.mark.parametrize("base", [0.05, 0.3])
def test_one_group_far_from_many_keeps_its_place(base: float) -> None:
    """Pulled towards nineteen others, its gap of 0.2 would be read as one of 0.1 where the rates are low."""
    means = list(Case(20, 0.2, "200 each", base, "one").rates(200))
    assert abs(seen([range_interval(m) for m in means], 0.2).bias) <= 0.03


@pytest.mark.slow
@pytest.mark.parametrize("groups", [2, 5, 10])
@pytest.mark.parametrize("gap", [0.0, 0.04, 0.06, 0.1])
def test_wrong_verdicts_are_rare(groups: int, gap: float) -> None:
    """Of a limit of 0.05: "within" where the truth is beyond it, "beyond" where it is within."""
    limit = 0.05
    for sizes in ("200 each", "2,000 each", "3,000 ... 5"):
        found = [range_interval(means) for means in Case(groups, gap, sizes, 0.3, "one").rates(1000)]
        within = np.mean([interval.high <= limit for interval in found])
        beyond = np.mean([interval.low > limit for interval in found])
        assert (within if gap > limit else beyond) <= 0.045, sizes


def test_two_calls_give_the_same_digits() -> None:
    means = next(Case(20, 0.05, "200 each", 0.3, "one").rates(1))
    assert range_interval(means) == range_interval(means)
    assert ratio_interval(means) == ratio_interval(means)


# Against SciPy


def test_limits_of_a_share_are_wilsons() -> None:
    counts = np.array([5.0, 7.0, 30.0, 2000.0, 51.0])
    hits = np.array([0.0, 7.0, 11.0, 300.0, 6.0])
    low, high = group_limits(Means.of_rates(counts, hits))
    for n, x, down, up in zip(counts, hits, low, high, strict=True):
        expected = stats.binomtest(int(x), int(n)).proportion_ci(method="wilson")
        assert (down, up) == pytest.approx((min(expected.low, x / n), max(expected.high, x / n)), abs=1e-12)


@pytest.mark.parametrize(("hits", "exact"), [(1, True), (5, True), (6, False)])
def test_the_inner_limit_of_a_rare_event_is_exact(hits: int, exact: bool) -> None:
    """Clopper and Pearson (1934) up to five hits, or misses; Wilson (1927) beyond, and on the outer side."""
    low, high = group_limits(Means.of_rates(np.array([40.0, 40.0]), np.array([hits, 40.0 - hits])))
    rare = stats.binomtest(hits, 40)
    inner = rare.proportion_ci(method="exact" if exact else "wilson").low
    assert (low[0], 1 - high[1]) == pytest.approx((inner, inner), abs=1e-12)
    assert high[0] == pytest.approx(rare.proportion_ci(method="wilson").high, abs=1e-12)


def test_the_difference_of_two_shares_is_newcombes() -> None:
    """Newcombe (1998), table II, 56/70 against 48/80, method 10: 0.0524 to 0.3339."""
    means = Means.of_rates(np.array([70.0, 80.0]), np.array([56.0, 48.0]))
    interval = pair_interval(means, 0, 1)
    assert (interval.measured, interval.low, interval.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert pair_interval(means, 1, 0).low == pytest.approx(-0.3339, abs=5e-5)


def test_limits_of_a_ratio_solve_their_equation() -> None:
    """MOVER-R by its definition: r is a limit of m1 / m2 where 0 is a limit of m1 - r m2 by square-and-add."""
    from scipy.optimize import brentq

    n, x = np.array([70.0, 80.0]), np.array([36.0, 48.0])
    (l1, _), (_, u2) = group_limits(Means.of_rates(n, x))
    m1, m2 = x / n
    low = brentq(lambda r: m1 - r * m2 - np.hypot(m1 - l1, r * (u2 - m2)), 0.01, m1 / m2)
    assert ratio_interval(Means.of_rates(n, x)).low == pytest.approx(low, abs=1e-9)
    k = tukey(2)
    z = [stats.norm.sf(k) * 2]
    limits = [
        stats.binomtest(int(hits), int(rows)).proportion_ci(1 - z[0], method="wilson")
        for hits, rows in zip(x, n, strict=True)
    ]
    high = brentq(lambda r: m1 - r * m2 + np.hypot(limits[0].high - m1, r * (m2 - limits[1].low)), m1 / m2, 5.0)
    assert ratio_interval(Means.of_rates(n, x)).high == pytest.approx(min(1.0, high), abs=1e-9)


def test_tukeys_constant_of_two_groups_and_of_the_table() -> None:
    """Tables of the studentized range: q(.975; G, inf) / sqrt 2; two groups are a two-sided test at 2.5 %."""
    assert tukey(2) == pytest.approx(stats.norm.ppf(1 - 0.0125), abs=1e-6)
    assert [tukey(groups) for groups in (3, 5, 10, 20)] == pytest.approx([2.60, 2.97, 3.38, 3.75], abs=0.006)
    assert tukey(5, 0.95, 2) > tukey(5, 0.95, 1)


@pytest.mark.parametrize("spread", [[0.0, 0.4], [0.0, 0.0]])
def test_a_group_without_any_error_leaves_an_estimate(spread: list[float]) -> None:
    """The root of a mean squared error of 0 has no slope, so that its variance is not that of the slope."""
    n, square = np.array([200.0, 200.0]), np.array([0.0, 0.09])
    means = Means("root", np.sqrt(square), n, n, np.array(spread))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        interval = range_interval(means)
    assert interval.low <= interval.estimate <= interval.measured == pytest.approx(0.3)
    assert interval.estimate == pytest.approx(0.3, abs=0.02)  # hundreds of rows with small squared errors


def test_a_group_of_one_row_has_limits_and_widens_nothing_to_nan() -> None:
    interval = range_interval(Means.of_numbers(np.array([1.0, 100.0]), np.array([0.9, 50.0]), np.array([0.81, 30.0])))
    assert 0.0 <= interval.low <= interval.measured <= interval.high
    assert interval.high < 2.0


@pytest.mark.parametrize("hits", [[0.0, 0.0], [5.0, 5.0], [0.0, 5.0]])
def test_rates_of_nothing_and_of_everything_are_no_certainty(hits: list[float]) -> None:
    interval = range_interval(Means.of_rates(np.array([5.0, 5.0]), np.array(hits)))
    assert interval.low <= interval.measured <= interval.high
    assert interval.high - interval.low > 0.4


def test_a_perfect_order_is_no_certainty() -> None:
    table = AuditTable.of(
        scores=[0.1, 0.2, 0.8, 0.9] * 2,
        y=[0, 0, 1, 1] * 2,
        sensitive_features={"g": [0] * 4 + [1] * 4},
        min_group_size=0,
    )
    interval = table.disparity("auc", "g").difference
    assert interval.measured == 0.0
    assert interval.high > 0.4


def test_where_there_is_nothing_to_compare_nothing_is_said() -> None:
    alone = Means.of_rates(np.array([10.0, 0.0]), np.array([5.0, 0.0]))
    for interval in (range_interval(alone), ratio_interval(alone), pair_interval(alone, 0, 1), range_interval([])):
        assert not interval.known
        assert str(interval) == "not compared"
    nobody = Means.of_rates(np.array([10.0, 10.0]), np.array([0.0, 0.0]))
    assert np.isnan(ratio_interval(nobody).measured)
    negative = Means.of_numbers(np.array([9.0, 9.0]), np.array([-9.0, 9.0]), np.array([10.0, 10.0]))
    assert np.isnan(ratio_interval(negative).measured)


def test_calibration_errors_have_no_interval() -> None:
    rng = np.random.default_rng(0)
    table = AuditTable.of(
        scores=rng.random(100), y=rng.integers(0, 2, 100), sensitive_features={"g": rng.integers(0, 2, 100)}
    )
    interval = table.disparity("calibration_error", "g").difference
    assert interval.measured > 0
    assert not interval.known
    assert str(interval).endswith("no interval")


def test_the_rows_needed_follow_the_rule() -> None:
    assert rows_needed(0.02, 0.3, 2) == pytest.approx(11_000, rel=0.01)
    assert rows_needed(0.05, 0.3, 2) == pytest.approx(1_760, rel=0.01)
    assert rows_needed(0.05, 0.3, 5) == pytest.approx(1.5 * 1_764, abs=1)
    with pytest.raises(ParameterError, match="between 0 and 1, not 0"):
        rows_needed(0, 0.3, 2)


def test_a_level_outside_its_range_is_an_error() -> None:
    means = Means.of_rates(np.array([10.0, 10.0]), np.array([5.0, 6.0]))
    with pytest.raises(ParameterError, match=r"such as 0\.95, not 95"):
        range_interval(means, 95)


def test_the_interval_is_read_aloud() -> None:
    assert str(Interval(0.056, 0.031, 0.0, 0.082)) == "0.031 (0.000 to 0.082), measured 0.056"
