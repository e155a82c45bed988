"""The convex models as scikit-learn estimators: its own checks, pipelines, searches, and our errors."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import fairlayer as fl
from fairlayer.errors import (
    BackendError,
    ConstraintDefinitionError,
    InfeasibleConstraintsError,
    LabelValueError,
    MissingSensitiveFeatureError,
    ParameterError,
    ShapeError,
    SolverError,
)
from fairlayer.integrations.sklearn import FairLogisticRegression, FairRidge

PARITY = [fl.DemographicParity("g", 0.1)]
MODELS = pytest.mark.parametrize(
    "model", [FairRidge(PARITY), FairLogisticRegression(PARITY)], ids=["ridge", "logistic"]
)


def sample(n: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    group = random.integers(0, 2, n)
    x = random.normal(size=(n, 3)) + 0.7 * group[:, None]
    return x, (x.sum(axis=1) + random.normal(size=n) > 1).astype(int), group


def gap(values: np.ndarray, group: np.ndarray) -> float:
    return float(abs(values[group == 1].mean() - values[group == 0].mean()))


def bounded(model: Any, x: Any) -> np.ndarray:
    """The values that the model's constraints bound."""
    return np.asarray(model.decision_function(x) if hasattr(model, "decision_function") else model.predict(x))


@parametrize_with_checks([FairRidge(), FairLogisticRegression()])
def test_scikit_learns_own_checks(estimator: BaseEstimator, check: Callable[[BaseEstimator], None]) -> None:
    check(estimator)


@MODELS
def test_clones_and_parameters(model: Any) -> None:
    x, y, group = sample()
    copy = clone(model).set_params(constraints=[fl.DemographicParity("g", 0.3)])
    assert copy.get_params()["constraints"][0].tolerance == 0.3
    assert model.get_params()["constraints"] is PARITY
    fitted = clone(model).fit(x, y, sensitive_features={"g": group})
    assert not hasattr(clone(fitted), "coef_")
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict(x), fitted.predict(x))


@MODELS
def test_in_a_pipeline(model: Any) -> None:
    x, y, group = sample()
    name = type(model).__name__.lower()
    piped = make_pipeline(StandardScaler(), clone(model))
    piped.fit(x, y, **{f"{name}__sensitive_features": {"g": group}})
    assert gap(bounded(piped, x), group) == pytest.approx(0.1, abs=1e-8)


@MODELS
def test_with_metadata_routing(model: Any) -> None:
    x, y, group = sample()
    with sklearn.config_context(enable_metadata_routing=True):
        asking = clone(model).set_fit_request(sensitive_features=True, sample_weight=True)
        piped = make_pipeline(StandardScaler().set_fit_request(sample_weight=True), asking)
        piped.fit(x, y, sensitive_features={"g": group}, sample_weight=np.ones(len(y)))
    assert gap(bounded(piped, x), group) == pytest.approx(0.1, abs=1e-8)


@MODELS
def test_in_a_search_over_tolerances(model: Any) -> None:
    x, y, group = sample()
    grid = {"constraints": [[fl.DemographicParity("g", t)] for t in (0.0, 10.0)]}
    search = GridSearchCV(clone(model), grid, cv=3)
    search.fit(x, y, sensitive_features=pd.DataFrame({"g": group}))  # a frame is split with the rows, a dict is not
    assert search.best_params_["constraints"][0].tolerance == 10.0


@MODELS
@pytest.mark.parametrize("make", [np.asarray, list, pd.Series, lambda g: pd.DataFrame({"g": g}), lambda g: {"g": g}])
@pytest.mark.parametrize("names", [(0, 1), ("b", "a")])
def test_sensitive_features_in_any_form(model: Any, make: Callable[[Any], Any], names: tuple[Any, Any]) -> None:
    x, y, group = sample()
    labelled = np.array(names)[group]
    fitted = clone(model).fit(x, y, sensitive_features=make(labelled))
    assert gap(bounded(fitted, x), group) == pytest.approx(0.1, abs=1e-8)


def test_labels_of_any_kind() -> None:
    x, y, group = sample()
    expected = FairLogisticRegression([fl.EqualOpportunity("g", 0.1)]).fit(x, y, sensitive_features=group)
    for words in (np.array(["no", "yes"]), np.array([-1, 1]), np.array([False, True])):
        model = FairLogisticRegression([fl.EqualOpportunity("g", 0.1)]).fit(x, words[y], sensitive_features=group)
        assert model.classes_.tolist() == words.tolist()
        np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-9)
        np.testing.assert_array_equal(model.predict(x), words[expected.predict(x)])


def test_names_of_features() -> None:
    x, y, group = sample()
    frame = pd.DataFrame(x, columns=["a", "b", "c"])
    model = FairRidge(PARITY).fit(frame, y, sensitive_features=group)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    assert model.n_features_in_ == 3
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[["b", "a", "c"]])


@MODELS
def test_absent_and_unknown_groups(model: Any) -> None:
    x, y, group = sample()
    one = clone(model).fit(x, y, sensitive_features={"g": np.zeros(len(y), dtype=int)})
    assert np.isnan(np.ravel(list(one.gaps_.values()))).all()
    known = np.where(np.arange(len(y)) < 20, np.nan, group)
    partly = clone(model).fit(x, y, sensitive_features={"g": known})
    values = bounded(partly, x)
    assert gap(values[20:], group[20:]) == pytest.approx(0.1, abs=1e-8)
    both = clone(model).set_params(constraints=[fl.DemographicParity(("g", "h"), 0.1)])
    both.fit(x, y, sensitive_features={"g": group, "h": group})
    assert both.absent_ == (
        ("DemographicParity(('g', 'h'))", "g=0 & h=1"),
        ("DemographicParity(('g', 'h'))", "g=1 & h=0"),
    )


@MODELS
def test_two_constraints_of_one_name_keep_their_own_price(model: Any) -> None:
    x, y, group = sample()
    both = clone(model).set_params(constraints=[fl.DemographicParity("g", 0.5), fl.DemographicParity("g", 0.1)])
    both.fit(x, y, sensitive_features={"g": group})
    loose, tight = both.multipliers_["DemographicParity('g')"], both.multipliers_["DemographicParity('g') #2"]
    assert loose == pytest.approx(0.0, abs=1e-6)
    assert tight > 1.0


def refusals() -> dict[str, tuple[type[Exception], list[str], Callable[[Any, Any, Any], Any]]]:
    features: Callable[[Any], dict[str, Any]] = lambda g: {"sensitive_features": {"g": g}}  # noqa: E731
    return {
        "no features": (
            MissingSensitiveFeatureError,
            ["needs the sensitive feature 'g'", "Pass sensitive_features="],
            lambda x, y, g: FairRidge(PARITY).fit(x, y),
        ),
        "too short": (
            ShapeError,
            ["120", "'g': 5"],
            lambda x, y, g: FairRidge(PARITY).fit(x, y, **features(g[:5])),
        ),
        "alpha 0": (
            ParameterError,
            ["FairRidge", "alpha=0", "> 0"],
            lambda x, y, g: FairRidge(alpha=0).fit(x, y),
        ),
        "C is NaN": (
            ParameterError,
            ["FairLogisticRegression", "C=nan", "finite"],
            lambda x, y, g: FairLogisticRegression(C=np.nan).fit(x, y),
        ),
        "three classes": (
            ParameterError,
            ["Only binary classification", "multiclass", "(y == class)"],
            lambda x, y, g: FairLogisticRegression().fit(x, y + g),
        ),
        "one class with weight": (
            ParameterError,
            ["two classes", "one class: [1]"],
            lambda x, y, g: FairLogisticRegression().fit(x, y, sample_weight=y),
        ),
        "negative weight": (
            ParameterError,
            ["sample_weight must be >= 0", "from -1 to 1"],
            lambda x, y, g: FairRidge().fit(x, y, sample_weight=2.0 * y - 1),
        ),
        "no constraint": (
            ConstraintDefinitionError,
            ["must be a constraint, its text", "'parity'"],
            lambda x, y, g: FairRidge("parity").fit(x, y),  # type: ignore[arg-type]
        ),
        "bins of scores": (
            BackendError,
            ["FairRidge", "bins samples by their score", "FairModel"],
            lambda x, y, g: FairRidge([fl.GroupCalibration("g", 0.1)]).fit(x, y, **features(g)),
        ),
        "real labels": (
            LabelValueError,
            ["EqualizedOdds('g') needs labels 0 or 1"],
            lambda x, y, g: FairRidge([fl.EqualizedOdds("g", 0.1)]).fit(x, y + 0.5, **features(g)),
        ),
        "clash": (
            InfeasibleConstraintsError,
            ["Affine('g')", "Affine('g') #2", "larger tolerance"],
            lambda x, y, g: FairRidge(
                [fl.Affine([[1, 0]], lower=3.0, on="g"), fl.Affine([[1, 0]], upper=1.0, on="g")]
            ).fit(x, y, **features(g)),
        ),
        "repeated feature": (
            SolverError,
            ["linearly dependent", "Raise alpha"],
            lambda x, y, g: FairRidge(alpha=1e-300).fit(np.column_stack([x, x]), y),
        ),
    }


@pytest.mark.parametrize("case", refusals())
def test_errors_say_what_to_do(case: str) -> None:
    kind, parts, attempt = refusals()[case]
    with pytest.raises(kind) as caught:
        attempt(*sample())
    for part in parts:
        assert part in str(caught.value)


@MODELS
def test_a_failed_fit_changes_nothing(model: Any) -> None:
    x, y, group = sample()
    fitted = clone(model).fit(x, y, sensitive_features={"g": group})
    before = fitted.predict(x)
    with pytest.raises(ShapeError):
        fitted.fit(x[:, :3], y, sensitive_features={"g": group[:5]})
    np.testing.assert_array_equal(fitted.predict(x), before)


@MODELS
def test_predicting_before_fitting(model: Any) -> None:
    with pytest.raises(NotFittedError):
        clone(model).predict(sample()[0])
