"""What can hold together: closed forms, brute force over thresholds, and the known impossibilities."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fairlayer.audit import AuditTable, MetricError, compatibility
from fairlayer.errors import ParameterError

pytest.importorskip("scipy")


def population(rates: tuple[float, float], seed: int = 0, n: int = 1500, noise: float = 0.25) -> AuditTable:
    rng = np.random.default_rng(seed)
    sex = np.repeat(["F", "M"], n)
    y = rng.random(2 * n) < np.where(sex == "F", *rates)
    scores = np.clip(0.3 + 0.4 * y + noise * rng.normal(size=2 * n), 0, 1)
    return AuditTable.of(scores=scores, y=y, sensitive_features={"sex": sex})


def perfect(rates: tuple[float, float], n: int = 1000) -> AuditTable:
    """Scores that are the labels."""
    y = np.concatenate([np.arange(n) < rate * n for rate in rates]).astype(float)
    return AuditTable.of(scores=y, y=y, sensitive_features={"sex": np.repeat(["F", "M"], n)})


def test_perfect_predictions_meet_everything_but_parity() -> None:
    """Kleinberg et al.: a perfect prediction. Its selection rates are the base rates, 0.3 and 0.6."""
    found = {each.criteria: each for each in compatibility(perfect((0.3, 0.6)), "sex").sets}
    assert found["equalized_odds", "predictive_parity"].smallest_tolerance == 0.0
    assert found["equalized_odds", "predictive_parity"].best_accuracy == pytest.approx(1.0)
    parity = found[("demographic_parity",)]
    assert parity.smallest_tolerance == pytest.approx(0.3, abs=1 / 1024)
    assert parity.best_accuracy == pytest.approx(0.85)  # at equal rates, 0.15 of the people are decided wrongly
    assert parity.cost == pytest.approx(0.15)


def test_equal_base_rates_and_equal_curves_have_no_conflict() -> None:
    y = np.tile([0, 0, 1, 1, 0, 1], 100)
    scores = np.tile([0.1, 0.6, 0.4, 0.9, 0.3, 0.7], 100)
    table = AuditTable.of(
        scores=np.r_[scores, scores], y=np.r_[y, y], sensitive_features={"sex": np.repeat(["F", "M"], 600)}
    )
    found = compatibility(table, "sex")
    assert all(each.smallest_tolerance == 0.0 for each in found.sets)
    assert all(each.cost == pytest.approx(0.0, abs=1e-9) for each in found.sets if len(each.criteria) < 3)
    assert found.calibration_tolerance == pytest.approx(0.0, abs=1e-9)


def test_the_best_accuracy_beats_every_pair_of_thresholds_and_is_reached() -> None:
    """Brute force over all pairs of thresholds of the histogram: none within the tolerance is better."""
    table, tolerance = population((0.3, 0.6)), 0.05
    bins = table.by("sex").bins()[..., 0]
    above = np.cumsum(bins[:, :, ::-1], axis=2)
    above = np.concatenate([np.zeros((2, 2, 1)), above], axis=2)  # (groups, labels, thresholds)
    total = bins.sum(axis=2)
    brute = {"demographic_parity": 0.0, "equal_opportunity": 0.0}
    for a, b in itertools.product(range(above.shape[2]), repeat=2):
        hits = [above[0, :, a], above[1, :, b]]
        right = sum(h[1] + total[g, 0] - h[0] for g, h in enumerate(hits)) / total.sum()
        selection = [h.sum() / total[g].sum() for g, h in enumerate(hits)]
        tpr = [h[1] / total[g, 1] for g, h in enumerate(hits)]
        for name, pair in (("demographic_parity", selection), ("equal_opportunity", tpr)):
            if abs(pair[0] - pair[1]) <= tolerance:
                brute[name] = max(brute[name], float(right))
    found = compatibility(table, "sex", list(brute), tolerance=tolerance)
    for each in found.sets[:2]:
        expected = brute[each.criteria[0]]
        assert expected - 1e-9 <= each.best_accuracy <= expected + 0.003  # a lottery may add a little
    assert found.best >= found.sets[0].best_accuracy


def test_more_tolerance_costs_less_and_more_criteria_cost_more() -> None:
    table = population((0.3, 0.6))
    criteria = ("demographic_parity", "predictive_parity")
    tight, wide = (compatibility(table, "sex", criteria, tolerance=t) for t in (0.05, 0.2))
    for a, b in zip(tight.sets, wide.sets, strict=True):
        assert not a.cost < b.cost - 1e-6
    costs = {each.criteria: each.cost for each in wide.sets}
    for single in criteria:
        assert costs[criteria] >= costs[(single,)] - 1e-3


def test_the_three_cannot_hold_together_on_different_base_rates() -> None:
    found = compatibility(population((0.3, 0.6)), "sex")
    every = found.sets[-1]
    assert len(every.criteria) == 3
    assert every.smallest_tolerance > 0.1
    assert np.isnan(every.best_accuracy)  # within 0, no rule that selects anybody
    assert any("no rule keeps them within 0" in sentence for sentence in found.sentences())


def test_the_identity_of_the_rates() -> None:
    """FPR = p / (1 - p) (1 - PPV) / PPV TPR, with the PPV and the TPR of all: 60 of 80 selected, 60 of 90 positives."""
    decisions, y, sex = [], [], []
    for group, cells in (("F", (20, 10, 10, 60)), ("M", (40, 20, 10, 30))):
        for count, (label, decision) in zip(cells, ((1, 1), (1, 0), (0, 1), (0, 0)), strict=True):
            decisions += [decision] * count
            y += [label] * count
            sex += [group] * count
    table = AuditTable.of(decisions=decisions, y=y, sensitive_features={"sex": sex})
    found = compatibility(table, "sex", ["equalized_odds"])
    ppv, tpr = 60 / 80, 60 / 90
    assert [group.base_rate for group in found.groups] == pytest.approx([0.3, 0.6])
    assert [group.implied_fpr for group in found.groups] == pytest.approx(
        [p / (1 - p) * (1 - ppv) / ppv * tpr for p in (0.3, 0.6)]
    )
    assert "a gap of 0.238" in found.sentences()[0]
    assert np.isnan(found.separation)
    assert found.accuracy == pytest.approx((20 + 60 + 40 + 30) / 200)


def test_the_tolerance_of_calibration_has_its_closed_form() -> None:
    """With means 0.3 and 0.7 the separation is 0.4: t = (1 - 0.4) (0.6 - 0.3) / 3, shared by the three conditions."""
    y = np.concatenate([np.arange(1000) < 300, np.arange(1000) < 600]).astype(float)
    table = AuditTable.of(scores=0.3 + 0.4 * y, y=y, sensitive_features={"sex": np.repeat(["F", "M"], 1000)})
    found = compatibility(table, "sex", ["equal_opportunity"])
    assert found.separation == pytest.approx(0.4)
    assert found.calibration_tolerance == pytest.approx(0.6 * 0.3 / 3, abs=1e-9)


def test_an_accuracy_that_nobody_has_is_said() -> None:
    found = compatibility(population((0.3, 0.6)), "sex", ["equal_opportunity"], accuracy=0.999)
    assert np.isnan(found.sets[0].smallest_tolerance)
    assert "no rule on these scores has an accuracy of 0.999" in found.sentences()[1]


def test_what_cannot_be_asked_is_an_error() -> None:
    table = population((0.3, 0.6), n=100)
    with pytest.raises(ParameterError, match=r"compatibility knows demographic_parity, .* not calibration"):
        compatibility(table, "sex", ["calibration"])
    with pytest.raises(ParameterError, match="not an empty list"):
        compatibility(table, "sex", [])
    with pytest.raises(ParameterError, match="tolerance of a rate"):
        compatibility(table, "sex", tolerance=2)
    alone = AuditTable.of(scores=[0.1, 0.9] * 50, y=[0, 1] * 50, sensitive_features={"sex": ["F"] * 100})
    with pytest.raises(MetricError, match="two groups with both labels and 30 rows or more, but there are 1"):
        compatibility(alone, "sex")
    with pytest.raises(MetricError, match="needs labels of 0 and 1"):
        compatibility(AuditTable.of(scores=[0.1, 0.9], sensitive_features={"sex": ["F", "M"]}), "sex")
