"""The path equals a projection at each of its limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer.errors import ConstraintDefinitionError, InfeasibleConstraintsError, ShapeError

RNG = np.random.default_rng(3)
N = 400
FEATURES = {"g": RNG.integers(0, 4, N), "h": RNG.integers(0, 2, N)}
LABELS = RNG.integers(0, 2, N)
SCORES = np.clip(RNG.beta(1.2, 1.5, N) + 0.08 * FEATURES["g"] - 0.1 * FEATURES["h"], 0.01, 0.99)


@pytest.mark.parametrize("options", [{"bounds": (0.0, 1.0)}, {"geometry": "entropic"}, {"geometry": "likelihood"}])
@pytest.mark.parametrize(
    ("stated", "again", "grid"),
    [
        ("demographic_parity(g, 0.1)", lambda t: [fl.DemographicParity("g", t)], [0.2, 0.0, 0.05, 0.5]),
        ("minimum_rate(g, 0.5)", lambda t: [fl.MinimumRate("g", t)], [0.3, 0.55, 0.6]),
        ("disparate_impact_ratio(h, 0.8)", lambda t: [fl.DisparateImpactRatio("h", t)], [0.7, 0.95, 1.0]),
        ("equalized_odds(h, 0.8)", lambda t: [fl.EqualizedOdds("h", t)], [0.0, 0.01, 0.3]),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_it_equals_projections(stated: str, again: Any, grid: list[float], options: Any, weighted: bool) -> None:
    weights = RNG.random(N) * 2 if weighted else None
    given = {"sensitive_features": FEATURES, "y": LABELS, "sample_weight": weights, **options}
    path = fl.fairness_path(SCORES, stated, grid, **given)
    assert path.tolerances.tolist() == sorted(grid)
    for row, limit in enumerate(path.tolerances):
        result = fl.project(SCORES, again(float(limit)), **given)
        value = result.value.numpy()
        assert path.distance[row] * 2 == pytest.approx(result.certificate.distance**2, rel=1e-7, abs=1e-9)
        (price,) = result.multipliers.values()
        assert path.multipliers[row, 0] == pytest.approx(float(price), rel=1e-6, abs=1e-9)
        np.testing.assert_allclose(path.shifts[row], result.shift.numpy(), atol=1e-8)
        (rule,) = again(float(limit))
        about = {"sensitive_features": FEATURES, "y": LABELS, "sample_weight": weights}
        assert path.gaps[row, 0] == pytest.approx(float(rule.measure(value, **about)), abs=1e-9)
        decided = (value >= 0.5).astype(float)
        assert path.decision_gaps[row, 0] == pytest.approx(float(rule.measure(decided, **about)), abs=0.02)
    slopes = np.diff(path.distance) / np.diff(path.tolerances)
    falling = stated.startswith(("demographic", "equalized"))
    assert (slopes <= 1e-9).all() if falling else (slopes >= -1e-9).all()


def test_a_limit_that_nothing_meets_is_a_gap_in_the_path() -> None:
    fixed = [fl.MinimumRate("g", 0.5)]
    path = fl.fairness_path(SCORES, fixed, [0.4, 1.5], sensitive_features=FEATURES, bounds=(0.0, 1.0))
    assert np.isfinite(path.distance[0])
    assert np.isnan(path.distance[1])
    assert np.isnan(path.gaps[1, 0])
    wide = fl.fairness_path(
        SCORES, fixed, [0.4, 1.5], sensitive_features=FEATURES, bounds=(0.0, 1.0), on_infeasible="relax"
    )
    assert np.isfinite(wide.distance).all()
    with pytest.raises(InfeasibleConstraintsError):
        fl.project(SCORES, [fl.MinimumRate("g", 1.5)], sensitive_features=FEATURES, bounds=(0.0, 1.0))


def test_what_it_refuses() -> None:
    parity = fl.DemographicParity("g", 0.1)
    with pytest.raises(ConstraintDefinitionError, match="finite numbers"):
        fl.fairness_path(SCORES, parity, [], sensitive_features=FEATURES)
    with pytest.raises(ConstraintDefinitionError, match=r"negative|>= 0"):
        fl.fairness_path(SCORES, parity, [-0.1], sensitive_features=FEATURES)
    with pytest.raises(ConstraintDefinitionError, match="no single limit"):
        fl.fairness_path(SCORES, fl.Affine([[1.0, -1.0]], on="h", upper=[0.1]), [0.1], sensitive_features=FEATURES)
    with pytest.raises(ShapeError, match="one column"):
        fl.fairness_path(np.stack([SCORES, SCORES], 1), parity, [0.1], sensitive_features=FEATURES)


def test_its_table_and_its_picture() -> None:
    path = fl.fairness_path(
        torch.tensor(SCORES), fl.DemographicParity("g", 0.1), np.linspace(0, 0.3, 7), sensitive_features=FEATURES
    )
    lines = repr(path).splitlines()
    assert len(lines) == 2 + 7
    assert max(map(len, lines)) <= 80
    pytest.importorskip("matplotlib")
    figure = path.plot()
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend == ["distance (left)", "gap of scores", "gap of decisions", "decisions changed"]
    assert [axes.get_ylabel()[:8] for axes in figure.axes] == ["distance", "gaps, an"]
