"""The protocol: one network, one optimiser, 150 steps; only the loss differs between methods."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from frontier_data import Array, Part
from torch import Tensor, nn


@dataclass(frozen=True)
class Protocol:
    """What all networks share."""

    widths: tuple[int, ...] = (512, 256, 64)
    dropout: float = 0.5
    rate: float = 1e-2
    steps: int = 150
    decay_every: int = 50
    decay: float = 0.1
    batch: int = 1024


@dataclass(frozen=True)
class Step:
    """What a loss may look at: the batch, the network's logits (n,), and how far the training is (0 to 1)."""

    logits: Tensor
    batch: Part
    progress: float


Loss = Callable[[Step], Tensor]


def make_network(width: int, protocol: Protocol) -> nn.Sequential:
    """Return the MLP; its output is one logit, (n, 1)."""
    layers: list[nn.Module] = []
    for wide in protocol.widths:
        layers += [nn.Linear(width, wide), nn.ReLU(), nn.Dropout(protocol.dropout)]
        width = wide
    return nn.Sequential(*layers, nn.Linear(width, 1))


def train(
    part: Part,
    loss: Loss,
    seed: int,
    protocol: Protocol,
    *,
    network: nn.Module | None = None,
    helpers: tuple[nn.Module, ...] = (),
) -> tuple[nn.Module, float]:
    """Return the trained network, in evaluation mode, and the CPU seconds that the steps took.

    Args:
        network: to be trained; by default a fresh one of this seed.
        helpers: modules that the loss trains along (an adversary).
    """
    torch.manual_seed(seed)
    network = network or make_network(part.x.shape[1], protocol)
    parameters = [p for module in (network, *helpers) for p in module.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=protocol.rate)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, protocol.decay_every, protocol.decay)
    start = time.process_time()
    network.train()
    for number, rows in enumerate(_batches(len(part), seed, protocol)):
        batch = Part(part.x[rows], part.y[rows], part.group[rows])
        value = loss(Step(network(batch.x).squeeze(1), batch, number / protocol.steps))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()
    return network.eval(), time.process_time() - start


def _batches(n: int, seed: int, protocol: Protocol) -> Iterator[Tensor]:
    """Yield the rows of each step: reshuffled when used up, the short tail left out."""
    generator = torch.Generator().manual_seed(seed)
    done = 0
    while done < protocol.steps:
        order = torch.randperm(n, generator=generator)
        whole = order[: max(1, n // protocol.batch) * protocol.batch].split(protocol.batch)
        yield from whole[: protocol.steps - done]
        done += len(whole)


@torch.no_grad()
def logits_of(network: nn.Module, part: Part) -> Array:
    """Return the logits (n,) in evaluation mode, float64."""
    return np.asarray(network(part.x).squeeze(1).double().numpy())


def cross_entropy(step: Step) -> Tensor:
    """Return the loss of plain training."""
    return nn.functional.binary_cross_entropy_with_logits(step.logits, step.batch.y)
