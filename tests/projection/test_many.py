"""Several problems at once equal each of them by itself, in value, derivative, price and proof."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer.errors import (
    BackendError,
    FairlayerWarning,
    InfeasibleConstraintsError,
    InvalidBoundsError,
    NonFiniteScoresError,
    ParameterError,
    ShapeError,
)
from fairlayer.projection.many import projecting

RULES: dict[str, list[fl.Constraint]] = {
    "parity": [fl.DemographicParity("g", 0.05)],
    "equality": [fl.DemographicParity("g", 0.0)],
    "ratio": [fl.DisparateImpactRatio("g", 0.9)],
    "two": [fl.DemographicParity("g", 0.05), fl.DemographicParity("h", 0.02)],
    "labels": [fl.EqualizedOdds("g", 0.1)],
    "floor": [fl.MinimumRate("g", 0.4)],
    "strata": [fl.ConditionalParity("g", given="h", tolerance=0.03)],
    "residuals": [fl.MeanResidualParity("g", tolerance=0.2)],
    "errors": [fl.ErrorRateParity("g", 0.1)],
    "crossed": [fl.DemographicParity(("g", "h"), 0.1), fl.MinimumRate("h", 0.3)],
}
GEOMETRIES = ("euclidean", "entropic", "likelihood")


def random_problems(seed: int, rules: str, geometry: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores (b, n) with empty and one-member groups, ties, problems of no sample at all, and ragged rows."""
    rng = np.random.default_rng(seed)
    b, n = int(rng.integers(1, 12)), int(rng.integers(3, 30))
    k = int(rng.integers(2, 4))
    g = np.minimum(rng.geometric(0.5, (b, n)) - 1, k - 1)
    scores = rng.random((b, n)) if geometry != "euclidean" else rng.normal(0.4, 0.5, (b, n))
    if geometry != "euclidean":
        scores = scores.clip(0.01, 0.99)
    if rng.random() < 0.3:
        scores = (
            np.round(scores * 4).clip(1 if geometry != "euclidean" else -9, 3 if geometry != "euclidean" else 9) / 4
        )
    if rng.random() < 0.5:
        g[rng.random((b, n)) < 0.1] = -1
    mask = rng.random((b, n)) < rng.choice([0.3, 0.8, 1.0], size=(b, 1))
    mask[:, 0] |= ~mask.any(axis=1)
    if b > 2:
        mask[1] = False
    unit = geometry != "euclidean" or rng.random() < 0.5 or rules in ("ratio", "labels", "errors", "floor", "residuals")
    given = {
        "scores": torch.tensor(scores),
        "sensitive_features": {"g": g, "h": rng.integers(0, 2, (b, n))},
        "y": rng.integers(0, 2, (b, n)).astype(float),
        "mask": mask,
    }
    how = {"geometry": geometry, "bounds": (0.0, 1.0) if unit else None, "on_infeasible": "relax"}
    return given, how


def one_by_one(given: dict[str, Any], how: dict[str, Any], rules: list[fl.Constraint]) -> list[Any]:
    found: list[Any] = []
    for i, mask in enumerate(given["mask"]):
        if not mask.any():
            found.append(None)
            continue
        columns = {name: column[i][mask] for name, column in given["sensitive_features"].items()}
        found.append(
            fl.project(
                given["scores"][i][torch.from_numpy(mask)],
                rules,
                sensitive_features=columns,
                y=given["y"][i][mask],
                **how,
            )
        )
    return found


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("rules", RULES)
def test_equals_each_problem_by_itself(rules: str, geometry: str) -> None:
    problems = alone = 0
    for seed in range(8):
        given, how = random_problems(seed, rules, geometry)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FairlayerWarning)
            expected = one_by_one(given, how, RULES[rules])
            found = fl.project_many(constraints=RULES[rules], **given, **how)
        problems, alone = problems + len(found), alone + len(found.alone)
        for i, one in enumerate(expected):
            mask = torch.from_numpy(given["mask"][i])
            assert not found.value[i, ~mask].any()
            if one is None:
                assert found.status[i] == "unchanged"
                continue
            np.testing.assert_allclose(found.value[i, mask].numpy(), one.value.numpy(), rtol=0.0, atol=1e-10)
            assert found.certificate(i).holds, (seed, i, found.certificate(i))
            for name, price in one.multipliers.items():
                size = 1.0 + sum(float(each) for each in one.multipliers.values())
                if len(RULES[rules]) == 1 and how["geometry"] != "euclidean":
                    assert abs(float(found.multipliers[name][i]) - float(price)) <= 1e-6 * size, (seed, i, name)
    assert alone <= 0.25 * problems, (alone, problems)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_derivatives(geometry: str) -> None:
    _, how = random_problems(3, "two", geometry)
    how = {**how, "on_infeasible": "raise"}
    rng = np.random.default_rng(0)
    scores = torch.tensor(rng.uniform(0.1, 0.9, (3, 8)), requires_grad=True)
    mask = np.arange(8) < np.array([[8], [5], [6]])
    features = {"g": rng.integers(0, 2, (3, 8)), "h": np.tile(np.arange(8) % 2, (3, 1))}
    parity = [fl.DemographicParity("g", 0.02), fl.DemographicParity("h", 0.01)]

    def projected(z: torch.Tensor) -> torch.Tensor:
        return fl.project_many(z, parity, sensitive_features=features, mask=mask, **how).value

    assert torch.autograd.gradcheck(projected, (scores,), check_forward_ad=True)
    if geometry != "euclidean":
        assert torch.autograd.gradgradcheck(projected, (scores,))
    upstream = torch.tensor(rng.normal(size=(3, 8)))
    (many,) = torch.autograd.grad(projected(scores), scores, upstream)
    for i in range(3):
        z = scores.detach()[i][torch.from_numpy(mask[i])].requires_grad_()
        columns = {name: column[i][mask[i]] for name, column in features.items()}
        value = fl.project(z, parity, sensitive_features=columns, **how).value
        (one,) = torch.autograd.grad(value, z, upstream[i][torch.from_numpy(mask[i])])
        assert torch.allclose(many[i][torch.from_numpy(mask[i])], one, rtol=0.0, atol=1e-9)
        assert not many[i][~torch.from_numpy(mask[i])].any()


def test_float32_logits_and_shared_groups() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(16, 40, generator=generator)
    sex = torch.arange(40) % 2
    parity = fl.DemographicParity("sex", 0.01)
    found = fl.project_many(logits, parity, sensitive_features=sex, geometry="entropic", from_logits=True)
    assert found.value.dtype == torch.float32
    assert all(each.holds for each in found.certificates)
    for i in range(16):
        one = fl.project(logits[i], parity, sensitive_features=sex, geometry="entropic", from_logits=True)
        assert torch.allclose(found.value[i], one.value, rtol=0.0, atol=1e-6)
    assert repr(found) == f"ManyProjections(16 problems: 15 projected, 1 unchanged; {found.sweeps} sweeps)"


def test_a_problem_that_cannot_be_met_is_named() -> None:
    scores = torch.full((3, 4), 0.5, dtype=torch.float64)
    y = torch.zeros(3, 4)
    y[1] = torch.tensor([1.0, 1.0, 0.0, 0.0])  # residuals that bounds of (0, .6) cannot balance
    rules = [fl.MeanResidualParity("g", tolerance=0.3)]
    given = {"sensitive_features": {"g": torch.tensor([0, 0, 1, 1])}, "y": y}
    with pytest.raises(InfeasibleConstraintsError, match="problem 1: no predictions within the bounds"):
        fl.project_many(scores, rules, bounds=(0.0, 0.6), **given)
    found = fl.project_many(scores, rules, bounds=(0.0, 0.6), on_infeasible="relax", **given)
    assert found.status == ("projected", "relaxed", "projected")
    assert list(found.alone) == [1]


WIDE: dict[str, list[fl.Constraint]] = {
    "parity": [fl.DemographicParity("g", 0.1)],
    "equality": [fl.DemographicParity("g", 0.0)],
    "ratio": [fl.DisparateImpactRatio("g", 0.7)],
    "floor": [fl.MinimumRate(("g", "h"), 0.4)],
    "two": [fl.DemographicParity("g", 0.1), fl.DemographicParity("h", 0.05)],
    "labels": [fl.EqualizedOdds("g", 0.1)],
    "residuals": [fl.MeanResidualParity(("g", "h"), tolerance=0.3), fl.DemographicParity("h", 0.0)],
    "crossed": [fl.DemographicParity(("g", "h"), 0.2), fl.MinimumRate("h", 0.55)],
}


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("rules", WIDE)
def test_many_groups_are_solved_together(rules: str, geometry: str) -> None:
    """More rows than are written out pair by pair: value, derivative, price and proof of each by itself."""
    rng = np.random.default_rng(len(rules))
    b, n = 5, 300
    scores = torch.tensor(rng.uniform(0.05, 0.95, (b, n)), requires_grad=True)
    mask = np.arange(n) < np.array([n, n, 250, 280, 0])[:, None]
    features = {"g": rng.integers(0, 20, (b, n)), "h": rng.integers(0, 4, (b, n))}
    y = rng.integers(0, 2, (b, n)).astype(float)
    how: dict[str, Any] = {"geometry": geometry, "bounds": (0.0, 1.0)}
    upstream = torch.tensor(rng.normal(size=(b, n)))
    found = fl.project_many(scores, WIDE[rules], sensitive_features=features, mask=mask, y=y, **how)
    assert not found.alone
    assert found.status == ("projected",) * 4 + ("unchanged",)
    (gradient,) = torch.autograd.grad(found.value, scores, upstream)
    for i in range(4):
        there = torch.from_numpy(mask[i])
        one_scores = scores.detach()[i][there].requires_grad_()
        columns = {name: column[i][mask[i]] for name, column in features.items()}
        one = fl.project(one_scores, WIDE[rules], sensitive_features=columns, y=y[i][mask[i]], **how)
        torch.testing.assert_close(found.value[i][there], one.value, rtol=0.0, atol=1e-10)
        (expected,) = torch.autograd.grad(one.value, one_scores, upstream[i][there])
        torch.testing.assert_close(gradient[i][there], expected, rtol=0.0, atol=1e-9)
        assert found.certificate(i).holds, (i, found.certificate(i))
        if len(WIDE[rules]) == 1:
            (price,), (wanted,) = (each.multipliers.values() for each in (found, one))
            assert float(price[i]) == pytest.approx(float(wanted), rel=1e-6)
    assert not gradient[~torch.from_numpy(mask)].any()


def test_rows_that_memory_does_not_hold_are_solved_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projecting, "_MOST_ENTRIES", 20 * 2 * 20 - 1)
    rng = np.random.default_rng(0)
    scores, groups = torch.tensor(rng.random((2, 60))), np.tile(np.arange(60) % 20, (2, 1))
    found = fl.project_many(scores, fl.DemographicParity("g", 0.1), sensitive_features=groups)
    assert sorted(found.alone) == [0, 1]
    assert all(each.holds for each in found.certificates)
    monkeypatch.setattr(projecting, "_MOST_ENTRIES", 20 * 2 * 20)
    assert not fl.project_many(scores, fl.DemographicParity("g", 0.1), sensitive_features=groups).alone


@pytest.mark.parametrize("tolerance", [0.0, 0.05])
def test_groups_that_are_alike_all_hold(tolerance: float) -> None:
    """Many groups high by the same, many low, some where all end: pairs of alike multipliers, and members of none."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(21), 4)
    scores = torch.tensor(0.5 + np.tile([-0.1, 0.1, -0.05, 0.05], 21) + 0.2 * np.array([-1.0, 1.0, 0.0])[groups % 3])
    many, one = scores[None].repeat(2, 1).requires_grad_(), scores.clone().requires_grad_()
    rules, upstream = [fl.DemographicParity("g", tolerance)], torch.tensor(rng.normal(size=84))
    found = fl.project_many(many, rules, sensitive_features={"g": groups})
    assert not found.alone
    (gradient,) = torch.autograd.grad(found.value[1], many, upstream)
    alone = fl.project(one, rules, sensitive_features={"g": groups})
    (expected,) = torch.autograd.grad(alone.value, one, upstream)
    torch.testing.assert_close(gradient[1], expected, rtol=0.0, atol=1e-9)


def test_a_problem_of_many_groups_that_cannot_be_met_is_named_and_spoils_no_other() -> None:
    rng = np.random.default_rng(2)
    scores, groups = torch.tensor(rng.random((4, 400))), rng.integers(0, 80, (4, 400))
    y = np.zeros((4, 400))
    y[2][groups[2] == 0] = 1.0  # residuals of one group that bounds of (0, .6) cannot balance
    rules = [fl.MeanResidualParity("g", tolerance=0.3)]
    how: dict[str, Any] = {"sensitive_features": {"g": groups}, "y": y, "bounds": (0.0, 0.6)}
    with pytest.raises(InfeasibleConstraintsError, match="problem 2: no predictions within the bounds"):
        fl.project_many(scores, rules, **how)
    found = fl.project_many(scores, rules, on_infeasible="relax", **how)
    assert list(found.alone) == [2]
    assert all(each.holds for each in found.certificates)


def test_it_says_no_by_name() -> None:
    scores, parity = torch.full((2, 3), 0.5), fl.DemographicParity("g", 0.1)
    groups = {"g": torch.zeros(2, 3, dtype=torch.long)}
    with pytest.raises(ShapeError, match="one problem per row"):
        fl.project_many(scores[0], parity, sensitive_features=groups)
    with pytest.raises(ShapeError, match=r"'g' must have the shape"):
        fl.project_many(scores, parity, sensitive_features={"g": [0, 1]})
    for weights, said in (([[1, 1, 1], [0, 0, 0]], "problem 1: sample_weight is 0 for all 3"), ([-1, 1, 1], "be >= 0")):
        with pytest.raises(ParameterError, match=said):
            fl.project_many(scores, parity, sensitive_features=groups, sample_weight=weights)
    with pytest.raises(ShapeError, match="mask must have the shape"):
        fl.project_many(scores, parity, sensitive_features=groups, mask=[True])
    with pytest.raises(BackendError, match="one by one"):
        fl.project_many(scores, fl.CovarianceBound("g", 0.1), sensitive_features={"g": torch.randn(2, 3)})
    with pytest.raises(BackendError, match="Affine"):
        fl.project_many(scores, fl.Affine(torch.ones(1, 3), upper=1.0))
    with pytest.raises(BackendError, match="simplex"):
        fl.project_many(scores, parity, sensitive_features=groups, bounds="simplex")
    with pytest.raises(InvalidBoundsError, match="numbers"):
        fl.project_many(scores, parity, sensitive_features=groups, bounds=(torch.zeros(3), 1.0))
    scores[0, 0] = float("nan")
    with pytest.raises(NonFiniteScoresError, match="1 of 6"):
        fl.project_many(scores, parity, sensitive_features=groups)
    mask = torch.isfinite(scores)
    assert torch.isfinite(fl.project_many(scores, parity, sensitive_features=groups, mask=mask).value).all()


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_vmap_over_scores(geometry: str) -> None:
    rng = np.random.default_rng(1)
    scores = torch.tensor(rng.uniform(0.1, 0.9, (5, 10)))
    shared, own = torch.arange(10) % 2, torch.tensor(rng.integers(0, 2, (5, 10)))
    parity = fl.DemographicParity("g", 0.02)

    def one(z: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        return fl.project(z, parity, sensitive_features={"g": g}, geometry=geometry, bounds=(0.0, 1.0)).value

    expected = torch.stack([one(z, shared) for z in scores])
    assert torch.allclose(torch.vmap(one, (0, None))(scores, shared), expected, rtol=0.0, atol=1e-10)
    assert torch.allclose(torch.vmap(lambda z: one(z, shared))(scores), expected, rtol=0.0, atol=1e-10)
    assert torch.allclose(torch.vmap(one, (1, None))(scores.T, shared), expected, rtol=0.0, atol=1e-10)
    expected = torch.stack([one(z, g) for z, g in zip(scores, own, strict=True)])
    assert torch.allclose(torch.vmap(one)(scores, own), expected, rtol=0.0, atol=1e-10)

    def loss(z: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        return one(z, g).pow(3).sum()

    gradients = torch.stack([torch.func.grad(loss)(z, g) for z, g in zip(scores, own, strict=True)])
    assert torch.allclose(torch.vmap(torch.func.grad(loss))(scores, own), gradients, rtol=0.0, atol=1e-9)
    together = torch.func.grad(lambda z: torch.vmap(loss)(z, own).sum())(scores)
    assert torch.allclose(together, gradients, rtol=0.0, atol=1e-9)
    jacobians = torch.stack([torch.func.jacrev(one)(z, g) for z, g in zip(scores, own, strict=True)])
    assert torch.allclose(torch.vmap(torch.func.jacfwd(one))(scores, own), jacobians, rtol=0.0, atol=1e-9)
    leaf = scores.clone().requires_grad_()
    torch.vmap(loss)(leaf, own).sum().backward()
    assert leaf.grad is not None
    assert torch.allclose(leaf.grad, gradients, rtol=0.0, atol=1e-9)
    if geometry != "euclidean":
        hessians = torch.stack([torch.func.hessian(loss)(z, g) for z, g in zip(scores, own, strict=True)])
        assert torch.allclose(torch.vmap(torch.func.hessian(loss))(scores, own), hessians, rtol=0.0, atol=1e-7)


def test_vmap_tells_what_it_knows() -> None:
    scores, parity = torch.rand(3, 4), fl.DemographicParity("g", 0.02)
    how = {"sensitive_features": {"g": torch.tensor([0, 1, 0, 1])}}
    with pytest.raises(BackendError, match="project_many"):
        torch.vmap(lambda z: fl.project(z, parity, **how).certificate)(scores)
    with pytest.raises(BackendError, match=r"torch.vmap over torch.vmap"):
        torch.vmap(torch.vmap(lambda z: fl.project(z, parity, **how).value))(scores[None])
    layer = fl.FairProjection([parity])
    assert torch.allclose(torch.vmap(lambda z: layer(z, **how))(scores), torch.stack([layer(z, **how) for z in scores]))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_derivatives_where_nothing_pulls(geometry: str) -> None:
    """Log-odds of exactly 0 in a group that is not moved, and groups whose means are equal already."""
    apart = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], dtype=torch.float64)
    equal = torch.tensor([0.2, 0.6, 0.7, 0.3, 0.5, 0.7, 0.5, 0.6, 0.4], dtype=torch.float64)
    groups, weights = torch.arange(9) // 3, torch.linspace(-1, 2, 9, dtype=torch.float64)
    how: dict[str, Any] = {"geometry": geometry, "bounds": (0.0, 1.0)}
    for scores, tolerance in ((apart, 0.05), (equal, 0.0)):
        rules = [fl.DemographicParity("g", tolerance)]
        one = scores.clone().requires_grad_()
        alone = fl.project(one, rules, sensitive_features={"g": groups}, **how).value
        many = scores[None].clone().requires_grad_()
        found = fl.project_many(many, rules, sensitive_features={"g": groups[None]}, **how).value[0]
        (expected,) = torch.autograd.grad((alone * weights).sum(), one)
        (gradient,) = torch.autograd.grad((found * weights).sum(), many)
        torch.testing.assert_close(gradient[0], expected, atol=1e-9, rtol=0)
