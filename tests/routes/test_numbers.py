"""The numbers of a route, each against a count by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import fairlayer as fl
from fairlayer.decisions.inputs import ACCURACY
from fairlayer.edge import as_constraints
from fairlayer.routes import Candidate, RouteNumbers, compare_routes
from fairlayer.routes.numbers import RouteGap, calibration_errors, furthest, numbers_of
from fairlayer.routes.rules import _folds, fit_rule
from fairlayer.training import Observed

PARITY = "demographic_parity(sex, 0.02)"
FOUR = Observed({"sex": np.array(["f", "f", "f", "m"])}, np.array([0.0, 1.0, 1.0, 1.0]))


def measured(scores: list[float], decisions: list[int], before: list[int], **more: object) -> RouteNumbers:
    """The numbers of four people, three of them women."""
    given = np.array(scores), np.array(decisions), np.array(before)
    return numbers_of(*given, FOUR, as_constraints(PARITY), task="classification", **more)  # type: ignore[arg-type]


def test_flips_are_counted_in_each_group_by_itself() -> None:
    found = measured([0.6, 0.6, 0.4, 0.4], [1, 0, 0, 1], [1, 1, 0, 0])
    assert found.flips == {"all": 0.5, "sex=f": pytest.approx(1 / 3), "sex=m": 1.0}


def test_the_calibration_error_of_a_group_is_a_mean_over_that_group() -> None:
    labels, scores = np.array([0.0, 1.0, 1.0, 1.0]), np.array([0.25, 0.75, 0.75, 0.95])
    groups = {"f": np.array([True, True, True, False]), "m": np.array([False, False, False, True])}
    found = calibration_errors(labels, scores, groups)
    assert found == {"f": pytest.approx(0.25), "m": pytest.approx(0.05)}


@pytest.mark.parametrize(("decisions", "constant"), [([0] * 4, True), ([1] * 4, True), ([0, 0, 0, 1], False)])
def test_everybody_decided_alike_is_a_constant_whichever_way(decisions: list[int], constant: bool) -> None:
    assert measured([0.6] * 4, decisions, [1] * 4).constant is constant


def test_what_a_decision_gains_is_read_by_its_label_and_then_by_the_decision() -> None:
    table = [[1.0, -5.0], [0.0, 3.0]]  # a wrong yes costs 5, a wrong no nothing
    found = measured([0.6] * 4, [1, 1, 0, 0], [1] * 4, utility=table)
    assert found.each["utility"].tolist() == [-5.0, 3.0, 0.0, 0.0]
    assert found.measures["utility"] == -0.5


def test_the_furthest_gap_is_the_one_beyond_its_own_limit() -> None:
    wide = RouteGap(0.3, 0.4, at_least=False, estimate=0.3, excess=-0.1)
    tight = RouteGap(0.05, 0.02, at_least=False, estimate=0.05, excess=0.03)
    assert furthest({"wide": wide, "tight": tight}) == furthest({"tight": tight, "wide": wide}) == 0.05
    assert furthest({"wide": wide, "none": replace(wide, value=None)}) == 0.3
    assert furthest({}) is None


def test_a_score_at_the_threshold_is_a_yes() -> None:
    scores = np.array([0.5, 0.5, 0.4, 0.6])
    mine = [Candidate("mine", scores, scores, steps=("as it is",))]
    [route] = compare_routes(mine, PARITY, valid=FOUR, test=FOUR).routes
    assert route.decisions is not None
    assert route.decisions.tolist() == [1, 1, 0, 1]


def test_decisions_of_projected_scores_are_compared_with_those_of_the_scores_as_they_were() -> None:
    scores = np.array([0.1, 0.2, 0.45, 0.9])
    mine = [Candidate("mine", scores, scores, steps=("projected",), seconds=100.0)]
    [route] = compare_routes(mine, PARITY, valid=FOUR, test=FOUR).routes
    assert route.decisions is not None
    assert route.decisions.tolist() != [0, 0, 0, 1]
    assert route.test.flips["all"] == np.mean(route.decisions != [0, 0, 0, 1])
    assert 100.0 < route.seconds < 200.0  # the training's, and what the projection took


@pytest.mark.parametrize(("task", "geometry"), [("classification", "entropic"), ("regression", "euclidean")])
def test_the_geometry_of_a_projection_is_that_of_the_task(task: str, geometry: str) -> None:
    scores = np.array([0.1, 0.2, 0.45, 0.9])
    mine = [Candidate("mine", scores, scores, steps=("projected",))]
    [route] = compare_routes(mine, PARITY, valid=FOUR, test=FOUR, task=task).routes  # type: ignore[arg-type]
    held = fl.project(
        scores, as_constraints(PARITY), sensitive_features=FOUR.sensitive, geometry=geometry, bounds=(0.0, 1.0)
    )
    assert route.scores == pytest.approx(held.value.numpy(), abs=1e-12)


def test_of_several_limits_the_gap_to_come_that_is_told_is_the_largest() -> None:
    random = np.random.default_rng(0)
    columns = {"sex": random.integers(0, 2, 600), "region": random.integers(0, 6, 600)}
    scores = np.clip(random.normal(0.45, 0.2, 600), 0.01, 0.99)
    rows = Observed(columns, (random.uniform(size=600) < scores).astype(np.float64))
    both = [fl.DemographicParity("sex", 0.05), fl.DemographicParity("region", 0.05)]
    mine = [Candidate("mine", scores, scores, steps=("decision rule",))]
    for stated in (both, both[::-1]):
        [route] = compare_routes(mine, stated, valid=rows, test=rows).routes
        assert route.expected is not None
        assert route.rule is not None
        each = {c.name: route.rule.expected_gap(c, sizes=600) for c in both}
        assert route.expected == each["DemographicParity('region')"]  # six groups against two
        assert {name: gap.expected for name, gap in route.valid.decision_gaps.items()} == {
            name: found.long_run.mean for name, found in each.items()
        }


def test_folds_follow_no_order_of_the_rows() -> None:
    """Rows that come in turns of five would make each fold one of the turns."""
    fold = _folds(np.zeros(200, dtype=np.int64))
    shares = [np.bincount(fold[turn::5], minlength=5).max() / 40 for turn in range(5)]
    assert max(shares) < 0.5


def test_a_fold_is_decided_by_the_rows_of_the_other_folds() -> None:
    random = np.random.default_rng(0)
    scores, sex = random.uniform(size=60), np.tile([0, 1], 30)
    rows = Observed({"sex": sex}, random.integers(0, 2, 60).astype(np.float64))
    parity = as_constraints(PARITY)
    found = fit_rule(scores, parity, rows, utility=ACCURACY)
    fold = _folds(found.rule.locate({"sex": sex}, 60))
    for each in range(5):
        kept, out = np.flatnonzero(fold != each), np.flatnonzero(fold == each)
        other = fit_rule(scores[kept], parity, rows.take(kept), utility=ACCURACY).rule
        decided = other.apply(scores[out], sensitive_features={"sex": sex[out]}).numpy()
        assert found.crossed[out].tolist() == decided.tolist()
