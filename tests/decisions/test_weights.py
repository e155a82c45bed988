"""Weights of samples in decisions: as repeated rows, up to one row with its weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer.decisions import DecisionRule, decide
from fairlayer.decisions.lottery import weigh_decisions
from fairlayer.errors import ParameterError, ShapeError

RULES = [
    [fl.DemographicParity("sex", tolerance=0.02)],
    [fl.EqualOpportunity("sex", tolerance=0.03)],
    [fl.MinimumRate("sex", floor=0.5)],
    [fl.DisparateImpactRatio("sex", ratio=0.9)],
    [fl.DemographicParity("sex", tolerance=0.05), fl.EqualizedOdds("sex", tolerance=0.1)],
]


def batch(seed: int, n: int = 400, *, rounded: bool = False) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    sex = random.integers(0, 2, n)
    scores = np.clip(random.random(n) * 0.8 + 0.2 * sex, 0.0, 1.0)
    scores = np.round(scores, 1) if rounded else scores
    labels = (random.random(n) < scores).astype(float)
    return {"scores": scores, "sex": sex, "y": labels, "weights": random.integers(0, 4, n).astype(float)}


def repeated(rows: dict[str, Any]) -> dict[str, Any]:
    again = np.repeat(np.arange(len(rows["scores"])), rows["weights"].astype(int))
    return {name: column[again] for name, column in rows.items()}


def decided(rules: list[fl.Constraint], rows: dict[str, Any], *, weighed: bool, **more: Any) -> Any:
    weights = rows["weights"] if weighed else None
    features = {"sex": rows["sex"]}
    return decide(rows["scores"], rules, sensitive_features=features, y=rows["y"], sample_weight=weights, **more)


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: "+".join(rule.name for rule in rules))
@pytest.mark.parametrize("seed", range(3))
def test_rates_and_gaps_are_those_of_repeated_rows(rules: list[fl.Constraint], seed: int) -> None:
    rows = batch(seed)
    weighed, again = decided(rules, rows, weighed=True), decided(rules, repeated(rows), weighed=False)
    # The best lottery does not know rows from copies; whole rows differ from it by their own weight at most.
    assert weighed.utility_bound == pytest.approx(again.utility_bound, abs=1e-9)
    heaviest = {name: 3.0 / weight for name, weight in weighed.counts.items()}
    assert weighed.counts == pytest.approx(again.counts)
    for name, rate in weighed.rates.items():
        if not any(rule.needs_labels for rule in rules):  # else the best whole counts need not be near one another
            assert rate == pytest.approx(again.rates[name], abs=2 * heaviest[name])  # one row in each of the two
    assert weighed.expected_utility >= again.expected_utility - sum(heaviest.values())
    for name, found in weighed.measured.items():
        direct = next(r for r in rules if r.name == name).measure(
            weighed.decisions, sensitive_features={"sex": rows["sex"]}, y=rows["y"], sample_weight=rows["weights"]
        )
        assert found.value == pytest.approx(direct.value, abs=1e-12)
        assert found.excess <= weighed.rounding[name] + 1e-9
    taken = weighed.decisions.numpy() == 1
    for k, name in ((0, "sex=0"), (1, "sex=1")):
        inside = rows["sex"] == k
        by_hand = rows["weights"][inside & taken].sum() / rows["weights"][inside].sum()
        assert weighed.rates[name] == pytest.approx(by_hand, abs=1e-12)
    accuracy = (rows["weights"] * (taken == rows["y"])).sum() / rows["weights"].sum()
    assert weighed.expected_utility == pytest.approx(accuracy, abs=1e-12)


@pytest.mark.parametrize("rounded", [False, True])
def test_the_capacity_is_of_weight_and_never_exceeded(rounded: bool) -> None:
    for seed in range(4):
        rows = batch(seed, rounded=rounded)
        found = decided(RULES[0], rows, weighed=True, capacity=150)
        used = rows["weights"][found.decisions.numpy() == 1].sum()
        assert 150 - 2 * 3.0 - 1e-9 <= used <= 150 + 1e-9
        again = decided(RULES[0], repeated(rows), weighed=False, capacity=150)
        assert found.utility_bound == pytest.approx(again.utility_bound, abs=1e-9)
        assert found.capacity_price == pytest.approx(again.capacity_price, abs=1e-6)


def test_equal_weights_change_nothing() -> None:
    rows = batch(5)
    rows["weights"] = np.full(400, 2.5)
    weighed, plain = decided(RULES[0], rows, weighed=True), decided(RULES[0], rows, weighed=False)
    assert weighed.rates == pytest.approx(plain.rates, abs=1e-12)
    assert weighed.expected_utility == pytest.approx(plain.expected_utility, abs=1e-12)
    assert weighed.rule.cells == plain.rule.cells


def test_rows_of_weight_zero_count_for_nothing() -> None:
    rows = batch(6)
    rows["weights"][:100] = 0.0
    kept = {name: column[100:] for name, column in rows.items()}
    whole, part = decided(RULES[0], rows, weighed=True), decided(RULES[0], kept, weighed=True)
    assert whole.utility_bound == pytest.approx(part.utility_bound, abs=1e-9)
    assert whole.counts == pytest.approx(part.counts)


def test_a_rule_is_fitted_by_weight() -> None:
    rows = batch(7)
    more = {"sensitive_features": {"sex": rows["sex"]}, "y": rows["y"], "sample_weight": torch.tensor(rows["weights"])}
    rule = DecisionRule.fit(rows["scores"], RULES[0], **more)
    chosen = decided(RULES[0], rows, weighed=True)
    assert rule == chosen.rule
    for cell, name in zip(rule.cells, rule.names, strict=True):
        assert cell.rate == pytest.approx(chosen.rates[name], abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_among_equals_the_weight_taken_is_nearly_the_share(seed: int) -> None:
    random = np.random.default_rng(seed)
    n = 200
    cells, scores = random.integers(0, 3, n), np.round(random.random(n), 1)
    p, weights = np.round(random.random(n), 1), random.exponential(size=n)
    taken = weigh_decisions(p, cells, scores, weights)
    assert (taken[p == 1.0] == 1).all()
    assert not taken[p == 0.0].any()
    for k in range(3):
        short = ((p - taken) * weights)[cells == k].sum()
        assert -1e-6 <= short < weights[cells == k].max()


@pytest.mark.parametrize(
    ("weights", "error", "text"),
    [
        ([1.0, -1.0], ParameterError, r"must be >= 0.*1 of 2 are negative, the first -1 in row 1"),
        ([0.0, 0.0], ParameterError, "0 for all 2"),
        ([1.0], ShapeError, r"shape \(2,\)"),
    ],
)
def test_weights_that_are_none_are_refused(weights: list[float], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        decide([0.2, 0.7], RULES[0], sensitive_features={"sex": [0, 1]}, sample_weight=weights)
