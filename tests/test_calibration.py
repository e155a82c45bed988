"""Calibrators per group, against scikit-learn's own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer.calibration import GroupCalibrator
from fairlayer.errors import EmptyBatchError, LabelValueError


def rows(n: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    sex = np.where(random.uniform(size=n) < 0.5, "F", "M")
    scores = random.uniform(0.01, 0.99, size=n)
    truth = np.where(sex == "F", scores**2, np.sqrt(scores))
    return scores, sex, (random.uniform(size=n) < truth).astype(np.float64)


@pytest.mark.parametrize("method", ["logistic", "isotonic"])
def test_each_group_has_scikit_learns_calibrator(method: str) -> None:
    isotonic, linear = pytest.importorskip("sklearn.isotonic"), pytest.importorskip("sklearn.linear_model")
    scores, sex, y = rows()
    found = GroupCalibrator.fit(scores, y, sensitive_features={"sex": sex}, method=method)
    new = np.linspace(0.02, 0.98, 50)
    for group in "FM":
        inside = sex == group
        if method == "isotonic":
            known = isotonic.IsotonicRegression(out_of_bounds="clip").fit(scores[inside], y[inside])
            expected = known.predict(new)
        else:
            logit = np.log(scores / (1 - scores))[:, None]
            known = linear.LogisticRegression(C=1e6).fit(logit[inside], y[inside])
            expected = known.predict_proba(np.log(new / (1 - new))[:, None])[:, 1]
        given = {"sex": [group] * 50}
        assert found.apply(new, sensitive_features=given).numpy() == pytest.approx(expected, abs=1e-4)


def test_calibration_errors_fall_and_estimates_serve_constraints_on_labels() -> None:
    scores, sex, y = rows()
    found = GroupCalibrator.fit(scores, y, sensitive_features={"sex": sex})
    scores, sex, y = rows(seed=1)
    p = found.apply(torch.tensor(scores), sensitive_features={"sex": sex})
    for group in "FM":
        inside = sex == group
        assert abs(p.numpy()[inside].mean() - y[inside].mean()) < 0.03
        assert abs(scores[inside].mean() - y[inside].mean()) > 0.1
    opportunity = fl.EqualOpportunity("sex", tolerance=0.01)
    given = {"sensitive_features": {"sex": sex}, "bounds": (0.0, 1.0)}
    with_estimates = fl.project(scores, opportunity, label_probabilities=p, **given)
    with_scores = fl.project(scores, opportunity, label_probabilities=scores, **given)
    true = [
        opportunity.measure(each.value, sensitive_features={"sex": sex}, y=y).value
        for each in (with_estimates, with_scores)
    ]
    assert true[0] < 0.03 < true[1]  # type: ignore[operator]
    assert with_estimates.labels == "estimates"


def test_small_and_unseen_groups_are_calibrated_as_everyone_is_and_named() -> None:
    scores, sex, y = rows(600)
    sex = sex.astype(object)
    sex[:50] = "X"
    found = GroupCalibrator.fit(scores, y, sensitive_features={"sex": sex})
    assert found.small == (("sex=X", 50),)
    everyone = GroupCalibrator.fit(scores, y)
    new = np.array([0.2, 0.7])
    for group in ("X", "Y", None):
        assert torch.equal(found.apply(new, sensitive_features={"sex": [group] * 2}), everyone.apply(new))


def test_it_is_plain_json() -> None:
    scores, sex, y = rows()
    for method in ("logistic", "isotonic"):
        found = GroupCalibrator.fit(scores, y, sensitive_features={"sex": sex}, method=method)
        assert GroupCalibrator.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_bad_input_is_named() -> None:
    with pytest.raises(LabelValueError, match="labels 0 and 1"):
        GroupCalibrator.fit([0.1, 0.2], [1, 2])
    with pytest.raises(LabelValueError, match="sigmoid"):
        GroupCalibrator.fit([0.1, 1.2], [0, 1])
    with pytest.raises(EmptyBatchError):
        GroupCalibrator.fit(torch.zeros(0), torch.zeros(0))
