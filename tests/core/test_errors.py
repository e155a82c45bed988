"""Every refusal: its class, what the text says, and that nothing was half-updated."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer import errors

INF, NAN = float("inf"), float("nan")
Z = torch.tensor([0.9, 0.2, 0.5, 0.7])
G = {"g": [0, 0, 1, 1]}
DP = fl.DemographicParity("g", 0.1)
EO = fl.EqualizedOdds("g", 0.1)


def _project(scores: Any = Z, constraints: Any = (DP,), **more: Any) -> Callable[[], Any]:
    return lambda: fl.project(scores, list(constraints), **{"sensitive_features": G, **more})


CASES: dict[str, tuple[Callable[[], Any], type[Exception], list[str]]] = {
    # scores
    "NaN scores": (
        _project(torch.tensor([0.9, NAN, 0.5, NAN])),
        errors.NonFiniteScoresError,
        ["2 of 4 scores are NaN or infinite", "diverged backbone"],
    ),
    "infinite scores": (_project(torch.tensor([0.9, INF, -INF, 0.1])), errors.NonFiniteScoresError, ["2 of 4"]),
    "NaN scores that no constraint touches": (
        _project(torch.tensor([0.9, NAN]), (), sensitive_features=None),
        errors.NonFiniteScoresError,
        ["1 of 2"],
    ),
    "infinite scores within bounds": (
        _project(torch.tensor([INF, 0.1, 0.2, 0.3]), bounds=(0, 1)),
        errors.NonFiniteScoresError,
        ["1 of 4"],
    ),
    "NaN in half precision": (
        _project(torch.tensor([NAN, 0, 0, 0], dtype=torch.float16)),
        errors.NonFiniteScoresError,
        ["1 of 4"],
    ),
    "empty batch": (
        _project(torch.zeros(0), sensitive_features={"g": []}),
        errors.EmptyBatchError,
        ["the batch is empty", "(0,)"],
    ),
    "empty columns": (_project(torch.zeros(4, 0)), errors.EmptyBatchError, ["(4, 0)"]),
    "three dimensions": (_project(torch.zeros(4, 1, 1)), errors.ShapeError, ["(n,), (n, 1) or (n, k)", "(4, 1, 1)"]),
    "no dimension": (_project(torch.tensor(0.5)), errors.ShapeError, ["(n,), (n, 1) or (n, k)", "()"]),
    "integers": (_project(torch.tensor([0, 1, 1, 0])), errors.ShapeError, ["floating numbers", "torch.int64"]),
    "complex": (_project(torch.zeros(4, dtype=torch.complex64)), errors.ShapeError, ["torch.complex64"]),
    "an array of integers": (_project(np.zeros(4, dtype=int)), errors.ShapeError, ["floating numbers", "int64"]),
    "a list of texts": (_project(["0.1", "a", "0.3", "0.4"]), errors.ShapeError, ["must be numbers"]),
    # lengths
    "too few groups": (
        _project(sensitive_features={"g": [0, 1, 1]}),
        errors.ShapeError,
        ["4 scores", "3 entries"],
    ),
    "too few labels": (_project(constraints=[EO], y=[0, 1, 1]), errors.ShapeError, ["y must have shape (4,)", "(3,)"]),
    "(n, 1) labels for (n,) scores": (
        _project(constraints=[EO], y=torch.ones(4, 1)),
        errors.ShapeError,
        ["y must have shape (4,)", "(4, 1)", "squeeze(-1)"],
    ),
    "(n,) groups as (n, 1)": (
        _project(sensitive_features={"g": torch.tensor([[0], [0], [1], [1]])}),
        errors.ShapeError,
        ["'g' must have shape (n,)", "(4, 1)", "squeeze(-1)"],
    ),
    "(1, n) labels": (_project(constraints=[EO], y=torch.ones(1, 4)), errors.ShapeError, ["(1, 4)"]),
    "label_probabilities of another length": (
        _project(constraints=[EO], label_probabilities=[0.5]),
        errors.ShapeError,
        ["label_probabilities must have shape (4,)"],
    ),
    # labels
    "no labels": (
        _project(constraints=[EO]),
        errors.MissingLabelsError,
        ["EqualizedOdds('g') looks at labels", "no y was given", "Pass y=labels", "label_probabilities="],
    ),
    "labels that are not binary": (
        _project(constraints=[EO], y=[0, 1, 2, 3]),
        errors.LabelValueError,
        ["EqualizedOdds('g') needs labels 0 or 1", "[2.0, 3.0]", "(y == positive).float()"],
    ),
    "labels -1 and 1": (_project(constraints=[EO], y=[-1, 1, 1, -1]), errors.LabelValueError, ["-1.0"]),
    "regression labels for an error rate": (
        _project(constraints=[fl.ErrorRateParity("g", 0.1)], y=[0.3, 1, 1, 0]),
        errors.LabelValueError,
        ["ErrorRateParity('g')", "0.3"],
    ),
    "NaN labels": (_project(constraints=[EO], y=[0, 1, NAN, 1]), errors.NonFiniteScoresError, ["y holds NaN"]),
    "labels in words": (
        _project(constraints=[EO], y=["no", "yes", "no", "no"]),
        errors.LabelValueError,
        ["y must be numbers"],
    ),
    "probabilities above one": (
        _project(constraints=[EO], label_probabilities=[0.1, 2.0, 0.5, -1.0]),
        errors.LabelValueError,
        ["[0, 1]", "-1 to 2"],
    ),
    # sensitive features
    "missing feature": (
        _project(constraints=[fl.DemographicParity("race", 0.1)]),
        errors.MissingSensitiveFeatureError,
        ["'race'", "features given are: 'g'", "sensitive_features={'race': ...}"],
    ),
    "no features at all": (
        _project(sensitive_features=None),
        errors.MissingSensitiveFeatureError,
        ["'g'", "none"],
    ),
    "missing stratum": (
        _project(constraints=[fl.ConditionalParity("g", given="job", tolerance=0.1)]),
        errors.MissingSensitiveFeatureError,
        ["'job'"],
    ),
    # constraints
    "negative tolerance": (
        lambda: fl.DemographicParity("sex", -0.1),
        errors.ConstraintDefinitionError,
        ["DemographicParity('sex') was given tolerance=-0.1", ">= 0"],
    ),
    "NaN tolerance": (
        lambda: fl.DemographicParity("sex", NAN),
        errors.ConstraintDefinitionError,
        ["tolerance=nan", "finite"],
    ),
    "infinite tolerance": (lambda: fl.EqualizedOdds("sex", INF), errors.ConstraintDefinitionError, ["tolerance=inf"]),
    "tolerance in words": (lambda: fl.EqualizedOdds("sex", "x"), errors.ConstraintDefinitionError, ["'x'", "number"]),  # type: ignore[arg-type]
    "tolerance as a vector": (
        lambda: fl.EqualizedOdds("sex", torch.tensor([0.1, 0.2])),
        errors.ConstraintDefinitionError,
        ["shape (2,)", "0-d floating tensor"],
    ),
    "tolerance as an integer tensor": (
        lambda: fl.EqualizedOdds("sex", torch.tensor(1)),
        errors.ConstraintDefinitionError,
        ["torch.int64"],
    ),
    "negative tolerance tensor": (
        lambda: fl.CovarianceBound("age", torch.tensor(-1.0)),
        errors.ConstraintDefinitionError,
        ["tolerance=-1"],
    ),
    "boolean tolerance": (lambda: fl.EqualizedOdds("sex", True), errors.ConstraintDefinitionError, ["True"]),
    "no name": (
        lambda: fl.DemographicParity("", 0.1),
        errors.ConstraintDefinitionError,
        ["name of a sensitive feature", "''"],
    ),
    "no names": (lambda: fl.DemographicParity((), 0.1), errors.ConstraintDefinitionError, ["()"]),
    "an index for a name": (lambda: fl.DemographicParity((3,), 0.1), errors.ConstraintDefinitionError, ["(3,)"]),  # type: ignore[arg-type]
    "lower above upper": (
        lambda: fl.Affine([[1.0, -1.0]], lower=0.5, upper=0.1, on="g"),
        errors.ConstraintDefinitionError,
        ["Affine('g') was given lower=0.5 > upper=0.1"],
    ),
    "NaN limit": (lambda: fl.Affine([[1.0]], upper=NAN), errors.ConstraintDefinitionError, ["NaN"]),
    "no limit": (lambda: fl.Affine([[1.0]]), errors.ConstraintDefinitionError, ["neither lower nor upper"]),
    "rows of another width": (
        _project(constraints=[fl.Affine(np.ones((1, 7)), upper=0.1)]),
        errors.ShapeError,
        ["rows of length 7", "4 samples"],
    ),
    "group rows of another width": (
        _project(constraints=[fl.Affine(np.ones((1, 7)), upper=0.1, on="g")]),
        errors.ShapeError,
        ["rows of length 7", "2 groups"],
    ),
    "ratio above one": (
        lambda: fl.DisparateImpactRatio("g", 1.25),
        errors.ConstraintDefinitionError,
        ["ratio=1.25", "(0, 1]", "0.8"],
    ),
    "ratio zero": (lambda: fl.DisparateImpactRatio("g", 0.0), errors.ConstraintDefinitionError, ["ratio=0"]),
    "infinite floor": (lambda: fl.MinimumRate("g", -INF), errors.ConstraintDefinitionError, ["floor=-inf"]),
    "infinite cap": (lambda: fl.BoundedGroupLoss("g", INF), errors.ConstraintDefinitionError, ["cap=inf"]),
    "bins that fall": (
        lambda: fl.GroupCalibration("g", 0.1, bins=[0.5, 0.1]),
        errors.ConstraintDefinitionError,
        ["bins=[0.5, 0.1]"],
    ),
    "no bins": (lambda: fl.GroupCalibration("g", 0.1, bins=0), errors.ConstraintDefinitionError, ["bins=0", ">= 1"]),
    "strata among the groups": (
        lambda: fl.ConditionalParity("g", given=("g", "h"), tolerance=0.1),
        errors.ConstraintDefinitionError,
        ["other features than `on`"],
    ),
    "a dict of constraints": (
        lambda: fl.project(Z, {"g": DP}, sensitive_features=G),  # type: ignore[arg-type]
        errors.ConstraintDefinitionError,
        ["must be a constraint, its text", "DemographicParity('g'"],
    ),
    "no constraint in the list": (
        lambda: fl.project(Z, ["g"], sensitive_features=G),  # type: ignore[list-item]
        errors.ConstraintDefinitionError,
        ["'g'"],
    ),
    # bounds
    "crossed bounds": (_project(bounds=(1.0, 0.0)), errors.InvalidBoundsError, ["lower <= upper", "(1.0, 0.0)"]),
    "margin too wide": (
        _project(bounds=(0.0, 1.0), margin=0.6),
        errors.InvalidBoundsError,
        ["margin=0.6", "smaller margin"],
    ),
    "margin without bounds": (_project(margin=0.1), errors.InvalidBoundsError, ["margin=0.1 needs bounds"]),
    "negative margin": (
        _project(bounds=(0, 1), margin=-0.1),
        errors.InvalidBoundsError,
        ["margin must be a number >= 0", "-0.1"],
    ),
    "NaN margin": (_project(bounds=(0, 1), margin=NAN), errors.InvalidBoundsError, ["nan"]),
    "infinite bound": (_project(bounds=(-INF, 1.0)), errors.InvalidBoundsError, ["lower bound must be finite", "None"]),
    "NaN bound": (_project(bounds=(0.0, NAN)), errors.InvalidBoundsError, ["upper bound must be finite"]),
    "one bound": (_project(bounds=(0.0,)), errors.InvalidBoundsError, ["(lower, upper)"]),
    "a number for bounds": (_project(bounds=1.0), errors.InvalidBoundsError, ["(lower, upper)", "1.0"]),
    "bounds in words": (_project(bounds=("0", 1)), errors.InvalidBoundsError, ["lower bound", "'0'"]),
    "bounds in words with a margin": (_project(bounds=("0", 1), margin=0.1), errors.InvalidBoundsError, ["'0'"]),
    "bounds of another length": (
        _project(bounds=(torch.zeros(3), torch.ones(3))),
        errors.InvalidBoundsError,
        ["(n,) = (4,)", "(3,)"],
    ),
    "bounds (n, 1)": (_project(bounds=(torch.zeros(4, 1), 1.0)), errors.InvalidBoundsError, ["(4, 1)"]),
    "one pair of crossed bounds": (
        _project(bounds=(torch.tensor([0.0, 0.0, 0.9, 0.0]), torch.tensor([1.0, 1.0, 0.1, 1.0]))),
        errors.InvalidBoundsError,
        ["lower <= upper"],
    ),
    # choices
    "unknown backend": (_project(backend="magic"), errors.ParameterError, ["'exact', 'cvxpylayers'", "'magic'"]),
    "unknown on_empty": (_project(on_empty="drop"), errors.ParameterError, ["on_empty", "'skip', 'raise'", "'drop'"]),
    "unknown on_infeasible": (
        _project(on_infeasible="ignore"),
        errors.ParameterError,
        ["'raise', 'relax'", "'ignore'"],
    ),
    # outcomes
    "empty group": (
        _project(constraints=[EO], y=[1, 1, 0, 1], on_empty="raise"),
        errors.EmptyGroupError,
        ["EqualizedOdds('g') compares groups", "no 'g=0, y=0'", "counts:", 'on_empty="skip"'],
    ),
    "infeasible": (
        _project(constraints=[fl.MinimumRate("g", 2.0)], bounds=(0, 1)),
        errors.InfeasibleConstraintsError,
        ["no predictions within the bounds (0.0, 1.0) meet MinimumRate('g')", 'on_infeasible="relax"'],
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_refused_with_a_text(case: tuple[Callable[[], Any], type[Exception], list[str]]) -> None:
    call, kind, parts = case
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert isinstance(caught.value, errors.FairlayerError)
    text = str(caught.value)
    assert all(isinstance(argument, str) for argument in caught.value.args)
    assert len(text) < 2000
    for part in parts:
        assert part in text, text


def test_every_public_error_is_a_named_one() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, errors.FairlayerError if name.endswith("Error") else UserWarning)
        assert kind.__doc__


def test_an_infeasible_batch_with_bounds_per_sample_has_a_short_text() -> None:
    """The text does not print a bound per sample of a large batch."""
    n = 5000
    low = torch.rand(n)
    with pytest.raises(errors.InfeasibleConstraintsError) as caught:
        fl.project(
            torch.rand(n),
            [fl.MinimumRate("g", 9.0)],
            sensitive_features={"g": torch.arange(n) % 2},
            bounds=(low, low + 1),
        )
    assert len(str(caught.value)) < 1000


BAD_CALLS: dict[str, dict[str, Any]] = {
    "NaN": {"x": torch.tensor([[NAN], [0.1], [0.2], [0.4]])},
    "short groups": {"sensitive_features": {"g": ["a", "b"]}},
    "missing group": {"sensitive_features": {"h": ["a", "b", "a", "b"]}},
    "no labels": {"y": None},
    "labels in words": {"y": ["a", "b", "c", "d"]},
    "labels 2": {"y": [0, 1, 2, 1]},
    "fractional groups": {"sensitive_features": {"g": [0.5, 1.5, 1, 1]}},
    "infeasible": {"y": [0, 0, 0, 0]},
}


@pytest.mark.parametrize("change", BAD_CALLS.values(), ids=BAD_CALLS.keys())
@pytest.mark.parametrize("learnt_before", [False, True])
def test_a_failed_call_changes_no_state(change: dict[str, Any], learnt_before: bool) -> None:
    class Identity(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.weight * x

    rules: list[fl.Constraint] = [fl.EqualizedOdds("g", 0.5), fl.MeanResidualParity("g", 0.9)]
    if change is BAD_CALLS["infeasible"]:
        rules += [fl.MinimumRate("g", 0.7), fl.BoundedGroupLoss("g", 0.4)]
    model = fl.FairModel(Identity(), rules, bounds=(0.0, 1.0))
    good: dict[str, Any] = {
        "x": torch.tensor([[0.9], [0.8], [0.7], [0.75]]),
        "sensitive_features": {"g": ["a", "b", "a", "b"]},
        "y": [1, 1, 1, 1],
    }
    if learnt_before:
        model(**good)
    before = copy.deepcopy(model.state_dict())
    words, last = model.projection.vocabulary, model.last_projection
    with pytest.raises(errors.FairlayerError):
        model(**{**good, "sensitive_features": {"g": ["c", "d", "c", "d"]}, **change})
    after = model.state_dict()
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(value, after[key]) if isinstance(value, torch.Tensor) else value == after[key]
    assert model.projection.vocabulary == words
    assert model.last_projection is last
    assert model.backbone.weight.grad is None  # type: ignore[union-attr]


def test_errors_can_be_caught_as_what_they_are_in_python() -> None:
    """A ValueError stays a ValueError for code that knows nothing of fairlayer."""
    with pytest.raises(ValueError, match="NaN"):
        fl.project(torch.tensor([NAN]), [])
    with pytest.raises(KeyError):
        fl.project(Z, [DP], sensitive_features={"h": [0, 1, 0, 1]})
    with pytest.raises(ValueError, match="tolerance"):
        fl.DemographicParity("g", -1.0)
