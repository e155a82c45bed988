"""Compiled passes equal the plain ones: at a dual point, and in what a projection returns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fairlayer as fl
from fairlayer.fused import switch
from fairlayer.geometry import Entropic, Euclidean, Likelihood
from fairlayer.passes import Cells, CompiledPasses, NumpyPasses

pytest.importorskip("numba", reason="compiled sweeps need numba, the extra 'fused'")

BOXES = [(Euclidean(), 0.0, 1.0), (Euclidean(), None, None), (Euclidean(), 0.2, None)]
CURVED = [(Entropic(), 1e-12, 1 - 1e-12), (Likelihood(), 1e-12, 1 - 1e-12)]
N = 2_100


@pytest.fixture(autouse=True)
def _compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(switch.SWITCH, "1")
    if switch.loaded() is None:
        monkeypatch.setattr(switch, "_batches", switch._Library(switch.Sweeps))


def _scores(geometry: Any, rng: np.random.Generator) -> np.ndarray:
    z = rng.beta(0.6, 0.8, N) * 0.998 + 0.001
    if geometry == Entropic():
        return 2.0 * np.log(z / (1.0 - z))
    return z * 1.6 - 0.3 if geometry == Euclidean() else z


@pytest.mark.parametrize(("geometry", "lower", "upper"), BOXES + CURVED)
@pytest.mark.parametrize("covering", [True, False])
@given(cells=st.integers(1, 40), size=st.sampled_from([0.0, 0.1, 3.0, 60.0]), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=12)
def test_one_pass(  # noqa: PLR0917 - a grid
    geometry: Any, lower: Any, upper: Any, covering: bool, cells: int, size: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, cells + (not covering), N)
    codes[:cells] = np.arange(cells)
    z = _scores(geometry, rng)
    counts = np.bincount(codes, minlength=cells)[:cells].astype(float)
    batch = Cells(codes, counts, None, covering)
    compiled = CompiledPasses(z, batch, lower, upper, geometry)
    plain = NumpyPasses(z, batch, lower, upper, geometry)
    for nu in (None, rng.normal(size=cells) * size * counts):
        ours, theirs = compiled.at(nu), plain.at(nu)
        np.testing.assert_allclose(ours.statistics, theirs.statistics, atol=1e-12 * max(1.0, size))
        np.testing.assert_allclose(ours.curvature, theirs.curvature, rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(ours.value, theirs.value, atol=1e-12 * max(1.0, size))
        assert (ours.free is None) == (theirs.free is None)
        assert ours.free is None or np.array_equal(ours.free, theirs.free)
    np.testing.assert_allclose(compiled.widest_metric(), plain.widest_metric())
    np.testing.assert_allclose(compiled.scores, z)


@pytest.mark.parametrize(("geometry", "lower", "upper"), BOXES + CURVED)
@pytest.mark.parametrize("covering", [True, False])
@pytest.mark.parametrize("size", [0.0, 1e-6, 0.1, 3.0, 60.0])
def test_a_tally(geometry: Any, lower: Any, upper: Any, covering: bool, size: float) -> None:
    """Distance and decisions by cell, in runs that cut cells, equal those of predictions that are written."""
    rng = np.random.default_rng(3)
    cells = 7
    codes = rng.integers(0, cells + (not covering), N)
    z, counts = _scores(geometry, rng), np.bincount(codes, minlength=cells)[:cells].astype(float)
    batch = Cells(codes, counts, None, covering)
    nu = rng.normal(size=cells) * size * counts
    value = NumpyPasses(z, batch, lower, upper, geometry).at(nu).value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fairlayer.passes.compiled._RUN", 500)
        found = CompiledPasses(z, batch, lower, upper, geometry).tally(nu, 0.4)
    assert found is not None
    distance, yes = found
    expected = geometry.divergence(value, z, None, None)
    assert distance == pytest.approx(float(expected.sum()), rel=1e-9, abs=2e-12)
    np.testing.assert_array_equal(yes, np.bincount(codes, value >= 0.4, cells + 1))


def test_a_tally_of_far_log_odds_is_left_to_others() -> None:
    far = CompiledPasses(np.full(N, 700.0), Cells(np.zeros(N, np.int64), np.array([N]), None, True), 0, 1, Entropic())
    assert far.tally(np.zeros(1), 0.5) is None


@pytest.mark.parametrize("geometry", ["euclidean", "entropic", "likelihood"])
def test_a_path_by_cells_is_that_of_written_predictions(geometry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    g, h, y = rng.integers(-1, 3, N), rng.integers(0, 2, N), rng.integers(0, 2, N)
    z = np.clip(rng.beta(1.2, 1.5, N) + 0.1 * g, 0.01, 0.99)
    rules = [fl.DemographicParity("g", 0.1), fl.EqualizedOdds("h", 0.1)]
    about: dict[str, Any] = {"sensitive_features": {"g": g, "h": h}, "y": y, "bounds": (0.0, 1.0)}

    def path() -> fl.FairnessPath:
        return fl.fairness_path(z, rules, [0.0, 0.01, 0.05, 0.5], geometry=geometry, threshold=0.45, **about)

    found = path()
    monkeypatch.setattr(CompiledPasses, "tally", lambda *_: None)
    written = path()
    for field in ("distance", "multipliers", "shifts", "gaps", "decision_gaps", "moved"):
        np.testing.assert_allclose(getattr(found, field), getattr(written, field), rtol=1e-8, atol=1e-10)
    assert found.moved[0] > 0.01
    assert found.moved[-1] == 0.0
    monkeypatch.setattr(CompiledPasses, "serve", lambda *_: False)
    plain = path()
    for field in ("distance", "gaps", "moved"):
        np.testing.assert_allclose(getattr(found, field), getattr(plain, field), rtol=1e-8, atol=1e-10)


ASKED = {
    "parity": [fl.DemographicParity("g", 0.01)],
    "zero": [fl.DemographicParity("g", 0.0)],
    "two": [fl.DemographicParity("g", 0.02), fl.DemographicParity("h", 0.01)],
    "crossed": [fl.DemographicParity(("g", "h"), 0.03)],
    "odds": [fl.EqualizedOdds("h", 0.02)],
    "rate": [fl.MinimumRate("g", 0.45)],
    "ratio": [fl.DisparateImpactRatio("h", 0.95)],
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("options", [{"bounds": (0.0, 1.0)}, {"geometry": "entropic"}, {"geometry": "likelihood"}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_projection(asked: str, options: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    features = {"g": rng.integers(-1, 6, N), "h": rng.integers(0, 2, N)}
    labels = rng.integers(0, 2, N)
    z = np.clip(rng.beta(0.9, 1.1, N) - 0.1 * features["h"] + 0.02 * features["g"], 0.01, 0.99)
    found = []
    for way in ("compiled", "plain"):
        if way == "plain":
            monkeypatch.setattr(CompiledPasses, "serve", staticmethod(lambda *_: False))
        scores = torch.tensor(z, dtype=dtype, requires_grad=True)
        result = fl.project(scores, ASKED[asked], sensitive_features=features, y=labels, **options)
        (result.value * torch.linspace(-1, 1, N, dtype=dtype)).sum().backward()
        assert isinstance(result.columns[0].solver_passes, CompiledPasses) == (way == "compiled")
        assert result.certificate.holds
        found.append((result, scores.grad))
    (ours, gradient), (theirs, slope) = found
    within = 1e-10 if dtype == torch.float64 else 1e-6
    assert (ours.value - theirs.value).abs().max() <= within
    assert (gradient - slope).abs().max() <= 1e3 * within
    for name, price in theirs.multipliers.items():
        assert float(ours.multipliers[name]) == pytest.approx(float(price), rel=1e-6, abs=1e-8)


def test_later_changes_of_the_scores_change_nothing() -> None:
    rng = np.random.default_rng(5)
    scores, codes = torch.tensor(rng.random(N)), rng.integers(0, 5, N)
    held = fl.project(scores, ASKED["parity"], sensitive_features={"g": codes}, bounds=(0.0, 1.0))
    before = held.columns[0].solver_passes.scores.copy()
    scores.zero_()
    assert np.array_equal(held.columns[0].solver_passes.scores, before)
