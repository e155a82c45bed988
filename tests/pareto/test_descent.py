"""Descent on several losses at once: no loss rises, and a penalty beside the loss is a case of it."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

import fairlayer as fl
from fairlayer import errors
from fairlayer.pareto import descend
from fairlayer.penalties import Penalty

pytest.importorskip("torchjd")
HAS_QUADPROG = all(importlib.util.find_spec(name) for name in ("quadprog", "qpsolvers"))
NO_RISE = ["mgda", pytest.param("upgrad", marks=pytest.mark.skipif(not HAS_QUADPROG, reason="needs quadprog"))]


def gradients(losses: list[torch.Tensor], parameters: list[torch.Tensor]) -> np.ndarray:
    rows = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
    return torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows]).double().numpy()


def problem(seed: int) -> tuple[nn.Module, list[torch.Tensor]]:
    """A network, its loss and a penalty on its gap, which pull in different directions."""
    torch.manual_seed(seed)
    x, sex = torch.randn(80, 3), torch.arange(80) % 2
    y = ((x[:, 0] + 1.5 * sex + 0.3 * torch.randn(80)) > 0.7).float()
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1), nn.Sigmoid(), nn.Flatten(0))
    scores = net(torch.cat([x, sex[:, None]], dim=1))
    penalty = Penalty(fl.DemographicParity("sex", tolerance=0.0))
    return net, [nn.functional.binary_cross_entropy(scores, y), penalty(scores, sensitive_features={"sex": sex})]


@pytest.mark.parametrize("aggregator", NO_RISE)
@pytest.mark.parametrize("seed", range(5))
def test_to_first_order_no_loss_rises(seed: int, aggregator: str) -> None:
    net, losses = problem(seed)
    parameters = list(net.parameters())
    J = gradients(losses, parameters)
    descend(losses, parameters, aggregator=aggregator)
    step = torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None]).double().numpy()
    slopes = J @ step
    # relative to the largest gradient, by which torchjd scales its regularisation
    assert (slopes >= -5e-3 * np.linalg.norm(step) * np.linalg.norm(J, axis=1).max()).all()
    assert np.linalg.norm(step) > 0


@pytest.mark.parametrize("seed", range(5))
def test_mgda_is_the_shortest_vector_between_two_gradients(seed: int) -> None:
    """Of g1 + a (g2 - g1), 0 <= a <= 1, by its closed form."""
    net, losses = problem(seed)
    parameters = list(net.parameters())
    first, second = gradients(losses, parameters)
    a = np.clip(first @ (first - second) / ((first - second) @ (first - second)), 0.0, 1.0)
    shortest = (1 - a) * first + a * second
    descend(losses, parameters, aggregator="mgda")
    step = torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None]).double().numpy()
    np.testing.assert_allclose(step, shortest, atol=2e-3 * max(np.linalg.norm(first), np.linalg.norm(second)))


def test_mean_is_the_gradient_of_the_mean_loss() -> None:
    net, losses = problem(0)
    parameters = list(net.parameters())
    expected = torch.autograd.grad((losses[0] + losses[1]) / 2, parameters, retain_graph=True)
    descend(losses, [*parameters, torch.ones(2)], aggregator="mean")  # what needs no gradient takes no part
    for parameter, grad in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, grad)


def test_both_losses_fall_over_the_steps() -> None:
    torch.manual_seed(0)
    x, sex = torch.randn(200, 3), torch.arange(200) % 2
    x = torch.cat([x, sex[:, None]], dim=1)
    y = ((x[:, 0] + 1.5 * sex) > 0.7).float()
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1), nn.Sigmoid(), nn.Flatten(0))
    with torch.no_grad():
        net[2].weight[:] = torch.randn(1, 8)  # a gap to begin with
    penalty = Penalty(fl.DemographicParity("sex", tolerance=0.0))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05)
    seen = []
    for _ in range(40):
        scores = net(x)
        losses = [nn.functional.binary_cross_entropy(scores, y), penalty(scores, sensitive_features={"sex": sex})]
        seen.append([loss.item() for loss in losses])
        optimiser.zero_grad()
        descend(losses, net.parameters(), aggregator="mgda")
        optimiser.step()
    rises = np.diff(np.array(seen), axis=0)
    assert (rises <= 1e-4).all()
    assert seen[-1][0] < seen[0][0]
    assert seen[-1][1] < seen[0][1]


def test_through_the_layer() -> None:
    """The projection is differentiated once for each loss."""
    torch.manual_seed(0)
    x, sex = torch.randn(60, 3), torch.arange(60) % 2
    net = nn.Sequential(nn.Linear(3, 1), nn.Sigmoid(), nn.Flatten(0))
    model = fl.FairModel(net, [fl.DemographicParity("sex", 0.01)], bounds=(0.0, 1.0), margin=1e-3)
    scores = model(x, sensitive_features={"sex": sex})
    descend([scores.mean(), (scores - 0.3).square().mean()], model.parameters())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_bad_losses_and_missing_solvers_are_named() -> None:
    x = torch.ones(2, requires_grad=True)
    with pytest.raises(errors.ShapeError, match=r"two or more scalar losses, but got \[\(2,\), \(\)\]"):
        descend([x, x.sum()], [x])
    with pytest.raises(errors.ShapeError, match="two or more"):
        descend([x.sum()], [x])
    with pytest.raises(errors.ParameterError, match="aggregator must be one of 'mgda', 'upgrad', 'mean'"):
        descend([x.sum(), x.prod()], [x], aggregator="sum")
    if not HAS_QUADPROG:
        with pytest.raises(errors.MissingExtraError, match="quadprog"):
            descend([x.sum(), x.prod()], [x], aggregator="upgrad")
    assert x.grad is None
