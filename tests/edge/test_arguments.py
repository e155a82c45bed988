"""Names of arguments, scores, weights, lists of constraints and backbones."""

from __future__ import annotations

import decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import fairlayer as fl
from fairlayer import errors
from fairlayer.distillation import remaining_gap
from fairlayer.edge import as_constraints, as_score_tensor, read_per_sample, read_sample_weight
from fairlayer.integrations import torchmetrics as metrics

PARITY = fl.DemographicParity("sex", tolerance=0.1)
SEX = {"sex": ["F", "F", "M", "M"]}
SCORES = [0.9, 0.7, 0.2, 0.4]

# ---- constraints


TEXT = "demographic_parity(sex, 0.1)"


@pytest.mark.parametrize(
    "given", [PARITY, TEXT, [PARITY], [TEXT], (TEXT,)], ids=["one", "text", "list", "texts", "tuple"]
)
def test_one_or_several_constraints_or_their_texts(given: Any) -> None:
    scores = torch.tensor(SCORES, dtype=torch.float64)
    calls = {
        "project": lambda c: fl.project(scores, c, sensitive_features=SEX).value,
        "layer": lambda c: fl.FairProjection(c)(scores, sensitive_features=SEX),
        "model": lambda c: fl.FairModel(nn.Flatten(0), c)(scores[:, None], sensitive_features=SEX),
        "penalty": lambda c: fl.Penalty(c)(scores, sensitive_features=SEX),
        "lagrangian": lambda c: fl.AugmentedLagrangian(c)(scores, sensitive_features=SEX),
        "stream": lambda c: fl.InferenceState(c).emit(scores, SEX),
        "decide": lambda c: fl.decide(scores, c, sensitive_features=SEX).decisions,
        "rule": lambda c: fl.DecisionRule.fit(scores, c, sensitive_features=SEX).apply(scores, sensitive_features=SEX),
    }
    for name, call in calls.items():
        torch.testing.assert_close(call(given), call([PARITY]), msg=name)
    batch = {"x": scores, "sensitive_features": SEX}
    assert remaining_gap(nn.Identity(), [batch], given)[0].scores == pytest.approx(0.5)


def test_a_metric_takes_the_text() -> None:
    metric = metrics.ConstraintExcess(TEXT, categories={"sex": ["F", "M"]})
    metric.update(torch.tensor(SCORES), None, SEX["sex"])
    assert float(metric.compute()) == pytest.approx(0.4)


@pytest.mark.parametrize(
    "given", [None, 3, "sex", ["sex"], {"a": PARITY}, {PARITY}, (c for c in [PARITY]), [PARITY, None]]
)
def test_what_is_no_list_of_constraints(given: Any) -> None:
    with pytest.raises(errors.ConstraintDefinitionError, match="must be a constraint, its text"):
        as_constraints(given)
    with pytest.raises(errors.ConstraintDefinitionError, match="unknown name 'parity'"):
        as_constraints("parity(sex)")


# ---- scores


@pytest.mark.parametrize(
    "scores",
    [
        SCORES,
        tuple(SCORES),
        np.array(SCORES),
        np.array(SCORES[::-1])[::-1],
        np.array(SCORES, dtype=">f8"),
        np.array(SCORES, dtype=object),
        torch.tensor(SCORES, dtype=torch.float64),
        pd.Series(SCORES, index=[3, 3, 1, 0]),
        pd.Series(SCORES, dtype="Float64"),
        pl.Series(SCORES),
        pa.array(SCORES),
        [decimal.Decimal(str(score)) for score in SCORES],
        [torch.tensor(score, dtype=torch.float64) for score in SCORES],
    ],
)
def test_scores_in_any_container(scores: Any) -> None:
    tensor = as_score_tensor(scores)
    assert tensor.dtype == torch.float64
    assert tensor.tolist() == SCORES
    expected = fl.decide(SCORES, PARITY, sensitive_features=SEX).decisions
    assert torch.equal(fl.decide(scores, PARITY, sensitive_features=SEX).decisions, expected)


def test_scores_keep_precision_shape_and_graph() -> None:
    assert as_score_tensor(np.array(SCORES, dtype=np.float32)).dtype == torch.float32
    assert as_score_tensor(np.array(SCORES, dtype=np.float16)).dtype == torch.float16
    assert as_score_tensor(np.array([SCORES])).shape == (1, 4)
    assert as_score_tensor(pd.DataFrame({"a": SCORES, "b": SCORES})).shape == (4, 2)
    graph = torch.tensor(SCORES, requires_grad=True)
    assert as_score_tensor(graph) is graph
    source = np.array(SCORES)
    as_score_tensor(source)[0] = 5.0
    assert source[0] == SCORES[0]


@pytest.mark.parametrize(
    "scores",
    ["0.5", b"1", None, {0.5}, {"a": 0.5}, (s for s in SCORES), ["a"], np.array(["0.5"]), [[0.1], [0.2, 0.3]],
     np.ones(2, dtype=complex), pl.LazyFrame({"a": SCORES}), torch.ones(2).to_sparse().to(torch.int64)],
)  # fmt: skip
def test_what_are_no_scores(scores: Any) -> None:
    with pytest.raises(errors.ShapeError, match="scores must be"):
        as_score_tensor(scores)


@pytest.mark.parametrize("scores", [[0, 1, 1], np.array([1, 2]), torch.tensor([0, 1])])
def test_whole_numbers_are_scores_where_only_their_order_counts(scores: Any) -> None:
    with pytest.raises(errors.ShapeError, match=r"scores must be floating numbers, but found values of torch\.int64"):
        as_score_tensor(scores)
    assert as_score_tensor(scores, whole=True).dtype == torch.float64
    with pytest.raises(errors.ShapeError, match=r"torch\.bool"):
        as_score_tensor([True, False], whole=True)


def test_missing_scores_are_not_made_up() -> None:
    for scores in (np.ma.array([0.5, 0.7], mask=[False, True]), [0.5, None], pd.Series([0.5, None], dtype="Float64")):
        assert as_score_tensor(scores).isnan().tolist() == [False, True]


# ---- labels and weights


@pytest.mark.parametrize("y", [np.array(["0", "1"]), ["no", "yes"], "01", {0, 1}, {"a": 1}, (i for i in range(2))])
def test_what_are_no_labels(y: Any) -> None:
    with pytest.raises(errors.LabelValueError, match="y must be numbers"):
        read_per_sample("y", y, (2,))


def test_a_missing_label_is_refused() -> None:
    for y in ([0, None], np.ma.array([0, 1], mask=[0, 1]), pd.Series([0, None], dtype="Int64"), pa.array([0, None])):
        with pytest.raises(errors.NonFiniteScoresError, match="y holds NaN"):
            read_per_sample("y", y, (2,))


@pytest.mark.parametrize(
    "weights",
    [[0, 1, 2.5], np.array([0, 1, 2.5]), torch.tensor([0, 1, 2.5]), pd.Series([0, 1, 2.5]), pa.array([0, 1, 2.5])],
)
def test_weights(weights: Any) -> None:
    read = read_sample_weight(weights, 3)
    assert read is not None
    assert read.dtype == np.float64
    assert read.tolist() == [0.0, 1.0, 2.5]
    assert read_sample_weight(None, 3) is None


@pytest.mark.parametrize(
    ("weights", "kind", "said"),
    [
        ([1, -1, 1], errors.ParameterError, "negative, the first -1"),
        ([0, 0, 0], errors.ParameterError, "is 0 for all 3"),
        ([1, np.nan, 1], errors.NonFiniteScoresError, "1 of 3 sample weights are NaN or infinite"),
        ([1, np.inf, 1], errors.NonFiniteScoresError, "1 of 3 sample weights are NaN or infinite"),
        ([1, 1], errors.ShapeError, r"shape \(3,\)"),
        ([[1, 1], [1, 1], [1, 1]], errors.ShapeError, r"\(3, 2\)"),
        (1.0, errors.ShapeError, r"shape \(\)"),
        (["a", "b", "c"], errors.ShapeError, "must be numbers"),
        ("balanced", errors.ShapeError, "must be numbers"),
    ],
)
def test_weights_that_are_refused(weights: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        read_sample_weight(weights, 3)


# ---- backbones


class Trees:
    """An estimator that can also be called."""

    def fit(self, x: Any, y: Any) -> None: ...

    def predict(self, x: Any) -> Any: ...

    def __call__(self, x: Any) -> Any: ...


@pytest.mark.parametrize("backbone", [LogisticRegression(), Trees()])
def test_an_estimator_is_no_backbone(backbone: Any) -> None:
    with pytest.raises(errors.OutputError, match=r"not called on tensors.*project\(\.\.\.\), decide\(\.\.\.\)"):
        fl.FairModel(backbone, [PARITY])


def test_a_class_or_a_number_is_no_backbone() -> None:
    with pytest.raises(errors.OutputError, match=r"is the class Flatten.*Flatten\(\.\.\.\)"):
        fl.FairModel(nn.Flatten, [PARITY])  # type: ignore[arg-type]
    with pytest.raises(errors.OutputError, match="is a int"):
        fl.FairModel(3, [PARITY])  # type: ignore[arg-type]


def test_a_function_of_tensors_is_a_backbone() -> None:
    model = fl.FairModel(lambda x: x[:, 0], [PARITY])  # type: ignore[arg-type]
    assert model(torch.tensor(SCORES)[:, None], sensitive_features=SEX).shape == (4,)
