"""FairClassifier, FairRegressor and FairPostprocessor around models of any library, as a user would write them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestRegressor
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, ShuffleSplit, cross_validate
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

import fairlayer as fl
from fairlayer.errors import (
    FairlayerError,
    MissingSensitiveFeatureError,
    OutputError,
    ParameterError,
    ShapeError,
)
from fairlayer.integrations.sklearn import FairClassifier, FairLogisticRegression, FairPostprocessor, FairRegressor

N = 600
PARITY = [fl.DemographicParity("sex", tolerance=0.02)]


def sample(n: int = N, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    sex = random.integers(0, 2, n)
    x = random.normal(size=(n, 3)) + 0.7 * sex[:, None]
    return x, (x.sum(axis=1) + random.normal(size=n) > 1).astype(int), sex


def gap(values: Any, sex: np.ndarray) -> float:
    values = np.asarray(values, dtype=float)
    return float(abs(values[sex == 1].mean() - values[sex == 0].mean()))


THRESHOLDS_OF_THEIR_OWN = {"check_classifiers_train": "predict takes thresholds per group, not one half"}


@parametrize_with_checks(
    [
        FairClassifier(LogisticRegression()),
        FairClassifier(LogisticRegression(), decisions=True, cv=2),
        FairRegressor(Ridge()),
        FairPostprocessor(LogisticRegression()),
        FairPostprocessor(Ridge()),
    ],
    expected_failed_checks=lambda e: THRESHOLDS_OF_THEIR_OWN if getattr(e, "decisions", False) else {},
)
def test_scikit_learns_own_checks(estimator: BaseEstimator, check: Callable[[BaseEstimator], None]) -> None:
    check(estimator)


# ---- every library, where it is installed


def classifier(library: str) -> Any:
    if library == "sklearn":
        return HistGradientBoostingClassifier(max_iter=20)
    if library == "pipeline":
        return make_pipeline(StandardScaler(), LogisticRegression())
    module: Any = pytest.importorskip(library)
    if library == "catboost":
        return module.CatBoostClassifier(iterations=20, verbose=0, allow_writing_files=False)
    return module.XGBClassifier(n_estimators=20) if library == "xgboost" else module.LGBMClassifier(verbose=-1)


LIBRARIES = ["sklearn", "pipeline", "xgboost", "lightgbm", "catboost"]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("words", [(0, 1), ("no", "yes"), (False, True)])
def test_classifiers_of_every_library(library: str, words: tuple[Any, Any]) -> None:
    x, y, sex = sample()
    model = FairPostprocessor(classifier(library), PARITY).fit(x, np.array(words)[y])
    shown = model.predict_proba(x, sensitive_features={"sex": sex})
    assert gap(shown[:, 1], sex) == pytest.approx(0.02, abs=1e-6)
    np.testing.assert_allclose(shown.sum(axis=1), 1.0)
    raw = clone(classifier(library)).fit(x, y).predict_proba(x)[:, 1]
    expected = fl.project(raw.astype(float), PARITY, sensitive_features={"sex": sex}, bounds=(0.0, 1.0)).value
    np.testing.assert_allclose(shown[:, 1], expected, atol=1e-6)
    assert model.predict(x, sensitive_features=sex).tolist() == np.array(words)[(shown[:, 1] >= 0.5) * 1].tolist()


@pytest.mark.parametrize("library", LIBRARIES)
def test_decisions_of_every_library(library: str) -> None:
    x, y, sex = sample()
    model = FairPostprocessor(classifier(library), PARITY, decisions=True).fit(x, y, sensitive_features=sex)
    new, labels, groups = sample(4000, seed=1)
    decided = model.predict(new, sensitive_features=groups)
    plain = clone(classifier(library)).fit(x, y).predict(new)
    assert gap(decided, groups) < 0.08
    assert gap(plain, groups) > 0.2
    assert (decided == labels).mean() > 0.6


@pytest.mark.parametrize("library", ["sklearn", "xgboost", "lightgbm", "catboost"])
def test_regressors_of_every_library(library: str) -> None:
    x, _, sex = sample()
    kinds = {"xgboost": "XGBRegressor", "lightgbm": "LGBMRegressor", "catboost": "CatBoostRegressor"}
    quiet = {"lightgbm": {"verbose": -1}, "catboost": {"verbose": 0, "allow_writing_files": False}}
    if library == "sklearn":
        made: Any = RandomForestRegressor(10)
    else:
        made = getattr(pytest.importorskip(library), kinds[library])(n_estimators=20, **quiet.get(library, {}))
    model = FairPostprocessor(made, fl.DemographicParity("sex", 0.1), bounds=(-10.0, 10.0)).fit(x, x.sum(axis=1))
    assert gap(model.predict(x, sensitive_features=sex), sex) == pytest.approx(0.1, abs=1e-6)
    assert 0 < model.score(x, x.sum(axis=1), sensitive_features=sex) < 1


@pytest.mark.parametrize("decisions", [False, True])
def test_an_estimator_that_copies_its_parameters(decisions: bool) -> None:
    """CatBoost keeps a copy of a list, which scikit-learn's clone refuses."""
    catboost = pytest.importorskip("catboost")
    x, y, sex = sample()
    table = pd.DataFrame(x, columns=["a", "b", "c"]).assign(d=np.where(x[:, 0] > 0, "u", "v"))
    made = catboost.CatBoostClassifier(
        iterations=5, cat_features=["d"], verbose=0, allow_writing_files=False, thread_count=1
    )
    model = FairPostprocessor(made, PARITY, decisions=decisions, cv=2).fit(table, y, sensitive_features=sex)
    found = (
        model.predict(table, sensitive_features=sex)
        if decisions
        else model.predict_proba(table, sensitive_features=sex)[:, 1]
    )
    assert gap(found, sex) < 0.1
    assert not made.is_fitted()


class CopiesItsParameters(LogisticRegression):
    """As CatBoost does, where it is not installed."""

    def __init__(self, C: float = 1.0, columns: Any = ()) -> None:
        super().__init__(C=C)
        self.columns = list(columns)


def test_a_copy_of_what_clone_refuses() -> None:
    x, y, sex = sample()
    given = CopiesItsParameters(columns=[1, 2])
    with pytest.raises(RuntimeError):
        clone(given)
    model = FairPostprocessor(given, PARITY, decisions=True, cv=2).fit(x, y, sensitive_features=sex)
    assert gap(model.predict(x, sensitive_features=sex), sex) < 0.1
    assert not hasattr(given, "coef_")


class LearnsFromFloats(LogisticRegression):
    """As skorch and bare torch losses do: labels have to be floats."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        assert y.dtype == np.float32
        return super().fit(X, y.astype(int), sample_weight)


@pytest.mark.parametrize("decisions", [False, True])
def test_labels_stay_floats_where_they_are(decisions: bool) -> None:
    x, y, sex = sample()
    model = FairClassifier(LearnsFromFloats(), PARITY, decisions=decisions)
    model.fit(x, y.astype(np.float32), sensitive_features=sex)
    assert model.classes_.tolist() == [0.0, 1.0]
    assert set(model.predict(x, sensitive_features=sex).tolist()) == {0.0, 1.0}


def test_a_network_that_skorch_trains() -> None:
    skorch = pytest.importorskip("skorch")
    x, y, sex = sample()
    net = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Flatten(0))
    learner = skorch.NeuralNetBinaryClassifier(net, max_epochs=2, lr=0.1, verbose=0, train_split=None)
    model = FairClassifier(learner, PARITY, decisions=True, cv=2)
    model.fit(x.astype(np.float32), y.astype(np.float32), sensitive_features=sex)
    assert gap(model.predict(x.astype(np.float32), sensitive_features=sex), sex) < 0.2


class LikeKeras:
    """What a compiled Keras model is to this package: fit, and predict with one column of probabilities."""

    def fit(self, X: Any, y: Any) -> None:
        self.inner = LogisticRegression().fit(X, y)

    def predict(self, X: Any) -> Any:
        return self.inner.predict_proba(X)[:, 1:].astype(np.float32)


def test_a_model_with_fit_and_predict_alone() -> None:
    x, y, sex = sample()
    for decisions in (False, True):
        model = FairClassifier(LikeKeras(), PARITY, decisions=decisions).fit(x, y, sensitive_features=sex)
        predict = model.predict if decisions else model.predict_proba
        found = predict(x, sensitive_features=sex)
        assert gap(found if decisions else found[:, 1], sex) < 0.05
    assert not hasattr(model.estimator, "inner")  # the one given is left alone


def test_a_keras_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    x, y, sex = sample()
    net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, activation="sigmoid")])
    net.compile("adam", "binary_crossentropy")
    model = FairClassifier(net, PARITY).fit(x, y, epochs=3, verbose=0)
    assert gap(model.predict_proba(x, sensitive_features=sex)[:, 1], sex) <= 0.02 + 1e-6
    line = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    line.compile("adam", "mse")
    regressor = FairRegressor(line, fl.DemographicParity("sex", 0.02)).fit(x, x.sum(axis=1), epochs=3, verbose=0)
    assert gap(regressor.predict(x, sensitive_features=sex), sex) <= 0.02 + 1e-6


@pytest.mark.parametrize("columns", [1, 2])
def test_a_trained_torch_module(columns: int) -> None:
    x, y, sex = sample()
    torch.manual_seed(0)
    last = torch.nn.Sigmoid() if columns == 1 else torch.nn.Softmax(dim=1)
    net = torch.nn.Sequential(torch.nn.Linear(3, columns), torch.nn.Dropout(0.5), last)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    model = FairClassifier(net, PARITY).fit(x, y)
    with torch.no_grad():
        raw = net.eval()(torch.from_numpy(x).float())[:, -1].double().numpy()
    expected = fl.project(raw, PARITY, sensitive_features={"sex": sex}, bounds=(0.0, 1.0)).value
    np.testing.assert_allclose(model.predict_proba(x, sensitive_features=sex)[:, 1], expected, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    decided = FairClassifier(net, PARITY, decisions=True).fit(x, y, sensitive_features=sex)
    assert gap(decided.predict(x, sensitive_features=sex), sex) <= 0.02 + 2 / (N / 2.5)


def test_rules_are_fitted_to_rows_that_the_model_has_not_learnt() -> None:
    x, y, sex = sample()
    nearest = KNeighborsClassifier(1)  # knows every row that it learnt: its own scores there are the labels
    folded = FairClassifier(nearest, PARITY, decisions=True).fit(x, y, sensitive_features=sex)
    frozen = FairClassifier(FrozenEstimator(clone(nearest).fit(x, y)), PARITY, decisions=True)
    frozen.fit(x, y, sensitive_features=sex)
    rates = [[cell.rate for cell in model.rule_.cells] for model in (folded, frozen)]
    assert rates[0] != rates[1]
    assert frozen.estimator_.predict(x).tolist() == y.tolist()


def test_label_constraints_stand_on_estimates_and_decisions_on_labels() -> None:
    x, y, sex = sample()
    odds = fl.EqualOpportunity("sex", 0.02)
    model = FairClassifier(LogisticRegression(), odds).fit(x, y)
    result = model.project(x, sensitive_features=sex)
    assert result.certificate.holds
    decided = FairClassifier(FrozenEstimator(LogisticRegression().fit(x, y)), odds, decisions=True)
    found = decided.fit(x, y, sensitive_features=sex).predict(x, sensitive_features=sex)
    assert gap(found[y == 1], sex[y == 1]) < 0.05


def test_decide_holds_on_the_batch() -> None:
    x, y, sex = sample()
    model = FairClassifier(LogisticRegression(), PARITY, decisions=True).fit(x, y, sensitive_features=sex)
    new, _, groups = sample(200, seed=5)
    result = model.decide(new, sensitive_features=groups, capacity=60)
    assert int(result.decisions.sum()) <= 60
    assert gap(result.decisions.numpy(), groups) <= 0.02 + 2 / 80


# ---- frames, pipelines, searches, routing


def frame() -> tuple[pd.DataFrame, pd.Series]:
    x, y, sex = sample()
    table = pd.DataFrame(x, columns=["a", "b", "c"])
    return table.assign(sex=np.where(sex == 1, 1.0, 0.0)), pd.Series(y)


@pytest.mark.parametrize("hide", [False, True])
def test_columns_of_a_frame_are_features(hide: bool) -> None:
    table, y = frame()
    model = FairPostprocessor(LogisticRegression(), PARITY, hide_features=hide).fit(table, y)
    shown = model.predict_proba(table)[:, 1]
    assert gap(shown, table["sex"].to_numpy()) == pytest.approx(0.02, abs=1e-6)
    assert model.fitted_.estimator_.n_features_in_ == (3 if hide else 4)
    assert model.feature_names_in_.tolist() == ["a", "b", "c", "sex"]


def test_a_search_needs_nothing_where_the_features_are_columns() -> None:
    table, y = frame()
    grid = {"estimator__C": [0.01, 1.0], "constraints": [PARITY, [fl.DemographicParity("sex", 1.0)]]}
    search = GridSearchCV(FairPostprocessor(LogisticRegression(), PARITY), grid, cv=3, error_score="raise")
    search.fit(table, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    decided = FairPostprocessor(LogisticRegression(), PARITY, decisions=True)
    found = cross_validate(decided, table, y, cv=3, scoring=["accuracy", "roc_auc"], error_score="raise")
    assert (found["test_roc_auc"] > 0.6).all()


def test_metadata_is_routed() -> None:
    x, y, sex = sample()
    with sklearn.config_context(enable_metadata_routing=True):
        model = FairPostprocessor(LogisticRegression().set_fit_request(sample_weight=True), PARITY, decisions=True)
        asking = (
            model.set_fit_request(sensitive_features=True, sample_weight=True)
            .set_predict_request(sensitive_features=True)
            .set_predict_proba_request(sensitive_features=True)
            .set_score_request(sensitive_features=True, sample_weight=False)
        )
        piped = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), asking)
        piped.fit(x, y, sensitive_features=sex, sample_weight=np.ones(N))
        assert gap(piped.predict(x, sensitive_features=sex), sex) < 0.1
        search = GridSearchCV(asking, {"estimator__C": [0.1, 1.0]}, cv=3, error_score="raise")
        search.fit(x, y, sensitive_features=pd.DataFrame({"sex": sex}), sample_weight=np.ones(N))
        assert search.best_score_ > 0.6


@pytest.mark.parametrize("given", ["dict", "lists", "several columns"])
@pytest.mark.parametrize("kind", ["decisions", "scores", "convex"])
def test_a_dict_is_split_along_with_the_rows_where_metadata_is_routed(kind: str, given: str) -> None:
    x, y, sex = sample()
    features: dict[str, Any] = {"sex": sex.tolist() if given == "lists" else sex}
    features |= {"age": torch.arange(N) % 3} if given == "several columns" else {}
    model = (
        FairLogisticRegression(PARITY)
        if kind == "convex"
        else FairPostprocessor(LogisticRegression(), PARITY, decisions=kind == "decisions")
    )
    with sklearn.config_context(enable_metadata_routing=True):
        asking = model.set_fit_request(sensitive_features=True)
        if kind != "convex":
            asking = asking.set_score_request(sensitive_features=True)
        grid = {"constraints": [PARITY, [fl.DemographicParity("sex", 0.3)]]}
        tried = [
            GridSearchCV(asking, grid, cv=3, error_score="raise").fit(x, y, sensitive_features=each)
            for each in (features, pd.DataFrame({name: np.asarray(column) for name, column in features.items()}))
        ]
        crossed = cross_validate(asking, x, y, cv=3, params={"sensitive_features": features}, error_score="raise")
    dicts, frames = (search.cv_results_["mean_test_score"] for search in tried)
    assert np.isfinite(dicts).all()
    np.testing.assert_array_equal(dicts, frames)
    assert np.isfinite(crossed["test_score"]).all()


def test_a_dict_for_a_pipeline_in_a_search_is_refused_by_name() -> None:
    """A pipeline hands on what it was given, and does not ask the last step for another form of it."""
    x, y, sex = sample()
    with sklearn.config_context(enable_metadata_routing=True):
        asking = FairPostprocessor(LogisticRegression(), PARITY).set_fit_request(sensitive_features=True)
        piped = make_pipeline(StandardScaler(), asking.set_score_request(sensitive_features=True))
        with pytest.raises(ShapeError, match=r"pandas\.DataFrame\(sensitive_features\)"):
            cross_validate(piped, x, y, cv=3, params={"sensitive_features": {"sex": sex}}, error_score="raise")


def test_a_dict_of_columns_of_other_lengths_is_refused_by_name_in_a_search() -> None:
    x, y, sex = sample()
    with sklearn.config_context(enable_metadata_routing=True):
        asking = FairPostprocessor(LogisticRegression(), PARITY).set_fit_request(sensitive_features=True)
        asking = asking.set_score_request(sensitive_features=True)
        search = GridSearchCV(asking, {"estimator__C": [1.0]}, cv=3, error_score="raise")
        with pytest.raises(ShapeError, match="columns of other lengths"):
            search.fit(x, y, sensitive_features={"sex": sex, "age": [1, 2]})


def test_a_dict_in_a_search_without_routing_is_refused_by_name() -> None:
    x, y, sex = sample()
    for model in (FairLogisticRegression(PARITY), FairPostprocessor(LogisticRegression(), PARITY, decisions=True)):
        search = GridSearchCV(model, {"constraints": [PARITY]}, cv=3, error_score="raise")
        with pytest.raises(ShapeError, match=r"hand it over whole.*pandas\.DataFrame\(sensitive_features\)"):
            search.fit(x, y, sensitive_features={"sex": sex})


def test_clones_pickles_and_parameters() -> None:
    x, y, sex = sample()
    model = FairPostprocessor(LogisticRegression(C=3.0), PARITY, decisions=True).fit(x, y, sensitive_features=sex)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(x, sensitive_features=sex), model.predict(x, sensitive_features=sex))
    assert clone(model).get_params()["estimator__C"] == 3.0
    assert not hasattr(clone(model), "fitted_")
    assert hasattr(model, "predict_proba")
    assert not hasattr(FairPostprocessor(Ridge()), "predict_proba")


def test_weights_reach_the_estimator_and_the_rates() -> None:
    x, y, sex = sample()
    weights = np.where(sex == 1, 3.0, 0.5)
    model = FairClassifier(LogisticRegression(), PARITY, decisions=True, cv=3)
    model.fit(x, y, sensitive_features=sex, sample_weight=weights)
    expected = LogisticRegression().fit(x, y, sample_weight=weights)
    np.testing.assert_allclose(model.estimator_.coef_, expected.coef_)
    assert isinstance(FairClassifier(LogisticRegression(), PARITY, decisions=True, cv=ShuffleSplit(2)), BaseEstimator)


# ---- what is refused


class Logits(torch.nn.Linear):
    pass


REFUSED: dict[str, tuple[type[Exception], str, Callable[[Any, Any, Any], Any]]] = {
    "no features": (
        MissingSensitiveFeatureError,
        "none were given and X has no columns",
        lambda x, y, sex: FairPostprocessor(LogisticRegression(), PARITY).fit(x, y).predict(x),
    ),
    "no probabilities": (
        OutputError,
        "LinearSVC has no predict_proba.*CalibratedClassifierCV",
        lambda x, y, sex: FairPostprocessor(LinearSVC(), PARITY).fit(x, y).predict(x, sensitive_features=sex),
    ),
    "logits": (
        OutputError,
        "Logits gave outputs from .* not probabilities. End the network",
        lambda x, y, sex: FairClassifier(Logits(3, 1), PARITY).fit(x, y).predict(10 * x, sensitive_features=sex),
    ),
    "three classes": (
        ParameterError,
        "Only binary classification",
        lambda x, y, sex: FairPostprocessor(LogisticRegression(), PARITY).fit(x, y + sex),
    ),
    "neither kind": (
        ParameterError,
        "Linear, which does not tell whether it classifies. Use FairClassifier",
        lambda x, y, sex: FairPostprocessor(torch.nn.Linear(3, 1), PARITY).fit(x, y),
    ),
    "decisions of a regressor": (
        ParameterError,
        "Ridge is a regressor",
        lambda x, y, sex: FairPostprocessor(Ridge(), PARITY, decisions=True).fit(x, y),
    ),
    "bounds of a classifier": (
        ParameterError,
        "LogisticRegression is a classifier",
        lambda x, y, sex: FairPostprocessor(LogisticRegression(), PARITY, bounds=(0, 1)).fit(x, y),
    ),
    "too few of a class": (
        ParameterError,
        "the rarer class has 3 rows",
        lambda x, y, sex: FairClassifier(LogisticRegression(), PARITY, decisions=True).fit(
            x, np.arange(N) < 3, sensitive_features=sex
        ),
    ),
    "weights that nobody takes": (
        ParameterError,
        r"KNeighborsClassifier\.fit takes none",
        lambda x, y, sex: FairClassifier(KNeighborsClassifier(), PARITY).fit(x, y, sample_weight=np.ones(N)),
    ),
    "lengths": (
        ParameterError,
        "600 rows of X, but 5 labels",
        lambda x, y, sex: FairClassifier(LogisticRegression(), PARITY).fit(x, [*y[:3].tolist(), 0, 1]),
    ),
    "a model in FairModel": (
        OutputError,
        r"LogisticRegression.*FairPostprocessor\(estimator, constraints\)",
        lambda x, y, sex: fl.FairModel(LogisticRegression(), PARITY),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_says_what_to_do(case: str) -> None:
    kind, said, attempt = REFUSED[case]
    with pytest.raises(kind, match=said) as caught:
        attempt(*sample())
    assert isinstance(caught.value, FairlayerError)


def test_margins_are_enough_for_decisions() -> None:
    x, y, sex = sample()
    model = FairPostprocessor(LinearSVC(), PARITY, decisions=True).fit(x, y, sensitive_features=sex)
    assert gap(model.predict(x, sensitive_features=sex), sex) < 0.1
    calibrated = FairPostprocessor(CalibratedClassifierCV(LinearSVC()), PARITY).fit(x, y)
    assert gap(calibrated.predict_proba(x, sensitive_features=sex)[:, 1], sex) <= 0.02 + 1e-6


def test_predicting_before_fitting() -> None:
    for model in (FairPostprocessor(Ridge()), FairClassifier(LogisticRegression()), FairRegressor(Ridge())):
        with pytest.raises(NotFittedError):
            model.predict(sample()[0])


def test_numpy_goes_into_project_and_comes_back_as_numbers() -> None:
    x, y, sex = sample()
    scores = LogisticRegression().fit(x, y).predict_proba(x)[:, 1]
    result = fl.project(scores, "demographic_parity(sex, 0.02)", sensitive_features=sex, bounds=(0, 1))
    assert gap(result.value.numpy(), sex) == pytest.approx(0.02, abs=1e-8)
    assert np.asarray(result.value).dtype == np.float64
