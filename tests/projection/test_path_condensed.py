"""A path reads its numbers off a condensed batch: they are those of a projection at each limit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fairlayer as fl
from fairlayer.geometry import Entropic, Euclidean, Geometry, Likelihood
from fairlayer.passes import Cells, CondensedBatch, CondensedPasses, NumpyPasses
from fairlayer.passes.condensed import _plain_moments

BOXES: list[tuple[Geometry, float | None, float | None]] = [
    (Euclidean(), 0.0, 1.0),
    (Euclidean(), None, None),
    (Euclidean(), 0.2, None),
    (Euclidean(), None, 0.7),
    (Entropic(), 1e-12, 1.0 - 1e-12),
    (Likelihood(), 1e-12, 1.0 - 1e-12),
]
RULES: dict[str, Any] = {
    "one range": lambda t: [fl.DemographicParity("g", t)],
    "two ranges": lambda t: [fl.EqualizedOdds("h", t)],
    "a range and floors": lambda t: [fl.DemographicParity("g", t), fl.MinimumRate("g", t)],
    "shared cells": lambda t: [fl.DemographicParity("g", t), fl.DemographicParity("h", t)],
    "floors": lambda t: [fl.MinimumRate("h", t)],
    "ratios": lambda t: [fl.DisparateImpactRatio("h", t)],
    "residuals": lambda t: [fl.MeanResidualParity("g", t)],
}


def _batch(seed: int, n: int, shape: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Draw scores and groups: smooth, in a few values that the threshold is one of, or far out."""
    rng = np.random.default_rng(seed)
    features = {"g": rng.integers(-1, 3, n), "h": rng.integers(0, 2, n)}
    features["g"][:4], features["h"][:4] = [0, 1, 2, 0], [0, 1, 1, 0]
    z = np.clip(rng.beta(1.2, 1.5, n) + 0.08 * features["g"] - 0.1 * features["h"], 0.01, 0.99)
    if shape == "ties":
        z = np.round(z * 8.0) / 8.0 * 0.9 + 0.05
        z[rng.random(n) < 0.3] = 0.5
    if shape == "far":
        odds = rng.normal(size=n) * 25.0
        z = 1.0 / (1.0 + np.exp(-odds))
    return z, {"sensitive_features": features, "y": rng.integers(0, 2, n)}


@pytest.mark.parametrize(
    "options",
    [
        {"bounds": (0.0, 1.0)},
        {"bounds": None},
        {"bounds": (0.1, None)},
        {"geometry": "entropic"},
        {"geometry": "likelihood"},
    ],
    ids=["box", "line", "half line", "entropic", "likelihood"],
)
@pytest.mark.parametrize("asked", RULES)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.sampled_from([60, 700, 3_000]),
    weighted=st.booleans(),
    shape=st.sampled_from(["smooth", "ties", "far"]),
)
@settings(max_examples=6)
def test_each_limit_is_a_projection(  # noqa: PLR0917 - a grid
    asked: str, options: Any, seed: int, n: int, weighted: bool, shape: str
) -> None:
    z, about = _batch(seed, n, shape)
    weights = np.random.default_rng(seed).random(n) + 0.1 if weighted else None
    grid = [0.0, 0.003, 0.02, 0.11, 0.4] if asked != "ratios" else [0.3, 0.8, 0.97, 1.0]
    path = fl.fairness_path(
        z, RULES[asked](0.1), grid, sample_weight=weights, **about, **options, on_infeasible="relax"
    )
    each = np.ones(n) if weights is None else weights
    raw = np.clip(z, *_ends(options)) >= 0.5
    for row, limit in enumerate(grid):
        again = RULES[asked](limit)
        result = fl.project(z, again, sample_weight=weights, **about, **options, on_infeasible="relax")
        value = result.value.numpy()
        assert path.distance[row] == pytest.approx(0.5 * result.certificate.distance**2, rel=1e-9, abs=1e-9 * n)
        np.testing.assert_allclose(
            path.shifts[row], result.shift.numpy(), atol=1e-8 * (1.0 + np.abs(result.shift.numpy()).max())
        )
        for owner, rule in enumerate(again):
            number = float(rule.measure(value, sample_weight=weights, **about))
            assert path.gaps[row, owner] == pytest.approx(number, abs=2e-12 * max(1.0, np.abs(value).max()))
        decided = value >= 0.5
        unsure = each[np.abs(value - 0.5) < 1e-9].sum() / each.sum()
        assert path.moved[row] == pytest.approx(each @ (decided != raw) / each.sum(), abs=unsure + 1e-9)


def _ends(options: Any) -> tuple[float | None, float | None]:
    return options.get("bounds", (0.0, 1.0)) or (None, None)


@pytest.mark.parametrize(("geometry", "lower", "upper"), BOXES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("covering", [False, True])
@given(
    seed=st.integers(0, 2**32 - 1), n=st.sampled_from([50, 2_500, 20_000]), shape=st.sampled_from(["smooth", "ties"])
)
@settings(max_examples=5)
def test_it_adds_up_what_the_samples_do(  # noqa: PLR0917 - a grid
    geometry: Any, lower: Any, upper: Any, weighted: bool, covering: bool, seed: int, n: int, shape: str
) -> None:
    rng, cells = np.random.default_rng(seed), 3
    z, _ = _batch(seed, n, shape)
    x = z * 1.6 - 0.3 if geometry == Euclidean() else np.log(z / (1.0 - z)) if geometry == Entropic() else z
    codes = rng.integers(0, cells + (not covering), n)
    codes[:cells] = np.arange(cells)
    weights = rng.random(n) + 0.1 if weighted else None
    each = np.ones(n) if weights is None else weights
    counts = np.bincount(codes, weights, cells + 1)[:cells].astype(float)
    plain = NumpyPasses(x, Cells(codes, counts, None, covering, weights), lower, upper, geometry)
    condensed = CondensedPasses.of(plain)
    assert condensed is not None
    pulls = rng.normal(size=(5, cells)) * np.array([0.0, 1e-3, 0.1, 1.0, 8.0])[:, None]
    copies = condensed.copied(5).at((pulls * counts).ravel())
    wide = np.pad(pulls, ((0, 0), (0, 1)))
    distances, sizes = condensed.batch.distance(wide), 1.0 + np.abs(pulls).max(axis=1)
    for row, pull in enumerate(pulls):
        one, many = condensed.at(pull * counts), slice(row * cells, (row + 1) * cells)
        ours = plain.at(pull * counts)
        np.testing.assert_allclose(one.statistics, ours.statistics, atol=2e-13 * sizes[row])
        np.testing.assert_allclose(copies.statistics[many], ours.statistics, atol=2e-13 * sizes[row])
        np.testing.assert_allclose(one.curvature, ours.curvature, rtol=1e-6, atol=1e-14)
        np.testing.assert_allclose(copies.curvature[many], one.curvature, rtol=1e-12)
        np.testing.assert_array_equal(one.value, ours.value)
        distance = each @ geometry.divergence(ours.value, x, None, None)
        assert distances[row] == pytest.approx(distance, rel=1e-10, abs=1e-12 * n)
        for threshold in (-1.0, 0.0, 0.2, 0.5, 0.7, 1.0, 2.0):
            reached = np.bincount(codes, each * (ours.value >= threshold), cells + 1)
            found = condensed.batch.reaching(wide, threshold)[row]
            np.testing.assert_allclose(found, reached, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(condensed.widest_metric(), plain.widest_metric(), rtol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_compiled_moments_are_the_plain_ones(weighted: bool) -> None:
    sweeps = pytest.importorskip("fairlayer.fused.cells", reason="compiled sweeps need numba, the extra 'fused'")
    rng = np.random.default_rng(0)
    lengths = np.array([15, 9_000, 64, 129])
    starts = np.append(0, np.cumsum(lengths))
    unit = rng.uniform(-1.0, 1.0, starts[-1])
    weights = rng.random(len(unit)) if weighted else None
    found = np.zeros((len(lengths), 14))
    sweeps.moments(unit, np.empty(0) if weights is None else weights, starts, found)
    each = np.ones(len(unit)) if weights is None else weights
    angles = np.arccos(unit)
    expected = np.array([np.add.reduceat(each * np.cos(j * angles), starts[:-1]) for j in range(14)]).T
    np.testing.assert_allclose(found, expected, atol=1e-10)
    np.testing.assert_allclose(_plain_moments(unit, weights, starts[:-1]), expected, atol=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_log_odds_of_any_size(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 3_000
    odds, features = rng.standard_t(1.5, n) * 4.0, {"g": rng.integers(0, 3, n)}
    odds[rng.integers(0, n, 5)] = [-900.0, 700.0, 300.0, -40.0, 36.0]
    about: dict[str, Any] = {"sensitive_features": features, "geometry": "entropic", "from_logits": True}
    path = fl.fairness_path(odds, "demographic_parity(g, 0.1)", [0.0, 0.01], **about)
    for row, limit in enumerate(path.tolerances):
        result = fl.project(odds, fl.DemographicParity("g", float(limit)), **about)
        assert path.distance[row] == pytest.approx(0.5 * result.certificate.distance**2, rel=1e-9)
        np.testing.assert_allclose(path.shifts[row], result.shift.numpy(), atol=1e-9)


def test_what_is_not_condensed() -> None:
    rng = np.random.default_rng(2)
    x, codes = rng.random(400), rng.integers(0, 2, 400)

    def passes(x: np.ndarray = x, lower: Any = 0.0, upper: Any = 1.0, **other: Any) -> NumpyPasses:
        cells = Cells(codes, np.bincount(codes).astype(float), None, True)._replace(**other)
        return NumpyPasses(x, cells, lower, upper)

    assert CondensedBatch.serves(passes())
    assert not CondensedBatch.serves(passes(lower=np.zeros(400)))
    assert not CondensedBatch.serves(passes(dense=np.ones((1, 400))))
    assert not CondensedBatch.serves(passes(weights=np.where(np.arange(400) == 7, 0.0, 1.0)))
    assert not CondensedBatch.serves(passes(counts=np.ones(100)))
    assert not CondensedBatch.serves(passes(np.append(x[:-1], 1e6)))
    assert not CondensedBatch.serves(passes(np.append(x[:-1], 1e6), upper=None))
    assert CondensedBatch.serves(passes(np.append(x[:-1], 1e6), lower=None, upper=None))
