"""A model keeps its promises in the modes that torch offers around a call, in each geometry of the box."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, vmap
from torch.utils.checkpoint import checkpoint

import fairlayer as fl

GEOMETRIES: dict[str, dict[str, Any]] = {
    "box": {"bounds": (0.0, 1.0)},
    "entropic": {"geometry": "entropic"},
    "likelihood": {"geometry": "likelihood"},
    "logits": {"geometry": "entropic", "from_logits": True},
    "likelihood of logits": {"geometry": "likelihood", "from_logits": True},
}
IN = pytest.mark.parametrize("options", GEOMETRIES.values(), ids=GEOMETRIES)
N = 60
CODES = torch.arange(N) % 3
Step = Callable[[fl.FairModel, torch.optim.Optimizer], torch.Tensor]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(N, 5, generator=random)
    x[:, 0] += CODES
    return x, torch.rand(N, 1, generator=random), torch.rand(N, generator=random) + 0.5


def model_of(options: dict[str, Any]) -> fl.FairModel:
    torch.manual_seed(0)
    last = [] if options.get("from_logits") else [nn.Sigmoid()]
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1), *last)
    model = fl.FairModel(net, [fl.DemographicParity("g", 0.01)], **options)
    model.projection.fit_categories({"g": [0, 1, 2]})
    return model


def call(model: Any, x: torch.Tensor, **more: Any) -> torch.Tensor:
    value: torch.Tensor = model(x, sensitive_features={"g": CODES}, **more)
    return value


def loss_of(value: torch.Tensor) -> torch.Tensor:
    return (value - inputs()[1]).square().mean()


def gradients(model: fl.FairModel) -> list[torch.Tensor]:
    found = [parameter.grad for parameter in model.parameters()]
    assert all(each is not None for each in found)
    return [each.clone() for each in found if each is not None]


def expected(model: fl.FairModel) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The value and the gradients without any mode around the call."""
    model.zero_grad()
    value = call(model, inputs()[0])
    loss_of(value).backward()
    found = gradients(model)
    model.zero_grad()
    return value.detach(), found


def assert_same(model: fl.FairModel, value: torch.Tensor, plain: tuple[torch.Tensor, list[torch.Tensor]]) -> None:
    torch.testing.assert_close(value.detach(), plain[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(gradients(model), plain[1], atol=1e-6, rtol=1e-5)


@IN
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing(options: dict[str, Any], reentrant: bool) -> None:
    model = model_of(options)
    plain = expected(model)
    for _ in range(3):  # the first calls of a layer look at the batch more closely than the next ones
        model.zero_grad()
        x = inputs()[0].requires_grad_()
        value = checkpoint(lambda given: call(model, given), x, use_reentrant=reentrant)
        loss_of(value).backward()
        assert_same(model, value, plain)


@IN
def test_deterministic_and_inference_mode(options: dict[str, Any]) -> None:
    model = model_of(options)
    plain = expected(model)
    torch.use_deterministic_algorithms(True)
    try:
        value = call(model, inputs()[0])
        loss_of(value).backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same(model, value, plain)
    with torch.inference_mode():
        torch.testing.assert_close(call(model, inputs()[0]), plain[0], atol=1e-6, rtol=0)


@IN
def test_autocast(options: dict[str, Any]) -> None:
    model = model_of(options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = call(model, inputs()[0])
    assert value.dtype == torch.float32
    assert model.last_projection.certificate.holds
    loss_of(value).backward()
    assert all(each.isfinite().all() for each in gradients(model))


@IN
def test_functional_calls_and_transforms(options: dict[str, Any]) -> None:
    model = model_of(options)
    plain = expected(model)
    x = inputs()[0]

    def loss(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        return loss_of(functional_call(model, parameters, (x,), {"sensitive_features": {"g": CODES}}))

    found = grad(loss)(dict(model.named_parameters()))
    torch.testing.assert_close(list(found.values()), plain[1], atol=1e-6, rtol=1e-5)

    layer = model.projection
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)
    z = z if options.get("from_logits") else torch.sigmoid(z)

    def made_inside(scores: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = layer(scores, sensitive_features={"g": torch.arange(9) // 3})
        return value

    def total(scores: torch.Tensor) -> torch.Tensor:
        return made_inside(scores).square().sum()

    torch.testing.assert_close(jacrev(made_inside)(z), jacfwd(made_inside)(z), atol=1e-10, rtol=0)
    second = hessian(total)(z)
    torch.testing.assert_close(second, second.T, atol=1e-10, rtol=0)
    both = torch.stack([z, z.flip(0)])
    torch.testing.assert_close(vmap(grad(total))(both), torch.stack([grad(total)(each) for each in both]))


@IN
def test_compiled_with_weights_and_autocast(options: dict[str, Any]) -> None:
    model = model_of(options)
    plain = expected(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    x, _, weights = inputs()
    value = call(compiled, x)
    loss_of(value).backward()
    assert_same(model, value, plain)
    torch.testing.assert_close(call(compiled, x, sample_weight=weights), call(model, x, sample_weight=weights))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(call(compiled, x), call(model, x), atol=1e-6, rtol=0)


@IN
def test_a_whole_training_step_is_compiled(options: dict[str, Any]) -> None:
    x = inputs()[0]

    def step(model: fl.FairModel, optimiser: torch.optim.Optimizer) -> torch.Tensor:
        optimiser.zero_grad()
        loss = loss_of(call(model, x))
        loss.backward()
        optimiser.step()
        return loss

    ways: list[Step] = [step, torch.compile(step, backend="aot_eager")]
    models = [model_of(options) for _ in ways]
    for way, model in zip(ways, models, strict=True):
        optimiser = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(3):
            way(model, optimiser)
    torch.testing.assert_close(*(list(model.parameters()) for model in models), atol=1e-6, rtol=1e-5)
