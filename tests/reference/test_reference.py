"""The exact backend against cvxpy and cvxpylayers, and users' own convex constraints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer import errors

cp = pytest.importorskip("cvxpy")
pytest.importorskip("cvxpylayers")
pytestmark = pytest.mark.rival

N = 30
VALUE, GRADIENT, PRICE = 1e-6, 1e-5, 1e-5


class Draw:
    """One random batch."""

    def __init__(self, seed: int, n: int = N) -> None:
        rng = np.random.default_rng(seed)
        sex, race = rng.integers(0, 2, n), rng.integers(0, 3, n)
        self.scores = torch.tensor(np.clip(rng.normal(0.4 + 0.2 * sex - 0.1 * race, 0.25), 0.01, 0.99))
        self.y = torch.tensor((rng.random(n) < 0.3 + 0.3 * sex).astype(float))
        self.estimates = torch.tensor(rng.uniform(0.1, 0.9, n))
        soft = rng.dirichlet([1.0, 1.0], n)
        stratum, age = rng.integers(0, 2, n), rng.normal(40, 10, n)
        self.features = {"sex": sex, "race": race, "stratum": stratum, "age": age}
        self.soft = {"sex": torch.tensor(soft)}
        self.weights = torch.tensor(rng.normal(size=n))


ROWS = [[3.0, -2.0], [1.0, 1.0]]


def parity(tolerance: float) -> fl.Constraint:
    """The most common constraint."""
    return fl.DemographicParity("sex", tolerance)


def affine_loss(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The residual, as a loss that is affine in the prediction."""
    return label, -np.ones_like(label)


Case = tuple[str, Callable[[], list[fl.Constraint]]]
CASES: list[Case] = [
    ("parity", lambda: [fl.DemographicParity("sex", tolerance=0.03)]),
    ("parity of three", lambda: [fl.DemographicParity("race", tolerance=0.03)]),
    ("parity of intersections", lambda: [fl.DemographicParity(("sex", "race"), tolerance=0.05)]),
    ("exact parity", lambda: [fl.DemographicParity("sex", tolerance=0.0)]),
    ("conditional", lambda: [fl.ConditionalParity("sex", given="stratum", tolerance=0.05)]),
    ("impact", lambda: [fl.DisparateImpactRatio("race", ratio=0.8)]),
    ("floor", lambda: [fl.MinimumRate("race", floor=0.45)]),
    ("covariance", lambda: [fl.CovarianceBound("age", tolerance=0.05)]),
    ("opportunity", lambda: [fl.EqualOpportunity("sex", tolerance=0.03)]),
    ("predictive", lambda: [fl.PredictiveEquality("sex", tolerance=0.03)]),
    ("odds", lambda: [fl.EqualizedOdds("sex", tolerance=0.05)]),
    ("errors", lambda: [fl.ErrorRateParity("sex", tolerance=0.02)]),
    ("loss", lambda: [fl.BoundedGroupLoss("sex", cap=0.4)]),
    ("affine loss", lambda: [fl.BoundedGroupLoss("sex", cap=0.1, loss=affine_loss)]),
    ("residual", lambda: [fl.MeanResidualParity("sex", tolerance=0.02)]),
    ("residual between", lambda: [fl.MeanResidualParity("race", tolerance=0.02, between_groups=True)]),
    ("calibration", lambda: [fl.GroupCalibration("sex", tolerance=0.15, bins=2)]),
    ("affine samples", lambda: [fl.Affine(np.arange(N) / N, lower=5.0, upper=6.0)]),
    ("affine groups", lambda: [fl.Affine(ROWS, lower=[0.1, 0.8], upper=[0.4, 0.8], on="sex")]),
    ("several", lambda: [parity(0.05), fl.EqualizedOdds("race", 0.2), fl.MinimumRate("sex", 0.3)]),
    ("cells and rows", lambda: [fl.DemographicParity("sex", 0.05), fl.CovarianceBound("age", 0.1)]),
]
CASES_BY_NAME = dict(CASES)


def both(draw: Draw, constraints: list[fl.Constraint], **options: Any) -> tuple[fl.Projection, fl.Projection]:
    """Project by both backends, and require equal values and gradients."""
    options = {"sensitive_features": draw.features, "y": draw.y, "bounds": (0.0, 1.0), **options}
    results, gradients = [], []
    for backend in ("exact", "cvxpylayers"):
        scores = draw.scores.clone().requires_grad_()
        result = fl.project(scores, constraints, backend=backend, **options)
        weights = draw.weights.reshape(-1, *[1] * (scores.ndim - 1))
        gradients.append(torch.autograd.grad((result.value * weights).sum(), scores)[0])
        results.append(result)
    torch.testing.assert_close(results[1].value, results[0].value, atol=VALUE, rtol=0)
    torch.testing.assert_close(gradients[1], gradients[0], atol=GRADIENT, rtol=0)
    return results[0], results[1]


def same_prices(exact: fl.Projection, reference: fl.Projection) -> None:
    assert exact.status == reference.status
    assert exact.multipliers.keys() == reference.multipliers.keys()
    for name, price in exact.multipliers.items():
        torch.testing.assert_close(reference.multipliers[name], price, atol=PRICE, rtol=PRICE)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", CASES_BY_NAME)
def test_value_gradient_prices_and_shift(name: str, seed: int) -> None:
    exact, reference = both(Draw(seed), CASES_BY_NAME[name]())
    same_prices(exact, reference)
    torch.testing.assert_close(reference.shift, exact.shift, atol=1e-5, rtol=0)
    assert reference.certificate.holds
    assert reference.certificate.violation < 1e-9
    assert reference.certificate.distance == pytest.approx(exact.certificate.distance, abs=1e-7)
    assert exact.cells == reference.cells


@pytest.mark.parametrize("name", ["parity", "parity of three", "impact", "residual"])
def test_without_bounds(name: str) -> None:
    same_prices(*both(Draw(2), CASES_BY_NAME[name](), bounds=None))


@pytest.mark.parametrize("name", ["opportunity", "odds", "errors", "loss", "residual", "calibration"])
def test_label_probabilities(name: str) -> None:
    draw = Draw(3)
    same_prices(*both(draw, CASES_BY_NAME[name](), y=None, label_probabilities=draw.estimates))


@pytest.mark.parametrize("name", ["parity", "opportunity", "residual", "floor"])
def test_soft_groups(name: str) -> None:
    draw = Draw(4)
    constraints = [fl.MinimumRate("sex", 0.42)] if name == "floor" else CASES_BY_NAME[name]()
    same_prices(*both(draw, constraints, sensitive_features=draw.soft))


@pytest.mark.parametrize("bounds", [None, (0.0, 900.0)])
def test_predictions_in_thousands(bounds: tuple[float, float] | None) -> None:
    draw = Draw(25)
    draw.scores = 1000.0 * draw.scores
    same_prices(*both(draw, [fl.DemographicParity("race", 20.0)], bounds=bounds))


def test_unknown_members_and_an_absent_group() -> None:
    draw = Draw(5)
    race = np.array(draw.features["race"])
    race[:5] = -1
    vocabulary = fl.groups.Vocabulary().learn({"race": [0, 1, 2, 3]}, ("race",))
    options = {"sensitive_features": {"race": race}, "vocabulary": vocabulary}
    exact, reference = both(draw, [fl.DemographicParity("race", 0.02)], **options)
    same_prices(exact, reference)
    assert exact.absent == reference.absent != ()


def test_several_columns_of_scores() -> None:
    draw = Draw(6)
    draw.scores = torch.stack([draw.scores, draw.scores.flip(0) ** 2, 0.5 + 0 * draw.scores], dim=1)
    exact, reference = both(draw, [fl.DemographicParity("sex", 0.02), fl.MinimumRate("race", 0.3)])
    same_prices(exact, reference)
    assert reference.value.shape == (N, 3)


def test_active_statements_have_the_same_multipliers() -> None:
    exact, reference = both(Draw(7), [fl.DemographicParity("sex", 0.03), fl.MinimumRate("race", 0.4)])
    expected = {(slab.constraint, slab.statement): slab.multiplier for slab in exact.active}
    found = {(slab.constraint, slab.statement): slab.multiplier for slab in reference.active}
    assert found == pytest.approx(expected, abs=1e-6)


def test_scores_that_meet_the_constraints_stay() -> None:
    draw = Draw(8)
    exact, reference = both(draw, [fl.DemographicParity("sex", 0.9)])
    assert exact.status == reference.status == "unchanged"
    assert reference.active == ()
    torch.testing.assert_close(reference.value, draw.scores, atol=1e-9, rtol=0)


def test_no_constraint_clips_only() -> None:
    both(Draw(9), [], bounds=(0.3, 0.6))


@pytest.mark.parametrize("tolerance", [0.03, 0.0])
@pytest.mark.parametrize(
    "make",
    [
        lambda t: fl.DemographicParity("sex", tolerance=t),
        lambda t: fl.MeanResidualParity("sex", tolerance=t),
        lambda t: fl.MinimumRate("race", floor=t + 0.4),
        lambda t: fl.BoundedGroupLoss("sex", cap=t + 0.4),
    ],
)
def test_gradient_in_the_tolerance(make: Callable[[torch.Tensor], fl.Constraint], tolerance: float) -> None:
    draw, found = Draw(10), []
    for backend in ("exact", "cvxpylayers"):
        limit = torch.tensor(tolerance, dtype=torch.float64, requires_grad=True)
        options = {"sensitive_features": draw.features, "y": draw.y, "bounds": (0.0, 1.0)}
        value = fl.project(draw.scores, [make(limit)], backend=backend, **options).value
        found.append(torch.autograd.grad((value * draw.weights).sum(), limit)[0])
    torch.testing.assert_close(found[1], found[0], atol=GRADIENT, rtol=GRADIENT)


def test_price_at_tolerance_zero_is_the_derivative() -> None:
    scores = torch.tensor([0.5, 0.45, 0.9, 0.1], dtype=torch.float64)

    def run(tolerance: float) -> fl.Projection:
        features = {"g": [0, 1, 2, 3]}
        bound = fl.DemographicParity("g", tolerance)
        return fl.project(scores, [bound], sensitive_features=features, backend="cvxpylayers")

    drop = 0.5 * (run(0.0).certificate.distance ** 2 - run(1e-4).certificate.distance ** 2)
    price = run(0.0).multipliers["DemographicParity('g')"]
    assert float(price) == pytest.approx(drop / 1e-4, rel=1e-3)


@pytest.mark.parametrize("vector", [False, True])
def test_gradient_in_the_bounds(vector: bool) -> None:
    draw, found = Draw(11), []
    shape = (N,) if vector else ()
    for backend in ("exact", "cvxpylayers"):
        lower, upper = (torch.full(shape, b, dtype=torch.float64, requires_grad=True) for b in (0.2, 0.6))
        options = {"sensitive_features": draw.features, "bounds": (lower, upper)}
        value = fl.project(draw.scores, [fl.DemographicParity("sex", 0.02)], backend=backend, **options).value
        found.append(torch.autograd.grad((value * draw.weights).sum(), (lower, upper)))
    torch.testing.assert_close(found[1], found[0], atol=GRADIENT, rtol=0)


def test_smallest_widening() -> None:
    clash = [fl.MinimumRate("race", floor=0.8), fl.Affine(np.ones(N) / N, upper=0.5)]
    exact, reference = both(Draw(12), clash, on_infeasible="relax")
    assert reference.status == exact.status == "relaxed"
    assert reference.widening == pytest.approx(exact.widening, abs=1e-7)
    assert reference.widening == pytest.approx(0.15, abs=1e-7)


def test_infeasible_names_the_clash_and_the_widening() -> None:
    draw = Draw(12)
    clash = [parity(0.5), fl.MinimumRate("race", 0.8), fl.Affine(np.ones(N) / N, upper=0.5)]
    with pytest.raises(errors.InfeasibleConstraintsError) as caught:
        fl.project(draw.scores, clash, sensitive_features=draw.features, bounds=(0, 1), backend="cvxpylayers")
    text = str(caught.value)
    assert "MinimumRate('race') and Affine() together" in text
    assert "0.15 wider" in text
    assert "DemographicParity" not in text


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_single_and_half_precision_return_float32(dtype: torch.dtype) -> None:
    draw = Draw(13)
    scores = draw.scores.to(dtype).requires_grad_()
    options = {"sensitive_features": draw.features, "bounds": (0.0, 1.0), "backend": "cvxpylayers"}
    result = fl.project(scores, [fl.DemographicParity("sex", 0.02)], **options)
    (gradient,) = torch.autograd.grad(result.value.sum(), scores)
    assert result.value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert result.certificate.holds
    assert result.certificate.violation <= 1e-6


def test_tiny_upstream_gradients_are_not_lost() -> None:
    draw = Draw(14)
    draw.weights = draw.weights * 1e-12
    scores = draw.scores.clone().requires_grad_()
    options = {"sensitive_features": draw.features, "bounds": (0.0, 1.0), "backend": "cvxpylayers"}
    value = fl.project(scores, [fl.DemographicParity("sex", 0.02)], **options).value
    (gradient,) = torch.autograd.grad((value * draw.weights).sum(), scores)
    assert float(gradient.abs().max()) > 1e-14


def test_the_program_is_built_once_per_structure() -> None:
    from fairlayer.projection.reference.program import _cached_program

    draw = Draw(15, n=41)
    options = {"sensitive_features": draw.features, "bounds": (0.0, 1.0), "backend": "cvxpylayers"}
    for shift in (0.0, 0.1, 0.2):
        before = _cached_program.cache_info().misses
        fl.project(draw.scores + shift, [fl.DemographicParity("sex", 0.02 + shift / 10)], **options)
        assert _cached_program.cache_info().misses == before + (shift == 0.0)
    draw.features["sex"] = 1 - draw.features["sex"] * (np.arange(41) > 3)  # other counts: another program
    before = _cached_program.cache_info().misses
    fl.project(draw.scores, [fl.DemographicParity("sex", 0.02)], **options)
    assert _cached_program.cache_info().misses == before + 1


def test_module_takes_the_backend() -> None:
    draw = Draw(16)
    layer = fl.FairProjection([fl.DemographicParity("sex", 0.02)], bounds=(0, 1), backend="cvxpylayers")
    exact = fl.FairProjection([fl.DemographicParity("sex", 0.02)], bounds=(0, 1))
    features = {"sex": draw.features["sex"]}
    value = layer(draw.scores, sensitive_features=features)
    torch.testing.assert_close(value, exact(draw.scores, sensitive_features=features), atol=VALUE, rtol=0)


def test_nan_scores_are_named() -> None:
    draw = Draw(17)
    draw.scores[3] = torch.nan
    options = {"sensitive_features": draw.features, "backend": "cvxpylayers"}
    with pytest.raises(errors.NonFiniteScoresError, match="1 of 30 scores"):
        fl.project(draw.scores, [fl.DemographicParity("sex", 0.1)], **options)


# Users' own convex constraints.


def ball(radius: Any = 0.3) -> fl.Convex:
    """Predictions stay in a ball around their mean."""
    return fl.Convex(
        lambda y, batch, radius: [cp.norm(y - cp.sum(y) / batch.n) <= radius],
        name="ball",
        parameters={"radius": radius},
    )


def second_moment(limit: Any) -> fl.Convex:
    """The mean square of each group is bounded."""

    def build(y: Any, batch: fl.constraints.Batch, limit: Any) -> list[Any]:
        members = batch.means(("sex",)).as_weights()
        return [members @ cp.square(y) <= limit]

    return fl.Convex(build, name="second moment", on="sex", parameters={"limit": limit})


def test_ball_has_its_closed_form() -> None:
    draw = Draw(18)
    result = fl.project(draw.scores, [ball(0.3)], backend="cvxpylayers")
    centred = draw.scores - draw.scores.mean()
    expected = draw.scores.mean() + 0.3 * centred / centred.norm()
    torch.testing.assert_close(result.value, expected, atol=VALUE, rtol=0)
    torch.testing.assert_close(result.multipliers["ball"], centred.norm() - 0.3, atol=1e-5, rtol=0)
    assert result.certificate.holds
    assert [slab.constraint for slab in result.active] == ["ball"]


@pytest.mark.parametrize("make", [ball, second_moment])
def test_convex_beside_parity_has_the_right_gradient(make: Callable[[Any], fl.Convex]) -> None:
    draw = Draw(19, n=12)
    limit = torch.tensor(0.25, dtype=torch.float64)

    def loss(scores: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
        constraints = [make(limit), fl.DemographicParity("sex", 0.02)]
        options = {"sensitive_features": {"sex": draw.features["sex"]}, "bounds": (0.0, 1.0)}
        value = fl.project(scores, constraints, backend="cvxpylayers", **options).value
        return (value * draw.weights).sum()

    inputs = [draw.scores.clone().requires_grad_(), limit.requires_grad_()]
    gradients = torch.autograd.grad(loss(inputs[0], inputs[1]), inputs)
    for position, gradient in enumerate(gradients):
        for index in range(min(gradient.numel(), 4)):
            ends = []
            for step in (1e-5, -1e-5):
                moved = [tensor.detach().clone() for tensor in inputs]
                moved[position].view(-1)[index] += step
                ends.append(float(loss(moved[0], moved[1])))
            assert float(gradient.view(-1)[index]) == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-4)


def test_owners_keep_their_place_beside_convex() -> None:
    draw = Draw(20)
    features = {"sensitive_features": draw.features, "bounds": (0.0, 1.0)}
    result = fl.project(draw.scores, [ball(100.0), parity(0.02)], backend="cvxpylayers", **features)
    exact = fl.project(draw.scores, [parity(0.02)], **features)
    assert float(result.multipliers["ball"]) == pytest.approx(0.0, abs=1e-6)
    name = parity(0.02).name
    torch.testing.assert_close(result.multipliers[name], exact.multipliers[name], atol=1e-5, rtol=0)
    torch.testing.assert_close(result.value, exact.value, atol=VALUE, rtol=0)
    assert torch.isnan(result.shift).all()


def test_a_bound_written_in_cvxpy_equals_the_built_in_one() -> None:
    draw = Draw(21)

    def build(y: Any, batch: fl.constraints.Batch, tolerance: Any) -> list[Any]:
        means = batch.means(("race",)).as_weights() @ y
        return [cp.max(means) - cp.min(means) <= tolerance]

    written = fl.Convex(build, on="race", parameters={"tolerance": 0.05})
    features = {"sensitive_features": draw.features, "bounds": (0.0, 1.0)}
    found = fl.project(draw.scores, [written], backend="cvxpylayers", **features)
    exact = fl.project(draw.scores, [fl.DemographicParity("race", 0.05)], **features)
    torch.testing.assert_close(found.value, exact.value, atol=VALUE, rtol=0)
    price = next(iter(exact.multipliers.values()))
    torch.testing.assert_close(found.multipliers["Convex"], price, atol=1e-5, rtol=0)


def test_the_exact_backend_refuses_convex() -> None:
    with pytest.raises(errors.BackendError, match=r'ball is a Convex constraint.*backend="cvxpylayers"'):
        fl.project(Draw(22).scores, [ball()])


def _two_parameters(y: Any, batch: Any, a: Any, b: Any) -> list[Any]:
    return [a * b * cp.norm(y) <= 1]


@pytest.mark.parametrize(
    ("build", "parameters", "text"),
    [
        (_two_parameters, {"a": 1.0, "b": 2.0}, "not DPP"),
        (lambda y, batch: [cp.norm(y) >= 1], {}, "not convex"),
        (lambda y, batch: cp.norm(y) <= 1, {}, "must return a list"),
        (lambda y, batch, unused: [cp.norm(y) <= 1], {"unused": 1.0}, "unused are not on both sides"),
        (lambda y, batch: [cp.norm(y) <= cp.Parameter(name="own")], {}, "own are not on both sides"),
    ],
)
def test_what_is_not_disciplined_is_named(build: Any, parameters: dict[str, Any], text: str) -> None:
    convex = fl.Convex(build, name="mine", parameters=parameters)
    with pytest.raises(errors.ConstraintDefinitionError, match=f"mine: .*{text}"):
        fl.project(Draw(23).scores, [convex], backend="cvxpylayers")


def test_bad_definitions_are_named() -> None:
    with pytest.raises(errors.ConstraintDefinitionError, match="needs a function"):
        fl.Convex(3)  # type: ignore[arg-type]
    with pytest.raises(errors.ConstraintDefinitionError, match="'r' must be numbers"):
        fl.Convex(lambda y, batch, r: [], parameters={"r": "wide"})
    with pytest.raises(errors.ConstraintDefinitionError, match="'r' must be finite"):
        fl.Convex(lambda y, batch, r: [], parameters={"r": float("nan")})


@pytest.mark.parametrize("policy", ["raise", "relax"])
def test_infeasible_convex_is_named(policy: str) -> None:
    far = fl.Convex(lambda y, batch: [cp.sum(y) >= 2 * batch.n], name="far")
    options = {"bounds": (0.0, 1.0), "on_infeasible": policy, "backend": "cvxpylayers"}
    with pytest.raises(errors.InfeasibleConstraintsError, match="meet far, and no widening helps"):
        fl.project(Draw(24).scores, [far], **options)
