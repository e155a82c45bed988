"""Measured gaps against Fairlearn and against hand-made numbers."""

from __future__ import annotations

import numpy as np
import pytest

from fairlayer import constraints as c
from fairlayer.training import Observed, measure
from fairlayer.training.gaps import measure_with_interval

RANDOM = np.random.default_rng(0)
N = 400
SEX = RANDOM.choice(np.array(["f", "m"], dtype=object), N)
RACE = RANDOM.choice(np.array(["a", "b", "c"], dtype=object), N)
LABELS = (RANDOM.random(N) < 0.4).astype(float)
SCORES = np.clip(RANDOM.random(N) + 0.2 * (SEX == "f") * LABELS, 0, 1)
DECISIONS = SCORES >= 0.5
ROWS = Observed({"sex": SEX, "race": RACE}, LABELS, SCORES)


def value(constraint: c.Constraint, predictions: np.ndarray = SCORES, rows: Observed = ROWS) -> float:
    found = measure(constraint, rows, predictions).value
    assert found is not None
    return found


@pytest.mark.rival
@pytest.mark.parametrize(("name", "column"), [("sex", SEX), ("race", RACE)])
def test_decision_gaps_equal_those_of_fairlearn(name: str, column: np.ndarray) -> None:
    metrics = pytest.importorskip("fairlearn.metrics")
    given = {"sensitive_features": column}
    pairs = [
        (c.DemographicParity(name, 0.1), metrics.demographic_parity_difference),
        (c.EqualizedOdds(name, 0.1), metrics.equalized_odds_difference),
        (c.EqualOpportunity(name, 0.1), metrics.equal_opportunity_difference),
        (c.DisparateImpactRatio(name, 0.8), metrics.demographic_parity_ratio),
    ]
    for constraint, theirs in pairs:
        assert value(constraint, DECISIONS) == pytest.approx(theirs(LABELS, DECISIONS, **given), abs=1e-12)


def test_score_gaps_equal_hand_made_ones() -> None:
    female, male = SEX == "f", SEX == "m"
    means = [SCORES[inside].mean() for inside in (female, male)]
    assert value(c.DemographicParity("sex", 0.1)) == pytest.approx(abs(means[0] - means[1]))
    assert value(c.MinimumRate("sex", 0.3)) == pytest.approx(min(means))
    residuals = [(LABELS - SCORES)[inside].mean() for inside in (female, male)]
    assert value(c.MeanResidualParity("sex", 0.1)) == pytest.approx(max(map(abs, residuals)))
    errors = [np.abs(LABELS - SCORES)[inside].mean() for inside in (female, male)]
    assert value(c.ErrorRateParity("sex", 0.1)) == pytest.approx(abs(errors[0] - errors[1]))
    assert value(c.BoundedGroupLoss("sex", 0.3)) == pytest.approx(max(errors))
    races = [np.equal(RACE, race) for race in "abc"]
    cells = [SCORES[sex & race].mean() for sex in (female, male) for race in races]
    assert value(c.DemographicParity(("sex", "race"), 0.1)) == pytest.approx(max(cells) - min(cells))
    expected = max(abs(SCORES[female & race].mean() - SCORES[male & race].mean()) for race in races)
    assert value(c.ConditionalParity("sex", given="race", tolerance=0.1)) == pytest.approx(expected)


def test_a_covariance_is_measured_on_numbers() -> None:
    age = RANDOM.normal(size=N)
    rows = Observed({"age": age})
    expected = abs(np.mean((age - age.mean()) * SCORES))
    assert value(c.CovarianceBound("age", 0.1), rows=rows) == pytest.approx(expected)


def test_ratios_and_floors_are_bounded_from_below() -> None:
    gap = measure(c.DisparateImpactRatio("sex", 0.8), ROWS, np.where(SEX == "f", 0.5, 0.9))
    assert (gap.value, gap.limit, gap.at_least, gap.kept) == (pytest.approx(5 / 9), 0.8, True, False)
    floor = measure(c.MinimumRate("sex", 0.3), ROWS, np.full(N, 0.4))
    assert (floor.limit, floor.at_least, floor.kept) == (0.3, True, True)


def test_one_group_is_nothing_to_compare_and_not_a_gap_of_zero() -> None:
    rows = Observed({"sex": np.array(["f"] * 5, dtype=object)}, LABELS[:5])
    assert measure(c.DemographicParity("sex", 0.1), rows, SCORES[:5]).value is None
    assert measure(c.EqualizedOdds("sex", 0.1), rows, SCORES[:5]).value is None


def test_unknown_groups_take_no_part() -> None:
    known = Observed({"sex": np.array(["f", "m"], dtype=object)})
    more = Observed({"sex": np.array(["f", "m", None], dtype=object)})
    parity = c.DemographicParity("sex", 0.1)
    assert measure(parity, more, np.array([0.2, 0.5, 9.0])) == measure(parity, known, np.array([0.2, 0.5]))


def test_the_interval_covers_the_value_and_shrinks_with_rows() -> None:
    parity = c.DemographicParity("sex", 0.1)
    [few] = measure_with_interval(parity, ROWS.take(slice(0, 80)), [SCORES[:80]])
    [many] = measure_with_interval(parity, ROWS, [SCORES])
    assert None not in (few.low, few.high, many.low, many.high)
    assert few.high - few.low > many.high - many.low > 0  # type: ignore[operator]
    assert measure(parity, ROWS, SCORES).value == many.value


def test_the_interval_has_about_its_nominal_coverage() -> None:
    """95 % intervals of a gap that is really 0.2, over 200 samples: covered 180 to 200 times."""
    parity = c.DemographicParity("g", 0.1)
    random = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        group = random.choice(np.array(["a", "b"], dtype=object), 120)
        scores = random.random(120) * 0.5 + 0.2 * (group == "a")
        [gap] = measure_with_interval(parity, Observed({"g": group}), [scores], seed=seed)
        covered += gap.low <= 0.2 <= gap.high  # type: ignore[operator]
    assert 180 <= covered <= 200


def test_mixed_constraints_measure_with_codes_as_with_names() -> None:
    coded = ROWS.coded()
    for constraint in (c.EqualizedOdds("race", 0.1), c.GroupCalibration("sex", 0.1, bins=4)):
        by_code, by_name = measure(constraint, coded, SCORES), measure(constraint, ROWS, SCORES)
        assert (by_code.value, by_code.excess) == (by_name.value, by_name.excess)  # the groups have other names


def test_no_interval_excludes_its_own_value() -> None:
    """Many small groups of equal means: a largest difference is biased upwards in every resample."""
    random = np.random.default_rng(3)
    left_out = 0
    for seed in range(3):
        group = random.permutation(np.repeat(np.array([f"g{k}" for k in range(40)], dtype=object), 5))
        scores = 0.5 + 0.02 * random.normal(size=200)
        [gap] = measure_with_interval(c.DemographicParity("g", 0.1), Observed({"g": group}), [scores], seed=seed)
        assert (gap.low is None) == (gap.high is None)
        assert gap.low is None or gap.low <= gap.value <= gap.high  # type: ignore[operator]
        left_out += gap.low is None
    assert left_out  # otherwise there was nothing to withhold


def test_the_worst_groups_are_named_highest_first() -> None:
    assert measure(c.DemographicParity("sex", 0.1), ROWS, np.where(SEX == "f", 0.2, 0.9)).worst == ("sex=m", "sex=f")
