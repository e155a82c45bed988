"""The certificate by itself: it holds for what is right, and for nothing that broken passes or a later hand made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar

import fairlayer as fl
from fairlayer.geometry import Geometry, geometry_of
from fairlayer.passes import NumpyPasses, Point, SimplexPasses, TorchPasses
from fairlayer.projection.certificate import Certificate, certify

N, GROUPS = 120, 3
BOX = [("euclidean", False), ("entropic", False), ("likelihood", False)]
SIMPLEX = [("euclidean", True), ("entropic", True)]
EVERYWHERE = pytest.mark.parametrize(("geometry", "simplex"), BOX + SIMPLEX)
CONSTRAINTS = [fl.DemographicParity("g", 0.01), fl.EqualOpportunity("h", 0.02)]


def _batch(simplex: bool) -> tuple[torch.Tensor, dict[str, Any]]:
    random = np.random.default_rng(0)
    g, h = random.integers(0, GROUPS, N), random.integers(0, 2, N)
    if simplex:
        logits = random.normal(size=(N, 3)) + 0.7 * np.eye(3)[g]
        scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        y = random.integers(0, 3, N)
    else:
        scores = np.clip(random.beta(2, 3, N) + 0.15 * g, 0.01, 0.99)
        y = random.integers(0, 2, N)
    features = {"g": g, "h": h}
    return torch.tensor(scores), {"sensitive_features": features, "y": y, "bounds": "simplex" if simplex else (0, 1)}


def _project(geometry: str, simplex: bool, **more: Any) -> fl.Projection:
    scores, arguments = _batch(simplex)
    return fl.project(scores, CONSTRAINTS, geometry=geometry, **{**arguments, **more})


@pytest.fixture(params=["NumPy", "torch"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Batches on the host go through NumPy; have both backends take these."""
    if request.param == "torch":
        monkeypatch.setattr("fairlayer.passes._ON_HOST", frozenset())
    return str(request.param)


@EVERYWHERE
def test_holds_for_what_is_right(geometry: str, simplex: bool, backend: str) -> None:
    result = _project(geometry, simplex)
    assert result.status == "projected"
    assert result.certificate.holds, result.certificate


# --- broken passes


def _factor_per_sample(kind: type, patch: pytest.MonkeyPatch) -> None:
    """Each sample is moved further, or less far, than its pull says."""
    pull = kind.pull

    def wrong(self: Any, nu: Any, *more: Any) -> Any:
        factors = np.linspace(0.5, 1.5, self.n)  # a stand-in of the batch has samples of its own
        right = pull(self, nu, *more)
        if isinstance(right, torch.Tensor):
            return right * torch.from_numpy(factors)
        return (np.broadcast_to(right.T, (*right.shape[1:], self.n)) * factors).T

    patch.setattr(kind, "pull", wrong)


def _a_dropped_chunk(kind: type, patch: pytest.MonkeyPatch) -> None:
    """The last twenty samples are missing in every sum."""
    name = "_cell_sums" if kind is NumpyPasses else "_sums"
    sums = getattr(kind, name)

    def wrong(self: Any, value: Any, *more: Any) -> Any:
        kept = value.clone() if isinstance(value, torch.Tensor) else np.array(value)
        kept[-20:] = 0.0
        return sums(self, kept, *more)

    patch.setattr(kind, name, wrong)


def _a_swapped_cell(kind: type, patch: pytest.MonkeyPatch) -> None:
    """Ten samples of the first cell are taken for samples of the second, there and back."""
    start = kind.__init__

    def wrong(self: Any, scores: Any, cells: Any, *more: Any) -> None:
        codes = cells.codes.copy()
        codes[np.flatnonzero(codes == 0)[:10]] = 1
        start(self, scores, cells._replace(codes=codes), *more)

    patch.setattr(kind, "__init__", wrong)


def _a_wrong_count(kind: type, patch: pytest.MonkeyPatch) -> None:
    """One cell is taken for a twentieth larger than it is."""
    start = kind.__init__

    def wrong(self: Any, scores: Any, cells: Any, *more: Any) -> None:
        counts = cells.counts.copy()
        counts[0] *= 1.05
        start(self, scores, cells._replace(counts=counts), *more)

    patch.setattr(kind, "__init__", wrong)


def _a_wrong_step(kind: type, patch: pytest.MonkeyPatch) -> None:
    """The geometry's step goes elsewhere: feasible in the end, but not nearest."""
    at = kind.at

    def wrong(self: Any, nu: Any) -> Point:
        right = at(self, nu)
        value = 0.9 * right.value + 0.1 * right.value.mean(0)
        return Point(value, right.free, self.measure(value), right.curvature)

    patch.setattr(kind, "at", wrong)


BREAKS = [
    _factor_per_sample,
    _a_dropped_chunk,
    _a_swapped_cell,
    _a_wrong_count,
    _a_wrong_step,
]


@EVERYWHERE
@pytest.mark.parametrize("harm", BREAKS)
def test_does_not_hold_for_broken_passes(
    geometry: str, simplex: bool, harm: Callable[..., None], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if simplex and (backend == "torch" or harm is _a_dropped_chunk):
        pytest.skip("one backend there; without a chunk the means of the classes add up to less than 1 in one group")
    right = _project(geometry, simplex).value
    harm(SimplexPasses if simplex else NumpyPasses if backend == "NumPy" else TorchPasses, monkeypatch)
    result = _project(geometry, simplex)
    assert (result.value - right).abs().max() > 1e-6, "nothing was broken"
    assert not result.certificate.holds, result.certificate


@EVERYWHERE
def test_does_not_hold_for_a_broken_step_of_the_geometry(
    geometry: str, simplex: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`step` is the solver's; the certificate must have its minimum from elsewhere."""
    kind = type(geometry_of(geometry, on_simplex=simplex))
    step = kind.step

    def wrong(self: Geometry, x: Any, pull: Any, lower: Any, upper: Any) -> Any:
        value, free = step(self, x, pull, lower, upper)
        return 0.95 * value + 0.05 * value[::-1], free

    monkeypatch.setattr(kind, "step", wrong)
    result = _project(geometry, simplex)
    assert not result.certificate.holds


# --- values and multipliers changed after the fact


def _again(result: fl.Projection, value: torch.Tensor, factor: float = 1.0) -> Certificate:
    column: Any = result.columns[0]
    column.__dict__.pop("certificate", None)
    held = [
        fl.projection.certificate.Held(*face.key, factor * float(multiplier) / face.scale)
        for face, multiplier in column._active()
    ]
    return certify(column.raw, held, 0.0, value)


@EVERYWHERE
def test_speaks_of_the_value_that_is_returned(geometry: str, simplex: bool) -> None:
    result = _project(geometry, simplex)
    value = result.value
    assert _again(result, value).holds
    other = torch.tensor(np.random.default_rng(1).permutation(value.numpy()))
    raw = _batch(simplex)[0]
    constant = value.mean(0).expand_as(value)
    half = 0.5 * value + 0.5 * constant  # feasible, for a mix of feasible points; not nearest
    assert _again(result, half).violation <= 1e-10
    for wrong in (other, raw, constant, half):
        assert not _again(result, wrong).holds
    one = value.clone()
    one[0] = one[0] + 1e-5 * (torch.tensor([1.0, -1.0, 0.0]) if simplex else 1.0)
    assert not _again(result, one).holds


@EVERYWHERE
@pytest.mark.parametrize("factor", [0.0, 0.9, 1.1])
def test_wrong_multipliers_prove_nothing(geometry: str, simplex: bool, factor: float) -> None:
    result = _project(geometry, simplex)
    found = _again(result, result.value, factor)
    assert not found.holds
    assert found.duality_gap > found.gap_atol


def test_outside_the_domain() -> None:
    box, simplex = _project("euclidean", False), _project("euclidean", True)
    low, off = box.value.clone(), simplex.value.clone()
    low[0], off[0, 0] = -1e-6, off[0, 0] + 1e-6
    assert _again(box, low).bound_violation == pytest.approx(1e-6)
    assert _again(simplex, off).bound_violation == pytest.approx(1e-6)
    negative = simplex.value.clone()
    negative[0] = torch.tensor([-1e-6, 0.5, 0.5 + 1e-6])
    assert _again(simplex, negative).bound_violation == pytest.approx(1e-6)


def test_weights_of_any_unit_prove_the_same() -> None:
    """A feasible value that is not nearest is refused, whatever the unit of the weights."""
    for unit in (1e-3, 1.0, 1e6):
        result = _project("entropic", False, sample_weight=np.full(N, unit))
        assert result.certificate.holds, (unit, result.certificate)
        constant = result.value.mean().expand_as(result.value)
        near = result.value + 1e-7 * (constant - result.value)
        assert _again(result, near).violation <= 1e-10
        assert not _again(result, near).holds, unit


def test_a_bound_that_float32_cannot_hold_is_not_broken() -> None:
    """The nearest float32 to a bound of 500.1 is 7e-6 away, and scores far beyond it cost that much each."""
    scores = torch.tensor([0.0, 0.0, 2000.0, 2000.0, 700.0, 600.0])
    groups = {"g": [0, 0, 0, 1, 1, 1]}
    result = fl.project(scores, [fl.DemographicParity("g", 150.0)], sensitive_features=groups, bounds=(500.1, 900.1))
    assert result.value.dtype == torch.float32
    assert float(result.value.min()) == np.float32(500.1)
    assert result.certificate.holds, result.certificate


# --- what a dtype can hold


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [20.0, 2e3, 1e5, 1e7])
@pytest.mark.parametrize("tolerance", [0.0, 1e-12, 1e-9, 1e-6, 1e-3])
def test_a_tolerance_finer_than_the_dtype_is_met_to_its_resolution(
    dtype: torch.dtype, size: float, tolerance: float
) -> None:
    random = np.random.default_rng(0)
    scores, group = torch.tensor(size * (1.0 + 0.1 * random.normal(size=300)), dtype=dtype), random.integers(0, 3, 300)
    result = fl.project(scores, [fl.DemographicParity("g", tolerance)], sensitive_features={"g": group})
    proof = result.certificate
    assert proof.holds, proof
    half_step = torch.finfo(dtype).eps / 2
    assert 2 * half_step * size <= proof.resolution <= max(4 * half_step, 3e-13) * size
    if tolerance > 0:  # then a constraint that is ignored is never taken for one that holds
        assert proof.atol <= max(1e-10 if dtype == torch.float64 else 1e-6, tolerance, proof.resolution)
    off = result.value.double() + torch.tensor(group == 0) * max(30 * proof.atol, 3 * tolerance)
    assert not _again(result, off.to(dtype)).holds


@pytest.mark.parametrize("geometry", ["entropic", "likelihood"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [17.0, 36.0, 60.0, 1e3, 1e6])
@pytest.mark.parametrize("tolerance", [0.9, 0.005])
def test_log_odds_beyond_what_the_dtype_tells_from_certainty(
    geometry: str, dtype: torch.dtype, size: float, tolerance: float
) -> None:
    """A float32 holds no probability between 1 - 6e-8 and 1, which costs 6e-8 times the log-odds beyond it."""
    group = np.arange(4000) % 2
    scores = torch.tensor(np.linspace(-size, size, 4000) + 0.02 * size * group, dtype=dtype)
    rule = fl.DemographicParity("g", tolerance)
    result = fl.project(scores, [rule], sensitive_features={"g": group}, geometry=geometry, from_logits=True)
    assert result.status == ("projected" if tolerance < 0.01 else "unchanged")
    assert result.certificate.holds, result.certificate
    off = result.value.clone()
    top = off > 1.0 - 4.0 * torch.finfo(dtype).eps
    if size >= 60.0 and dtype == torch.float32:
        off[top] -= 1e-5
        assert not _again(result, off).holds


def test_a_value_that_is_no_number_proves_nothing() -> None:
    result = _project("euclidean", False)
    found = _again(result, result.value * float("nan"))
    assert np.isnan(found.violation)
    assert not found.holds


def test_log_odds_of_any_size_end_in_numbers() -> None:
    """Cells whose predictions are all but certain have a curvature of 1e-200, by which no step may be divided."""
    random = np.random.default_rng(424)
    group, y = random.integers(0, 12, 300), random.integers(0, 2, 300)
    for size in (50.0, 500.0, 5000.0):
        scores = torch.tensor(size * (random.normal(size=300) + 0.3 * (group - 6)), dtype=torch.float32)
        rules = [fl.DemographicParity("g", 0.0), fl.EqualizedOdds("g", 0.05)]
        result = fl.project(
            scores, rules, sensitive_features={"g": group}, y=y, geometry="entropic", from_logits=True,
            on_infeasible="relax",
        )  # fmt: skip
        assert torch.isfinite(result.value).all()
        assert result.certificate.holds, (size, result.certificate)


# --- the closed forms, by brute force


def _samples(rule: Geometry) -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    shape = (12, 4) if rule.on_simplex else (40,)
    x = random.normal(size=shape) * 2
    if rule.name == "likelihood":
        x = 1 / (1 + np.exp(-x))
    return [(x, scale * random.normal(size=shape)) for scale in (0.0, 0.1, 1.0, 10.0)]


def _brute(rule: Geometry, x: np.ndarray, q: np.ndarray, lower: Any, upper: Any) -> float:
    """min_y d(y, x) + q y by a numerical minimiser that knows neither `step` nor `least`."""
    if not rule.on_simplex:
        far = 50.0
        low, high = (-far if lower is None else lower), (far if upper is None else upper)
        inner = 0.0 if rule.name == "euclidean" else 1e-12
        found = minimize_scalar(
            lambda y: float(_divergence(rule, np.array(y), x) + q * y),
            bounds=(low + inner, high - inner),
            method="bounded",
            options={"xatol": 1e-12},
        )
        ends = [float(_divergence(rule, np.array(y), x) + q * y) for y in (low + inner, high - inner)]
        return min(found.fun, *ends)
    best = min(
        (
            minimize(
                lambda y: float(_divergence(rule, np.clip(y, 1e-300, None), x) + q @ y),
                start,
                bounds=[(0.0, 1.0)] * len(x),
                constraints={"type": "eq", "fun": lambda y: y.sum() - 1.0},
                options={"ftol": 1e-14, "maxiter": 500},
            )
            for start in (np.full(len(x), 1 / len(x)), 0.9 * np.eye(len(x))[(q + 0 * x).argmin()] + 0.1 / len(x))
        ),
        key=lambda found: found.fun,
    )
    return float(best.fun)


def _divergence(rule: Geometry, y: np.ndarray, x: np.ndarray) -> Any:
    if rule.name == "euclidean":
        return 0.5 * ((y - x) ** 2).sum()
    if rule.on_simplex:
        z = np.exp(x) / np.exp(x).sum()
        return (y * np.log(y / z)).sum()
    if rule.name == "likelihood":
        return x * np.log(x / y) + (1 - x) * np.log((1 - x) / (1 - y))
    z = 1 / (1 + np.exp(-x))
    return y * np.log(np.clip(y, 1e-300, None) / z) + (1 - y) * np.log((1 - y) / (1 - z))


FORMS = [
    (g, s, b)
    for g, s in BOX + SIMPLEX
    for b in ([(None, None), (0.0, 1.0), (-0.5, None)] if g == "euclidean" and not s else [(0.0, 1.0)])
]


@pytest.mark.parametrize(("geometry", "simplex", "bounds"), FORMS)
def test_least_is_the_minimum(geometry: str, simplex: bool, bounds: tuple[Any, Any]) -> None:
    rule = geometry_of(geometry, on_simplex=simplex)
    for x, q in _samples(rule):
        found = rule.least(x, q, *bounds)
        zero = rule.least(x, 0.0 * q, *bounds)
        np.testing.assert_allclose(zero, 0.0, atol=1e-9)
        for i in range(len(x)):
            nothing = _brute(rule, x[i], 0.0 * q[i], *bounds)
            brute = _brute(rule, x[i], q[i], *bounds) - nothing
            too_high = "a dual value that is too high would prove what is wrong"
            assert found[i] <= brute + 1e-9 * max(1.0, abs(brute)), too_high
            assert found[i] == pytest.approx(brute, rel=1e-6, abs=2e-6)


@pytest.mark.parametrize(("geometry", "simplex", "bounds"), FORMS)
def test_least_is_the_same_in_torch(geometry: str, simplex: bool, bounds: tuple[Any, Any]) -> None:
    rule = geometry_of(geometry, on_simplex=simplex)
    for x, q in _samples(rule):
        found = rule.least(torch.from_numpy(x), torch.from_numpy(q), *bounds)
        np.testing.assert_allclose(found.numpy(), rule.least(x, q, *bounds), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("geometry", ["entropic", "likelihood"])
def test_a_margin_of_probabilities_bounds_no_prediction(geometry: str) -> None:
    """It moves scores of 0 and 1 inside; a prediction may well come to lie beyond it."""
    sex = torch.arange(500) % 2
    scores = torch.linspace(0.0, 1.0, 500, dtype=torch.float64) ** 3 * (1.0 - 0.5 * sex)
    rule = fl.DemographicParity("sex", 0.01)
    result = fl.project(scores, [rule], sensitive_features={"sex": sex}, geometry=geometry, margin=1e-4)
    assert float(result.value.min()) < 1e-4
    assert result.certificate.holds
