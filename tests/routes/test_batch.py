"""Decisions by batch, what gap is to be expected of the others, and that test rows are measured on test rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fairlayer as fl
from fairlayer.calibration import GroupCalibrator
from fairlayer.data import TensorTable
from fairlayer.data.readers import read_lending
from fairlayer.edge import as_constraints
from fairlayer.errors import SmallBatchError
from fairlayer.routes import Candidate, Routes, TrainedRoutes, compare_routes, save_routes, train_routes
from fairlayer.routes.numbers import RouteGap, calibration_errors
from fairlayer.routes.rules import expected_gaps
from fairlayer.training import FitOptions, KeptRoute, NoDecisionsError, Observed, load_run, prepare
from fairlayer.training.described import describe_route
from fairlayer.training.evidence import audit_kept

PARITY, NAME = fl.DemographicParity("sex", 0.02), "DemographicParity('sex')"
STEPS = ["mine", "mine, projected", "mine, rule", "mine, batch"]
VALID, TEST = slice(0, 500), slice(500, 1200)


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, Observed]:
    random = np.random.default_rng(0)
    sex = random.integers(0, 2, 1200)
    scores = np.clip(random.normal(0.42 + 0.12 * sex, 0.2), 0.01, 0.99)
    return scores, Observed({"sex": sex}, (random.uniform(size=1200) < scores**1.5).astype(np.float64))


@pytest.fixture(scope="module")
def compared(rows: tuple[np.ndarray, Observed]) -> Routes:
    scores, people = rows
    mine = Candidate("mine", scores[VALID], scores[TEST])
    return compare_routes([mine], PARITY, valid=people.take(VALID), test=people.take(TEST))


def share(decisions: np.ndarray, sex: np.ndarray) -> float:
    return abs(decisions[sex == 1].mean() - decisions[sex == 0].mean())


def test_a_batch_keeps_its_limit_on_rows_that_nothing_was_fitted_to(
    compared: Routes, rows: tuple[np.ndarray, Observed]
) -> None:
    sex = rows[1].sensitive["sex"][TEST]
    batch, rule = compared.named("mine, batch"), compared.named("mine, rule")
    assert batch.decisions is not None
    assert rule.decisions is not None
    assert share(batch.decisions, sex) <= 0.02 < share(rule.decisions, sex)
    for gaps in (batch.valid.decision_gaps, batch.test.decision_gaps):
        assert gaps[NAME].held
        assert gaps[NAME].value <= 0.02  # type: ignore[operator]
    assert batch.test.decision_gaps[NAME].value == pytest.approx(share(batch.decisions, sex))
    assert batch.scores is not None
    assert np.array_equal(batch.scores, rows[0][TEST])


def test_a_batch_weighs_a_yes_by_what_scores_were_worth_on_validation_rows(rows: tuple[np.ndarray, Observed]) -> None:
    """The labels are rarer than the scores say, so that scores by themselves would say yes too often."""
    scores, people = rows
    calibrated = GroupCalibrator.fit(scores[VALID], people.labels[VALID]).apply(scores[TEST])  # type: ignore[index]
    table = ((1.0, 0.0), (0.0, 3.0))
    mine = [Candidate("mine", scores[VALID], scores[TEST], steps=("batch decisions",))]
    for utility in (((1.0, 0.0), (0.0, 1.0)), table):
        [route] = compare_routes(mine, PARITY, valid=people.take(VALID), test=people.take(TEST), utility=utility).routes
        expected = fl.decisions.decide(
            scores[TEST],
            PARITY,
            sensitive_features={"sex": people.sensitive["sex"][TEST]},
            label_probabilities=calibrated,
            utility=utility,
        )
        assert np.array_equal(route.decisions, expected.decisions.numpy())  # type: ignore[arg-type]


def test_a_batch_holds_a_limit_on_labels_on_estimates_only(rows: tuple[np.ndarray, Observed]) -> None:
    scores, people = rows
    mine = [Candidate("mine", scores[VALID], scores[TEST], steps=("batch decisions",))]
    opportunity = fl.EqualOpportunity("sex", 0.02)
    [route] = compare_routes(mine, opportunity, valid=people.take(VALID), test=people.take(TEST)).routes
    for gaps in (route.valid.decision_gaps, route.test.decision_gaps):
        assert [gap.held for gap in gaps.values()] == [False]
    assert route.expected is not None
    assert route.calibrator is not None
    assert {group.categories for group in route.calibrator.groups} == {(0,), (1,)}


def test_the_numbers_of_test_rows_are_counted_on_the_test_rows(
    compared: Routes, rows: tuple[np.ndarray, Observed]
) -> None:
    """Of scores and of decisions, by hand; the validation rows are other people, and have other numbers."""
    raw, sex = rows[0][TEST], rows[1].sensitive["sex"][TEST]
    assert rows[1].labels is not None
    labels = rows[1].labels[TEST]
    for name in STEPS:
        route = compared.named(name)
        scores, decisions, test = route.scores, route.decisions, route.test
        assert scores is not None
        assert decisions is not None
        assert scores.shape == decisions.shape == labels.shape
        assert test.score_gaps[NAME].value == pytest.approx(share(scores, sex))
        assert test.decision_gaps[NAME].value == pytest.approx(share(decisions, sex))
        assert test.measures["brier"] == pytest.approx(np.mean((scores - labels) ** 2))
        assert test.measures["accuracy"] == pytest.approx(np.mean(decisions == labels))
        assert test.each["accuracy"].tolist() == (decisions == labels).tolist()
        assert test.selected == pytest.approx(decisions.mean())
        assert test.flips["all"] == pytest.approx(np.mean(decisions != (raw >= 0.5)))
        groups = {"sex=0": sex == 0, "sex=1": sex == 1}
        assert test.calibration == pytest.approx(calibration_errors(labels, scores, groups))
        assert test.measures["brier"] != pytest.approx(route.valid.measures["brier"])
        assert test.measures["accuracy"] != pytest.approx(route.valid.measures["accuracy"])


def test_what_is_to_be_expected_of_decisions_is_read_from_their_counts(
    compared: Routes, rows: tuple[np.ndarray, Observed]
) -> None:
    """Rates of new people, drawn by hand from the Beta distributions of the counts on validation rows."""
    sex, raw = rows[1].sensitive["sex"][VALID], rows[0][VALID]
    random = np.random.default_rng(1)
    drawn = []
    for group in (0, 1):
        yes, n = (raw[sex == group] >= 0.5).sum(), (sex == group).sum()
        drawn.append(random.beta(yes + 0.5, n - yes + 0.5, 200_000))
    plain = compared.named("mine")
    assert plain.expected is not None
    assert plain.expected.long_run.mean == pytest.approx(np.abs(drawn[1] - drawn[0]).mean(), abs=0.003)
    assert plain.expected.new_rows.mean >= plain.expected.long_run.mean - 0.003
    assert plain.valid.decision_gaps[NAME].expected == plain.expected.long_run.mean
    assert [route.expected is None for route in compared.routes] == [False, False, False, True]


def test_labels_are_counted_apart_where_a_limit_reads_them_and_people_of_no_group_count_for_none() -> None:
    sex = np.array(["f"] * 40 + ["m"] * 40 + [None] * 20, dtype=object)
    labels, decisions = np.tile([0.0, 1.0], 50), np.where(sex == "m", 1, np.tile([0, 1, 1, 1], 25))
    opportunity = as_constraints(fl.EqualOpportunity("sex", 0.02))
    found = expected_gaps(decisions, opportunity, Observed({"sex": sex}, labels), sizes=1000)
    assert found[opportunity[0].name].at_fit == 0.0  # everybody of label 1 is selected, and not of label 0
    parity = as_constraints(PARITY)
    apart = expected_gaps(1 * (sex == "f"), parity, Observed({"sex": sex}, labels), sizes=1000)[NAME]
    assert apart.at_fit == 1.0
    assert 0.95 < apart.long_run.mean < 1.0
    assert (
        expected_gaps(decisions, as_constraints(fl.CovarianceBound("sex", 0.1)), Observed({"sex": sex}), sizes=9) == {}
    )


def test_in_the_long_run_a_held_gap_is_what_was_measured_and_an_expected_one_what_is_expected() -> None:
    gap = RouteGap(0.019, 0.02, at_least=False, estimate=0.0, excess=-0.001)
    assert gap.long_run == pytest.approx(-0.02)
    assert replace(gap, held=True).long_run == pytest.approx(-0.001)
    assert replace(gap, held=True, expected=0.03).long_run == pytest.approx(0.01)


def test_a_run_that_keeps_a_batch_route_decides_each_frame_as_a_whole(found: TrainedRoutes, tmp_path: Path) -> None:
    run = load_run(save_routes(tmp_path / "run", found, "plain, batch"))
    assert run.route == found.run("plain, batch").route
    for seed, rows in ((9, 700), (10, 400)):
        frame = read_lending(n=rows, seed=seed).frame.drop(columns=["label", "repays"])
        sex = frame["sex"].to_numpy() == "female"
        prediction = run.predict(frame)
        assert prediction.decisions is not None
        assert prediction.decided_by == "decide on this batch"
        assert share(prediction.decisions, 1 * sex) <= 0.02 + 1 / sex.sum()
        rule = run.predict(frame, decisions="rule")  # one at a time: by thresholds of the validation rows
        assert run.route.rule is not None
        assert np.array_equal(
            rule.decisions,
            run.route.rule.apply(rule.raw.astype(np.float64), sensitive_features=rule.sample.sensitive),  # type: ignore[arg-type]
        )
        capped = run.predict(frame, capacity=20)
        assert capped.decisions is not None
        assert capped.decisions.sum() == 20
        generous = run.predict(frame, utility=((1.0, 0.0), (0.0, 9.0)))
        kept = replace(run, route=replace(run.route, utility=((1.0, 0.0), (0.0, 9.0)))).predict(frame)
        assert generous.decisions is not None
        assert generous.decisions.sum() > prediction.decisions.sum()
        assert np.array_equal(generous.decisions, kept.decisions)  # type: ignore[arg-type]
        with pytest.raises(NoDecisionsError, match="only decisions on this very batch"):
            run.predict(frame, decisions="rule", utility=((1.0, 0.0), (0.0, 9.0)))


def test_thresholds_decide_one_row_by_itself_and_what_needs_a_batch_refuses_it(found: TrainedRoutes) -> None:
    frame = read_lending(n=700, seed=9).frame.drop(columns=["label", "repays"])
    for name in ("plain, batch", "plain, rule", "trees"):
        run = found.run(name)
        among = run.predict(frame, decisions="rule").decisions
        assert among is not None
        alone = [run.predict(frame[i : i + 1], decisions="rule").decisions for i in range(12)]
        assert [int(each[0]) for each in alone if each is not None] == among[:12].tolist()
        with pytest.raises(SmallBatchError, match=r"a batch of 12 rows.*b_tau=256.*--decisions rule.*--b-tau"):
            run.predict(frame[:12], decisions="batch")
    assert found.run("plain, rule").predict(frame[:1]).decisions is not None  # the rule that was kept decides
    for name, how in (("plain, batch", None), ("plain, projected", None), ("plain, projected", "rule")):
        with pytest.raises(SmallBatchError, match="a batch of 1 row was") as refused:
            found.run(name).predict(frame[:1], decisions=how)
        alone = name == "plain, batch"  # a way out that works, and none that does not
        assert ("--decisions rule" in str(refused.value)) is alone
        assert ("fairlayer stream" in str(refused.value)) is not alone


def test_a_run_decides_a_batch_as_the_route_beside_its_own_does(found: TrainedRoutes) -> None:
    """`predict --decisions batch` of any route of a model weighs a yes as the batch route of that model."""
    frame = read_lending(n=700, seed=9).frame.drop(columns=["label", "repays"])
    batch = found.run("trees, batch").predict(frame)
    for name in ("trees", "trees, projected", "trees, rule"):
        assert np.array_equal(found.run(name).predict(frame, decisions="batch").decisions, batch.decisions)  # type: ignore[arg-type]


def test_an_audit_decides_each_batch_as_a_whole(found: TrainedRoutes) -> None:
    run, test = found.run("plain, batch"), found.parts.test
    audit = audit_kept(run, test, batch_size=400)
    raw = run.layered.raw_scores(test.x).detach().numpy().astype(np.float64)
    parts = [slice(0, 400), slice(400, 800), slice(800, len(test))]
    assert len(test) == 1200
    constraints = found.parts.recipe.config.parsed()
    decided = np.concatenate([run.route.decide(raw[part], constraints, test.take(part).sensitive) for part in parts])
    accuracy = next(one["now"] for one in audit.to_dict()["cost"] if one["metric"] == "accuracy")
    assert accuracy == pytest.approx(np.mean(decided == test.y.numpy()))
    assert "each batch as a whole" in str(audit.sections["run"]["route"]["sentences"])


def test_test_rows_have_no_say_in_thresholds_and_choice() -> None:
    parts = prepare(read_lending(n=1500, seed=1), ["demographic_parity(sex, 0.02)"], hidden=(4,), b_tau=32)
    test = parts.test
    other = TensorTable(test.x.flip(0) + 1.0, 1.0 - test.y, test.sensitive)
    options = FitOptions(epochs=2, batch_size=128)
    one, two = (train_routes(replace(parts, test=each), options, decisions=True) for each in (test, other))
    assert one.routes.best.name == two.routes.best.name
    for mine, same in zip(one.routes.routes, two.routes.routes, strict=True):
        assert mine.rule == same.rule
        assert mine.calibrator == same.calibrator
        assert mine.valid.measures == same.valid.measures
        assert mine.valid.decision_gaps == same.valid.decision_gaps
        assert mine.test.measures != same.test.measures


def test_a_run_says_how_many_rows_its_thresholds_were_fitted_to(found: TrainedRoutes) -> None:
    words = f"{found.parts.rows['valid']} rows that the scores were not fitted to"
    assert words.startswith("700 ")
    for name in ("plain, rule", "trees, batch"):
        run = found.run(name)
        assert run.route.fitted == words
        assert words in " ".join(describe_route(run)["sentences"])


def test_a_route_of_an_older_run_has_accuracy_for_its_utility() -> None:
    state = KeptRoute("plain, batch", step="batch decisions").to_dict()
    del state["utility"]
    assert KeptRoute.from_dict(state) == KeptRoute("plain, batch", step="batch decisions")
    other = KeptRoute(utility=((1.0, -5.0), (0.0, 3.0)))
    assert KeptRoute.from_dict(other.to_dict()) == other
