"""What an adversary tries to read, and the small network that tries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from fairlayer._typing import FloatArray
from fairlayer.adversarial.errors import AdversaryDefinitionError
from fairlayer.constraints import Batch
from fairlayer.groups import Groups
from fairlayer.tensor_state import read_tensor, to_tensor

__all__ = ["CategoryHead", "Head", "NumberHead", "Target", "network"]


@dataclass(frozen=True)
class Target:
    """One thing to read: the groups of a feature (or of an intersection), or its numbers.

    Args:
        on: names of the features; several mean their intersections.
        groups: names of the groups; empty for numbers.
    """

    on: tuple[str, ...]
    groups: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`sex`, or `sex & race`."""
        return " & ".join(self.on)

    def codes_or_membership(self, groups: Groups) -> Any:
        """Return codes (n,), -1 unknown, or soft membership (n, k)."""
        means = Batch(groups, groups.n).means(self.on)
        if means.codes is not None:
            return means.codes
        assert means.weights is not None
        return (means.weights * means.counts[:, None]).T

    def numbers(self, groups: Groups) -> FloatArray:
        """Return the numbers (n,), NaN unknown."""
        return groups.values(self.on[0])


def network(width: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """Return a ReLU network; linear where `hidden` is empty."""
    sizes = [width, *hidden]
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))


class CategoryHead(nn.Module):
    """Reads groups: cross entropy, over the samples whose group is known."""

    def __init__(self, target: Target, width: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.target = target
        self.network = network(width, hidden, len(target.groups))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (n, groups)."""
        logits: Tensor = self.network(features)
        return logits

    def loss(self, logits: Tensor, groups: Groups) -> Tensor:
        """Return the mean cross entropy; 0, with gradient 0, where no sample's group is known."""
        truth = torch.tensor(self.target.codes_or_membership(groups), device=logits.device)
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        if truth.ndim == 1:
            known = (truth >= 0).sum().clamp(min=1)
            return cross_entropy(logits, truth, ignore_index=-1, reduction="sum") / known
        share = truth.to(logits.dtype)
        return -(share * log_softmax(logits, dim=1)).sum() / share.sum().clamp(min=1e-12)


class NumberHead(nn.Module):
    """Reads numbers: squared error, in units of their variance, over the samples whose number is known."""

    def __init__(self, target: Target, width: int, hidden: Sequence[int], known: FloatArray) -> None:
        super().__init__()
        self.target = target
        self.network = network(width, hidden, 1)
        self.mean, self.deviation = _moments(target, known)

    def forward(self, features: Tensor) -> Tensor:
        """Return the standardised number (n,)."""
        guess: Tensor = self.network(features)
        return guess.squeeze(1)

    def loss(self, guess: Tensor, groups: Groups) -> Tensor:
        """Return the mean squared error; 0, with gradient 0, where no sample's number is known."""
        numbers = torch.tensor(self.target.numbers(groups), dtype=guess.dtype, device=guess.device)
        known = ~torch.isnan(numbers)
        truth = (torch.where(known, numbers, 0.0) - self.mean) / self.deviation
        squares = torch.where(known, (guess - truth) ** 2, 0.0)
        return squares.sum() / known.sum().clamp(min=1)

    def get_extra_state(self) -> Tensor:
        """Return mean and deviation as a tensor; see `fairlayer.tensor_state`."""
        return to_tensor("moments", {"mean": self.mean, "deviation": self.deviation})

    def set_extra_state(self, state: Tensor) -> None:
        """Restore mean and deviation.

        Raises:
            CheckpointError: it is no such tensor, or was changed; mean and deviation are as before.
        """
        self.mean, self.deviation = self._read_state(state)

    def _read_state(self, state: Tensor) -> tuple[float, float]:
        return read_tensor("moments", state, lambda saved: (float(saved["mean"]), float(saved["deviation"])))


Head = CategoryHead | NumberHead


def _moments(target: Target, numbers: FloatArray) -> tuple[float, float]:
    known = numbers[~np.isnan(numbers)]
    if len(known) == 0 or not np.isfinite(known).all() or np.ptp(known) == 0.0:
        raise AdversaryDefinitionError(
            f"the continuous feature '{target.name}' must hold at least two distinct finite numbers for an adversary "
            f"to read, but holds {known[:3].tolist()} ({len(known)} known). Give the column of the training data."
        )
    return float(known.mean()), float(known.std())
