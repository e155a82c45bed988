"""Derivatives of the projection in every geometry: reverse, forward, second order, under torch.func."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import fairlayer as fl

N = 14
DOMAINS = [
    ("euclidean", None, False),
    ("euclidean", (0.0, 1.0), False),
    ("entropic", None, False),
    ("entropic", None, True),
    ("likelihood", None, False),
    ("likelihood", None, True),
    ("euclidean", "simplex", False),
    ("entropic", "simplex", False),
    ("entropic", "simplex", True),
]
EVERYWHERE = pytest.mark.parametrize(("geometry", "bounds", "from_logits"), DOMAINS)
MIXES = [  # with sample weights, and without
    *[(mix, False) for mix in ("one pair", "several", "equal", "estimates")],
    *[(mix, True) for mix in ("groups", "several", "soft", "rows")],
]


def _one_direction(bounds: Any, mix: str) -> bool:
    """Say whether a check goes in one random direction; all others go entry by entry.

    One direction shows an error of any entry, divided by about the number of samples. It is taken on the simplex, where
    a check of all entries lasts seconds, and there for all mixes but one.
    """
    return bool(bounds == "simplex" and mix != "several")


def _mix(name: str, random: np.random.Generator, *, simplex: bool) -> tuple[list[fl.Constraint], dict[str, Any]]:
    g, h = np.arange(N) % 2, random.permutation(np.arange(N) % 3)
    y = random.permutation(np.arange(N) % 2)
    soft = random.dirichlet(np.ones(2), N)
    estimates = random.dirichlet(np.ones(3), N) if simplex else random.random(N)
    features: dict[str, Any] = {"g": g, "h": h, "s": soft, "v": random.normal(size=N)}
    constraints: dict[str, list[fl.Constraint]] = {
        "one pair": [fl.DemographicParity("g", 0.02)],
        "groups": [fl.DemographicParity("h", 0.02)],
        "several": [fl.DemographicParity("g", 0.02), fl.EqualizedOdds("h", 0.1), fl.DemographicParity("h", 0.15)],
        "equal": [fl.DemographicParity("h", 0.0), fl.DemographicParity("g", 0.0)],
        "soft": [fl.DemographicParity("s", 0.01)],
        "estimates": [fl.EqualOpportunity("g", 0.01)],
        "rows": [fl.CovarianceBound("v", 0.01), fl.MinimumRate("g", 0.3 if simplex else 0.5)],
    }
    labels = {"label_probabilities": estimates} if name == "estimates" else {"y": y}
    return constraints[name], {"sensitive_features": features, **labels}


def _problem(
    geometry: str, bounds: Any, from_logits: bool, mix: str = "several", *, weighted: bool = False, seed: int = 0
) -> tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]:
    random = np.random.default_rng(seed)
    simplex = bounds == "simplex"
    shift = 0.8 * (np.arange(N) % 2)
    logits = (
        random.normal(size=(N, 3)) + np.outer(shift, [1.0, 0.0, -1.0]) if simplex else random.normal(size=N) + shift
    )
    scores = torch.tensor(logits)
    if not from_logits:
        scores = torch.softmax(scores, 1) if simplex else torch.sigmoid(scores)
    constraints, arguments = _mix(mix, random, simplex=simplex)
    weights = random.uniform(0.5, 3.0, N) if weighted else None
    if simplex and mix == "rows":
        constraints = constraints[:1]

    def project(z: torch.Tensor) -> torch.Tensor:
        options = {"geometry": geometry, "bounds": bounds, "from_logits": from_logits, "sample_weight": weights}
        return fl.project(z, constraints, **options, **arguments).value

    return project, scores


@EVERYWHERE
@pytest.mark.parametrize(("mix", "weighted"), MIXES)
def test_first_derivatives(geometry: str, bounds: Any, from_logits: bool, mix: str, weighted: bool) -> None:
    project, scores = _problem(geometry, bounds, from_logits, mix, weighted=weighted)
    assert not torch.allclose(project(scores), project(scores).mean(0) + 0 * scores), "something must be left to see"
    given = scores.clone().requires_grad_()
    assert gradcheck(project, given, eps=1e-6, atol=2e-6, check_forward_ad=True, fast_mode=_one_direction(bounds, mix))


@EVERYWHERE
@pytest.mark.parametrize("mix", ["several", "soft"])
def test_second_derivatives(geometry: str, bounds: Any, from_logits: bool, mix: str) -> None:
    project, scores = _problem(geometry, bounds, from_logits, mix, weighted=True)
    given = scores.clone().requires_grad_()
    assert gradgradcheck(project, given, eps=1e-6, atol=5e-5, rtol=1e-3, fast_mode=_one_direction(bounds, mix))


@EVERYWHERE
def test_transforms_agree(geometry: str, bounds: Any, from_logits: bool) -> None:
    project, scores = _problem(geometry, bounds, from_logits, weighted=True)
    reverse = torch.func.jacrev(project)(scores)
    forward = torch.func.jacfwd(project)(scores)
    eager = torch.autograd.functional.jacobian(project, scores)
    torch.testing.assert_close(reverse, eager, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(forward, eager, rtol=1e-10, atol=1e-12)
    probe = torch.linspace(0.5, 1.5, scores.numel(), dtype=torch.float64).reshape(scores.shape)

    def loss(z: torch.Tensor) -> torch.Tensor:
        return (probe * project(z)).sin().sum()

    hessian = torch.func.hessian(loss)(scores)
    twice = torch.autograd.functional.hessian(loss, scores)
    torch.testing.assert_close(hessian, twice, rtol=1e-8, atol=1e-10)
    n = scores.numel()
    torch.testing.assert_close(hessian.reshape(n, n), hessian.reshape(n, n).T, rtol=1e-8, atol=1e-9)


@EVERYWHERE
def test_by_the_tolerance(geometry: str, bounds: Any, from_logits: bool) -> None:
    _, scores = _problem(geometry, bounds, from_logits)
    random = np.random.default_rng(3)
    _, arguments = _mix("several", random, simplex=bounds == "simplex")

    def project(first: torch.Tensor, second: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        constraints = [fl.DemographicParity("g", first), fl.DemographicParity("h", second)]
        return fl.project(z, constraints, geometry=geometry, bounds=bounds, from_logits=from_logits, **arguments).value

    limits = [torch.tensor(t, dtype=torch.float64, requires_grad=True) for t in (0.03, 0.05)]
    given = (*limits, scores.clone().requires_grad_())
    assert gradcheck(project, given, eps=1e-6, atol=2e-6, check_forward_ad=True)
    assert gradgradcheck(project, given, eps=1e-6, atol=5e-5, rtol=1e-3, fast_mode=_one_direction(bounds, "tolerance"))


def test_by_the_bounds() -> None:
    scores = torch.tensor(np.random.default_rng(0).normal(0.5, 0.6, N))
    groups = {"g": np.arange(N) % 2}

    def project(low: torch.Tensor, high: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        weights = np.linspace(0.5, 2.0, N)
        parity = [fl.DemographicParity("g", 0.01)]
        return fl.project(z, parity, sensitive_features=groups, bounds=(low, high), sample_weight=weights).value

    for low, high in ((0.1, 0.9), (np.full(N, 0.1), np.linspace(0.8, 0.95, N))):
        ends = [torch.tensor(end, dtype=torch.float64, requires_grad=True) for end in (low, high)]
        given = (*ends, scores.clone().requires_grad_())
        assert ((project(*given) == ends[0]) | (project(*given) == ends[1])).any()
        assert gradcheck(project, given, eps=1e-6, atol=2e-6, check_forward_ad=True)


@EVERYWHERE
def test_float32_gradients_are_those_of_float64(geometry: str, bounds: Any, from_logits: bool) -> None:
    project, scores = _problem(geometry, bounds, from_logits, weighted=True)
    probe = torch.linspace(-1.0, 1.0, scores.numel(), dtype=torch.float64).reshape(scores.shape)
    found = []
    for dtype in (torch.float32, torch.float64):
        z = scores.float().to(dtype).requires_grad_()
        (probe.to(dtype) * project(z)).sum().backward()
        assert z.grad is not None
        assert z.grad.dtype == dtype
        found.append(z.grad.double())
    assert torch.isfinite(found[0]).all()
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


@EVERYWHERE
def test_a_linear_network_gets_the_gradient_of_its_differences(geometry: str, bounds: Any, from_logits: bool) -> None:
    """The whole chain from the weights of a network to a loss, in float64, against differences of the loss."""
    project, _ = _problem(geometry, bounds, from_logits)
    random = np.random.default_rng(5)
    x, k = torch.tensor(random.normal(size=(N, 4))), 3 if bounds == "simplex" else 1
    start = torch.tensor(random.normal(size=(4, k)))

    def loss(weights: torch.Tensor) -> torch.Tensor:
        z = x @ weights
        if not from_logits and (geometry != "euclidean" or bounds == "simplex"):
            z = torch.softmax(z, 1) if k > 1 else torch.sigmoid(z)
        return (project(z if k > 1 else z[:, 0]) ** 2).sum()

    assert gradcheck(loss, start.requires_grad_(), eps=1e-6, atol=1e-5)


# --- the ends


@pytest.mark.parametrize("geometry", ["entropic", "likelihood"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_at_the_ends(geometry: str, dtype: torch.dtype) -> None:
    """Scores of exactly 0 and 1 are first moved inside, counted, and take no gradient; nothing is NaN."""
    z = torch.tensor([0.0, 0.2, 0.6, 1.0, 0.0, 0.7, 0.9, 1.0], dtype=dtype, requires_grad=True)
    groups = {"g": [0, 0, 0, 0, 1, 1, 1, 1]}
    result = fl.project(z, [fl.DemographicParity("g", 0.01)], sensitive_features=groups, geometry=geometry)
    assert result.at_the_ends == 4
    assert "4 scores of 0 or 1 were first moved inside" in repr(result)
    assert result.certificate.holds
    assert ((result.value > 0) & (result.value < 1)).all()
    result.value.square().sum().backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()
    assert z.grad[[0, 3, 4, 7]].tolist() == [0.0] * 4
    assert (z.grad[[1, 2, 5, 6]] != 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_at_the_ends(dtype: torch.dtype) -> None:
    z = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5], [0.0, 0.4, 0.6], [0.6, 0.2, 0.2]], dtype=dtype)
    for geometry in ("entropic", "euclidean"):
        given = z.clone().requires_grad_()
        result = fl.project(
            given,
            [fl.DemographicParity("g", 0.01)],
            sensitive_features={"g": [0, 0, 1, 1]},
            geometry=geometry,
            bounds="simplex",
        )
        assert result.certificate.holds
        result.value.square().sum().backward()
        assert given.grad is not None
        assert torch.isfinite(given.grad).all()


@pytest.mark.parametrize("geometry", ["entropic", "likelihood"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits(geometry: str, dtype: torch.dtype) -> None:
    """Log-odds of +-50 are no ends: they move by the same shift, and their gradients are finite."""
    logits = torch.tensor([-50.0, -1.0, 0.5, 50.0, -50.0, 1.0, 2.0, 50.0, 3.0, 3.0], dtype=dtype, requires_grad=True)
    groups = {"g": [0, 0, 0, 0, 1, 1, 1, 1, 1, 0]}
    result = fl.project(
        logits, [fl.DemographicParity("g", 0.01)], sensitive_features=groups, geometry=geometry, from_logits=True
    )
    assert result.certificate.holds, result.certificate
    assert ((result.value > 0) & (result.value < 1)).all()
    result.value.square().sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("from_logits", [True, False])
def test_a_saturated_cell(from_logits: bool) -> None:
    """A whole cell at log-odds 40 must come down to the others, or the others go up: either way it is solved."""
    logits = torch.tensor([40.0, 40.0, 41.0, -1.0, 0.0, 1.0], dtype=torch.float64)
    given = (logits if from_logits else torch.sigmoid(logits)).requires_grad_()
    groups = {"g": [0, 0, 0, 1, 1, 1]}
    for geometry in ("entropic", "likelihood"):
        result = fl.project(
            given,
            [fl.DemographicParity("g", 0.1)],
            sensitive_features=groups,
            geometry=geometry,
            from_logits=from_logits,
        )
        means = result.value[:3].mean() - result.value[3:].mean()
        assert float(means.detach()) == pytest.approx(0.1, abs=1e-9)
        assert result.certificate.holds, result.certificate
        (gradient,) = torch.autograd.grad(result.value.square().sum(), given)
        assert torch.isfinite(gradient).all()
