"""Each constraint's number, by brute force from its documented formula, on the projected value."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fairlayer as fl
from tests.core import truth
from tests.core.problems import SOLO_KINDS, random_problem, seeds, solo_problem

N = 240


def _batch(seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    sex, race = rng.choice(["F", "M"], N, p=[0.3, 0.7]), rng.choice(["x", "y", "z"], N, p=[0.6, 0.3, 0.1])
    score = 1 / (1 + np.exp(-(rng.normal(size=N) + (sex == "M") + 0.5 * (race == "x"))))
    labels = (rng.random(N) < score).astype(float)
    columns = {
        "sex": sex,
        "race": race,
        "band": rng.choice(["low", "high"], N),
        "age": rng.normal(40, 12, N) + 5 * score,
    }
    return score, columns, labels


def _value(constraint: fl.Constraint, **more: Any) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], np.ndarray]:
    score, columns, labels = _batch()
    result = fl.project(
        torch.tensor(score), [constraint], sensitive_features=columns, y=labels, bounds=(0.0, 1.0), **more
    )
    assert result.status == "projected", "the scores should break the constraint, or nothing is tested"
    assert result.certificate.holds
    return result.value.numpy(), score, columns, labels


def _gap(values: list[float]) -> float:
    return max(values) - min(values)


def test_demographic_parity() -> None:
    y, _, c, _ = _value(fl.DemographicParity("race", tolerance=0.03))
    assert _gap([y[c["race"] == r].mean() for r in "xyz"]) == pytest.approx(0.03, abs=1e-10)


def test_demographic_parity_of_intersections() -> None:
    y, _, c, _ = _value(fl.DemographicParity(("sex", "race"), tolerance=0.03))
    means = [y[(c["sex"] == s) & (c["race"] == r)].mean() for s in "FM" for r in "xyz"]
    assert _gap(means) == pytest.approx(0.03, abs=1e-10)


@pytest.mark.parametrize(
    ("kind", "labels_bound"), [("EqualOpportunity", [1]), ("PredictiveEquality", [0]), ("EqualizedOdds", [0, 1])]
)
def test_parity_within_labels(kind: str, labels_bound: list[int]) -> None:
    y, score, c, labels = _value(getattr(fl, kind)("sex", tolerance=0.02))
    for label in (0, 1):
        gap, before = (_gap([v[(c["sex"] == s) & (labels == label)].mean() for s in "FM"]) for v in (y, score))
        if label in labels_bound:
            assert gap <= 0.02 + 1e-10 < before
        else:
            assert gap == pytest.approx(before)  # nobody else is moved
            assert np.array_equal(y[labels == label], score[labels == label])


def test_conditional_parity() -> None:
    y, score, c, _ = _value(fl.ConditionalParity("sex", given=("band", "race"), tolerance=0.01))
    for band in ("low", "high"):
        for race in "xyz":
            at = (c["band"] == band) & (c["race"] == race)
            assert _gap([y[at & (c["sex"] == s)].mean() for s in "FM"]) <= 0.01 + 1e-10
    assert _gap([score[c["sex"] == s].mean() for s in "FM"]) > 0.02


def test_mean_residual_parity() -> None:
    score, columns, labels = _batch()
    off = torch.tensor(0.6 * score)
    for between in (False, True):
        rule = fl.MeanResidualParity("race", tolerance=0.01, between_groups=between)
        y = fl.project(off, [rule], sensitive_features=columns, y=labels).value.numpy()
        means = [(labels - y)[columns["race"] == r].mean() for r in "xyz"]
        assert (_gap(means) if between else max(map(abs, means))) == pytest.approx(0.01, abs=1e-10)


def test_disparate_impact_ratio() -> None:
    y, _, c, _ = _value(fl.DisparateImpactRatio(("sex", "race"), ratio=0.95))
    means = [y[(c["sex"] == s) & (c["race"] == r)].mean() for s in "FM" for r in "xyz"]
    assert min(means) / max(means) == pytest.approx(0.95, abs=1e-9)


def test_error_rate_parity() -> None:
    y, _, c, labels = _value(fl.ErrorRateParity("race", tolerance=0.01))
    # a decision drawn with probability y is wrong with probability y for label 0, 1 - y for label 1
    wrong = np.where(labels == 1, 1 - y, y)
    assert _gap([wrong[c["race"] == r].mean() for r in "xyz"]) == pytest.approx(0.01, abs=1e-10)


def test_bounded_group_loss() -> None:
    y, score, c, labels = _value(fl.BoundedGroupLoss("race", cap=0.35))
    loss, before = (max(abs(labels - v)[c["race"] == r].mean() for r in "xyz") for v in (y, score))
    assert loss == pytest.approx(0.35, abs=1e-10)
    assert before > 0.36


def test_bounded_group_loss_of_ones_own() -> None:
    cost = np.where(np.arange(N) % 2 == 0, 3.0, 0.5)
    y, _, c, _ = _value(fl.BoundedGroupLoss("sex", cap=0.8, loss=lambda labels: (0.2 * labels, cost)))
    labels = _batch()[2]
    assert max((0.2 * labels + cost * y)[c["sex"] == s].mean() for s in "FM") == pytest.approx(0.8, abs=1e-10)


def test_minimum_rate() -> None:
    y, score, c, _ = _value(fl.MinimumRate("sex", floor=0.6))
    assert min(y[c["sex"] == s].mean() for s in "FM") == pytest.approx(0.6, abs=1e-10)
    assert (y >= score).all()


@pytest.mark.parametrize("bins", [4, [0.0, 0.3, 0.5, 1.0]])
def test_group_calibration(bins: Any) -> None:
    y, score, c, labels = _value(fl.GroupCalibration("sex", tolerance=0.02, bins=bins))
    edges = np.linspace(0, 1, 5) if bins == 4 else np.array(bins)
    for s in "FM":
        for low, high in pairwise(edges):
            inside = (c["sex"] == s) & (score >= low) & ((score < high) | (high == 1.0))
            assert abs((labels - y)[inside].mean()) <= 0.02 + 1e-10


def test_covariance_bound() -> None:
    y, score, c, _ = _value(fl.CovarianceBound("age", tolerance=0.1))
    before, after = (abs(np.cov(c["age"], v, bias=True)[0, 1]) for v in (score, y))
    assert before > 0.4
    assert after == pytest.approx(0.1, abs=1e-9)


def test_covariance_bound_of_several_with_unknown() -> None:
    score, columns, _ = _batch()
    age, wage = columns["age"].copy(), columns["age"] * 100 + np.arange(N)
    age[:5] = np.nan
    rule = fl.CovarianceBound(("age", "wage"), tolerance=0.05)
    result = fl.project(torch.tensor(score), [rule], sensitive_features={"age": age, "wage": wage})
    y = result.value.numpy()
    assert abs(np.cov(age[5:], y[5:], bias=True)[0, 1]) <= 0.05 + 1e-9
    assert abs(np.cov(wage, y, bias=True)[0, 1]) <= 0.05 + 1e-9


def test_affine() -> None:
    score, columns, _ = _batch()
    rows = np.random.default_rng(1).normal(size=(3, N)) / N
    y = fl.project(torch.tensor(score), [fl.Affine(rows, lower=-0.01, upper=[0.0, 0.01, 0.02])]).value.numpy()
    assert (rows @ y >= -0.01 - 1e-10).all()
    assert (rows @ y <= np.array([0.0, 0.01, 0.02]) + 1e-10).all()
    on = fl.Affine(torch.tensor([[1.0, -2.0, 1.0]]), lower=0.0, upper=0.0, on="race")
    y = fl.project(torch.tensor(score), [on], sensitive_features=columns).value.numpy()
    x, m, z = (y[columns["race"] == r].mean() for r in "xyz")
    assert x - 2 * m + z == pytest.approx(0, abs=1e-10)
    of_batch = fl.Affine(lambda batch: np.ones((1, batch.n)) / batch.n, upper=0.4)
    assert fl.project(torch.tensor(score), [of_batch]).value.mean() == pytest.approx(0.4)


@pytest.mark.parametrize("kind", SOLO_KINDS)
def test_each_alone(kind: str) -> None:
    """Its number, from its formula, is within its limit on many batches; on some the raw scores were not."""
    broken_before = 0
    for seed in range(30):
        problem = solo_problem(kind, seed)
        y = problem.project().value.numpy()
        (rule,) = problem.rules
        lower, upper = problem.bounds or (None, None)
        clipped = np.clip(problem.scores, -np.inf if lower is None else lower, np.inf if upper is None else upper)
        broken_before += truth.violation(problem, rule, clipped) > 1e-6
        assert truth.violation(problem, rule, y) <= 1e-10 * max(1.0, problem.size)
    assert broken_before >= 5


@settings(max_examples=150)
@given(seed=seeds, count=st.integers(2, 6))
def test_any_mix(seed: int, count: int) -> None:
    """Rules of different kinds hold at the same time."""
    problem = random_problem(seed)
    y = problem.project().value.numpy()
    for rule in problem.rules[:count]:
        assert truth.violation(problem, rule, y) <= 1e-10 * max(1.0, problem.size, truth.reach(problem, rule))


# --- corners


def test_no_constraints_is_a_clip() -> None:
    z = torch.tensor([-1.0, 0.5, 2.0])
    assert fl.project(z, []).status == "unchanged"
    result = fl.project(z, [], bounds=(0, 1))
    assert result.value.tolist() == [0.0, 0.5, 1.0]
    assert result.certificate.holds
    assert result.multipliers == {}


@pytest.mark.parametrize("n", [1, 2])
def test_tiny_batches(n: int) -> None:
    z = torch.tensor([0.9, 0.1][:n], dtype=torch.float64)
    rules = [
        fl.DemographicParity("g", 0.0),
        fl.EqualizedOdds("g", 0.0),
        fl.CovarianceBound("s", 0.0),
        fl.MinimumRate("g", 0.3),
        fl.GroupCalibration("g", 0.7),
        fl.ErrorRateParity("g", 0.5),
    ]
    result = fl.project(
        z, rules, sensitive_features={"g": [0, 1][:n], "s": [1.0, 5.0][:n]}, y=[1, 0][:n], bounds=(0, 1)
    )
    assert result.certificate.holds
    assert torch.isfinite(result.value).all()
    if n == 1:
        assert result.value.tolist() == [0.9]
    else:
        assert result.value.tolist() == pytest.approx([0.5, 0.5])


def test_groups_that_are_all_unknown_move_nobody() -> None:
    z = torch.tensor([0.9, 0.1, 0.4])
    rules = [fl.DemographicParity("g", 0.0), fl.MinimumRate("g", 0.9), fl.EqualizedOdds("g", 0.0)]
    result = fl.project(z, rules, sensitive_features={"g": [None, None, None]}, y=[0, 1, 1])
    assert torch.equal(result.value, z)
    assert result.unknown == {"g": 3}
    assert result.status == "unchanged"


def test_unknown_members_are_counted_and_unmoved() -> None:
    z = torch.tensor([0.9, 0.8, 0.2, 0.3, 0.55], dtype=torch.float64)
    result = fl.project(z, [fl.DemographicParity("g", 0.0)], sensitive_features={"g": ["a", "a", "b", "b", None]})
    assert float(result.value[4]) == 0.55
    assert result.unknown == {"g": 1}
    assert result.counts == {"g=a": 2, "g=b": 2}
    assert float(result.value[:2].mean()) == pytest.approx(float(result.value[2:4].mean()))


def test_unknown_in_one_feature_still_counts_in_the_other() -> None:
    z = torch.tensor([0.9, 0.8, 0.2, 0.3], dtype=torch.float64)
    rules = [fl.DemographicParity("g", 0.0), fl.DemographicParity("h", 0.0)]
    columns = {"g": [0, -1, 1, 1], "h": [0, 1, 0, -1]}
    y = fl.project(z, rules, sensitive_features=columns).value
    assert float(y[0]) == pytest.approx(float(y[2:].mean()))
    assert float((y[0] + y[2]) / 2) == pytest.approx(float(y[1]))


def test_absent_groups_are_recorded_or_refused() -> None:
    words = fl.FairProjection([fl.DemographicParity("g", 0.1)])
    words.fit_categories({"g": ["a", "b", "c"]})
    z = torch.tensor([0.9, 0.1])
    value = words(z, sensitive_features={"g": ["a", "b"]})
    assert words.last is not None
    assert words.last.absent == (("DemographicParity('g')", "g=c"),)
    assert float(value[0] - value[1]) == pytest.approx(0.1, abs=1e-6)
    alone = words(z, sensitive_features={"g": ["a", "a"]})
    assert torch.equal(alone, z)
    strict = fl.FairProjection([fl.DemographicParity("g", 0.1)], on_empty="raise")
    strict.fit_categories({"g": ["a", "b", "c"]})
    with pytest.raises(fl.errors.EmptyGroupError, match=r"no 'g=c' \(counts: g=a 1, g=b 1, g=c 0\)"):
        strict(z, sensitive_features={"g": ["a", "b"]})


def test_the_same_constraint_twice_changes_nothing() -> None:
    score, columns, labels = _batch()
    z, rule = torch.tensor(score), fl.EqualizedOdds("race", 0.02)
    once = fl.project(z, [rule], sensitive_features=columns, y=labels, bounds=(0, 1))
    thrice = fl.project(
        z, [rule, fl.EqualizedOdds("race", 0.02), rule], sensitive_features=columns, y=labels, bounds=(0, 1)
    )
    torch.testing.assert_close(thrice.value, once.value, atol=1e-10, rtol=0)
    assert list(thrice.multipliers) == ["EqualizedOdds('race')", "EqualizedOdds('race') #2", "EqualizedOdds('race') #3"]
    total = sum(float(m) for m in thrice.multipliers.values())
    assert total == pytest.approx(float(once.multipliers["EqualizedOdds('race')"]), rel=1e-6)


def test_a_looser_copy_costs_nothing() -> None:
    score, columns, _ = _batch()
    rules = [fl.DemographicParity("race", 0.02), fl.DemographicParity("race", 0.2)]
    result = fl.project(torch.tensor(score), rules, sensitive_features=columns)
    assert float(result.multipliers["DemographicParity('race')"]) > 0
    assert float(result.multipliers["DemographicParity('race') #2"]) == 0


@pytest.mark.parametrize("tolerance", [0.0, 1e-12, 1e-9, 1e-6])
def test_tiny_tolerances(tolerance: float) -> None:
    score, columns, _ = _batch()
    rules = [fl.DemographicParity(name, tolerance) for name in ("sex", "race", "band")]
    result = fl.project(torch.tensor(score), rules, sensitive_features=columns, bounds=(0, 1))
    assert result.certificate.violation <= 1e-10
    assert result.certificate.holds
    y = result.value.numpy()
    assert _gap([y[columns["race"] == r].mean() for r in "xyz"]) <= tolerance + 1e-10


def test_one_against_a_hundred_thousand() -> None:
    n = 100_001
    z = torch.rand(n, dtype=torch.float64)
    g = torch.zeros(n, dtype=torch.long)
    g[17] = 1
    result = fl.project(z, [fl.DemographicParity("g", 0.0)], sensitive_features={"g": g}, bounds=(0, 1))
    assert result.certificate.holds
    assert float(result.value[17]) == pytest.approx(float(result.value[g == 0].mean()), abs=1e-10)
    assert float((result.value - z)[g == 0].abs().max()) < 1e-4  # the one moves, not the many


def test_more_attributes_than_a_64_bit_code_can_count() -> None:
    rng = np.random.default_rng(0)
    columns = {f"a{i}": rng.integers(0, 2, 200) for i in range(42)}
    rules = [fl.DemographicParity(name, 0.05) for name in columns]
    result = fl.project(torch.tensor(rng.random(200)), rules, sensitive_features=columns, bounds=(0, 1))
    y = result.value.numpy()
    gaps = [abs(y[c == 0].mean() - y[c == 1].mean()) for c in columns.values()]
    assert max(gaps) <= 0.05 + 1e-10
    assert result.certificate.holds


def test_saturated_scores_of_any_size() -> None:
    for size in (1e2, 1e3, 1e4, 1e6, 1e9):
        for seed in range(10):
            rng = np.random.default_rng(seed)
            g = np.arange(12) % 3
            z = torch.tensor(size * rng.normal(size=12))
            result = fl.project(z, [fl.DemographicParity("g", 0.01)], sensitive_features={"g": g}, bounds=(0, 1))
            y = result.value.numpy()
            assert _gap([y[g == k].mean() for k in range(3)]) <= 0.01 + 1e-10 * max(1.0, 1e-3 * size), (size, seed)
            assert result.certificate.holds


def test_the_name_is_short_and_says_what() -> None:
    assert fl.DemographicParity(("sex", "race"), 0.1).name == "DemographicParity(('sex', 'race'))"
    assert fl.MinimumRate("sex", 0.1).name == "MinimumRate('sex')"


def test_columns_of_scores_bin_by_themselves() -> None:
    """Score bins differ between columns, and so do their cells: values are per column, cells are asked of one."""
    rng = np.random.default_rng(0)
    z = torch.tensor(np.stack([rng.random(40), rng.random(40) ** 3], axis=1))
    y = (rng.random((40, 2)) < z.numpy()).astype(float)
    rules = [fl.GroupCalibration("g", 0.6, bins=3), fl.DemographicParity("h", 0.05)]
    columns = {"g": np.arange(40) % 2, "h": np.arange(40) % 3}
    result = fl.project(z, rules, sensitive_features=columns, y=y, bounds=(0, 1))
    for j in range(2):
        alone = fl.project(z[:, j], rules, sensitive_features=columns, y=y[:, j], bounds=(0, 1))
        torch.testing.assert_close(result.value[:, j], alone.value)
        for name, price in alone.multipliers.items():
            assert float(result.multipliers[name][j]) == pytest.approx(float(price))
    assert result.certificate.holds
    with pytest.raises(fl.errors.ShapeError, match=r"column\(j\)"):
        _ = result.shift
    assert len(result.column(1).shift) == len(result.column(1).cells)
