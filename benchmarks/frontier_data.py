"""Training, validation and test rows of the frontier benchmark; sex is never among the inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairlayer.data import Encoder
from fairlayer.data.readers import read_adult

TRAIN_SHARE, VALID_SHARE = 0.4, 0.3  # the rest is the test part
SENSITIVE = "sex"
Array = NDArray[Any]


@dataclass(frozen=True)
class Part:
    """Inputs (n, d) without the group, labels (n,) and group (n,), 0 or 1 each."""

    x: Tensor
    y: Tensor
    group: Tensor

    def __len__(self) -> int:
        return len(self.x)

    @property
    def features(self) -> dict[str, Tensor]:
        """The sensitive features, as fairlayer takes them."""
        return {SENSITIVE: self.group}

    @property
    def labels(self) -> Array:
        """The labels as 0 / 1 integers."""
        return self.y.numpy().astype(np.int64)

    @property
    def groups(self) -> Array:
        """The groups as integers."""
        return self.group.numpy()


@dataclass(frozen=True)
class Splits:
    """The three parts of one seed."""

    train: Part
    valid: Part
    test: Part


def adult(seed: int, folder: Path | None) -> Splits:
    """Split all 48,842 rows of Adult 40/30/30; the encoder learns from the training rows only."""
    table = read_adult(folder)
    labels, group = table.labels(), table.frame[SENSITIVE].to_numpy() == "Male"
    rows = _three(len(labels), seed)
    encoder = Encoder.fit(table.frame.iloc[rows[0]], [n for n in table.features() if n != SENSITIVE])
    x = encoder.encode(table.frame)
    return Splits(*(_part(x[at], labels[at], group[at]) for at in rows))


def synthetic(seed: int, n: int = 3000) -> Splits:
    """A small population whose inputs give the group away, for smoke tests."""
    random = np.random.default_rng(seed)
    group = random.random(n) < 0.6
    x = random.normal(size=(n, 8))
    x[:, 0] += 1.5 * group
    chance = 1.0 / (1.0 + np.exp(-(x[:, 1] - x[:, 2] + 0.8 * x[:, 0] - 1.5)))
    labels = random.random(n) < chance
    return Splits(*(_part(x[at], labels[at], group[at]) for at in _three(n, seed)))


def _three(n: int, seed: int) -> list[NDArray[np.int64]]:
    order = np.random.default_rng(seed).permutation(n)
    return np.split(order, [int(TRAIN_SHARE * n), int((TRAIN_SHARE + VALID_SHARE) * n)])


def _part(x: Array, y: Array, group: Array) -> Part:
    return Part(
        torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)),
        torch.from_numpy(np.asarray(y, dtype=np.float32)),
        torch.from_numpy(np.asarray(group, dtype=np.int64)),
    )
