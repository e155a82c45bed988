"""Which of several routes is chosen for its decisions, where rows can tell them apart and where they cannot."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import fairlayer as fl
from fairlayer._typing import FloatArray
from fairlayer.report.alternatives import alternatives_among
from fairlayer.routes import Candidate, Criterion, RouteNumbers, Routes, compare_routes
from fairlayer.routes.numbers import RouteGap
from fairlayer.training import Observed

CHOICE = Criterion("accuracy", "decision gap")
ROWS = 400


def numbers(right: FloatArray, expected: float | None, estimate: float = 0.01) -> RouteNumbers:
    gap = RouteGap(estimate, 0.02, at_least=False, estimate=estimate, excess=estimate - 0.02, expected=expected)
    return RouteNumbers({"accuracy": float(right.mean())}, {}, {}, {"parity": gap}, {}, 0.5, {"accuracy": right})


def right(*wrong: int) -> FloatArray:
    """Return which decisions are right: all but those of the rows given."""
    found = np.ones(ROWS)
    found[list(wrong)] = 0.0
    return found


def test_of_routes_that_rows_cannot_tell_apart_the_one_of_the_smallest_gap_to_come_is_taken() -> None:
    best, level = numbers(right(*range(10)), 0.04), numbers(right(*range(5, 16)), 0.03)  # 5 against 6 rows
    assert CHOICE.best([best, level]) == 1
    assert CHOICE.best([best, replace(level, decision_gaps=best.decision_gaps)]) == 0
    assert CHOICE.best([best, numbers(right(*range(14)), 0.03)]) == 0  # 0 against 4 rows: never right where best is not
    assert CHOICE.best([best, numbers(right(*range(5, 18)), 0.03)]) == 1  # 5 against 8: within a standard error
    assert CHOICE.best([best, numbers(right(*range(5, 19)), 0.03)]) == 0  # 5 against 9


def test_what_stays_within_its_limit_is_asked_first() -> None:
    best, beyond = numbers(right(*range(10)), 0.04), numbers(right(*range(5, 16)), 0.0, estimate=0.03)
    assert CHOICE.best([best, beyond]) == 0
    assert CHOICE.best([numbers(right(), 0.0, estimate=0.09), beyond]) == 1  # nobody keeps it: the nearest


def test_of_several_limits_the_worst_counts() -> None:
    best, level = numbers(right(*range(10)), 0.04), numbers(right(*range(5, 16)), 0.03)
    [small] = numbers(right(), 0.0).decision_gaps.values()
    for first, second in (("a", "z"), ("z", "a")):
        beyond = replace(small, estimate=0.05, value=0.05, excess=0.03)
        assert not CHOICE.keeps(replace(best, decision_gaps={first: small, second: beyond}))
        [wider] = level.decision_gaps.values()
        spread = replace(level, decision_gaps={first: small, second: replace(wider, expected=0.06)})
        assert CHOICE.best([best, spread]) == 0  # the gap to come is that of its worse limit


def test_a_gap_held_at_its_limit_up_to_rounding_is_kept() -> None:
    [gap] = numbers(right(), 0.0).decision_gaps.values()
    for over, kept in ((5e-7, True), (5e-6, False)):
        held = replace(gap, value=0.02 + over, estimate=0.0, excess=over, held=True)
        assert CHOICE.keeps(replace(numbers(right(), 0.0), decision_gaps={"parity": held})) is kept


def test_an_estimate_stands_where_no_thresholds_were_fitted_and_a_lower_limit_counts_from_below() -> None:
    best, level = numbers(right(*range(10)), 0.021), numbers(right(*range(5, 16)), None, estimate=0.019)
    assert CHOICE.best([best, level]) == 1
    assert CHOICE.best([numbers(right(*range(10)), 0.02), level]) == 0  # both are expected to keep the limit
    ratio = RouteGap(0.85, 0.8, at_least=True, estimate=0.85, excess=-0.05)
    assert replace(ratio, expected=0.7).long_run == pytest.approx(0.1)
    assert ratio.long_run == pytest.approx(-0.05)
    assert RouteGap(None, 0.8, at_least=True, estimate=None).long_run == 0.0


@pytest.mark.parametrize("criterion", [Criterion("accuracy", "no gap"), Criterion("accuracy", "score gap")])
def test_scores_are_chosen_without_a_look_at_decisions(criterion: Criterion) -> None:
    rows = [numbers(right(*range(10)), 0.04), numbers(right(*range(5, 16)), 0.03)]
    assert criterion.best(rows) == 0
    assert CHOICE.best([replace(each, each={}) for each in rows]) == 0


def losses(each: FloatArray, models: int) -> RouteNumbers:
    gap = RouteGap(0.02, 0.02, at_least=False, estimate=0.02, excess=0.0)
    measures = {"log_loss": float(each.mean()), "auc": 1 - float(each.mean())}
    return RouteNumbers(measures, {}, {"parity": gap}, {}, {}, None, {"log_loss": each}, models)


def test_of_level_routes_the_mean_of_two_models_is_taken() -> None:
    by_loss = Criterion("log_loss", "score gap")
    noise = np.tile([-1.0, 1.0], ROWS // 2)  # a standard error of 0.05
    alone = losses(np.full(ROWS, 0.5), 1)
    assert by_loss.best([alone, losses(0.549 + noise, 2)]) == 1
    assert by_loss.best([alone, losses(0.551 + noise, 2)]) == 0
    assert by_loss.best([losses(0.549 + noise, 1), alone]) == 1  # of as many models, the best
    assert by_loss.best([alone, losses(0.549 + noise, 2), losses(0.548 + noise, 2)]) == 2
    assert Criterion("auc", "score gap").best([alone, losses(0.549 + noise, 2)]) == 0  # no mean over rows
    beyond = replace(
        losses(0.4 + noise, 2), score_gaps={"parity": RouteGap(0.03, 0.02, at_least=False, estimate=0.03, excess=0.01)}
    )
    assert by_loss.best([alone, beyond]) == 0
    first, second = numbers(right(*range(10)), 0.01), replace(numbers(right(*range(5, 16)), 0.015), models=2)
    assert CHOICE.best([first, second]) == 1  # the gap of either is expected to be within the limit
    assert CHOICE.best([first, replace(second, decision_gaps=numbers(right(), 0.021).decision_gaps)]) == 0


@pytest.fixture(scope="module")
def found() -> Routes:
    random = np.random.default_rng(0)
    sex = random.integers(0, 2, 1200)
    scores = np.clip(random.normal(0.45 + 0.1 * sex, 0.2), 0.01, 0.99)
    rows = Observed({"sex": sex}, (random.uniform(size=1200) < scores).astype(np.float64))
    parts = {"valid": rows.take(slice(0, 400)), "test": rows.take(slice(400, 1200))}
    mine = Candidate("mine", scores[:400], scores[400:])
    return compare_routes([mine], fl.DemographicParity("sex", 0.02), criterion=CHOICE, **parts)


def test_a_rule_says_what_gap_is_to_be_expected_and_which_rows_it_decides_right(found: Routes) -> None:
    rule, projected = found.named("mine, rule"), found.named("mine, projected")
    [gap] = rule.valid.decision_gaps.values()
    assert rule.expected is not None
    assert gap.expected == rule.expected.long_run.mean
    assert gap.value is not None
    assert gap.value <= 0.02 + 1e-9 < gap.expected  # thresholds meet their limit where they were fitted
    assert projected.expected is not None
    assert [each.expected for each in projected.valid.decision_gaps.values()] == [projected.expected.long_run.mean]
    assert [each.expected for each in rule.test.decision_gaps.values()] == [None]
    for route in found.routes:
        assert route.valid.each["accuracy"].mean() == pytest.approx(route.valid.measures["accuracy"])
        assert route.test.each["accuracy"].shape == (800,)
    assert "each" not in json.dumps(found.to_dict())


def test_validation_rows_choose_and_test_rows_have_no_say() -> None:
    random = np.random.default_rng(1)
    sex, labels = random.integers(0, 2, 400), random.integers(0, 2, 400).astype(np.float64)
    rows = Observed({"sex": sex}, labels)
    good, bad = np.abs(labels - 0.2), np.abs(labels - 0.6)
    pair = [Candidate("valid", good, bad, steps=("as it is",)), Candidate("test", bad, good, steps=("as it is",))]
    for order in (pair, pair[::-1]):
        found = compare_routes(order, fl.DemographicParity("sex", 0.5), valid=rows, test=rows)
        assert found.best.name == found.chosen_by(CHOICE).name == "valid"


def test_whether_the_gap_is_kept_is_said_of_the_validation_rows() -> None:
    sex, labels = np.tile([0, 1], 100), np.tile([0.0, 1.0, 1.0, 0.0], 50)
    rows = Observed({"sex": sex}, labels)
    level, apart = np.full(200, 0.5), 0.3 + 0.4 * sex
    for valid, test, kept in ((level, apart, True), (apart, level, False)):
        mine = [Candidate("mine", valid, test, steps=("as it is",))]
        assert compare_routes(mine, fl.DemographicParity("sex", 0.02), valid=rows, test=rows).kept is kept


def test_a_route_that_is_level_is_told_why_it_was_not_taken(found: Routes) -> None:
    [best, level] = [found.named(name) for name in ("mine, batch", "mine, rule")]
    more = replace(level, valid=replace(level.valid, measures={"accuracy": 1.0}))
    reasons = {
        one["name"]: one["why_not"] for one in alternatives_among(replace(found, routes=(best, more)), best.name)
    }
    assert reasons[best.name] == ""
    assert "1.0000, which cannot be told from" in reasons["mine, rule"]
    less = replace(found, routes=(best, replace(more, valid=replace(more.valid, measures={"accuracy": 0.0}))))
    fallen_back = {one["name"]: one["why_not"] for one in alternatives_among(less, "mine, rule")}
    assert "it could not be kept" in fallen_back["mine, batch"]
