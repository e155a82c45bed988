"""Time one training epoch: the bare network, with FairModel, and with fairness_training.

    python benchmarks/epoch.py [--quick] [--json out.json]

30,000 samples with 30 features (the first is a binary attribute), an MLP 30-64-32-1, batches of 256, Adam,
binary cross-entropy, float32. Batches of the three take turns, so that noise hits all alike.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from machine import describe, header, limit_threads
from timing import median
from torch import Tensor, nn

SAMPLES, FEATURES, BATCH = 30_000, 30, 256
BATCHES = SAMPLES // BATCH  # the last, short batch is dropped
TOLERANCE, MARGIN = 0.02, 1e-3
PLAIN, OURS, THEIRS = "plain network", "fairlayer.FairModel", "fairness_training.FairModel"


@dataclass(frozen=True)
class Data:
    """Features (n, 30) and labels (n, 1)."""

    x: Tensor
    y: Tensor

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return some rows."""
        return self.x[rows], self.y[rows]


def make_data(seed: int = 0) -> Data:
    """Draw features; the chance of a positive label depends on four of them, and on the group."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(SAMPLES, FEATURES, generator=generator)
    x[:, 0] = (torch.rand(SAMPLES, generator=generator) < 0.4).float()
    chance = torch.sigmoid(x[:, 1] - x[:, 2] + 0.5 * x[:, 3] * x[:, 4] + x[:, 0] - 0.5)
    return Data(x, (torch.rand(SAMPLES, generator=generator) < chance).float().unsqueeze(1))


def make_network() -> nn.Module:
    """Return the MLP, with the same initial weights each time."""
    torch.manual_seed(0)
    layers = [
        nn.Linear(FEATURES, 64),
        nn.ReLU(),
        nn.Linear(64, 32),
        nn.ReLU(),
        nn.Linear(32, 1),
        nn.Sigmoid(),
    ]
    return nn.Sequential(*layers)


def plain() -> nn.Module:
    """Return the network alone."""
    return make_network()


def ours() -> nn.Module:
    """Return the network in this package's FairModel."""
    import fairlayer as fl

    return fl.FairModel(make_network(), bounds=(0.0, 1.0), margin=MARGIN, protected_attr_idx=0, tolerance=TOLERANCE)


def theirs() -> nn.Module:
    """Return the network in fairness_training's FairModel."""
    from fairness_training import FairModel

    warnings.simplefilter("ignore")
    inner = (MARGIN, 1.0 - MARGIN)
    return FairModel.wrap(
        make_network(), 0, input_dim=FEATURES, fairness_tolerance=TOLERANCE, prediction_bounds=inner
    ).train()


class Trainer:
    """A model with its optimiser and the times of its batches."""

    def __init__(self, make: Callable[[], nn.Module], data: Data) -> None:
        self.model, self.data = make(), data
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.times: list[float] = []

    def train(self, rows: Tensor) -> None:
        """Take one step, timed in milliseconds."""
        start = time.perf_counter()
        x, y = self.data.batch(rows)
        scores = self.model(x)
        loss = nn.functional.binary_cross_entropy(scores, y.to(scores.dtype))  # cvxpylayers gives float64
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.times.append(1e3 * (time.perf_counter() - start))

    def gap(self) -> float:
        """Return the gap between mean scores on the first batch, without a further step."""
        x, _ = self.data.batch(torch.arange(BATCH))
        with torch.no_grad():
            scores, first = self.model(x).squeeze(1), x[:, 0] == 1
        return abs(float(scores[first].double().mean() - scores[~first].double().mean()))


def run_epochs(trainers: dict[str, Trainer], epochs: int, their_batches: int) -> None:
    """Train all in turns of ten batches; fairness_training for some batches of the first epoch only."""
    for epoch in range(epochs):
        order = torch.randperm(SAMPLES).split(BATCH)[:BATCHES]
        for start in range(0, BATCHES, 10):
            _progress(f"epoch {epoch + 1} of {epochs}, batch {start} of {BATCHES}")
            for name, trainer in trainers.items():
                some = order[start : start + 10]
                for rows in some if name != THEIRS else some[: their_batches - len(trainer.times)]:
                    trainer.train(rows)
    _progress("")


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="two epochs instead of ten")
    parser.add_argument("--epochs", type=int, help="epochs of the plain network and of fairlayer")
    parser.add_argument("--their-batches", type=int, default=30, help="batches of fairness_training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="write the numbers here too")
    options = parser.parse_args(argv)
    limit_threads(options.threads)
    torch.set_num_threads(options.threads)
    facts = describe(options.threads, ["fairlayer", "torch", "fairness_training", "cvxpylayers"])
    print(header(f"One epoch: {SAMPLES:,} x {FEATURES}, MLP 30-64-32-1, batch {BATCH}, float32", facts))
    records = measure(options.epochs or (2 if options.quick else 10), options.their_batches)
    print("\n" + table(records))
    if options.json:
        Path(options.json).write_text(json.dumps({**facts, "records": records}, indent=1) + "\n")
    return 0


def measure(epochs: int, their_batches: int) -> list[dict[str, Any]]:
    """Return one record for each model; skip fairness_training where it is not installed."""
    data, makers = make_data(), {PLAIN: plain, OURS: ours, THEIRS: theirs}
    trainers = {}
    for name, make in makers.items():
        try:
            trainers[name] = Trainer(make, data)
        except ImportError as error:
            print(f"skipped   {name}: {error}")
    for trainer in trainers.values():
        for _ in range(3):
            trainer.train(torch.arange(BATCH))
        trainer.times.clear()
    run_epochs(trainers, epochs, their_batches)
    return [_record(name, trainer) for name, trainer in trainers.items()]


def _record(name: str, trainer: Trainer) -> dict[str, Any]:
    per_batch = median(trainer.times)
    return {
        "model": name,
        "batches": len(trainer.times),
        "extrapolated": len(trainer.times) < BATCHES,
        "batch_ms": per_batch,
        "epoch_s": per_batch * BATCHES / 1e3,
        "gap": trainer.gap(),
    }


def table(records: Sequence[dict[str, Any]]) -> str:
    """Return the records as text; an epoch is the median batch times the number of batches."""
    base = records[0]["epoch_s"]
    head = f"{'model':<28} {'ms / batch':>10} {'s / epoch':>10} {'ratio':>8} {'batches':>8} {'gap':>10}"
    lines = [head, "-" * len(head)]
    for each in records:
        numbers = f"{each['batch_ms']:>10.3f} {each['epoch_s']:>10.3f} {each['epoch_s'] / base:>7.2f}x"
        note = "  extrapolated" if each["extrapolated"] else ""
        lines.append(f"{each['model']:<28} {numbers} {each['batches']:>8,} {each['gap']:>10.6f}{note}")
    lines += [
        "",
        f"s / epoch: median time of a batch, times {BATCHES} batches; extrapolated where fewer were run.",
        f"gap: between the groups' mean scores, on one batch after training; the tolerance is {TOLERANCE}.",
    ]
    return "\n".join(lines)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif ", batch 0 " in text:
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
