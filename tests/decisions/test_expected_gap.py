"""The gap that a rule is expected to show, against fresh samples of populations whose truth is known."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

import fairlayer as fl
from fairlayer.decisions import DecisionRule
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
