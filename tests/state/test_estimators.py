"""Estimators of scikit-learn: what pickle, joblib and a deep copy keep, and what a clone does not."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
import joblib
from sklearn.base import clone
from sklearn.linear_model import LinearRegression, LogisticRegression

import fairlayer as fl
from fairlayer.integrations.sklearn import (
    FairClassifier,
    FairLogisticRegression,
    FairPostprocessor,
    FairRegressor,
    FairRidge,
)

RANDOM = np.random.default_rng(0)
N = 120
SEX = RANDOM.choice(["F", "M"], N)
X = RANDOM.normal(size=(N, 3)) + 0.5 * (SEX == "M")[:, None]
Y = (X.sum(axis=1) + RANDOM.normal(size=N) > 0.5).astype(int)
NEW, GROUPS = RANDOM.normal(size=(30, 3)), {"sex": RANDOM.choice(["F", "M"], 30)}
PARITY = fl.DemographicParity("sex", tolerance=0.05)

ESTIMATORS: dict[str, Callable[[], Any]] = {
    "postprocessor": lambda: FairPostprocessor(LogisticRegression(), PARITY),
    "classifier": lambda: FairClassifier(LogisticRegression(), PARITY),
    "classifier that decides": lambda: FairClassifier(LogisticRegression(), PARITY, decisions=True),
    "regressor": lambda: FairRegressor(LinearRegression(), PARITY),
    "logistic": lambda: FairLogisticRegression(PARITY),
    "ridge": lambda: FairRidge(PARITY),
}


def through_joblib(value: Any) -> Any:
    file = io.BytesIO()
    joblib.dump(value, file)
    return joblib.load(io.BytesIO(file.getvalue()))


COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "joblib": through_joblib,
    "deepcopy": copy.deepcopy,
}


def fitted(name: str) -> Any:
    return ESTIMATORS[name]().fit(X, Y, sensitive_features={"sex": SEX})


def answers(name: str, estimator: Any) -> list[Any]:
    given = {} if name in {"logistic", "ridge"} else {"sensitive_features": GROUPS}
    found = [np.asarray(estimator.predict(NEW, **given)).tolist()]
    if hasattr(estimator, "predict_proba"):
        found.append(np.asarray(estimator.predict_proba(NEW, **given)).tolist())
    return found


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_answers_alike(name: str, copied: Callable[[Any], Any]) -> None:
    estimator = fitted(name)
    expected = answers(name, estimator)
    again = copied(estimator)
    assert answers(name, again) == expected
    assert answers(name, estimator) == expected
    assert repr(again.constraints) == repr(estimator.constraints)
    refitted = again.fit(NEW, (NEW.sum(axis=1) > 0).astype(int), sensitive_features=GROUPS)
    assert answers(name, refitted) != expected  # and the copy is its own
    assert answers(name, estimator) == expected


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_clone_is_unfitted_and_fits_alike(name: str) -> None:
    estimator = fitted(name)
    fresh = clone(estimator)
    assert not [key for key in vars(fresh) if key.endswith("_") and not key.startswith("_")]
    assert repr(fresh.get_params()) == repr(ESTIMATORS[name]().get_params())
    assert answers(name, fresh.fit(X, Y, sensitive_features={"sex": SEX})) == answers(name, estimator)
