"""Warnings of statements that say nothing, or cannot be meant."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer._arrays import held_by_host
from fairlayer.constraints import Batch, Constraint
from fairlayer.edge import Box, OnceWarner, read_groups, warn_if_nothing_to_compare, warn_of_unmeant
from fairlayer.edge.meaning import about_limit, about_logits, about_ratio, about_rows_of_a_simplex
from fairlayer.errors import ConstraintDefinitionError, FairlayerWarning

N = 40
SEX = {"sex": ["F", "M"] * 20}
UNIT = (0.0, 1.0)


def stated(constraint: Constraint, features: Any = SEX, y: Any = None) -> list[tuple[Constraint, Any]]:
    labels = None if y is None else np.asarray(y, dtype=np.float64)
    batch = Batch(read_groups(features, [constraint], N, None), N, labels=labels)
    return [(constraint, statement) for statement in constraint.statements(batch)]


def told(call: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    assert all(issubclass(each.category, FairlayerWarning) for each in found)
    return [str(each.message) for each in found]


@pytest.mark.parametrize(
    ("constraint", "ends", "loose"),
    [
        (fl.DemographicParity("sex", 2.0), UNIT, True),
        (fl.DemographicParity("sex", 1.0), UNIT, True),
        (fl.DemographicParity("sex", 0.99), UNIT, False),
        (fl.DemographicParity("sex", 2.0), (0.0, 5.0), False),
        (fl.DemographicParity("sex", 2.0), (None, 1.0), False),
        (fl.DisparateImpactRatio("sex", 0.8), UNIT, False),
        (fl.DisparateImpactRatio("sex", 0.8), (5.0, 6.0), True),  # 0.8 * 6 < 5
        (fl.MinimumRate("sex", 0.0), UNIT, True),
        (fl.MinimumRate("sex", 0.9), UNIT, False),  # far above any base rate, and meant
        (fl.CovarianceBound("age", 0.3), UNIT, True),
        (fl.CovarianceBound("age", 0.2), UNIT, False),
    ],
)
def test_limits_that_cannot_bind(constraint: Constraint, ends: Any, loose: bool) -> None:
    age = {"age": np.array([-0.5, 0.5] * 20), **SEX}
    texts = [about_limit(each, statement, ends) for each, statement in stated(constraint, age)]
    assert all((text is not None) == loose for text in texts)
    if loose:
        assert "cannot bind" in str(texts[0])
        assert constraint.name in str(texts[0])


def test_a_covariance_beyond_reach_is_that_of_the_extreme_predictions() -> None:
    """Where the feature is +-1/2 by halves, predictions 0 and 1 have the covariance 1/4, and no others more."""
    age = {"age": np.array([-0.5, 0.5] * 20)}
    extreme = (age["age"] > 0).astype(float)
    largest = float(np.mean((age["age"] - age["age"].mean()) * extreme))
    for limit in (largest * 0.999, largest * 1.001):
        [(constraint, statement)] = stated(fl.CovarianceBound("age", limit), age)
        assert (about_limit(constraint, statement, UNIT) is not None) == (limit > largest)


def test_logits_under_bounds() -> None:
    logits = torch.tensor([-3.0, 4.0, 0.5, 2.0])
    assert "75% of the scores" in str(about_logits(logits, UNIT))
    assert "from_logits" in str(about_logits(logits, (1e-4, 1 - 1e-4)))
    assert about_logits(logits, (0.0, 5.0)) is None
    assert about_logits(logits, (None, None)) is None
    assert about_logits(torch.tensor([-3.0, 0.1, 0.5, 2.0]), UNIT) is None  # half, not more


def test_rows_of_a_simplex() -> None:
    rows = torch.softmax(torch.randn(10, 3), dim=1)
    assert 'bounds="simplex"' in str(about_rows_of_a_simplex(rows))
    assert about_rows_of_a_simplex(rows.half().float()) is not None
    assert about_rows_of_a_simplex(rows * 1.01) is None
    assert about_rows_of_a_simplex(rows[:, :1] * 0 + 1) is None
    assert about_rows_of_a_simplex(torch.tensor([[1.5, -0.5]])) is None


def test_a_ratio_of_negative_scores() -> None:
    [(ratio, statement)] = stated(fl.DisparateImpactRatio("sex", 0.8))
    assert "go down to -0.5" in str(about_ratio(ratio, statement, -0.5, (None, None)))
    assert about_ratio(ratio, statement, -0.5, UNIT) is None  # the predictions are not
    assert about_ratio(ratio, statement, 0.0, (None, None)) is None
    [(parity, statement)] = stated(fl.DemographicParity("sex", 0.1))
    assert about_ratio(parity, statement, -0.5, (None, None)) is None


def test_each_thing_is_said_once_by_one_layer() -> None:
    once, box = OnceWarner(), Box(0.0, 1.0)
    rules = stated(fl.DemographicParity("sex", 3.0))
    call = lambda: warn_of_unmeant(torch.full((N,), 7.0), rules, box, once)  # noqa: E731
    assert len(told(call)) == 2  # logits, and a limit that cannot bind
    assert told(lambda: [call() for _ in range(20)]) == []
    assert len(told(lambda: warn_of_unmeant(torch.full((N,), 7.0), rules, box, OnceWarner()))) == 2


def test_what_comes_later_is_seen_too() -> None:
    once, box, rules = OnceWarner(), Box(0.0, 1.0), stated(fl.DemographicParity("sex", 0.1))
    assert told(lambda: [warn_of_unmeant(torch.rand(N), rules, box, once) for _ in range(10)]) == []
    assert len(told(lambda: [warn_of_unmeant(torch.randn(N) * 9, rules, box, once) for _ in range(10)])) == 1


def test_what_is_meant_is_not_spoken_of() -> None:
    rules = [*stated(fl.DemographicParity("sex", 0.02)), *stated(fl.MinimumRate("sex", 0.9))]
    assert told(lambda: warn_of_unmeant(torch.rand(N), rules, Box(0.0, 1.0), OnceWarner())) == []
    assert told(lambda: warn_of_unmeant(torch.randn(N), rules, Box(), OnceWarner())) == []
    rows = torch.softmax(torch.randn(N, 3), dim=1)
    assert told(lambda: warn_of_unmeant(rows, rules, Box(), OnceWarner(), simplex=True)) == []
    assert told(lambda: warn_of_unmeant(torch.randn(N) * 9, rules, Box(), OnceWarner(), from_logits=True)) == []


def test_a_limit_on_probabilities_without_bounds() -> None:
    rules = stated(fl.DemographicParity("sex", 2.0))
    assert "cannot bind" in told(lambda: warn_of_unmeant(torch.rand(N), rules, Box(), OnceWarner()))[0]
    assert told(lambda: warn_of_unmeant(torch.rand(N) * 9, rules, Box(), OnceWarner())) == []


def test_under_a_transform_nothing_is_looked_at() -> None:
    rules = stated(fl.DemographicParity("sex", 3.0))

    def loss(scores: torch.Tensor) -> torch.Tensor:
        warn_of_unmeant(scores, rules, Box(0.0, 1.0), OnceWarner())
        return scores.sum()

    assert told(lambda: torch.func.grad(loss)(torch.full((N,), 7.0))) == []


def test_it_says_where_the_caller_stands() -> None:
    with pytest.warns(FairlayerWarning) as found:
        fl.decide([0.2, 0.8], [fl.DemographicParity("sex", 0.1)], sensitive_features={"sex": ["F", "F"]})
    assert found[0].filename == __file__


# ---- nothing to compare


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (["F"] * N, "the only group known is 'sex=F'. It bounds nothing"),
        (["F"] * (N - 1) + [None], "the only group known is 'sex=F', and 1 sample is of unknown group"),
        (["F", None] * 20, "the only group known is 'sex=F', and 20 samples"),
        ([None] * N, "no group is known, and 40 samples"),
        ([-1] * 30 + [7] * 10, "the only group known is 'sex=7', and 30 samples"),
    ],
)
def test_a_constraint_with_nothing_to_compare_says_so(column: Any, said: str) -> None:
    parity, features, scores = fl.DemographicParity("sex", 0.02), {"sex": column}, torch.rand(N)
    stream = fl.InferenceState([parity])
    calls = {
        "decide": lambda: fl.decide(scores, [parity], sensitive_features=features),
        "penalty": lambda: fl.Penalty(parity)(scores, sensitive_features=features),
        "lagrangian": lambda: fl.AugmentedLagrangian(parity)(scores, sensitive_features=features),
        "stream": lambda: [stream.emit(scores, features) for _ in range(10)],
    }
    for entrance, call in calls.items():
        found = told(call)
        assert len(found) == 1, entrance
        assert "DemographicParity('sex') has nothing to compare" in found[0]
        if entrance != "stream":  # which has met more samples
            assert said in found[0]


def test_it_is_said_once_per_layer_and_constraint() -> None:
    penalty = fl.Penalty([fl.DemographicParity("sex", 0.02), fl.EqualOpportunity("race", 0.02)])
    features = {"sex": ["F"] * N, "race": ["x"] * N}
    call = lambda: penalty(torch.rand(N), sensitive_features=features, y=torch.ones(N))  # noqa: E731
    assert len(told(lambda: [call() for _ in range(5)])) == 2
    assert told(lambda: copy.deepcopy(penalty)(torch.rand(N), sensitive_features=features, y=torch.ones(N))) == []
    assert isinstance(pickle.loads(pickle.dumps(penalty)), fl.Penalty)


def test_a_batch_that_lacks_a_known_group_is_no_matter_of_meaning() -> None:
    penalty = fl.Penalty(fl.DemographicParity("sex", 0.02))
    penalty.fit_categories(SEX)
    assert told(lambda: penalty(torch.rand(N), sensitive_features={"sex": ["F"] * N})) == []


def test_a_floor_compares_nothing_and_needs_one_group_only() -> None:
    once = OnceWarner()
    for features in (SEX, {"sex": ["F"] * N}):
        for constraint, statement in stated(fl.MinimumRate("sex", 0.2), features):
            assert told(lambda c=constraint, s=statement: warn_if_nothing_to_compare(c, s, once)) == []
    [(floor, statement)] = stated(fl.MinimumRate("sex", 0.2), {"sex": [None] * N})
    assert len(told(lambda: warn_if_nothing_to_compare(floor, statement, once))) == 1


@pytest.mark.parametrize("other", ["f", "F ", " F", "\tF"])
def test_groups_whose_names_differ_by_case_or_blanks_are_named_once(other: str) -> None:
    sex = ["F", other, "M", "M"]
    texts = told(
        lambda: fl.project([0.1, 0.2, 0.3, 0.9], fl.DemographicParity("sex", 0.1), sensitive_features={"sex": sex})
    )
    assert len(texts) == 1
    assert "'sex=F'" in texts[0]
    assert repr(f"sex={other}") in texts[0]
    assert "case or blanks" in texts[0]


@pytest.mark.parametrize("other", ["1", "1.0"])
def test_groups_that_are_one_number_as_number_and_as_text_are_named(other: str) -> None:
    codes = [1, other, 2, 2]
    texts = told(
        lambda: fl.project([0.1, 0.2, 0.3, 0.9], fl.DemographicParity("g", 0.1), sensitive_features={"g": codes})
    )
    assert len(texts) == 1
    assert "the same number" in texts[0]
    rooms = {"g": ["room 1", "room 1.0", "1'", "11"]}  # names that merely hold numbers are names
    assert (
        told(lambda: fl.project([0.1, 0.2, 0.3, 0.9], fl.DemographicParity("g", 0.1), sensitive_features=rooms)) == []
    )
    assert not told(
        lambda: fl.project([0.1, 0.9], fl.DemographicParity("sex", 0.1), sensitive_features={"sex": ["F", "M"]})
    )


def test_rows_moved_onto_the_simplex_are_said_to_be_projected() -> None:
    rows, sex = torch.tensor([[0.4, 0.4], [0.9, 0.3]], dtype=torch.float64), {"sex": ["F", "M"]}
    parity = fl.DemographicParity("sex", tolerance=0.9)
    texts = told(lambda: fl.project(rows, parity, sensitive_features=sex, bounds="simplex"))
    assert len(texts) == 1
    assert "sum to between 0.8 and 1.2" in texts[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = fl.project(rows, parity, sensitive_features=sex, bounds="simplex")
    assert result.status == "projected"
    assert torch.allclose(result.value.sum(dim=1), torch.ones(2).double())
    softmax = torch.softmax(torch.randn(6, 4), dim=1)
    three = {"sex": ["F", "M"] * 3}
    assert fl.project(softmax, parity, sensitive_features=three, bounds="simplex").status == "unchanged"
    assert not told(lambda: fl.project(softmax, parity, sensitive_features=three, bounds="simplex"))


def test_a_result_with_nothing_to_compare_shows_no_number_for_it() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = fl.project([0.1, 0.2], fl.DemographicParity("sex", 0.1), sensitive_features={"sex": ["F", "F"]})
    assert "inf" not in str(result)
    assert "nothing to measure" in str(result)


@pytest.mark.parametrize("on", [{"sex", "race"}, ("sex", "sex"), None, 3, (), {"sex": 1}])
def test_what_a_constraint_compares_has_an_order_and_distinct_names(on: Any) -> None:
    with pytest.raises(ConstraintDefinitionError, match="tuple of distinct names"):
        fl.DemographicParity(on, tolerance=0.1)


@pytest.mark.parametrize("tolerances", ["0:0.1", 0.1, None, [], [0.1, float("nan")]])
def test_a_path_names_tolerances_that_are_no_list_of_numbers(tolerances: Any) -> None:
    with pytest.raises(ConstraintDefinitionError, match="finite numbers"):
        fl.fairness_path(
            [0.1, 0.9], fl.DemographicParity("sex", 0.1), tolerances, sensitive_features={"sex": ["F", "M"]}
        )


def test_only_numbers_that_the_host_holds_as_they_are_become_an_array() -> None:
    plain = torch.tensor([0.25, 0.5])
    assert isinstance(held_by_host(plain), np.ndarray)
    assert held_by_host(torch._neg_view(plain)).tolist() == [-0.25, -0.5]
    for other in (plain.half(), plain.clone().requires_grad_(), torch.tensor([1, 2])):
        assert held_by_host(other) is other
    inside: list[bool] = []
    torch.func.vmap(lambda x: inside.append(held_by_host(plain) is plain) or x)(torch.zeros(2))
    assert inside == [True]
