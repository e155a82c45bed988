"""The band of reject_option against brute force over all bands and over all decisions of a person."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from fairlayer.decisions import REFERRED, reject_option
from fairlayer.errors import InfeasibleConstraintsError, MissingSensitiveFeatureError, ParameterError


def rates(decided: np.ndarray, group: np.ndarray) -> np.ndarray:
    return np.array([decided[group == g].mean() for g in np.unique(group)])


def brute_force(scores: np.ndarray, group: np.ndarray, tolerance: float) -> float | None:
    base = scores >= 0.5
    if np.ptp(rates(base, group)) <= tolerance + 1e-12:
        return -1.0
    below = {g: base[group == g].mean() < base.mean() for g in np.unique(group)}
    for band in np.unique(np.abs(scores - 0.5)):
        inside = np.abs(scores - 0.5) <= band
        decided = np.where(inside, [below[g] for g in group], base)
        if np.ptp(rates(decided, group)) <= tolerance + 1e-12:
            return float(band)
    return None


@pytest.mark.parametrize("seed", range(30))
def test_the_band_is_the_narrowest(seed: int) -> None:
    random = np.random.default_rng(seed)
    n, k = int(random.integers(8, 60)), int(random.integers(2, 4))
    group = np.concatenate([np.arange(k), random.integers(0, k, n - k)])
    scores = np.clip(random.normal(0.5 + 0.1 * group, 0.2).round(2), 0, 1)  # with ties
    tolerance = float(random.choice([0.0, 0.05, 0.2]))
    expected = brute_force(scores, group, tolerance)
    if expected is None:
        with pytest.raises(InfeasibleConstraintsError, match="decide"):
            reject_option(scores, "g", tolerance, sensitive_features={"g": group})
        return
    found = reject_option(scores, "g", tolerance, sensitive_features={"g": group}, refer=False)
    assert found.band == pytest.approx(expected)
    assert np.ptp(rates(found.decisions, group)) == pytest.approx(found.gap)
    assert found.gap <= tolerance + 1e-9
    assert found.largest_gap == found.gap


@pytest.mark.parametrize("seed", range(10))
def test_no_person_can_exceed_the_bound_and_one_can_reach_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    group = np.arange(14) % 2
    scores = random.random(14) * 0.6 + 0.15 * group + 0.1
    try:
        found = reject_option(scores, "g", 0.2, sensitive_features={"g": group})
    except InfeasibleConstraintsError:
        return
    referred = np.flatnonzero(found.decisions == REFERRED)
    reached = []
    for answers in product((0, 1), repeat=len(referred)):
        decided = found.decisions.copy()
        decided[referred] = answers
        reached.append(np.ptp(rates(decided, group)))
    assert max(reached) == pytest.approx(found.largest_gap)
    assert min(reached) <= found.gap + 1e-12
    np.testing.assert_allclose(found.referred, [np.isin(np.flatnonzero(group == g), referred).mean() for g in (0, 1)])


def test_a_group_at_the_rate_of_all_is_not_lifted_in_the_band_whose_edge_may_be_the_widest_allowed() -> None:
    scores = [0.875, 0.5625, 0.4375, 0.125, 0.875, 0.4375, 0.25, 0.25, 0.875, 0.875, 0.5625, 0.125]
    group = {"g": np.repeat(["level", "low", "high"], 4)}
    found = reject_option(scores, "g", 0.25, sensitive_features=group, refer=False, widest=0.0625)
    assert found.gap_before == 0.5
    assert found.band == 0.0625
    assert found.decisions.tolist() == [1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0]


def test_a_score_at_the_threshold_is_a_yes() -> None:
    found = reject_option([0.5, 0.25, 0.5, 0.25], "g", 0.1, sensitive_features={"g": [0, 0, 1, 1]})
    assert found.decisions.tolist() == [1, 0, 1, 0]
    higher = reject_option([0.5, 0.25], "g", 0.1, sensitive_features={"g": [0, 0]}, threshold=0.25)
    assert higher.decisions.tolist() == [1, 1]


def test_the_bound_compares_no_group_with_itself() -> None:
    """Whoever decides about the three of 'low' sees rates of 0 to 0.75 beside 0.5."""
    scores = [0.4375, 0.4375, 0.4375, 0.125, 0.875, 0.875, 0.125, 0.125]
    found = reject_option(scores, "g", 0.25, sensitive_features={"g": np.repeat(["low", "high"], 4)})
    assert found.referred.max() == 0.75
    assert found.largest_gap == 0.5


def test_unknown_groups_are_decided_and_intersections_are_groups() -> None:
    scores = np.array([0.9, 0.8, 0.45, 0.2, 0.7, 0.4, 0.3, 0.1, 0.51])
    sex = ["F"] * 4 + ["M"] * 4 + [None]
    found = reject_option(scores, "sex", 0.3, sensitive_features={"sex": sex})
    assert found.decisions[-1] == 1
    assert found.groups == ("sex=F", "sex=M")
    both = reject_option(scores, ("sex", "a"), 1.0, sensitive_features={"sex": sex, "a": [0, 1] * 4 + [0]})
    assert len(both.groups) == 4
    assert both.band == -1.0
    assert (both.decisions == (scores >= 0.5)).all()


def test_what_cannot_be_is_named() -> None:
    scores, sex = [0.9, 0.1, 0.2, 0.3], {"sex": ["F", "M", "M", "M"]}
    with pytest.raises(InfeasibleConstraintsError, match="smallest that a band reaches"):
        reject_option(scores, "sex", 0.0, sensitive_features=sex, widest=0.1)
    with pytest.raises(ParameterError, match="tolerance=2"):
        reject_option(scores, "sex", 2.0, sensitive_features=sex)
    with pytest.raises(MissingSensitiveFeatureError):
        reject_option(scores, "race", 0.1, sensitive_features=sex)
