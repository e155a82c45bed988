"""Fixed shifts: on the data they were fitted to they are the exact projection, for every constraint they can serve."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch.export import Dim

import fairlayer as fl
from fairlayer import errors
from fairlayer.distillation import AmortisedShifts, NoFixedShiftError
from tests.core.problems import Problem, problems

REFUSED = {"GroupCalibration", "CovarianceBound", "AffineSamples", "BoundedGroupLossCustom"}
LABEL_CELLS = {"EqualOpportunity", "PredictiveEquality", "EqualizedOdds", "ErrorRateParity", "BoundedGroupLoss"}

SCORES = torch.tensor([0.9, 0.7, 0.8, 0.2, 0.4, 0.3], dtype=torch.float64)
SEX = ["F", "F", "F", "M", "M", "M"]
RACE = ["a", "b", "a", "b", "a", "a"]
PARITY = fl.DemographicParity("sex", 0.1)
BOTH = {"sex": SEX, "race": RACE}


def fitted(constraints: Any = (PARITY,), features: Any = None, **more: Any) -> AmortisedShifts:
    given_features = {"sex": SEX} if features is None else features
    scores = more.pop("scores", SCORES)
    return AmortisedShifts.fit(scores, list(constraints), sensitive_features=given_features, **more)


def served(problem: Problem) -> bool:
    per_sample = problem.bounds is not None and any(np.ndim(bound) for bound in problem.bounds)
    return not per_sample and not any(rule.kind in REFUSED for rule in problem.rules)


def needs_estimates(problem: Problem) -> bool:
    return any(rule.kind in LABEL_CELLS for rule in problem.rules)


@settings(max_examples=250)
@given(problem=problems())
def test_equals_the_projection_of_the_data_it_was_fitted_to(problem: Problem) -> None:
    """y = clip(z + shift[cell]) is the projection; 0/1 labels are label probabilities, too."""
    names = {name for rule in problem.rules for name in rule.on} | {"a", "b", "c"}
    features = {name: problem.features[name] for name in problem.features if name in names}
    estimates = problem.estimates
    if estimates is None and needs_estimates(problem):
        estimates = problem.labels
    scores = torch.tensor(problem.scores)

    def fit() -> AmortisedShifts:
        return AmortisedShifts.fit(
            scores,
            problem.constraints(),
            sensitive_features={**problem.features, **features},
            y=problem.labels,
            label_probabilities=estimates,
            bounds=problem.bounds,
        )

    if not served(problem):
        with pytest.raises((NoFixedShiftError, errors.InvalidBoundsError)):
            fit()
        return
    fixed = fit()
    labels = None if estimates is None else torch.tensor(estimates)
    emitted = fixed(scores, fixed.encode(problem.features), labels)
    by_estimates = needs_estimates(problem)
    expected = fl.project(
        scores,
        problem.constraints(),
        sensitive_features=problem.features,
        y=None if by_estimates else problem.labels,
        label_probabilities=estimates,
        bounds=problem.bounds,
    ).value
    torch.testing.assert_close(emitted, expected, rtol=0, atol=1e-9 * max(1.0, problem.size))


def test_the_shift_of_two_groups_by_hand() -> None:
    """Means 0.8 and 0.3, tolerance 0.1: each group moves by (0.5 - 0.1) / 2 = 0.2."""
    fixed = fitted()
    assert fixed.to_dict() == {
        "sex=F": {"shift": [[pytest.approx(-0.2)]], "count": 3.0, "fitted": True},
        "sex=M": {"shift": [[pytest.approx(0.2)]], "count": 3.0, "fitted": True},
        "sex unknown": {"shift": [[0.0]], "count": 0.0, "fitted": True},
    }
    assert fixed(torch.tensor([0.5, 0.5, 0.5]), fixed.encode({"sex": ["F", "M", None]})).tolist() == pytest.approx(
        [0.3, 0.7, 0.5]
    )


def test_an_unseen_combination_of_seen_groups_gets_the_sum_of_its_parts() -> None:
    """Marginal constraints: the shift of F & b is known from F and from b, although F & b never occurred."""
    race = ["a", "a", "a", "b", "a", "b"]
    marginal = [fl.DemographicParity("sex", 0.1), fl.DemographicParity("race", 0.05)]
    fixed = fitted(marginal, {"sex": SEX, "race": race})
    shift = {name: row["shift"][0][0] for name, row in fixed.to_dict().items()}
    for name in ("sex=F & race=b", "sex=M & race=a", "sex=F & race unknown"):
        assert fixed.to_dict()[name]["fitted"]
    parts = shift["sex=F & race unknown"] + shift["sex unknown & race=b"]
    assert shift["sex=F & race=b"] == pytest.approx(parts)
    rectangle = shift["sex=F & race=a"] + shift["sex=M & race=b"] - shift["sex=M & race=a"]
    assert shift["sex=F & race=b"] == pytest.approx(rectangle)


def test_an_unseen_intersection_is_an_error_that_names_it() -> None:
    fixed = fitted([fl.DemographicParity(("sex", "race"), 0.1)], {"sex": SEX, "race": ["a", "a", "a", "b", "a", "b"]})
    with pytest.raises(errors.CategoryError, match=r"'sex=F & race=b'.* no sample had them"):
        fixed.encode({"sex": ["F"], "race": ["b"]})
    assert fixed.encode({"sex": ["F"], "race": ["a"]}).tolist() == [0]


def test_a_group_absent_from_the_fit_is_an_error() -> None:
    words = fl.FairProjection([PARITY])
    words.fit_categories({"sex": ["F", "M"]})
    fixed = fitted(features={"sex": ["F"] * 6}, vocabulary=words.vocabulary)
    with pytest.raises(errors.CategoryError, match="'sex=M'"):
        fixed.encode({"sex": ["M"]})


def test_an_unseen_category_and_a_missing_feature_are_errors() -> None:
    with pytest.raises(errors.CategoryError, match=r"\['X'\], but only \['F', 'M'\]"):
        fitted().encode({"sex": ["X"]})
    with pytest.raises(errors.MissingSensitiveFeatureError, match="'sex'"):
        fitted().encode({"race": ["a"]})


def test_what_happens_to_an_unknown_group() -> None:
    some = {"sex": ["F", "F", None, "M", "M", "M"]}
    unknown = {"sex": [None]}
    half = torch.tensor([0.5], dtype=torch.float64)
    unmoved = fitted(features=some)
    assert unmoved(half, unmoved.encode(unknown)).item() == 0.5
    table = unmoved.to_dict()
    total = sum(row["shift"][0][0] * row["count"] for row in table.values())
    assert abs(total) < 1e-12  # nobody's expected shift is what the unknown get
    assert abs(table["sex=F"]["shift"][0][0]) > 0.1
    strict = fitted(features=some, on_unknown="raise")
    with pytest.raises(errors.CategoryError, match='unknown group, and on_unknown="raise"'):
        strict.encode(unknown)
    with pytest.raises(errors.ParameterError, match="on_unknown must be one of"):
        fitted(on_unknown="guess")


# --- labels


def test_label_cells_need_label_probabilities_in_fitting_and_at_inference() -> None:
    odds = fl.EqualizedOdds("sex", 0.01)
    labels = torch.tensor([1.0, 0, 1, 0, 1, 1])
    with pytest.raises(errors.MissingLabelsError, match="nobody knows at inference"):
        fitted([odds], y=labels)
    fixed = fitted([odds], label_probabilities=SCORES, y=labels)
    assert fixed.by_label
    with pytest.raises(errors.MissingLabelsError, match="no label_probabilities were given"):
        fixed(SCORES, fixed.encode({"sex": SEX}))
    with pytest.raises(errors.ShapeError, match="label_probabilities must have shape"):
        fixed(SCORES, fixed.encode({"sex": SEX}), SCORES[:1])
    one = fixed(SCORES, fixed.encode({"sex": SEX}), SCORES)
    assert torch.equal(fixed(SCORES[:, None], fixed.encode({"sex": SEX}), SCORES), one[:, None])


def test_a_constraint_that_reads_labels_for_its_limits_only_needs_none_at_inference() -> None:
    labels = torch.tensor([1.0, 0, 1, 0, 1, 1])
    fixed = fitted([fl.MeanResidualParity("sex", 0.01)], y=labels)
    assert not fixed.by_label
    emitted = fixed(SCORES, fixed.encode({"sex": SEX}))
    assert emitted[:3].mean().item() == pytest.approx(2 / 3 + 0.01)  # from 0.8 down to the labels' mean + tolerance


# --- refusals


@pytest.mark.parametrize(
    ("constraint", "features"),
    [
        (fl.GroupCalibration("sex", 0.1, bins=2), {"sex": SEX}),
        (fl.CovarianceBound("age", 0.1), {"age": [1.5, 2.5, 3.0, 4.0, 5.0, 6.0]}),
        (fl.CovarianceBound("age", 0.1), {"age": [1, 2, 3, 4, 5, 6]}),
        (fl.Affine(torch.ones(1, 6), upper=2.0), {"sex": SEX}),
        (fl.Convex(lambda y, batch: [y <= 1], name="mine"), {"sex": SEX}),
    ],
    ids=["bins", "continuous", "integers", "rows", "convex"],
)
def test_constraints_without_a_shift_per_group_are_refused_by_name(constraint: Any, features: Any) -> None:
    with pytest.raises(NoFixedShiftError, match=constraint.name.split("(")[0]):
        fitted([constraint], features, y=torch.ones(6))


def test_no_constraint_and_moving_bounds_are_refused() -> None:
    with pytest.raises(NoFixedShiftError, match="without_layer"):
        fitted([])
    with pytest.raises(errors.InvalidBoundsError, match="same for all samples"):
        fitted(bounds=(torch.zeros(6), None))
    with pytest.raises(errors.NonFiniteScoresError):
        fitted(scores=torch.full((6,), torch.nan))
    with pytest.raises(errors.EmptyBatchError):
        fitted(scores=torch.zeros(0), features={"sex": []})
    with pytest.raises(errors.InfeasibleConstraintsError):
        fitted([fl.MinimumRate("sex", 0.95)], bounds=(0.0, 0.9))
    relaxed = fitted([fl.MinimumRate("sex", 0.95)], bounds=(0.0, 0.9), on_infeasible="relax")
    assert relaxed(SCORES, relaxed.encode({"sex": SEX})).min().item() == pytest.approx(0.9, abs=1e-6)


# --- shapes, precision, soft groups


def test_shapes_and_several_columns() -> None:
    two = torch.stack([SCORES, 1.0 - SCORES], dim=1)
    fixed = fitted(scores=two)
    cells = fixed.encode({"sex": SEX})
    expected = fl.project(two, [PARITY], sensitive_features={"sex": SEX}).value
    torch.testing.assert_close(fixed(two, cells), expected, rtol=0, atol=1e-12)
    with pytest.raises(errors.ShapeError, match=r"fitted to 2 column\(s\)"):
        fixed(SCORES, cells)
    single = fitted()
    assert single(SCORES[:, None], cells).shape == (6, 1)
    with pytest.raises(errors.ShapeError, match="cells must be what encode"):
        single(SCORES, cells[:, None])
    with pytest.raises(errors.ShapeError, match="for the 5 samples"):
        single(SCORES[:5], cells)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_precisions_return_float32(dtype: torch.dtype) -> None:
    fixed = fitted()
    emitted = fixed(SCORES.to(dtype), fixed.encode({"sex": SEX}))
    assert emitted.dtype == torch.float32
    torch.testing.assert_close(emitted.double(), fixed(SCORES.to(dtype).double(), fixed.encode({"sex": SEX})))


def test_the_gradient_is_that_of_the_shifted_scores() -> None:
    scores = torch.tensor([0.9, 0.7, 0.2, 0.95], requires_grad=True)
    fixed = fitted(bounds=(0.0, 1.0))
    fixed(scores, torch.tensor([0, 0, 1, 1])).sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [1.0, 1.0, 1.0, 0.0]  # the last one is cut off
    assert not any(parameter.requires_grad for parameter in fixed.buffers())


def test_soft_membership_weighs_the_shifts() -> None:
    soft = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9], [0.4, 0.6]])
    fixed = fitted(features={"sex": soft})
    emitted = fixed(SCORES, fixed.encode({"sex": soft}))
    expected = fl.project(SCORES, [PARITY], sensitive_features={"sex": soft}).value
    torch.testing.assert_close(emitted, expected, rtol=0, atol=1e-12)
    hard = fixed(SCORES, fixed.encode({"sex": [0, 0, 0, 1, 1, None]}))
    assert hard[5] == SCORES[5]


# --- deployment


def test_export_takes_any_batch_size() -> None:
    fixed = fitted([fl.DemographicParity(("sex", "race"), 0.1), fl.DemographicParity("race", 0.01)], BOTH)
    cells = fixed.encode(BOTH)
    n = Dim("n")
    program = torch.export.export(fixed, (SCORES, cells), dynamic_shapes=({0: n}, {0: n}))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    again = torch.export.load(file).module()
    for size in (2, 3, 5):
        assert torch.equal(again(SCORES[:size], cells[:size]), fixed(SCORES[:size], cells[:size]))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace:DeprecationWarning")
def test_tracing_takes_any_batch_size() -> None:
    fixed = fitted(bounds=(0.0, 1.0))
    cells = fixed.encode({"sex": SEX})
    traced = torch.jit.trace(fixed, (SCORES, cells))
    assert torch.equal(traced(SCORES[:2], cells[:2]), fixed(SCORES[:2], cells[:2]))


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0), (0.0, None)])
def test_a_saved_state_gives_the_same_module_back(bounds: Any) -> None:
    fixed = fitted([fl.DemographicParity(("sex", "race"), 0.1)], BOTH, bounds=bounds, on_unknown="raise")
    file = io.BytesIO()
    torch.save({f"inner.{name}": value for name, value in fixed.state_dict().items()}, file)
    file.seek(0)
    again = AmortisedShifts.from_state_dict(torch.load(file, weights_only=True), "inner.")
    more = {"sex": ["M", "F", "M"], "race": ["a", "b", "b"]}
    assert torch.equal(again.encode(more), fixed.encode(more))
    assert torch.equal(again(SCORES[:3], again.encode(more)), fixed(SCORES[:3], fixed.encode(more)))
    assert again.to_dict() == fixed.to_dict()
    assert again.on_unknown == "raise"
