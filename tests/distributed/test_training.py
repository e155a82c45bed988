"""Training over processes is training in one: the same parameters after three steps, under DDP and FSDP."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import fairlayer as fl
from tests.distributed.conftest import FoundBy
from tests.distributed.processes import Found

N, STEPS = 60, 3
ENDS = {2: {"uneven": [17], "empty": [0]}, 4: {"uneven and empty": [20, 20, 41]}}


def data() -> tuple[Tensor, Tensor, np.ndarray]:
    rng = np.random.default_rng(3)
    sex = np.sort(rng.integers(0, 3, N))  # sorted: most processes lack a group
    x = rng.normal(size=(N, 4)) + 0.5 * sex[:, None]
    y = (rng.random(N) < 1 / (1 + np.exp(-x.sum(axis=1)))).astype(float)
    return torch.tensor(x), torch.tensor(y), np.array(["F", "M", "X"])[sex]


def backbone() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1), nn.Sigmoid(), nn.Flatten(0)).double()


def new_model(net: nn.Module, **more: Any) -> fl.FairModel:
    constraints = [fl.EqualizedOdds("sex", tolerance=0.01), fl.DemographicParity("sex", tolerance=0.0)]
    return fl.FairModel(net, constraints, bounds=(0.0, 1.0), margin=1e-3, **more)


def train(model: Callable[..., Tensor], parameters: Any, share: slice, processes: int) -> None:
    """Three steps on the mean log loss over all samples; DDP averages the gradients, hence the factor."""
    x, y, sex = data()
    optimiser = torch.optim.SGD(parameters, lr=0.5)
    for _ in range(STEPS):
        optimiser.zero_grad()
        p = model(x[share], sensitive_features={"sex": sex[share]}, y=y[share])
        losses = nn.functional.binary_cross_entropy(p, y[share], reduction="sum")
        (losses * processes / N).backward()
        optimiser.step()


def weights(module: nn.Module) -> list[np.ndarray]:
    """Parameters as arrays, gathered where they are sharded."""
    full = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in module.parameters()]
    return [p.detach().numpy().copy() for p in full]


def ddp_around_the_model(share: slice, processes: int) -> list[np.ndarray]:
    model = nn.parallel.DistributedDataParallel(new_model(backbone(), process_group="world"))
    train(model, model.parameters(), share, processes)
    return weights(model)


def ddp_around_the_backbone(share: slice, processes: int) -> list[np.ndarray]:
    net = nn.parallel.DistributedDataParallel(backbone())
    train(new_model(net, process_group=dist.new_group()), net.parameters(), share, processes)
    return weights(net)


def fully_sharded(share: slice, processes: int) -> list[np.ndarray]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    net = backbone()
    mesh = init_device_mesh("cpu", (processes,))
    for layer in (net[0], net[2]):
        fully_shard(layer, mesh=mesh)
    fully_shard(net, mesh=mesh)
    model = new_model(net, process_group="world")
    train(model, net.parameters(), share, processes)
    return weights(net)


WRAPPERS = {f.__name__: f for f in (ddp_around_the_model, ddp_around_the_backbone, fully_sharded)}


def share_of(rank: int, processes: int, cut: str) -> slice:
    ends = [0, *ENDS[processes][cut], N]
    return slice(ends[rank], ends[rank + 1])


def three_steps(wrapper: str, cut: str, rank: int, processes: int) -> Found:
    return {"weights": WRAPPERS[wrapper](share_of(rank, processes, cut), processes)}


CASES = {p: [(wrapper, cut) for wrapper in WRAPPERS for cut in cuts] for p, cuts in ENDS.items()}


JOBS = {p: {repr(case): partial(three_steps, *case) for case in cases} for p, cases in CASES.items()}


@pytest.fixture(scope="module")
def alone() -> list[np.ndarray]:
    """The parameters of one process after three steps."""
    net = backbone()
    train(new_model(net), net.parameters(), slice(None), 1)
    return weights(net)


@pytest.mark.parametrize(("processes", "case"), [(p, case) for p, cases in CASES.items() for case in cases], ids=str)
def test_three_steps_give_the_same_parameters(
    processes: int, case: Any, found_by: FoundBy, alone: list[np.ndarray]
) -> None:
    for share in found_by(__name__, processes):
        for mine, theirs in zip(share[repr(case)]["weights"], alone, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-9)


def test_the_steps_moved_the_parameters_and_the_constraints_bound(alone: list[np.ndarray]) -> None:
    for after, before in zip(alone, weights(backbone()), strict=True):
        assert np.abs(after - before).max() > 1e-3
    net = backbone()
    model = new_model(net)
    x, y, sex = data()
    model(x, sensitive_features={"sex": sex}, y=y)
    assert model.last_projection is not None
    assert model.last_projection.status == "projected"
