"""Penalties against their formulas, written out in NumPy; what they do where a batch says nothing; their state."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fairlayer as fl
from fairlayer.errors import (
    CategoryError,
    ConstraintDefinitionError,
    EmptyBatchError,
    FairlayerError,
    MissingLabelsError,
    MissingSensitiveFeatureError,
    NonFiniteScoresError,
    ParameterError,
    ShapeError,
)
from fairlayer.penalties import Penalty, penalise
from tests.core import truth
from tests.core.problems import SOLO_KINDS, Problem, Rule, random_problem, solo_problem

NORMS = ("squared", "abs", "hinge", "logsumexp")
LIMIT_IS_NO_TOLERANCE = {
    "DisparateImpactRatio",
    "BoundedGroupLoss",
    "BoundedGroupLossCustom",
    "MinimumRate",
    "AffineGroups",
    "AffineSamples",
}


def excesses(term: truth.Between | truth.AllPairs, y: np.ndarray) -> list[float]:
    """Every single limit of a term, as a signed number."""
    v = term.rows @ y + term.offset
    if isinstance(term, truth.Between):
        sides = [v - term.upper, term.lower - v]
        return [float(e) for side in sides for e in side if np.isfinite(e)]
    k = len(v)
    return [float(term.scale * v[i] - v[j] - term.width) for i in range(k) for j in range(k) if i != j]


def worst(term: truth.Between | truth.AllPairs, y: np.ndarray) -> list[float]:
    each = excesses(term, y)
    return each if isinstance(term, truth.Between) else [max(each)]


def expected(problem: Problem, norm: str, smoothing: float = 0.01) -> float:
    """The documented formula, from the formulas of the constraints."""
    strict = replace(problem, rules=tuple(without_tolerance(rule) for rule in problem.rules))
    used = problem if norm in ("hinge", "logsumexp") else strict
    terms = truth.all_terms(used)
    y = problem.scores
    if norm == "logsumexp":
        each = np.array([e for term in terms for e in excesses(term, y)])
        return float(smoothing * np.logaddexp.reduce(np.append(each / smoothing, 0.0))) if len(each) else 0.0
    parts = np.maximum([e for term in terms for e in worst(term, y)], 0.0)
    return float((parts**2).sum() if norm == "squared" else parts.sum())


def without_tolerance(rule: Rule) -> Rule:
    return rule if rule.kind in LIMIT_IS_NO_TOLERANCE else replace(rule, limit=0.0)


def value(problem: Problem, norm: str, scores: Any = None, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    given = scores if isinstance(scores, torch.Tensor) else torch.tensor(problem.scores, dtype=dtype)
    arguments = {k: v for k, v in problem.arguments().items() if k not in ("bounds", "sample_weight")}
    return penalise(given, problem.constraints(), norm=norm, **arguments)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", SOLO_KINDS)
def test_value_is_the_documented_formula(kind: str, norm: str) -> None:
    for seed in range(12):
        problem = solo_problem(kind, seed)
        assert value(problem, norm).item() == pytest.approx(expected(problem, norm), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("means", "expected"), [([0.1, 0.5], 0.4**2), ([0.1, 0.4, 0.7], 4 / 3 * (0.3**2 + 0.3**2))])
def test_the_variance_of_two_groups_is_their_squared_gap_and_of_more_the_mean_square(
    means: list[float], expected: float
) -> None:
    scores, groups = torch.tensor(means, dtype=torch.float64), {"a": list(range(len(means)))}
    parity = fl.DemographicParity("a", 0.05)
    assert penalise(scores, parity, norm="variance", sensitive_features=groups).item() == pytest.approx(expected)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from(NORMS))
def test_value_for_several_constraints_soft_groups_and_label_estimates(seed: int, norm: str) -> None:
    problem = random_problem(seed, scale=1.0)
    assert value(problem, norm).item() == pytest.approx(expected(problem, norm), rel=1e-8, abs=1e-11)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", SOLO_KINDS)
def test_gradient(kind: str, norm: str) -> None:
    rng = np.random.default_rng(5)
    problem = solo_problem(kind, 2, n=8)
    scores = torch.tensor(rng.random(8), requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: value(problem, norm, z), (scores,))


@pytest.mark.parametrize("norm", NORMS)
def test_second_derivative(norm: str) -> None:
    problem = solo_problem("EqualizedOdds", 1, n=10)
    scores = torch.rand(10, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda z: value(problem, norm, z), (scores,))


def test_soft_decisions() -> None:
    scores = np.array([0.2, 0.7, 0.6, 0.4])
    soft = 1 / (1 + np.exp(-(scores - 0.5) / 0.1))
    parity = fl.DemographicParity("a", 0.0)
    features = {"a": [0, 0, 1, 1]}
    found = penalise(torch.tensor(scores), parity, norm="abs", sensitive_features=features, threshold=0.5)
    assert found.item() == pytest.approx(abs(soft[:2].mean() - soft[2:].mean()))
    sharp = penalise(
        torch.tensor(scores), parity, norm="abs", sensitive_features=features, threshold=0.45, temperature=1e-3
    )
    assert sharp.item() == pytest.approx(0.0, abs=1e-6)  # one decision of two in either group
    given = torch.tensor(scores, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: penalise(z, parity, sensitive_features=features, threshold=0.5), (given,))


def test_a_soft_decision_is_a_yes_above_the_threshold() -> None:
    floor, groups = fl.MinimumRate("a", 0.75), {"a": [0, 0, 0]}
    yes = penalise(torch.tensor([0.9, 0.8, 0.7]), floor, sensitive_features=groups, threshold=0.5, temperature=1e-3)
    no = penalise(torch.tensor([0.1, 0.2, 0.3]), floor, sensitive_features=groups, threshold=0.5, temperature=1e-3)
    assert (yes.item(), no.item()) == (0.0, pytest.approx(0.75**2))


def test_columns_of_scores_are_remembered_apart() -> None:
    penalty, groups = Penalty(fl.DemographicParity("a", 0.0)), {"a": [0, 1]}
    penalty(torch.tensor([[0.1, 0.9], [0.4, 0.3]]), sensitive_features=groups)  # gaps of .3 and -.6
    found = penalty(torch.full((2, 2), 0.5), sensitive_features=groups)
    assert found.item() == pytest.approx(0.3**2 + 0.6**2)


def test_columns_of_scores_add_up() -> None:
    scores, a = torch.rand(9, 2, dtype=torch.float64), torch.arange(9) % 3
    y = torch.stack([torch.arange(9) % 2, torch.arange(9) // 5], dim=1)
    odds = fl.EqualizedOdds("a", 0.01)
    each = [penalise(scores[:, j], odds, sensitive_features={"a": a}, y=y[:, j]) for j in range(2)]
    both = penalise(scores, odds, sensitive_features={"a": a}, y=y)
    assert both.item() == pytest.approx(sum(e.item() for e in each))
    assert penalise(scores[:, :1], odds, sensitive_features={"a": a}, y=y[:, :1]).item() == each[0].item()
    assert penalise(scores[:, :1], odds, sensitive_features={"a": a}, y=y[:, 0]).item() == each[0].item()


# --- where the batch says nothing


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("features", "y"),
    [
        ({"a": [0, 0, 0]}, [1, 0, 1]),  # one group
        ({"a": [-1, -1, -1]}, [1, 0, 1]),  # no group
        ({"a": [0, 1, 1]}, [0, 0, 0]),  # no positives
        ({"a": [0, 1, 1]}, [1, 0, 0]),  # no positive in one group
        ({"a": [0, 1, 2]}, [0, 1, 1]),  # one-member groups
    ],
)
def test_absent_groups_and_labels_give_a_finite_value_and_gradient(norm: str, features: Any, y: list[int]) -> None:
    constraints = [
        fl.DemographicParity("a", 0.0),
        fl.EqualizedOdds("a", 0.0),
        fl.ErrorRateParity("a", 0.0),
        fl.GroupCalibration("a", 0.0, bins=3),
        fl.MinimumRate("a", 0.1),
        fl.DisparateImpactRatio("a", 0.8),
    ]
    penalty = Penalty(constraints, norm)
    penalty(torch.rand(3), sensitive_features={"a": [0, 1, 2]}, y=[0, 1, 0])
    scores = torch.tensor([0.3, 0.6, 0.9], requires_grad=True)
    loss = penalty(scores, sensitive_features=features, y=y)
    loss.backward()
    assert torch.isfinite(loss)
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("norm", NORMS)
def test_nothing_to_compare_is_zero_with_a_graph(norm: str) -> None:
    scores = torch.tensor([0.3, 0.6], requires_grad=True)
    loss = Penalty(fl.EqualOpportunity("a", 0.0), norm)(scores, sensitive_features={"a": [0, 1]}, y=[0, 1])
    loss.backward()
    assert loss.item() == 0.0
    assert scores.grad is not None
    assert scores.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("norm", NORMS)
def test_no_constraint_is_zero_with_a_graph(norm: str) -> None:
    scores = torch.tensor([0.3, 0.6], requires_grad=True)
    penalise(scores, [], norm=norm).backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [0.0, 0.0]


def test_hinge_is_zero_exactly_where_the_projection_has_nothing_to_do() -> None:
    parity = fl.DemographicParity("a", tolerance=0.05)
    features = {"a": [0, 0, 1, 1]}
    fair = fl.project(torch.rand(4, dtype=torch.float64), [parity], sensitive_features=features).value
    assert penalise(fair, parity, norm="hinge", sensitive_features=features).item() <= 1e-12
    assert penalise(fair, parity, norm="abs", sensitive_features=features).item() == pytest.approx(0.05)


# --- dtypes, sizes, state


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    scores = (torch.arange(8) / 8).to(dtype).requires_grad_()
    loss = Penalty(fl.DemographicParity("a", 0.0), "abs")(scores, sensitive_features={"a": [0] * 4 + [1] * 4})
    loss.backward()
    assert loss.dtype == (dtype if dtype in (torch.float32, torch.float64) else torch.float32)
    assert loss.item() == 0.5
    assert scores.grad is not None
    assert scores.grad.dtype == dtype
    assert scores.grad.tolist() == [-0.25] * 4 + [0.25] * 4


def test_huge_scores_stay_finite() -> None:
    scores = torch.tensor([3e38, -3e38], requires_grad=True)
    loss = Penalty(fl.DemographicParity("a", 0.0), "logsumexp")(scores, sensitive_features={"a": [0, 1]})
    loss.backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


def test_a_tolerance_takes_its_gradient() -> None:
    tolerance = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    loss = penalise(
        torch.tensor([0.9, 0.2]), fl.DemographicParity("a", tolerance), norm="hinge", sensitive_features={"a": [0, 1]}
    )
    loss.backward()
    assert tolerance.grad is not None
    assert tolerance.grad.item() == -1.0


def test_categories_are_learnt_over_batches_and_travel() -> None:
    penalty = Penalty(fl.DemographicParity("a", 0.0))
    penalty(torch.rand(2), sensitive_features={"a": ["x", "y"]})
    penalty(torch.rand(2), sensitive_features={"a": ["x", "z"]})
    file = io.BytesIO()
    torch.save(penalty.state_dict(), file)
    file.seek(0)
    other = Penalty(fl.DemographicParity("a", 0.0))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.reader.vocabulary.categories == {"a": ("x", "y", "z")}
    with pytest.raises(CategoryError, match="'w'"):
        other.eval()(torch.rand(2), sensitive_features={"a": ["x", "w"]})
    other.fit_categories({"a": ["w"]})
    assert other.reader.vocabulary.categories == {"a": ("x", "y", "z", "w")}


def test_it_trains_inside_a_compiled_step() -> None:
    penalty = Penalty(fl.DemographicParity("a", 0.0), "abs")

    @torch.compile(backend="eager")
    def step(scores: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return 2.0 * penalty(scores + 0.0, sensitive_features={"a": a})

    scores = torch.tensor([0.2, 0.6], requires_grad=True)
    step(scores, torch.tensor([0, 1])).backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [-2.0, 2.0]


@pytest.mark.parametrize(
    ("scores", "more", "error", "text"),
    [
        (torch.tensor([0.1, float("nan")]), {}, NonFiniteScoresError, "1 of 2 scores"),
        (torch.tensor([1, 2]), {}, ShapeError, "torch.int64"),
        (torch.zeros(0), {}, EmptyBatchError, "empty"),
        (torch.zeros(3), {}, ShapeError, "3 scores"),
        (torch.zeros(2), {"sensitive_features": {"b": [0, 1]}}, MissingSensitiveFeatureError, "'a'"),
        (torch.zeros(2), {"y": None}, MissingLabelsError, "Pass y=labels"),
        (torch.zeros(2, 1), {"y": [[0], [1], [1]]}, ShapeError, "y must have shape"),
    ],
)
def test_errors(scores: torch.Tensor, more: dict[str, Any], error: type[FairlayerError], text: str) -> None:
    penalty = Penalty(fl.EqualOpportunity("a", 0.0))
    penalty(torch.zeros(2), sensitive_features={"a": [0, 1]}, y=[0, 1])
    before = penalty.state_dict()
    with pytest.raises(error, match=text):
        penalty(scores, **{"sensitive_features": {"a": [0, 3]}, "y": [0, 1], **more})
    assert all(torch.equal(value, before[name]) for name, value in penalty.state_dict().items())


def test_settings_are_checked() -> None:
    parity = fl.DemographicParity("a", 0.0)
    with pytest.raises(ParameterError, match="norm must be one of 'squared'"):
        Penalty(parity, "l2")
    for wrong in ({"temperature": 0.0}, {"smoothing": -1.0}, {"threshold": float("nan")}):
        with pytest.raises(ConstraintDefinitionError, match="must be a finite number"):
            Penalty(parity, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConstraintDefinitionError, match="must be a constraint, its text"):
        Penalty("sex")  # type: ignore[arg-type]
