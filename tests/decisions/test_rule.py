"""Fitted thresholds reproduce the decisions they were fitted on, travel as JSON, and refuse what they do not know."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fairlayer as fl
from fairlayer.decisions import CellRule, DecisionRule, UnseenCellError, decide
from tests.decisions.truth import asked

PARITY = [fl.DemographicParity("sex", 0.05)]


def applicants(n: int = 500, seed: int = 0, *, ties: bool = False) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    sex = rng.choice(["F", "M"], n)
    scores = rng.beta(2, 3, n) + 0.1 * (sex == "M")
    return np.round(np.clip(scores, 0, 1), 1 if ties else 9), {"sex": sex}


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.booleans(), st.integers(0, 9))
def test_a_rule_reproduces_the_decisions_it_was_fitted_on(seed: int, randomised: bool, draw: int) -> None:
    question = asked(seed)  # with ties, unknown categories, several features
    try:
        result = decide(**question.arguments(), randomised=randomised, seed=draw)
    except fl.errors.InfeasibleConstraintsError:
        return
    features = question.problem.features
    rule = DecisionRule.from_dict(json.loads(json.dumps(result.rule.to_dict(), allow_nan=False)))
    assert rule == result.rule
    again = rule.apply(question.problem.scores, sensitive_features=features, seed=draw)
    assert again.tolist() == result.decisions.tolist()
    arguments = question.arguments()
    assert DecisionRule.fit(arguments.pop("scores"), arguments.pop("constraints"), **arguments) is not None


def test_fit_is_the_rule_of_decide() -> None:
    scores, features = applicants()
    rule = DecisionRule.fit(scores, PARITY, sensitive_features=features, capacity=100)
    assert rule == decide(scores, PARITY, sensitive_features=features, capacity=100).rule


def test_many_equal_scores_are_shared_out_and_the_gap_holds() -> None:
    scores, features = applicants(ties=True)
    result = decide(scores, [fl.DemographicParity("sex", 0.0)], sensitive_features=features)
    assert len(set(scores.tolist())) < 12
    assert result.gaps["DemographicParity('sex')"] <= result.rounding["DemographicParity('sex')"] < 0.01
    partly = [cell for cell in result.rule.cells if len(cell.thresholds) == 2]
    assert partly  # a run of equal scores is divided
    for cell in partly:
        inside = (scores > cell.thresholds[1]) & (scores < cell.thresholds[0])
        assert len(set(scores[inside].tolist())) == 1


def test_new_samples_of_the_same_population_keep_the_gap_up_to_chance() -> None:
    scores, features = applicants(20_000)
    rule = DecisionRule.fit(scores, PARITY, sensitive_features=features)
    fresh, groups = applicants(20_000, seed=1)
    decisions = rule.apply(fresh, sensitive_features=groups).numpy()
    rates = [decisions[groups["sex"] == sex].mean() for sex in ("F", "M")]
    assert abs(rates[0] - rates[1]) < 0.05 + 4 * 0.5 * np.sqrt(4 / 20_000)


def test_a_threshold_lies_between_scores() -> None:
    rule = DecisionRule.fit([0.9, 0.6, 0.4, 0.2], [])
    assert rule.cells[0].thresholds == (0.5,)
    neighbours = [np.nextafter(0.5, 1.0), 0.5]  # no number lies between them
    rule = DecisionRule.fit(neighbours, [], y=[1, 0])
    assert rule.apply(neighbours).tolist() == [1, 0]
    everybody, nobody = DecisionRule.fit([0.9, 0.8], []), DecisionRule.fit([0.1, 0.2], [])
    assert everybody.apply([0.0, 1.0]).tolist() == [1, 1]
    assert nobody.apply([0.0, 1.0]).tolist() == [0, 0]


def test_an_unseen_group_is_named() -> None:
    scores, features = applicants()
    rule = DecisionRule.fit(scores, PARITY, sensitive_features=features)
    with pytest.raises(UnseenCellError, match=r"no threshold for 'sex=X'; it was fitted for 'sex=F', 'sex=M'\. Fit it"):
        rule.apply([0.4, 0.5], sensitive_features={"sex": ["F", "X"]})
    with pytest.raises(UnseenCellError, match="'sex=unknown'"):
        rule.apply([0.4], sensitive_features={"sex": [None]})
    with pytest.raises(fl.errors.MissingSensitiveFeatureError, match="'sex'"):
        rule.apply([0.4], sensitive_features={"race": ["a"]})
    with pytest.raises(fl.errors.MissingSensitiveFeatureError, match="'sex'"):
        rule.apply([0.4])
    with pytest.raises(fl.errors.ShapeError, match="1 scores, but the sensitive features have 2"):
        rule.apply([0.4], sensitive_features={"sex": ["F", "M"]})


def test_an_unseen_combination_of_known_groups_is_named() -> None:
    parity = [fl.DemographicParity(("a", "b"), 0.1)]
    rule = DecisionRule.fit([0.9, 0.1, 0.5], parity, sensitive_features={"a": [0, 0, 1], "b": [0, 1, 0]})
    with pytest.raises(UnseenCellError, match="'a=1 & b=1'"):
        rule.apply([0.4], sensitive_features={"a": [1], "b": [1]})


def test_unknown_categories_make_a_cell_of_their_own() -> None:
    features = {"sex": ["F", "M", None, None]}
    result = decide([0.9, 0.4, 0.8, 0.1], [fl.DemographicParity("sex", 0.0)], sensitive_features=features)
    assert result.decisions.tolist()[2:] == [1, 0]  # nothing is compared with them
    assert result.rule.apply([0.7], sensitive_features={"sex": [None]}).tolist() == [1]


def test_a_lottery_draws_anew_unless_a_seed_is_given() -> None:
    scores, features = applicants(200, ties=True)
    y = (np.random.default_rng(0).random(200) < scores).astype(float)
    rule = DecisionRule.fit(scores, [fl.EqualizedOdds("sex", 0.0)], sensitive_features=features, y=y, randomised=True)
    p = rule.probabilities(scores, sensitive_features=features)
    assert ((p > 0.01) & (p < 0.99)).any()
    draws = [rule.apply(scores, sensitive_features=features) for _ in range(20)]
    assert any(not torch.equal(draws[0], draw) for draw in draws)
    same = [rule.apply(scores, sensitive_features=features, seed=3) for _ in range(2)]
    assert torch.equal(*same)
    plain = DecisionRule.fit(scores, PARITY, sensitive_features=features)
    assert torch.equal(*(plain.apply(scores, sensitive_features=features) for _ in range(2)))


def test_one_request_is_granted_with_its_probability() -> None:
    """The lots of single requests are drawn one by one, so that none is always refused."""
    scores, features = applicants(200, ties=True)
    y = (np.random.default_rng(0).random(200) < scores).astype(float)
    rule = DecisionRule.fit(scores, [fl.EqualizedOdds("sex", 0.0)], sensitive_features=features, y=y, randomised=True)
    p = rule.probabilities(scores, sensitive_features=features).numpy()
    i = int(np.abs(p - 0.5).argmin())
    one = {"sex": features["sex"][i : i + 1]}
    share = np.mean([int(rule.apply(scores[i : i + 1], sensitive_features=one)) for _ in range(2000)])
    assert share == pytest.approx(p[i], abs=4 * 0.5 / np.sqrt(2000))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_shape_and_precision(dtype: torch.dtype) -> None:
    scores, features = applicants()
    tensor = torch.tensor(scores).to(dtype)[:, None].requires_grad_()
    result = decide(tensor, PARITY, sensitive_features=features)
    assert result.decisions.shape == (500, 1)
    assert result.decisions.dtype == torch.int64
    assert not result.probabilities.requires_grad
    assert torch.equal(result.rule.apply(tensor, sensitive_features=features), result.decisions)
    assert result.gaps["DemographicParity('sex')"] <= 0.05 + result.rounding["DemographicParity('sex')"]


def test_a_rule_is_printed_as_a_short_table() -> None:
    cells = (
        CellRule(("F",), (0.75, 0.5), (0.25, 0.75), 4, 0.5),
        CellRule(("M",), (0.6,), (0.4,), 10, 0.2),
        CellRule(("X",), (-math.inf,), (1.0,), 1, 1.0),
        CellRule((None,), (), (), 2, 0.0),
    )
    assert repr(DecisionRule(("sex",), cells, True)).splitlines() == [
        "DecisionRule on sex, 4 cells, with lots between thresholds",
        "  cell           fitted    rate  selected from",
        "  sex=F               4   50.0%  0.75 (25%), 0.5",
        "  sex=M              10   20.0%  0.6 (40%)",
        "  sex=X               1  100.0%  everybody",
        "  sex=unknown         2    0.0%  nobody",
    ]
    many = DecisionRule(("n",), tuple(CellRule((str(i),), (0.5,), (1.0,), 3, 0.1) for i in range(57)), False)
    lines = repr(many).splitlines()
    assert (len(lines), lines[-1]) == (23, "  and 37 more cells")
    page = many._repr_html_()
    assert "<td>n=19</td>" in page
    assert "n=20" not in page
    assert "And 37 more cells." in page
