"""Names of arguments, scores, weights, lists of constraints and backbones."""

from __future__ import annotations

import decimal
import inspect
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
from fairlayer._keywords import explained, refuse_foreign_keywords
from fairlayer.adversarial import leakage
from fairlayer.audit import AuditTable, audit, coverage
from fairlayer.calibration import GroupCalibrator
from fairlayer.data import reweighing_weights
from fairlayer.decisions import reject_option
from fairlayer.distillation import AmortisedShifts, remaining_gap
from fairlayer.edge import as_constraints, as_score_tensor, read_per_sample, read_sample_weight
from fairlayer.errors import KeywordError
from fairlayer.integrations import sklearn
from fairlayer.integrations import torchmetrics as metrics
from fairlayer.penalties import Excess
from fairlayer.scoring import TableProjection

PARITY = fl.DemographicParity("sex", tolerance=0.1)
SEX = {"sex": ["F", "F", "M", "M"]}
SCORES = [0.9, 0.7, 0.2, 0.4]

# ---- keywords


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: fl.DemographicParity("sex", eps=0.1), "DemographicParity has no argument 'eps'.*called 'tolerance'"),
        (
            lambda: fl.EqualizedOdds("sex", fairness_tolerance=0.1),
            "'fairness_tolerance'; here it is called 'tolerance'",
        ),
        (lambda: fl.DemographicParity("sex", slack=0.1), "'slack'; here it is called 'tolerance'"),
        (lambda: fl.DemographicParity("sex", epsilon=0.1), "'epsilon'; here it is called 'tolerance'"),
        (lambda: fl.DemographicParity("sex", tolerence=0.1), "'tolerence'; did you mean 'tolerance'"),
        (lambda: fl.DemographicParity(feature="sex", tolerance=0.1), "'feature'; here it is called 'on'"),
        (lambda: fl.DemographicParity("sex", zzz=0.1), r"no argument 'zzz'\. Its arguments are: on, tolerance"),
        (lambda: fl.decide(SCORES, PARITY, groups=SEX), "decide has no argument 'groups'.*'sensitive_features'"),
        (lambda: fl.decide(SCORES, PARITY, sensitive_features=SEX, labels=[1] * 4), "'labels'; here it is called 'y'"),
        (lambda: fl.decide(SCORES, PARITY, A=SEX), "'A'; here it is called 'sensitive_features'"),
        (lambda: fl.Penalty(PARITY)(torch.tensor(SCORES), protected=SEX), "'protected'; here .* 'sensitive_features'"),
        (lambda: fl.Penalty(PARITY, nrom="abs"), "Penalty has no argument 'nrom'; did you mean 'norm'"),
        (lambda: fl.FairModel(nn.Linear(2, 1), [PARITY], bound=(0, 1)), "FairModel has no argument 'bound'.*'bounds'"),
        (lambda: fl.FairModel(nn.Linear(2, 1), [PARITY], prediction_bounds=(0, 1)), "'prediction_bounds'.*'bounds'"),
        (lambda: fl.FairModel(custom_network=nn.Linear(2, 1)), "'custom_network'; here it is called 'backbone'"),
        (lambda: fl.FairModel(nn.Linear(2, 1), fairness_metric="x"), "'fairness_metric'; here .* 'constraints'"),
        (lambda: fl.FairModel(nn.Linear(2, 1), epsilon=1.0), "'epsilon'; here it is called 'tolerance'"),
        (lambda: fl.FairModel(nn.Linear(2, 1), [PARITY])(torch.rand(4, 2), labels=[1] * 4), "'labels'; .*called 'y'"),
        (lambda: fl.DecisionRule.fit(SCORES, PARITY, sensitive=SEX), "'sensitive'; here .* 'sensitive_features'"),
    ],
)
def test_a_foreign_keyword_is_answered_with_ours(call: Any, said: str) -> None:
    with pytest.raises(KeywordError, match=said) as caught:
        call()
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, errors.ParameterError)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (fl.DemographicParity, "measure"),
        *((fl.FairProjection, each) for each in ("forward", "alone", "fit_categories")),
        *((fl.InferenceState, each) for each in ("emit", "settle", "warm_start", "absorb", "observe_labels")),
        *((fl.DecisionRule, each) for each in ("apply", "probabilities", "locate")),
        (fl.DecisionStream, "decide"),
        *((kind, "forward") for kind in (fl.HSIC, fl.MMD, fl.AugmentedLagrangian, Excess)),
        *((kind, "fit_categories") for kind in (fl.HSIC, fl.MMD, fl.AugmentedLagrangian, fl.Penalty, Excess)),
        *((fl.Adversary, each) for each in ("forward", "loss", "losses")),
        *((GroupCalibrator, each) for each in ("fit", "apply")),
        *((AmortisedShifts, each) for each in ("fit", "encode")),
        (AuditTable, "of"),
        *((sklearn.FairRidge, each) for each in ("fit",)),
        *((sklearn.FairLogisticRegression, each) for each in ("fit",)),
        (metrics.ScoreGap, "update"),
        (metrics.ConstraintExcess, "update"),
        (TableProjection, "apply"),
    ],
)  # fmt: skip
def test_every_method_that_reads_samples_answers(owner: Any, name: str) -> None:
    """Labels, groups or weights by another name; the call need not be whole for that."""
    method = getattr(owner, name)
    known = inspect.signature(method).parameters
    theirs = {"y": "labels", "sensitive_features": "protected", "sample_weight": "weights"}
    ours = next(each for each in theirs if each in known)
    with pytest.raises(KeywordError, match=f"'{theirs[ours]}'; here it is called '{ours}'"):
        method(*[None] * _positional(known, ours), **{theirs[ours]: None})


@pytest.mark.parametrize("function", [audit, coverage, reject_option, reweighing_weights, leakage, remaining_gap])
def test_every_function_that_reads_samples_answers(function: Any) -> None:
    known = inspect.signature(function).parameters
    theirs = {"y": "labels", "sensitive_features": "protected", "constraints": "fairness_metric"}
    ours = next(each for each in theirs if each in known)
    with pytest.raises(KeywordError, match=f"'{theirs[ours]}'; here it is called '{ours}'"):
        function(*[None] * _positional(known, ours), **{theirs[ours]: None})


def _positional(parameters: Any, without: str) -> int:
    """How many arguments a call needs by their place."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [each for each in parameters.values() if each.kind in kinds and each.default is each.empty]
    return len([each for each in needed if each.name != without])


def test_signatures_stay_as_they_were_written() -> None:
    assert list(inspect.signature(fl.DemographicParity).parameters) == ["on", "tolerance", "classes"]
    assert "sensitive_features" in inspect.signature(fl.decide).parameters
    assert "protected_attr_idx" in inspect.signature(fl.FairModel).parameters


def test_an_error_inside_is_left_alone() -> None:
    @explained
    def broken(left: Any, *, right: Any) -> Any:
        return left + right

    with pytest.raises(TypeError, match="unsupported operand") as caught:
        broken(1, right="a")
    assert not isinstance(caught.value, KeywordError)
    with pytest.raises(TypeError, match="missing 1 required") as caught:
        broken(1)
    assert not isinstance(caught.value, KeywordError)


def test_a_constraint_of_ones_own_answers_too() -> None:
    class Mine(fl.DemographicParity):
        def __init__(self, on: str, width: float) -> None:
            super().__init__(on, tolerance=width)

    assert Mine("sex", width=0.1).tolerance == 0.1
    with pytest.raises(KeywordError, match="did you mean 'width'"):
        Mine("sex", widht=0.1)


def test_a_backbone_takes_its_own_keywords() -> None:
    class Takes(nn.Module):
        def forward(self, x: torch.Tensor, labels: Any = None) -> torch.Tensor:
            return x[:, 0] * (1.0 if labels is None else 2.0)

    model = fl.FairModel(Takes(), [PARITY])
    x = torch.tensor(SCORES)[:, None]
    once, twice = (model(x, sensitive_features=SEX, **given) for given in ({}, {"labels": [1]}))
    assert not torch.equal(once, twice)


def test_known_names_pass() -> None:
    refuse_foreign_keywords("here", ["y"], ("x", "y"))


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
    with pytest.raises(errors.ConstraintDefinitionError, match="must be a list of constraints"):
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
