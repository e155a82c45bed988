"""The convex models on Adult: the bound is met exactly on the training data, and the loss is the smallest."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score

import fairlayer as fl
from fairlayer.data import TensorTable
from fairlayer.data.readers import read_adult
from fairlayer.integrations.sklearn import FairLogisticRegression, FairRidge
from fairlayer.training import prepare

pytestmark = pytest.mark.data


class Rows(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    sensitive: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def adult(data_folder: Path) -> tuple[Rows, Rows]:
    parts = prepare(read_adult(data_folder), ["demographic_parity(sex, 0.02)"])

    def rows(sample: TensorTable) -> Rows:
        return Rows(sample.x.double().numpy(), sample.y.numpy(), dict(sample.sensitive))

    return rows(parts.train), rows(parts.test)


def means(values: np.ndarray, groups: np.ndarray) -> list[float]:
    return [float(values[groups == g].mean()) for g in np.unique(groups)]


def spread(values: np.ndarray, groups: np.ndarray) -> float:
    return max(means(values, groups)) - min(means(values, groups))


@pytest.mark.parametrize("tolerance", [0.0, 0.05])
def test_ridge(adult: tuple[Rows, Rows], tolerance: float) -> None:
    train, test = adult
    plain = Ridge(1.0).fit(train.x, train.y)
    model = FairRidge([fl.DemographicParity("sex", tolerance)]).fit(
        train.x, train.y, sensitive_features=train.sensitive
    )
    assert spread(plain.predict(train.x), train.sensitive["sex"]) > 0.15
    assert spread(model.predict(train.x), train.sensitive["sex"]) == pytest.approx(tolerance, abs=1e-8)
    assert spread(model.predict(test.x), test.sensitive["sex"]) < tolerance + 0.02
    assert model.certificate_.holds
    assert roc_auc_score(test.y, model.predict(test.x)) > 0.86


@pytest.mark.parametrize("tolerance", [0.0, 0.05])
def test_logistic(adult: tuple[Rows, Rows], tolerance: float) -> None:
    train, test = adult
    model = FairLogisticRegression([fl.DemographicParity("sex", tolerance)])
    model.fit(train.x, train.y, sensitive_features=train.sensitive)
    assert spread(model.decision_function(train.x), train.sensitive["sex"]) == pytest.approx(tolerance, abs=1e-8)
    assert model.certificate_.holds
    assert roc_auc_score(test.y, model.predict_proba(test.x)[:, 1]) > 0.88


def test_logistic_without_constraints_is_scikit_learns(adult: tuple[Rows, Rows]) -> None:
    train, _ = adult
    expected = LogisticRegression(tol=1e-9, max_iter=5000).fit(train.x, train.y)
    model = FairLogisticRegression().fit(train.x, train.y)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=2e-4)
    assert model.certificate_.holds
