"""Infeasible sets: detected exactly, named, and widened by the least that helps."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer.solve import solving
from tests.core import truth
from tests.core.problems import SOLO_KINDS, Problem, Rule, constraint, random_rule

CLEAR = 1e-7  # closer to the border than this, nobody can tell


def _system(seed: int, *, dense: bool) -> Problem:
    """A small batch with rules drawn without care for whether they can hold together."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 16))
    features = {name: rng.integers(-1 if rng.random() < 0.2 else 0, k, n) for name, k in (("a", 4), ("b", 3), ("c", 2))}
    if dense:
        features["s"] = rng.normal(size=n)
        if rng.random() < 0.5:
            features["p"] = rng.dirichlet(np.full(3, 0.5), size=n)
    z = rng.normal(size=n)
    labels = (rng.random(n) < 0.5).astype(float)
    bounds = [(0.0, 1.0), (0.2, 0.7), (0.0, None), None][rng.integers(4)]
    if rng.random() < 0.25:
        low = rng.uniform(0, 0.6, n)
        bounds = (low, low + rng.uniform(0, 0.4, n))
    dense_kinds = ("CovarianceBound", "AffineSamples", "BoundedGroupLossCustom")
    kinds = [k for k in SOLO_KINDS if dense or k not in dense_kinds]
    rules = tuple(_harsh(str(rng.choice(kinds)), rng, features, n) for _ in range(rng.integers(1, 4)))
    if "p" in features:
        rules = (*rules, Rule("DemographicParity", ("p",), 0.0))
    return Problem(f"system {seed}", z, features, rules, labels=labels, bounds=bounds)


def _harsh(kind: str, rng: np.random.Generator, features: dict[str, np.ndarray], n: int) -> Rule:
    rule = random_rule(kind, rng, features, n, float(rng.choice([0.0, 0.05, 0.2])))
    if rule.kind in ("AffineGroups", "AffineSamples"):
        m = len(rule.more["rows"])
        lower = rng.uniform(-0.5, 0.8, m)
        return replace(rule, more={**rule.more, "lower": lower, "upper": lower + rng.choice([0.0, 0.1], m)})
    if rule.kind == "MinimumRate":
        return replace(rule, limit=float(rng.uniform(0.2, 1.1)))
    if rule.kind.startswith("BoundedGroupLoss"):
        return replace(rule, limit=float(rng.uniform(0.0, 0.6)))
    return rule


@pytest.mark.parametrize("dense", [False, True])
def test_detected_exactly_and_relaxed_by_the_least(dense: bool) -> None:
    """Whether it raises, by a linear program over the samples; and the widening equals that program's optimum."""
    found = {"feasible": 0, "infeasible": 0}
    for seed in range(400):
        problem = _system(seed, dense=dense)
        least = truth.least_widening(problem)
        if 1e-12 < least < CLEAR:
            continue
        relaxed = problem.project(on_infeasible="relax")
        assert relaxed.widening == pytest.approx(least, abs=1e-8), problem.name
        assert relaxed.certificate.holds, problem.name
        if least <= 1e-12:
            found["feasible"] += 1
            assert problem.project().status != "relaxed"
            assert relaxed.status != "relaxed"
            continue
        found["infeasible"] += 1
        assert relaxed.status == "relaxed"
        _check_relaxed(problem, relaxed, least)
        with pytest.raises(fl.errors.InfeasibleConstraintsError) as caught:
            problem.project()
        _check_names(problem, str(caught.value))
    assert min(found.values()) >= 60, found


def _check_relaxed(problem: Problem, result: fl.Projection, least: float) -> None:
    """The relaxed value keeps the bounds and breaks no limit by more than the widening."""
    y = result.value.numpy()
    lower, upper = problem.bounds or (None, None)
    assert lower is None or (y >= np.asarray(lower) - 1e-12).all()
    assert upper is None or (y <= np.asarray(upper) + 1e-12).all()
    worst = max(truth.violation(problem, rule, y) for rule in problem.rules)
    assert worst <= least + 2e-8


def _check_names(problem: Problem, text: str) -> None:
    """The constraints named in the error cannot hold together, even without the others."""
    names = [constraint(rule).name for rule in problem.rules]
    named = text.split(" meet ")[1].split("; clashing", maxsplit=1)[0].removesuffix(" together").split(" and ")
    assert named, text
    assert set(named) <= set(names), text
    clashing = replace(problem, rules=tuple(r for r, n in zip(problem.rules, names, strict=True) if n in named))
    assert truth.least_widening(clashing) > 0.1 * CLEAR, text
    assert 'on_infeasible="relax"' in text


def test_the_error_names_who_clashes_and_nobody_else() -> None:
    rules = [
        fl.DemographicParity("sex", tolerance=0.5),
        fl.MinimumRate("race", floor=0.8),
        fl.BoundedGroupLoss("race", cap=0.1, loss=lambda labels: (0 * labels, 1 + 0 * labels)),
    ]
    features = {"sex": ["F", "F", "M", "M"], "race": ["x", "y", "x", "y"]}
    with pytest.raises(fl.errors.InfeasibleConstraintsError) as caught:
        fl.project(torch.rand(4), rules, sensitive_features=features, y=[0, 1, 0, 1], bounds=(0, 1))
    text = str(caught.value)
    assert "MinimumRate('race') and BoundedGroupLoss('race')" in text or (
        "BoundedGroupLoss('race') and MinimumRate('race')" in text
    )
    assert "DemographicParity" not in text
    assert "within the bounds (0.0, 1.0)" in text
    assert re.search(r"clashing statements: .*race=", text)


def test_a_constraint_that_the_bounds_alone_forbid() -> None:
    with pytest.raises(fl.errors.InfeasibleConstraintsError, match=r"MinimumRate\('g'\)"):
        fl.project(torch.rand(4), [fl.MinimumRate("g", 1.5)], sensitive_features={"g": [0, 0, 1, 1]}, bounds=(0, 1))
    relaxed = fl.project(
        torch.rand(4).double(),
        [fl.MinimumRate("g", 1.5)],
        sensitive_features={"g": [0, 0, 1, 1]},
        bounds=(0, 1),
        on_infeasible="relax",
    )
    assert relaxed.widening == pytest.approx(0.5, abs=1e-9)
    assert relaxed.value.tolist() == pytest.approx([1.0] * 4)
    assert relaxed.status == "relaxed"


def test_a_row_out_of_reach_is_named_without_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> None:
        raise AssertionError("no program is needed")

    monkeypatch.setattr(solving, "widening_of", asked)
    rng = np.random.default_rng(0)
    features = {"g": rng.integers(0, 100, 1000), "h": rng.integers(0, 5, 1000)}
    floors = fl.Affine(np.eye(100), on="g", lower=np.where(np.arange(100) == 37, 1.2, np.linspace(0.0, 1.1, 100)))
    with pytest.raises(fl.errors.InfeasibleConstraintsError, match=r"statements: lower limit on \[[^;]*\]\.") as caught:
        fl.project(
            rng.random(1000), [fl.DemographicParity("h", 0.1), floors], sensitive_features=features, bounds=(0, 1)
        )
    assert "DemographicParity" not in str(caught.value)


def test_rows_of_zeros_are_infeasible_not_absent() -> None:
    with pytest.raises(fl.errors.InfeasibleConstraintsError):
        fl.project(torch.rand(3), [fl.Affine(torch.zeros(1, 3), lower=1.0)])
    loss = fl.BoundedGroupLoss("g", 0.3, loss=lambda labels: (np.ones(3), np.zeros(3)))
    with pytest.raises(fl.errors.InfeasibleConstraintsError):
        fl.project(torch.rand(3), [loss], y=[0, 1, 1], sensitive_features={"g": [0, 0, 0]})
    satisfied = fl.project(torch.rand(3), [fl.Affine(torch.zeros(1, 3), lower=-1.0)])
    assert satisfied.status == "unchanged"


def test_feasible_by_a_hair() -> None:
    """The only feasible point is a corner of the box."""
    z = torch.tensor([0.3, 0.9, 0.1, 0.5], dtype=torch.float64)
    result = fl.project(z, [fl.MinimumRate("g", 1.0)], sensitive_features={"g": [0, 0, 1, 1]}, bounds=(0, 1))
    assert result.value.tolist() == pytest.approx([1.0] * 4, abs=1e-10)
    fixed = fl.project(z, [fl.DemographicParity("g", 0.0)], sensitive_features={"g": [0, 0, 1, 1]}, bounds=(0.4, 0.4))
    assert fixed.value.tolist() == [0.4] * 4


@pytest.mark.parametrize("ratio", [0.8, 1.0])
def test_ratio_with_means_that_must_be_negative(ratio: float) -> None:
    """No ratio below 1 holds of negative means: that is infeasible, not silently met."""
    arguments = {"sensitive_features": {"g": [0, 0, 1, 1]}, "bounds": (-1.0, -0.5)}
    z = torch.tensor([-0.6, -0.7, -0.9, -1.0], dtype=torch.float64)
    if ratio == 1.0:
        assert fl.project(z, [fl.DisparateImpactRatio("g", ratio)], **arguments).certificate.holds
        return
    with pytest.raises(fl.errors.InfeasibleConstraintsError):
        fl.project(z, [fl.DisparateImpactRatio("g", ratio)], **arguments)


def test_ratio_with_zero_means() -> None:
    z = torch.tensor([0.0, 0.0, 0.5, 0.7], dtype=torch.float64)
    result = fl.project(z, [fl.DisparateImpactRatio("g", 0.8)], sensitive_features={"g": [0, 0, 1, 1]}, bounds=(0, 1))
    a, b = result.value[:2].mean(), result.value[2:].mean()
    assert float(a) >= 0.8 * float(b) - 1e-10
    zeros = fl.project(torch.zeros(4), [fl.DisparateImpactRatio("g", 0.8)], sensitive_features={"g": [0, 0, 1, 1]})
    assert zeros.status == "unchanged"


@pytest.mark.parametrize(
    ("geometry", "bounds"), [("entropic", "simplex"), ("euclidean", "simplex"), ("euclidean", (0, 1))]
)
def test_a_cell_without_weight_asks_for_nothing(geometry: str, bounds: object) -> None:
    """The members with label 1 of group 0 count for nothing, so their mean is no statistic that could clash."""
    generator = np.random.default_rng(0)
    n = 8
    y, sex = np.arange(n) // 2 % 2, np.arange(n) % 2
    weights = np.where((y == 1) & (sex == 0), 0.0, 1.0 + generator.random(n))
    rows = generator.dirichlet(np.ones(2), n)
    z = torch.tensor(rows if bounds == "simplex" else rows[:, 0])
    rules = [fl.DisparateImpactRatio("sex", ratio=0.96), fl.ErrorRateParity("sex", tolerance=0.01)]
    result = fl.project(
        z, rules, y=y, sensitive_features={"sex": sex}, sample_weight=weights, geometry=geometry, bounds=bounds
    )
    assert result.certificate.holds
    value = result.value.numpy().reshape(n, -1)
    means = [np.average(value[sex == g], axis=0, weights=weights[sex == g]) for g in (0, 1)]
    assert (np.minimum(*means) >= 0.96 * np.maximum(*means) - 1e-9).all()


@pytest.mark.parametrize("geometry", ["euclidean", "entropic", "likelihood"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_clash_by_a_hair_is_named_or_relaxed(geometry: str, weighted: bool) -> None:
    """Hard groups, dense rows and several constraints, infeasible by 1e-11 to 1e-4."""
    rng = np.random.default_rng(1)
    for by in 10.0 ** np.arange(-11.0, -3.0):
        n = int(rng.integers(6, 40))
        weights = rng.lognormal(size=n) if weighted else None
        features = {"sex": np.arange(n) % 2, "soft": rng.dirichlet(np.full(3, 0.5), n)}
        rules = [
            fl.Affine([[1.0, 0.0]], on="sex", lower=0.5 + by),
            fl.Affine([[1.0, 0.0]], on="sex", upper=0.5 - by),
            fl.DemographicParity("soft" if rng.random() < 0.5 else "sex", tolerance=0.05),
        ]
        z = torch.tensor(rng.uniform(0.05, 0.95, n))
        more = {"sensitive_features": features, "sample_weight": weights, "geometry": geometry, "bounds": (0, 1)}
        with pytest.raises(fl.errors.InfeasibleConstraintsError, match="Affine"):
            fl.project(z, rules, **more)
        relaxed = fl.project(z, rules, on_infeasible="relax", **more)
        assert relaxed.certificate.holds
        assert relaxed.widening == pytest.approx(by, abs=2e-9)
