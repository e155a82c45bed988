"""What the benchmark of the geometries trains: the rows, the network, every way, and its numbers on test rows."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, mse_loss

import fairlayer as fl
from fairlayer.data import Encoder
from fairlayer.data.readers import READERS

GROUPS = {"adult": "sex", "acsincome": "SEX", "bank": "age_group"}
TOLERANCE, HIDDEN, BATCH, CHECK_EVERY = 0.02, 64, 1024, 10
RATE, WARM_RATE = 3e-3, 1e-3  # of Adam, from scratch and after a warm start
TRAIN_SHARE, VALID_SHARE = 0.5, 0.2  # the rest is the test part
INSIDE = 1e-4  # how far a log loss, in training and on test rows, stays away from 0 and 1
BINS = 15
Array = NDArray[Any]
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Part:
    """Inputs (n, d), labels (n,) and group (n,), 0 or 1 each."""

    x: Tensor
    y: Tensor
    group: Tensor


@dataclass(frozen=True)
class Parts:
    """Training, validation and test rows of one seed."""

    train: Part
    valid: Part
    test: Part


@dataclass(frozen=True)
class Way:
    """How logits become predictions, and the loss that is taken of them; `geometry` None projects nothing."""

    geometry: str | None
    loss: Loss

    def predictions(self, logits: Tensor, group: Tensor, *, margin: float = 0.0) -> Tensor:
        """Return the predictions of one batch, its group known; the margin is the euclidean geometry's."""
        if self.geometry is None:
            return torch.sigmoid(logits)
        euclidean = self.geometry == "euclidean"
        scores = torch.sigmoid(logits) if euclidean else logits
        result = fl.project(
            scores,
            [fl.DemographicParity("group", TOLERANCE)],
            sensitive_features={"group": group},
            geometry=self.geometry,
            from_logits=not euclidean,
            bounds=(0.0, 1.0),
            margin=margin if euclidean else 0.0,
        )
        return result.value


def cross_entropy(predictions: Tensor, labels: Tensor) -> Tensor:
    """Return the log loss, of predictions that stay away from 0 and 1."""
    return binary_cross_entropy(predictions.clamp(INSIDE, 1.0 - INSIDE), labels)


TRAINED: dict[str, tuple[Way, bool]] = {  # name -> (way, whether it starts from the plain network)
    "through euclidean, cross-entropy": (Way("euclidean", cross_entropy), False),
    "through euclidean, squared error": (Way("euclidean", mse_loss), False),
    "through euclidean, squared error, warm": (Way("euclidean", mse_loss), True),
    "through entropic, cross-entropy, warm": (Way("entropic", cross_entropy), True),
    "through likelihood, cross-entropy, warm": (Way("likelihood", cross_entropy), True),
}


def split(name: str, seed: int, folder: Path | None, *, group_known: bool) -> Parts:
    """Split all rows 50/20/30; the encoder learns from the training rows only."""
    data = READERS[name](folder)
    order = np.random.default_rng(seed).permutation(len(data.frame))
    rows = np.split(order, [int(TRAIN_SHARE * len(order)), int((TRAIN_SHARE + VALID_SHARE) * len(order))])
    names = data.features(drop_sensitive=not group_known)
    categorical = [column for column in data.categorical if column in names]
    encoder = Encoder.fit(data.frame.iloc[rows[0]], names, categorical=categorical)
    x, y = encoder.encode(data.frame), data.labels()
    group = np.unique(data.sensitive_features([GROUPS[name]])[GROUPS[name]], return_inverse=True)[1]
    if group_known:
        x = np.column_stack([x, group.astype(np.float32)])
    return Parts(*(Part(torch.from_numpy(x[at]), torch.from_numpy(y[at]), torch.from_numpy(group[at])) for at in rows))


def all_ways(parts: Parts, seed: int, steps: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the name and the test numbers of every way; time is CPU time, a warm start's includes the plain network."""
    torch.manual_seed(seed)
    start = nn.Sequential(nn.Linear(parts.train.x.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1), nn.Flatten(0))
    plain, plain_time = fit(start, Way(None, cross_entropy), parts, seed, steps)
    yield "plain", numbers(plain, Way(None, cross_entropy), parts.test, plain_time)
    for geometry in ("euclidean", "entropic", "likelihood"):
        way = Way(geometry, cross_entropy)
        yield f"plain + {geometry}, post hoc", numbers(plain, way, parts.test, plain_time)
    for name, (way, warm) in TRAINED.items():
        if warm:
            trained, seconds = fit(plain, way, parts, seed + 1000, steps, rate=WARM_RATE)
            yield name, numbers(trained, way, parts.test, plain_time + seconds)
        else:
            trained, seconds = fit(start, way, parts, seed, steps)
            yield name, numbers(trained, way, parts.test, seconds)


def fit(
    network: nn.Module, way: Way, parts: Parts, seed: int, steps: int, *, rate: float = RATE
) -> tuple[nn.Module, float]:
    """Return the copy of the network that was best on the validation rows, projected as one batch, and the CPU time.

    They are asked every 10 steps; the network as it was given competes, too.
    """
    began = time.process_time()
    network = copy.deepcopy(network)
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    best, least = copy.deepcopy(network), loss_on(network, way, parts.valid)
    for number, rows in enumerate(batches(len(parts.train.y), seed, steps), 1):
        x, y, group = parts.train.x[rows], parts.train.y[rows], parts.train.group[rows]
        loss = way.loss(way.predictions(network(x), group, margin=INSIDE), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if number % CHECK_EVERY == 0 and (now := loss_on(network, way, parts.valid)) < least:
            best, least = copy.deepcopy(network), now
    return best, time.process_time() - began


def batches(n: int, seed: int, steps: int) -> Iterator[Tensor]:
    """Yield the rows of each step, reshuffled when used up, the short tail left out."""
    generator, done = torch.Generator().manual_seed(seed), 0
    while done < steps:
        order = torch.randperm(n, generator=generator)
        whole = order[: n // BATCH * BATCH].split(BATCH)[: steps - done]
        yield from whole
        done += len(whole)


@torch.no_grad()
def loss_on(network: nn.Module, way: Way, part: Part) -> float:
    """Return the loss of all rows of a part, projected as one batch."""
    return float(way.loss(way.predictions(network(part.x), part.group), part.y))


@torch.no_grad()
def numbers(network: nn.Module, way: Way, part: Part, seconds: float) -> dict[str, float]:
    """Return the columns of the table for the rows of a part, projected as one batch with known groups."""
    began = time.process_time()
    emitted = way.predictions(network(part.x), part.group)
    seconds += time.process_time() - began
    scores, labels, group = emitted.double().numpy(), part.y.double().numpy(), part.group.numpy()
    inside = np.clip(scores, INSIDE, 1.0 - INSIDE)
    members = [group == g for g in (0, 1)]
    decided = (scores >= 0.5).astype(float)
    return {
        "accuracy": 100.0 * float((decided == labels).mean()),
        "auc": 100.0 * float(roc_auc_score(labels, scores)),
        "auc_within": 100.0 * float(np.mean([roc_auc_score(labels[m], scores[m]) for m in members])),
        "brier": float(((scores - labels) ** 2).mean()),
        "log_loss": float(-(labels * np.log(inside) + (1.0 - labels) * np.log1p(-inside)).mean()),
        "calibration": 100.0 * calibration_error(scores, labels),
        "score_gap": 100.0 * abs(float(scores[members[0]].mean() - scores[members[1]].mean())),
        "decision_gap": 100.0 * abs(float(decided[members[0]].mean() - decided[members[1]].mean())),
        "at_the_ends": 100.0 * float(((scores == 0.0) | (scores == 1.0)).mean()),
        "seconds": seconds,
    }


def calibration_error(scores: Array, labels: Array) -> float:
    """Return sum_b share_b |mean label - mean score| over bins of equal width."""
    at = np.minimum((scores * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(at, weights=labels - scores, minlength=BINS)).sum() / len(scores))
