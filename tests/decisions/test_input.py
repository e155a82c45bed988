"""Bad input gets a named error that says what was asked, what was found and what to do; odd input is served."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import fairlayer as fl
from fairlayer.decisions import NeedsRandomisationError, UtilityError, decide

PARITY = [fl.DemographicParity("sex", 0.1)]
SEX = {"sex": ["F", "M", "F", "M"]}


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"scores": [0.1, 0.2, 0.3, np.nan]}, fl.errors.NonFiniteScoresError, "1 of 4 scores are NaN or infinite"),
        ({"scores": torch.zeros(4, 2)}, fl.errors.ShapeError, r"\(n,\) or \(n, 1\), but have \(4, 2\)"),
        ({"scores": []}, fl.errors.EmptyBatchError, "the batch is empty"),
        ({"scores": ["a", "b", "c", "d"]}, fl.errors.ShapeError, "scores must be numbers"),
        ({"scores": [3.0, -1.0, 0.0, 1.0]}, fl.errors.LabelValueError, r"range from -1 to 3\. Give y=labels"),
        ({"label_probabilities": [2, 0, 0, 0]}, fl.errors.LabelValueError, "label_probabilities are read as prob"),
        ({"y": [0, 1, 2, 0]}, fl.errors.LabelValueError, r"labels 0 or 1, but y holds \[2\.0\]"),
        ({"y": [0, 1]}, fl.errors.ShapeError, "y must have shape"),
        ({"sensitive_features": {"sex": ["F"]}}, fl.errors.ShapeError, "4 scores"),
        ({"sensitive_features": None}, fl.errors.MissingSensitiveFeatureError, "'sex'"),
        ({"sensitive_features": {"sex": np.full((4, 2), 0.5)}}, fl.errors.ConstraintDefinitionError, "most likely"),
        ({"capacity": -1}, UtilityError, "whole number >= 0, but is -1"),
        ({"capacity": 0.2}, UtilityError, r"whole number >= 0, but is 0\.2"),
        ({"utility": [1, 0]}, UtilityError, "2 x 2 finite numbers"),
        ({"utility": [[0, 1], [1, 0]]}, UtilityError, "higher scores would not come first"),
        ({"constraints": {PARITY[0]}}, fl.errors.ConstraintDefinitionError, "must be a constraint, its text"),
        (
            {"constraints": [fl.CovarianceBound("age", 0.1)], "sensitive_features": {"age": [0.1, 0.2, 0.3, 0.4]}},
            fl.errors.ConstraintDefinitionError,
            r"CovarianceBound\('age'\) cannot be asked of decisions",
        ),
        (
            {"constraints": [fl.MinimumRate("sex", 0.9)], "capacity": 1},
            fl.errors.InfeasibleConstraintsError,
            r"meet MinimumRate\('sex'\) and capacity=1 together",
        ),
        (
            {"constraints": [fl.MinimumRate("sex", 1.1)]},
            fl.errors.InfeasibleConstraintsError,
            r"no decisions by thresholds meet MinimumRate\('sex'\), not even with lots",
        ),
    ],
)
def test_errors(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    given = {"scores": [0.9, 0.6, 0.4, 0.3], "constraints": PARITY, "sensitive_features": SEX} | arguments
    with pytest.raises(error, match=text):
        decide(given.pop("scores"), given.pop("constraints"), **given)


def test_where_one_threshold_cannot_do_it_the_error_says_so() -> None:
    y = [1, 0, 0, 1] * 10  # in group F high scores are right, in group M they are wrong; whatever the floor
    scores, sex = [0.9, 0.1, 0.9, 0.1] * 10, ["F", "F", "M", "M"] * 10
    held = [fl.EqualizedOdds("sex", 0.0), fl.MinimumRate("sex", 0.4), fl.Affine([[1.0, 1.0]], upper=1.2, on="sex")]
    arguments = {"sensitive_features": {"sex": sex}, "y": y}
    noise = np.linspace(0, 0.05, 40)
    with pytest.raises(NeedsRandomisationError, match="Use randomised=True, or a larger tolerance"):
        decide(scores + noise, held, **arguments)
    drawn = decide(scores + noise, held, **arguments, randomised=True)
    assert 0.4 - 1 / 20 <= min(drawn.rates.values()) <= max(drawn.rates.values()) <= 0.8


def test_one_sample_one_group_and_absent_positives() -> None:
    assert decide([0.7], PARITY, sensitive_features={"sex": ["F"]}).gaps == {"DemographicParity('sex')": None}
    alone = decide([0.7, 0.2], PARITY, sensitive_features={"sex": ["F", "F"]})
    assert alone.decisions.tolist() == [1, 0]
    assert alone.rounding == {"DemographicParity('sex')": 0.0}
    odds = [fl.EqualizedOdds("sex", 0.0)]
    missing = decide([0.9, 0.8, 0.7, 0.3], odds, sensitive_features=SEX, y=[0, 1, 0, 0])
    assert missing.absent == (("EqualizedOdds('sex')", "sex=F, y=1"),)


@pytest.mark.parametrize(
    "features", [{"sex": [0, 1, 0, 1]}, torch.tensor([0, 1, 0, 1]), {"sex": np.array(["a", "b", "a", "b"])}]
)
def test_any_way_of_giving_groups(features: Any) -> None:
    result = decide([0.9, 0.8, 0.2, 0.1], PARITY, sensitive_features=features)
    assert result.decisions.tolist() == [1, 1, 0, 0]
    assert result.rule.apply([0.9, 0.8, 0.2, 0.1], sensitive_features=features).tolist() == [1, 1, 0, 0]


def test_scores_of_any_size_where_labels_are_given() -> None:
    huge = [1e300, -1e300, 1e-300, 0.0]
    result = decide(huge, [], y=[1, 0, 1, 0])
    assert result.decisions.tolist() == [1, 0, 1, 0]
    assert result.rule.apply(huge).tolist() == [1, 0, 1, 0]


def test_columns_of_pandas_are_read_without_a_warning() -> None:
    frame = pd.DataFrame({"score": [0.9, 0.2, 0.8, 0.3], "label": [1, 0, 1, 0], **SEX}, index=[7, 3, 9, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = decide(frame["score"], PARITY, sensitive_features=frame[["sex"]], y=frame["label"])
    same = decide([0.9, 0.2, 0.8, 0.3], PARITY, sensitive_features=SEX, y=[1, 0, 1, 0])
    assert result.decisions.tolist() == same.decisions.tolist()


def test_two_constraints_of_one_name_are_told_apart() -> None:
    both = [fl.DemographicParity("sex", 0.1), fl.DemographicParity("sex", 0.6)]
    result = decide([0.9, 0.3, 0.8, 0.1], both, sensitive_features=SEX)
    assert list(result.gaps) == ["DemographicParity('sex')", "DemographicParity('sex') #2"]
    assert result.multipliers["DemographicParity('sex')"] > 0 == result.multipliers["DemographicParity('sex') #2"]


def test_a_tolerance_may_be_a_tensor() -> None:
    tolerance = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    result = decide([0.9, 0.3, 0.8, 0.1], [fl.DemographicParity("sex", tolerance)], sensitive_features=SEX)
    assert result.gaps == {"DemographicParity('sex')": 0.0}
