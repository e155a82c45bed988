"""Every metric equals that of scikit-learn or Fairlearn, group by group, with and without weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from fairlayer.audit import AuditTable, MetricError, mean_of, metric_names, register
from fairlayer.audit.metrics import base

sklearn = pytest.importorskip("sklearn.metrics")
fairlearn = pytest.importorskip("fairlearn.metrics")

TOLERANCE = 1e-9


def draw(seed: int, *, ties: bool = False, weighted: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(60, 400))
    scores = rng.random(n)
    return {
        "scores": np.round(scores, 1) if ties else scores,
        "y": (rng.random(n) < 0.15 + 0.6 * scores).astype(int),
        "group": rng.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2]),
        "weights": rng.integers(0, 4, n) * rng.random(n) if weighted else np.ones(n),
    }


def table_of(drawn: dict[str, Any], **settings: Any) -> AuditTable:
    return AuditTable.of(
        scores=drawn["scores"],
        y=drawn["y"],
        sample_weight=drawn["weights"],
        sensitive_features={"group": drawn["group"]},
        **settings,
    )


def calibration(y: Any, scores: Any, weights: Any) -> float:
    """Count the ten bins one row at a time."""
    edges = np.linspace(0, 1, 11)
    error = 0.0
    for b in range(10):
        inside = (scores > edges[b]) & (scores <= edges[b + 1]) | ((b == 0) & (scores == 0))
        if weights[inside].sum() > 0:
            error += abs((weights * (y - scores))[inside].sum())
    return error / float(weights.sum())


def decided(function: Callable[..., float]) -> Callable[..., float]:
    return lambda y, s, w: function(y, s >= 0.5, sample_weight=w)


OUTSIDE: dict[str, Callable[[Any, Any, Any], float]] = {
    "selection_rate": decided(fairlearn.selection_rate),
    "true_positive_rate": decided(fairlearn.true_positive_rate),
    "false_positive_rate": decided(fairlearn.false_positive_rate),
    "true_negative_rate": decided(fairlearn.true_negative_rate),
    "false_negative_rate": decided(fairlearn.false_negative_rate),
    "accuracy": decided(sklearn.accuracy_score),
    "positive_predictive_value": decided(sklearn.precision_score),
    "negative_predictive_value": lambda y, s, w: sklearn.precision_score(1 - y, s < 0.5, sample_weight=w),
    "auc": lambda y, s, w: sklearn.roc_auc_score(y, s, sample_weight=w),
    "log_loss": lambda y, s, w: sklearn.log_loss(y, s, sample_weight=w),
    "brier_score": lambda y, s, w: sklearn.brier_score_loss(y, s, sample_weight=w),
    "mean_score": lambda y, s, w: fairlearn.mean_prediction(y, s, sample_weight=w),
    "base_rate": lambda y, s, w: float(np.average(y, weights=w)),
    "mean_residual": lambda y, s, w: float(np.average(y - s, weights=w)),
    "mean_absolute_error": lambda y, s, w: sklearn.mean_absolute_error(y, s, sample_weight=w),
    "mean_squared_error": lambda y, s, w: sklearn.mean_squared_error(y, s, sample_weight=w),
    "root_mean_squared_error": lambda y, s, w: sklearn.root_mean_squared_error(y, s, sample_weight=w),
    "calibration_error": calibration,
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("name", OUTSIDE)
def test_metrics_equal_those_of_others(name: str, ties: bool, weighted: bool) -> None:
    for seed in range(25):
        drawn = draw(seed, ties=ties, weighted=weighted)
        found = table_of(drawn).values(name, "group")
        assert set(found) == {f"group={g}" for g in set(drawn["group"])}
        for group in set(drawn["group"]):
            rows = drawn["group"] == group
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                expected = OUTSIDE[name](drawn["y"][rows], drawn["scores"][rows], drawn["weights"][rows])
            assert found[f"group={group}"] == pytest.approx(expected, abs=TOLERANCE), (seed, group)


def test_every_registered_metric_is_compared_with_an_outside_one() -> None:
    assert set(OUTSIDE) == set(metric_names()) - {"calibration_error_debiased"}


def test_calibration_error_equals_the_calibration_curve_of_scikit_learn() -> None:
    from sklearn.calibration import calibration_curve

    drawn = draw(3, ties=True)
    share, score = calibration_curve(drawn["y"], drawn["scores"], n_bins=10)
    counts = np.bincount(np.searchsorted(np.linspace(0, 1, 11)[1:-1], drawn["scores"]), minlength=10)
    expected = np.abs(share - score) @ counts[counts > 0] / len(drawn["y"])
    assert table_of(drawn).overall("calibration_error") == pytest.approx(expected, abs=TOLERANCE)


def test_the_debiased_calibration_error_of_calibrated_scores_is_about_nothing() -> None:
    rng = np.random.default_rng(0)
    plain, squared = [], []
    for _ in range(400):
        scores = rng.random(200)
        table = AuditTable.of(
            scores=scores,
            y=rng.random(200) < scores,
            sensitive_features={"g": np.zeros(200, int)},
            task="classification",
        )
        plain.append(table.overall("calibration_error"))
        debiased = table.overall("calibration_error_debiased")
        squared.append(np.sign(debiased) * debiased**2)
    assert np.mean(plain) > 0.06  # 200 calibrated people show an error of about 0.07
    assert abs(np.mean(squared)) < 0.0006  # and its square, with the noise taken out, is 0 on average


def test_the_area_from_a_histogram_says_how_far_it_may_be_off() -> None:
    drawn = draw(5)
    exact = table_of(drawn)
    coarse = table_of(drawn, keep_ranks=False)
    assert "ranks" in exact.holds
    assert "ranks" not in coarse.holds
    areas = coarse.by("group").areas()
    for area, expected in zip(areas, exact.values("auc", "group").values(), strict=True):
        assert abs(area.value - expected) <= area.doubt < 0.01
        assert area.doubt > 0


def test_the_area_has_delongs_variance() -> None:
    """The textbook form: the placements of every positive among the negatives, and the reverse."""
    drawn = draw(8, ties=True)
    y, s = drawn["y"], drawn["scores"]
    up, down = s[y == 1], s[y == 0]
    wins = (up[:, None] > down[None]) + 0.5 * (up[:, None] == down[None])
    expected = wins.mean(axis=1).var(ddof=1) / len(up) + wins.mean(axis=0).var(ddof=1) / len(down)
    areas = table_of(drawn).by().areas()
    assert areas[0].value == pytest.approx(wins.mean(), abs=TOLERANCE)
    assert areas[0].variance == pytest.approx(expected, abs=TOLERANCE)


@pytest.fixture
def _own_names() -> Iterator[None]:
    before = dict(base._REGISTER)
    yield
    base._REGISTER.clear()
    base._REGISTER.update(before)


@pytest.mark.usefixtures("_own_names")
def test_a_metric_of_ones_own_works_everywhere() -> None:
    register(mean_of("loss_in_euros", words="mean loss", unit="euros", worse="higher"))
    rng = np.random.default_rng(1)
    loss, sex = rng.random(200) * 100, np.repeat(["F", "M"], 100)
    tables = [
        AuditTable.of(values={"loss_in_euros": loss[part]}, sensitive_features={"sex": sex[part]})
        for part in (slice(0, 150), slice(150, 200))
    ]
    whole = AuditTable.from_dict(sum(tables).to_dict())  # type: ignore[attr-defined]
    assert whole.values("loss_in_euros", "sex") == pytest.approx(
        {"sex=F": loss[:100].mean(), "sex=M": loss[100:].mean()}, abs=1e-9
    )
    found = whole.disparity("loss_in_euros", "sex")
    assert found.difference.low <= found.difference.measured <= found.difference.high
    assert found.worst.worse_off == ("sex=F" if loss[:100].mean() > loss[100:].mean() else "sex=M")
    assert "loss_in_euros" in metric_names(whole)
    assert "selection_rate" not in metric_names(whole)


@pytest.mark.usefixtures("_own_names")
def test_a_name_is_given_once() -> None:
    own = mean_of("selection_rate", words="mine", unit="share", worse="lower")
    with pytest.raises(MetricError, match="there is a metric 'selection_rate' already"):
        register(own)
    assert register(own, replace=True) is base.metric("selection_rate")


def test_what_a_table_does_not_hold_is_said() -> None:
    table = AuditTable.of(decisions=[0, 1], sensitive_features={"sex": ["F", "M"]})
    with pytest.raises(MetricError, match=r"'auc' .* the order of .* and labels of 0 and 1; what was given is: dec"):
        table.overall("auc")
    with pytest.raises(MetricError, match="there is no metric 'acuracy', only accuracy"):
        table.overall("acuracy")
    logits = AuditTable.of(scores=[-3.0, 2.0], y=[0, 1], sensitive_features={"sex": ["F", "M"]})
    with pytest.raises(MetricError, match=r"'log_loss' .* needs scores in"):
        logits.overall("log_loss")
    assert logits.overall("auc") == 1.0
    with pytest.raises(MetricError, match="keep_ranks=True"):
        logits.coarse().overall("auc")


def test_the_direction_follows_what_is_good_for_a_person() -> None:
    decisions, sex = [1] * 40 + [0] * 10 + [1] * 10 + [0] * 40, ["F"] * 50 + ["M"] * 50
    hired = AuditTable.of(decisions=decisions, sensitive_features={"sex": sex})
    searched = AuditTable.of(decisions=decisions, sensitive_features={"sex": sex}, favourable=0)
    assert hired.disparity("demographic_parity", "sex").worst.worse_off == "sex=M"
    assert searched.disparity("demographic_parity", "sex").worst.worse_off == "sex=F"
