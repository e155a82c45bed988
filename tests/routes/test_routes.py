"""Routes: what each row says, against other libraries; how one is chosen; what a run folder keeps of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer.cli.routes import show_routes
from fairlayer.data import TensorTable
from fairlayer.data.readers import read_lending
from fairlayer.decisions.inputs import ACCURACY
from fairlayer.edge import as_constraints
from fairlayer.errors import MissingExtraError
from fairlayer.routes import (
    Candidate,
    Criterion,
    Route,
    RouteNumbers,
    TrainedRoutes,
    compare_routes,
    parse_criterion,
    save_routes,
    train_routes,
)
from fairlayer.routes.errors import CriterionError, RouteError
from fairlayer.routes.numbers import RouteGap, calibration_errors, gap_of, worst
from fairlayer.routes.rules import _folds, fit_rule
from fairlayer.training import (
    FitOptions,
    NetworkAndTrees,
    NoDecisionsError,
    Observed,
    TreesNotServedError,
    fit_trees,
    load_run,
    prepare,
)
from fairlayer.training.described import describe_route
from fairlayer.training.trees import share_of_network

PARITY = "DemographicParity('sex')"
NAMES = [
    *("plain", "plain, projected", "plain, rule", "plain, batch", "trained through"),
    *("trees", "trees, projected", "trees, rule", "trees, batch"),
    *("both", "both, projected", "both, rule", "both, batch"),
]


def test_every_way_has_a_row(found: TrainedRoutes) -> None:
    assert [route.name for route in found.routes.routes] == NAMES
    assert found.routes.left_out == ()
    json.dumps(found.routes.to_dict())


def test_the_numbers_are_those_of_sklearn_and_fairlearn(found: TrainedRoutes) -> None:
    metrics, fairness = pytest.importorskip("sklearn.metrics"), pytest.importorskip("fairlearn.metrics")
    test = found.parts.test
    labels, sex = test.y.numpy(), test.sensitive["sex"]
    assert found.trees is not None
    scores = found.trees.scores(test.x)
    row = found.routes.named("trees").test
    assert row.measures["auc"] == pytest.approx(metrics.roc_auc_score(labels, scores))
    assert row.measures["brier"] == pytest.approx(metrics.brier_score_loss(labels, scores))
    assert row.measures["log_loss"] == pytest.approx(metrics.log_loss(labels, scores), rel=1e-6)
    assert row.measures["accuracy"] == pytest.approx(metrics.accuracy_score(labels, scores >= 0.5))
    gap = fairness.demographic_parity_difference(labels, scores >= 0.5, sensitive_features=sex)
    assert row.decision_gaps[PARITY].value == pytest.approx(gap)
    assert row.flips["all"] == 0.0


def test_projected_routes_keep_the_score_gap_and_rules_the_decision_gap_where_they_were_fitted(
    found: TrainedRoutes,
) -> None:
    for name in ("plain, projected", "trained through", "trees, projected"):
        assert found.routes.named(name).test.score_gaps[PARITY].value <= 0.02 + 1e-6  # type: ignore[operator]
    for name in ("plain, rule", "trees, rule"):
        assert found.routes.named(name).valid.decision_gaps[PARITY].value <= 0.02 + 0.02  # type: ignore[operator]
        assert found.routes.named(name).test.flips["all"] > 0
    raw = found.routes.named("plain"), found.routes.named("plain, rule")
    assert raw[0].test.measures["log_loss"] == raw[1].test.measures["log_loss"]  # a rule moves no score


def test_the_best_is_the_best_of_those_that_keep_the_gap_on_validation_rows(found: TrainedRoutes) -> None:
    routes = found.routes
    kept = [route for route in routes.routes if route.valid.score_gaps[PARITY].beyond() <= 1e-6]
    lowest = min(kept, key=lambda route: route.valid.measures["log_loss"])  # type: ignore[arg-type,return-value]
    assert level(routes.best, lowest)
    assert routes.kept
    free = routes.chosen_by(parse_criterion("log_loss at no_gap"))
    assert level(free, min(routes.routes, key=lambda route: route.valid.measures["log_loss"]))  # type: ignore[arg-type,return-value]
    ranked = routes.chosen_by(parse_criterion("auc at no_gap"))  # no mean over rows: the best counts
    assert ranked.valid.measures["auc"] == max(route.valid.measures["auc"] for route in routes.routes)  # type: ignore[type-var]
    decided = routes.chosen_by(parse_criterion("accuracy at decision_gap"))
    assert decided.valid.decision_gaps[PARITY].beyond() <= 1e-6


def test_the_network_trained_through_has_a_rule_of_its_own_and_took_the_time_of_both_trainings(
    found: TrainedRoutes,
) -> None:
    parts, backbone = found.parts, found.trained.model.backbone
    assert backbone is not None
    with torch.no_grad():
        scores = backbone(parts.valid.x).numpy().astype(np.float64)
    rows = Observed(parts.valid.sensitive, parts.valid.y.numpy())
    own = fit_rule(scores, parts.recipe.config.parsed(), rows, utility=ACCURACY).rule
    assert found.run("trained through").route.rule == own
    assert own != found.run("plain").route.rule
    fits, through = found.trained.fits, found.routes.named("trained through")
    assert fits.unconstrained.seconds + fits.constrained.seconds < through.seconds
    assert fits.unconstrained.seconds < found.routes.named("plain").seconds


def test_seed_utility_and_the_wish_for_decisions_reach_what_they_are_for() -> None:
    pytest.importorskip("sklearn")
    parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
    found = train_routes(parts, FitOptions(epochs=1, seed=7), decisions=True, utility=[[1, 0], [0, 3]])
    assert found.routes.criterion == Criterion("accuracy", "decision gap")
    assert found.trees is not None
    assert [fitted.random_state % 1_000_003 for fitted in found.trees.estimators] == [7] * 5
    assert {"utility"} <= {name for route in found.routes.routes for name in route.valid.measures}
    chosen = train_routes(
        parts, FitOptions(epochs=1), trees=False, decisions=True, criterion=parse_criterion("brier at no_gap")
    )
    assert str(chosen.routes.criterion) == "brier at no gap"


def level(one: Route, best: Route) -> bool:
    """Whether the losses per row differ by no more than a standard error."""
    more = one.valid.each["log_loss"] - best.valid.each["log_loss"]
    return bool(more.mean() <= more.std() / len(more) ** 0.5)


def numbers(loss: float, gap: float, limit: float = 0.02) -> RouteNumbers:
    gaps = {"parity": RouteGap(gap, limit, at_least=False, estimate=gap, excess=gap - limit)}
    return RouteNumbers({"log_loss": loss}, {}, gaps, {}, {})


def test_where_nothing_keeps_the_gap_the_nearest_is_taken() -> None:
    rows = [numbers(0.2, 0.30), numbers(0.4, 0.05), numbers(0.3, 0.20)]
    assert Criterion("log_loss", "score gap").best(rows) == 1
    assert Criterion("log_loss", "score gap", within=0.25).best(rows) == 2
    assert Criterion("log_loss", "no gap").best(rows) == 0
    with pytest.raises(CriterionError, match="needs decisions"):
        Criterion("log_loss", "decision gap").best(rows)
    with pytest.raises(CriterionError, match="no route has the measure 'auc'"):
        Criterion("auc", "no gap").best(rows)


@pytest.mark.parametrize("text", ["log_loss", "log_loss at the gap", "beauty at no_gap", "auc at score_gap <= much"])
def test_a_criterion_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(CriterionError):
        parse_criterion(text)


def test_the_noise_of_small_cells_does_not_rule_a_route_out() -> None:
    """20 groups of 30 with one true rate: the measured range is large, the estimate is not."""
    random = np.random.default_rng(0)
    group = np.repeat(np.arange(20), 30)
    decisions = (random.uniform(size=600) < 0.4).astype(np.float64)
    gap = gap_of(fl.DemographicParity("g", tolerance=0.1), Observed({"g": group.astype(str)}), decisions)
    assert gap.value is not None
    assert gap.estimate is not None
    assert gap.value > 0.25
    assert gap.estimate < 0.1
    assert gap.beyond() <= 0


def test_calibration_error_is_that_of_the_definition() -> None:
    random = np.random.default_rng(0)
    scores = random.uniform(size=500)
    lean = np.where((scores * 10).astype(int) % 2 == 0, 0.2, -0.2)  # else the sum would not depend on the bins
    labels = (random.uniform(size=500) < scores + lean).astype(np.float64)
    inside = np.ones(500, dtype=bool)
    expected = 0.0
    for b in range(10):
        here = (scores >= b / 10) & (scores < (b + 1) / 10)
        expected += here.sum() / 500 * abs(labels[here].mean() - scores[here].mean())
    assert calibration_errors(labels, scores, {"all": inside})["all"] == pytest.approx(expected)
    some = np.arange(500) < 100
    found = calibration_errors(labels, scores, {"some": some})["some"]
    assert found == pytest.approx(calibration_errors(labels[some], scores[some], {"all": inside[:100]})["all"])


def test_a_rule_is_judged_on_rows_that_it_was_not_fitted_to() -> None:
    """Scores that say nothing: thresholds fitted to few rows look better than chance on them, and only there."""
    random = np.random.default_rng(3)
    sex = np.tile([0, 1], 40)
    scores, labels = random.uniform(size=80), random.integers(0, 2, 80).astype(np.float64)
    rows = Observed({"sex": sex}, labels)
    [route] = compare_routes(
        [Candidate("noise", scores, scores, steps=("decision rule",))],
        fl.DemographicParity("sex", tolerance=0.05),
        valid=rows,
        test=rows,
    ).routes
    assert route.test.measures["accuracy"] > 0.55  # type: ignore[operator]  # the same rows, and flattered
    assert route.valid.measures["accuracy"] < route.test.measures["accuracy"]  # type: ignore[operator]


def test_a_constant_predictor_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    scores = random.uniform(0.1, 0.4, size=200)
    rows = Observed({"sex": np.tile([0, 1], 100)}, (random.uniform(size=200) < scores).astype(np.float64))
    found = compare_routes(
        [Candidate("mine", scores, scores, steps=("as it is",))],
        fl.DemographicParity("sex", tolerance=0.1),
        valid=rows,
        test=rows,
    )
    assert found.best.test.constant
    show_routes(found)
    assert "Decide the same for everybody: 'mine'." in capsys.readouterr().out


def test_a_rule_that_cannot_be_made_is_left_out_and_told() -> None:
    scores = np.linspace(0.1, 0.9, 40)
    rows = Observed({"sex": np.tile([0, 1], 20)}, (scores > 0.4).astype(np.float64))
    found = compare_routes(
        [Candidate("mine", scores, scores)], fl.CovarianceBound("sex", tolerance=0.1), valid=rows, test=rows
    )
    assert [route.name for route in found.routes] == ["mine", "mine, projected"]
    assert [name for name, _ in found.left_out] == ["mine, rule", "mine, batch"]
    assert all("CovarianceBound" in reason for _, reason in found.left_out)
    with pytest.raises(RouteError, match="no route 'mine, rule'"):
        found.named("mine, rule")


@pytest.mark.parametrize("name", ["plain", "plain, projected", "plain, rule", "plain, batch", "trained through"])
def test_a_run_folder_keeps_the_route(found: TrainedRoutes, tmp_path: Path, name: str) -> None:
    frame = read_lending(n=700, seed=9).frame.drop(columns=["label", "repays"])
    run = load_run(save_routes(tmp_path / "run", found, name))
    kept, fresh = run.predict(frame), found.run(name).predict(frame)
    assert run.route == found.run(name).route
    assert np.array_equal(kept.scores, fresh.scores)
    assert kept.decisions is not None
    assert np.array_equal(kept.decisions, fresh.decisions)  # type: ignore[arg-type]
    means = {sex: kept.scores[(frame["sex"] == sex).to_numpy()].mean() for sex in ("female", "male")}
    gap = abs(means["female"] - means["male"])
    assert (gap <= 0.02 + 1e-6) == (name in ("plain, projected", "trained through"))
    assert json.loads((tmp_path / "run" / "routes.json").read_text())["kept"] == name
    assert run.model.projection.options.geometry == "euclidean"  # it may be streamed and served
    assert run.model.backbone is run.layered.backbone


def test_trees_are_kept_by_skops_predicted_and_not_served(found: TrainedRoutes, tmp_path: Path) -> None:
    pytest.importorskip("skops")
    frame = read_lending(n=700, seed=9).frame.drop(columns=["label", "repays"])
    run = load_run(save_routes(tmp_path / "run", found, "trees, projected"))
    assert np.array_equal(run.predict(frame).scores, found.run("trees, projected").predict(frame).scores)
    with pytest.raises(TreesNotServedError, match=r"neither streamed nor served.*--no-trees"):
        _ = run.model
    (tmp_path / "run" / "trees.skops").unlink()
    with pytest.raises(fl.FairlayerError, match=r"trees\.skops"):
        load_run(tmp_path / "run")


def test_trees_are_refused_by_name_where_skops_is_not_installed(
    found: TrainedRoutes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "skops.io", None)
    with pytest.raises(MissingExtraError, match=r"skops.*fairlayer\[trees\]"):
        save_routes(tmp_path / "run", found, "trees")
    assert not (tmp_path / "run").exists()


def test_trees_are_the_mean_of_five_fits_in_log_odds(found: TrainedRoutes) -> None:
    assert found.trees is not None
    x = found.parts.test.x.numpy()
    each = [fitted.predict_proba(x)[:, 1] for fitted in found.trees.estimators]
    assert len(each) == len({tuple(scores) for scores in each}) == 5
    odds = np.mean([np.log(scores / (1 - scores)) for scores in each], axis=0)
    assert found.trees.scores(found.parts.test.x) == pytest.approx(1 / (1 + np.exp(-odds)))


def test_the_mean_of_network_and_trees_is_a_route_that_is_kept(found: TrainedRoutes, tmp_path: Path) -> None:
    pytest.importorskip("skops")
    assert found.trees is not None
    x = found.parts.test.x
    with torch.no_grad():
        one = found.trained.plain(x).numpy().astype(np.float64)
    odds = [np.log(scores / (1 - scores)) for scores in (one, found.trees.scores(x))]
    share = found.share
    assert share != 0.5
    expected = 1 / (1 + np.exp(-np.average(odds, axis=0, weights=[share, 1 - share])))
    assert found.routes.named("both").scores == pytest.approx(expected, abs=1e-5)
    frame = read_lending(n=700, seed=9).frame.drop(columns=["label", "repays"])
    run = load_run(save_routes(tmp_path / "run", found, "both, projected"))
    assert run.route.scored_by == "both"
    assert "boosted trees, of which the mean counts" in describe_route(run)["sentences"][0]
    fresh = found.run("both, projected").predict(frame)
    assert np.array_equal(run.predict(frame).scores, fresh.scores)
    with torch.no_grad():
        rows = run.recipe.sample(frame)
        apart = run.plain(rows.x).double().numpy(), found.trees.scores(rows.x)
    against = ((1 - apart[0]) / apart[0]) ** share * ((1 - apart[1]) / apart[1]) ** (1 - share)
    assert fresh.raw == pytest.approx(1 / (1 + against), abs=1e-5)
    assert f"with a weight of {share:.0%}" in describe_route(run)["sentences"][0]
    with pytest.raises(TreesNotServedError, match=r"'both, projected'.*neither streamed nor served"):
        _ = run.model


def test_amounts_of_network_and_trees_are_averaged_as_they_are() -> None:
    pytest.importorskip("sklearn")
    random = torch.Generator().manual_seed(0)
    rows = TensorTable(x := torch.rand(300, 2, generator=random), 100 * x[:, 0], {})
    trees = fit_trees(rows, task="regression", fits=2)
    network = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Flatten(0))
    both = NetworkAndTrees(network, trees, 0.25)(rows.x)
    assert torch.allclose(both, 0.25 * network(rows.x) + 0.75 * trees(rows.x), atol=1e-4)
    assert len(trees.estimators) == 2


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_share_of_the_network_lies_between_one_half_and_the_best_on_the_rows(task: Any) -> None:
    """The best by scipy; where one of two is right and the other says nothing, three quarters."""
    optimize = pytest.importorskip("scipy.optimize")
    random = np.random.default_rng(0)
    signal = random.normal(size=2000)
    one, other = (signal + random.normal(scale=scale, size=2000) for scale in (0.8, 1.2))
    if task == "regression":
        labels, scores = signal, (one, other)
    else:
        labels = (random.uniform(size=2000) < 1 / (1 + np.exp(-signal))).astype(np.float64)
        scores = (1 / (1 + np.exp(-one)), 1 / (1 + np.exp(-other)))

    def loss(share: float) -> float:
        z = share * one + (1 - share) * other
        return float(np.mean((z - labels) ** 2 if task == "regression" else np.logaddexp(0, np.where(labels, -z, z))))

    best = optimize.minimize_scalar(loss, bounds=(0, 1), method="bounded").x
    assert 0.55 < best < 0.95
    assert share_of_network(*scores, labels, task) == pytest.approx((best + 0.5) / 2, abs=0.0126)
    true, nothing = (signal if task == "regression" else 1 / (1 + np.exp(-signal))), np.full(2000, 0.5)
    assert share_of_network(true, nothing, labels, task) >= 0.7
    assert share_of_network(nothing, true, labels, task) <= 0.3


def test_a_run_decides_by_its_rule_or_on_the_batch(found: TrainedRoutes) -> None:
    frame = read_lending(n=700, seed=9).frame.drop(columns=["label", "repays"])
    run = found.run("plain, projected")
    sex = frame["sex"].to_numpy()
    batch = run.predict(frame, decisions="batch", capacity=100)
    assert batch.decisions is not None
    assert batch.decisions.sum() <= 100
    rates = [batch.decisions[sex == each].mean() for each in ("female", "male")]
    assert abs(rates[0] - rates[1]) <= 0.02 + 1 / 300
    rule = run.predict(frame, decisions="rule")
    assert run.route.rule is not None
    expected = run.route.rule.apply(rule.raw, sensitive_features={"sex": sex}).numpy()
    assert np.array_equal(rule.decisions, expected)  # type: ignore[arg-type]
    with pytest.raises(NoDecisionsError, match="--decisions batch"):
        run.predict(frame, capacity=5)
    with pytest.raises(NoDecisionsError, match="no decision rule"):
        replace(run, route=replace(run.route, rule=None)).predict(frame, decisions="rule")


def test_constraints_on_labels_are_projected_on_calibrated_estimates_and_the_run_keeps_them(tmp_path: Path) -> None:
    parts = prepare(read_lending(n=4000, seed=1), ["equal_opportunity(sex, 0.02)"], hidden=(8,), seed=0)
    found = train_routes(parts, FitOptions(epochs=4, batch_size=128, learning_rate=1e-2), trees=False)
    run = load_run(save_routes(tmp_path / "run", found, "plain, projected"))
    assert run.route.calibrator is not None
    prediction = run.predict(parts_frame(4000))
    with torch.no_grad():
        raw = torch.from_numpy(prediction.raw)
        estimates = run.route.calibrator.apply(raw, sensitive_features=dict(prediction.sample.sensitive))
    held = fl.EqualOpportunity("sex", tolerance=0.02).measure(
        prediction.scores, sensitive_features=prediction.sample.sensitive, label_probabilities=estimates
    )
    assert held.value == pytest.approx(0.02, abs=1e-5)
    assert json.loads((tmp_path / "run" / "routes.json").read_text())["best"]


def parts_frame(n: int) -> Any:
    return read_lending(n=n, seed=9).frame.drop(columns=["label", "repays"])


def test_thresholds_of_a_comparison_do_not_follow_the_accidents_of_the_labels() -> None:
    """Scores that are the true probabilities, so that the accuracy of any decisions in the long run is known."""
    parity, gained = as_constraints(fl.DemographicParity("sex", tolerance=0.02)), []
    for seed in range(40):
        random = np.random.default_rng(seed)
        sex = np.tile([0, 1], 50)
        scores = np.clip(random.beta(2, 2, 100) + 0.1 * sex, 0.01, 0.99)
        labels = (random.uniform(size=100) < scores).astype(np.float64)
        estimated = fit_rule(scores, parity, Observed({"sex": sex}, labels), utility=ACCURACY).rule
        with pytest.warns(fl.errors.FairlayerWarning, match="cells are small"):
            followed = fl.decisions.DecisionRule.fit(scores, parity, sensitive_features={"sex": sex}, y=labels)
        people = np.tile([0, 1], 20_000)
        p = np.clip(random.beta(2, 2, len(people)) + 0.1 * people, 0.01, 0.99)
        accuracy = []
        for rule in (estimated, followed):
            yes = rule.apply(p, sensitive_features={"sex": people}).numpy() == 1
            accuracy.append(np.where(yes, p, 1 - p).mean())
        gained.append(accuracy[0] - accuracy[1])
    assert np.mean(gained) > 3 * np.std(gained) / len(gained) ** 0.5
    assert np.mean(gained) > 0.004


def test_a_rule_for_a_constraint_on_labels_is_fitted_to_the_labels() -> None:
    random = np.random.default_rng(0)
    sex, scores = np.tile([0, 1], 300), random.uniform(size=600)
    labels = (random.uniform(size=600) < scores).astype(np.float64)
    opportunity = as_constraints(fl.EqualOpportunity("sex", tolerance=0.02))
    rule = fit_rule(scores, opportunity, Observed({"sex": sex}, labels), utility=ACCURACY).rule
    assert rule == fl.decisions.DecisionRule.fit(scores, opportunity, sensitive_features={"sex": sex}, y=labels)


def test_a_rule_calibrates_the_scores_that_it_weighs_a_yes_by() -> None:
    """Scores whose log odds are halved and lowered are the same to the two numbers of the calibration."""
    random = np.random.default_rng(0)
    sex = np.tile([0, 1], 400)
    scores = np.clip(random.beta(2, 2, 800) + 0.1 * sex, 0.01, 0.99)
    rows = Observed({"sex": sex}, (random.uniform(size=800) < scores).astype(np.float64))
    shifted = 1 / (1 + np.exp(2 - np.log(scores / (1 - scores)) / 2))
    parity = as_constraints(fl.DemographicParity("sex", tolerance=0.02))
    one, other = (fit_rule(each, parity, rows, utility=ACCURACY) for each in (scores, shifted))
    assert (one.decisions == other.decisions).mean() > 0.99
    assert 0.4 < one.decisions.mean() < 0.7


def test_every_fold_has_its_share_of_each_cell_but_of_a_single_row() -> None:
    cell_of = np.repeat([0, 1, 2, 3], [50, 7, 2, 1])
    fold = _folds(cell_of)
    for cell, most in ((0, 10), (1, 2), (2, 1)):
        counts = np.bincount(fold[cell_of == cell], minlength=5)
        assert counts.max() == most
        assert np.ptp(counts) <= 1
    assert fold[-1] == -1


def test_the_utility_of_a_rule_is_that_on_rows_it_was_not_fitted_to_and_the_gap_is_for_as_many_as_the_test_rows() -> (
    None
):
    random = np.random.default_rng(3)
    sex, scores = np.tile([0, 1], 40), random.uniform(size=80)
    rows = Observed({"sex": sex}, random.integers(0, 2, 80).astype(np.float64))
    parity = fl.DemographicParity("sex", tolerance=0.05)
    noise = [Candidate("noise", scores, scores[:20], steps=("decision rule",))]
    test = rows.take(slice(0, 20))
    [route] = compare_routes(noise, parity, valid=rows, test=test, utility=[[1, 0], [0, 3]]).routes
    fitted = fit_rule(scores, as_constraints(parity), rows, utility=[[1, 0], [0, 3]])
    assert rows.labels is not None
    gained = np.array([[1, 0], [0, 3]])[rows.labels.astype(int), fitted.crossed]
    assert route.valid.measures["utility"] == pytest.approx(gained.mean())
    assert route.rule is not None
    assert route.expected == route.rule.expected_gap(parity, sizes=20)


def test_what_a_route_bounds_counts_as_measured_and_its_estimate_elsewhere() -> None:
    random = np.random.default_rng(0)
    sex, scores = np.tile([0, 1], 200), random.uniform(0.1, 0.9, size=400)
    rows = Observed({"sex": sex}, (random.uniform(size=400) < scores).astype(np.float64))
    for stated, held in ((fl.DemographicParity("sex", 0.02), True), (fl.EqualOpportunity("sex", 0.02), False)):
        found = compare_routes([Candidate("mine", scores, scores)], stated, valid=rows, test=rows)
        for name, scored, decided in (
            ("mine", False, False),
            ("mine, projected", held, False),
            ("mine, rule", False, True),
        ):
            valid, test = found.named(name).valid, found.named(name).test
            assert [gap.held for gap in valid.score_gaps.values()] == [scored]
            assert [gap.held for gap in valid.decision_gaps.values()] == [decided]
            assert [gap.held for gap in test.decision_gaps.values()] == [False]


def test_a_lower_limit_is_missed_from_below() -> None:
    gap = RouteGap(0.7, 0.8, at_least=True, estimate=0.72, excess=0.1)
    assert gap.beyond() == pytest.approx(0.08)
    assert gap.beyond(0.75) == pytest.approx(0.03)
    assert replace(gap, held=True).beyond() == pytest.approx(0.1)


def test_groups_of_few_rows_have_no_say_in_the_worst_calibration() -> None:
    sizes = {"a": np.ones(30, dtype=bool), "b": np.ones(29, dtype=bool)}
    assert worst({"a": 0.1, "b": 0.4}, sizes) == 0.1
    assert worst({"b": 0.4}, sizes) is None


def test_more_of_a_good_measure_is_better() -> None:
    rows = [RouteNumbers({"accuracy": share}, {}, {}, {}, {}) for share in (0.7, 0.9, 0.8)]
    assert Criterion("accuracy", "no gap").best(rows) == 1
