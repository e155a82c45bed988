"""Measured gaps against Fairlearn and against hand-made numbers."""

from __future__ import annotations

import numpy as np
import pytest

from fairlayer import constraints as c
from fairlayer.training import Observed, measure

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


def test_mixed_constraints_measure_with_codes_as_with_names() -> None:
    coded = ROWS.coded()
    for constraint in (c.EqualizedOdds("race", 0.1), c.GroupCalibration("sex", 0.1, bins=4)):
        by_code, by_name = measure(constraint, coded, SCORES), measure(constraint, ROWS, SCORES)
        assert (by_code.value, by_code.excess) == (by_name.value, by_name.excess)  # the groups have other names


def test_the_worst_groups_are_named_highest_first() -> None:
    assert measure(c.DemographicParity("sex", 0.1), ROWS, np.where(SEX == "f", 0.2, 0.9)).worst == ("sex=m", "sex=f")
