"""The gap that a rule is expected to show, against fresh samples of populations whose truth is known."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest

import fairlayer as fl
from fairlayer.decisions import CellRule, DecisionRule
from fairlayer.decisions.expected import Spreading, _spreading
from fairlayer.errors import FairlayerWarning, MissingLabelsError, ParameterError

SIZES = np.array([400, 300, 60, 50])


def population(random: np.random.Generator, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    group = np.repeat(np.arange(len(sizes)), sizes)
    scores = 1 / (1 + np.exp(-random.normal(0.2 * group, 1.0)))
    return scores, group.astype(str), (random.uniform(size=len(scores)) < scores).astype(np.float64)


def gap(decisions: np.ndarray, group: np.ndarray, labels: np.ndarray | None = None) -> float:
    if labels is not None:
        return max(gap(decisions[labels == k], group[labels == k]) for k in (0, 1))
    rates = [decisions[group == g].mean() for g in np.unique(group)]
    return float(max(rates) - min(rates))


@pytest.mark.parametrize("labelled", [False, True])
def test_it_covers_what_new_rows_and_the_population_show(labelled: bool) -> None:
    constraint = (fl.EqualizedOdds if labelled else fl.DemographicParity)("g", tolerance=0.02)
    inside = {"new": 0, "long": 0}
    means, expected = [], []
    for seed in range(30):
        random = np.random.default_rng(seed)
        scores, group, y = population(random, SIZES)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FairlayerWarning)
            rule = DecisionRule.fit(scores, constraint, sensitive_features={"g": group}, y=y, randomised=labelled)
        found = rule.expected_gap(constraint)
        scores, group, y = population(random, SIZES)
        decided = rule.apply(scores, sensitive_features={"g": group}, seed=1).numpy()
        shown = gap(decided, group, y if labelled else None)
        inside["new"] += found.new_rows.low <= shown <= found.new_rows.high
        means.append(shown)
        expected.append(found.new_rows.mean)
        scores, group, y = population(random, SIZES * 100)
        decided = rule.apply(scores, sensitive_features={"g": group}, seed=1).numpy()
        truth = gap(decided, group, y if labelled else None)
        inside["long"] += found.long_run.low <= truth <= found.long_run.high
        assert found.long_run.mean < found.new_rows.mean
        assert 0 < found.without < found.new_rows.mean
    assert inside["new"] >= 26
    assert inside["long"] >= 25
    assert np.mean(means) == pytest.approx(np.mean(expected), rel=0.25)


def fitted(n: int, **more: object) -> DecisionRule:
    random = np.random.default_rng(0)
    scores, group, y = population(random, SIZES[:2] * n)
    labels = {"y": y} if more.pop("labels", False) else {}
    parity = fl.DemographicParity("g", tolerance=0.01)
    return DecisionRule.fit(scores, parity, sensitive_features={"g": group}, **labels)


def test_small_cells_are_warned_of_and_named_and_large_ones_not() -> None:
    random = np.random.default_rng(0)
    scores, group, _ = population(random, SIZES)
    parity = fl.DemographicParity("g", tolerance=0.02)
    with pytest.warns(FairlayerWarning, match=r"long run a gap of 0\.1.*g=3 \(50 rows\)"):
        DecisionRule.fit(scores, parity, sensitive_features={"g": group})
    with warnings.catch_warnings():
        warnings.simplefilter("error", FairlayerWarning)
        fitted(100)


def test_more_new_rows_come_nearer_to_the_long_run() -> None:
    rule, parity = fitted(1), fl.DemographicParity("g", tolerance=0.01)
    few, many = rule.expected_gap(parity, sizes=100), rule.expected_gap(parity, sizes=1_000_000)
    assert few.new_rows.mean > 2 * many.new_rows.mean
    assert many.new_rows.mean == pytest.approx(many.long_run.mean, rel=0.05)
    assert rule.expected_gap(parity, sizes={"g=0": 40, "g=1": 40}).new_rows.mean > many.new_rows.mean
    with pytest.raises(ParameterError, match="'g=9'"):
        rule.expected_gap(parity, sizes={"g=9": 40})


def test_labels_are_needed_for_constraints_on_labels_and_travel_in_json() -> None:
    odds = fl.EqualizedOdds("g", tolerance=0.1)
    with pytest.raises(MissingLabelsError, match="fitted without labels"):
        fitted(1).expected_gap(odds)
    rule = fitted(1, labels=True)
    again = DecisionRule.from_dict(json.loads(json.dumps(rule.to_dict())))
    assert again == rule
    assert again.expected_gap(odds) == rule.expected_gap(odds)
    assert "in the long run" in str(rule.expected_gap(odds))


def test_the_interval_holds_the_middle_95_percent_of_the_draws() -> None:
    found = _spreading(np.random.default_rng(0).permutation(1001).astype(float))
    assert found == Spreading(500.0, pytest.approx(25.0), pytest.approx(975.0))


@pytest.mark.parametrize("labels", [None, ((6.0, 0.0), (4.0, 0.0))])
def test_a_threshold_that_selects_nobody_or_everybody_stays_at_that(labels: object) -> None:
    everybody = None if labels is None else tuple((n, n) for n, _ in labels)  # type: ignore[attr-defined]
    constraint = fl.DemographicParity("g", 0.1) if labels is None else fl.EqualizedOdds("g", 0.1)
    none = CellRule(("a",), (), (), 10, 0.0, labels)  # type: ignore[arg-type]
    whole = CellRule(("b",), (-math.inf,), (1.0,), 10, 1.0, everybody)
    alike = DecisionRule(("g",), (none, CellRule(("c",), (), (), 9, 0.0, none.by_label)), False)
    assert alike.expected_gap(constraint).new_rows == alike.expected_gap(constraint).long_run == Spreading(0, 0, 0)
    assert DecisionRule(("g",), (none, whole), False).expected_gap(constraint).long_run == Spreading(1, 1, 1)


def test_a_number_of_new_rows_is_shared_out_as_the_fitted_ones_were() -> None:
    rule, parity = fitted(1), fl.DemographicParity("g", tolerance=0.01)  # 400 and 300 rows
    assert rule.expected_gap(parity, sizes=70) == rule.expected_gap(parity, sizes={"g=0": 40, "g=1": 30})


def crossed(rates: np.ndarray, count: int) -> DecisionRule:
    """A rule over (a, b) with these rates (a, b), every cell fitted to as many rows."""
    cells = [CellRule((a, b), (0.5,), (1.0,), count, float(rates[a, b])) for a, b in np.ndindex(rates.shape)]
    return DecisionRule(("a", "b"), tuple(cells), False)


def test_the_long_run_is_that_of_the_fitted_shares_whoever_comes_next() -> None:
    rule, parity = crossed(np.array([[0.2, 0.6], [0.4, 0.4]]), 100), fl.DemographicParity("a", 0.02)
    sizes = {name: 10_000 if name == "a=0 & b=0" else 100 for name in rule.names}
    usual, many = rule.expected_gap(parity), rule.expected_gap(parity, sizes=sizes)
    assert many.long_run == usual.long_run
    assert many.new_rows.mean > usual.new_rows.mean + 0.1  # the rate of a=0 is then .2 rather than .4


def test_of_several_constraints_the_one_of_the_largest_gap_to_come_is_told() -> None:
    rule = crossed(np.tile([[0.4], [0.6]], 8), 10)  # a: a gap of .2; b: none, but eight groups of twenty rows
    both = [fl.DemographicParity("a", 0.02), fl.DemographicParity("b", 0.02)]
    a, b = (rule.expected_gap(each) for each in both)
    assert a.at_fit > b.at_fit
    assert b.long_run.mean > a.long_run.mean
    assert rule.expected_gap(both) == rule.expected_gap(both[::-1]) == b


def test_the_cells_of_the_least_certain_thresholds_are_named_first_and_without_a_gap_chance_alone_is_left() -> None:
    cells = [
        CellRule((name,), (0.5,), (1.0,), count, 0.5) for name, count in zip("abcd", (400, 20, 900, 50), strict=True)
    ]
    found = DecisionRule(("g",), tuple(cells), False).expected_gap(fl.DemographicParity("g", 0.02))
    assert found.causes == ("g=b (20 rows)", "g=d (50 rows)", "g=a (400 rows)")
    apart = [CellRule((name,), (0.5,), (1.0,), 10_000, rate) for name, rate in (("a", 0.2), ("b", 0.6))]
    found = DecisionRule(("g",), tuple(apart), False).expected_gap(fl.DemographicParity("g", 0.02))
    # of two rates at .4 on 10,000 rows each the mean distance is sqrt(2/pi) times its deviation, .0069
    assert found.without == pytest.approx(0.0055, rel=0.1)
    assert found.new_rows.mean == pytest.approx(0.4, abs=0.01)


def test_the_rates_to_come_lie_around_the_fitted_ones() -> None:
    cells = [CellRule((name,), (0.5,), (1.0,), 1000, rate) for name, rate in (("a", 0.2), ("b", 0.9))]
    found = DecisionRule(("g",), tuple(cells), False).expected_gap(fl.MinimumRate("g", floor=0.5))
    for spreading in (found.long_run, found.new_rows):  # the lower rate is the number that a floor bounds
        assert spreading.mean == pytest.approx(0.2, abs=0.01)
    assert found.without == pytest.approx(0.55, abs=0.02)


def test_a_gap_to_come_of_less_than_twice_the_tolerance_is_not_warned_of() -> None:
    scores, group, _ = population(np.random.default_rng(0), SIZES[:2])
    parity = fl.DemographicParity("g", tolerance=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FairlayerWarning)
        rule = DecisionRule.fit(scores, parity, sensitive_features={"g": group})
    assert 0.05 < rule.expected_gap(parity).long_run.mean < 0.1
