"""What FairnessCallback costs: epochs with and without it, in turn, in one process.

    python benchmarks/lightning_callback.py --epochs 20

Prints the median CPU time of an epoch (training and validation) without and with the callback, and the median of the
ratios of neighbouring epochs, for a module that knows nothing of fairlayer and for one that wraps a FairModel.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings
from itertools import pairwise
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from machine import describe, header
from torch import Tensor, nn
from torch.utils.data import DataLoader

import fairlayer as fl
from fairlayer.integrations.lightning import FairnessCallback

FEATURES, BATCH = 64, 1024


class Module(LightningModule):
    """An MLP 64-512-256-64-1, with or without a layer after it."""

    def __init__(self, layered: bool) -> None:
        super().__init__()
        sizes = (FEATURES, 512, 256, 64)
        hidden = [each for a, b in pairwise(sizes) for each in (nn.Linear(a, b), nn.ReLU())]
        net = nn.Sequential(*hidden, nn.Linear(64, 1), nn.Flatten(0), nn.Sigmoid())
        parity = [fl.DemographicParity("sex", 0.02)]
        self.net: Any = fl.FairModel(net, parity, bounds=(0.0, 1.0), margin=1e-4) if layered else net
        self.layered = layered

    def forward(self, x: Tensor, sex: Tensor) -> Tensor:
        return self.net(x, sensitive_features={"sex": sex}) if self.layered else self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.binary_cross_entropy(self(batch[0], batch[2]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", nn.functional.binary_cross_entropy(self(batch[0], batch[2]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-3)


class Stopwatch(Callback):
    """CPU seconds of each epoch, validation included; wall-clock time would count what else runs on the machine."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = time.process_time()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds.append(time.process_time() - self.started)


def batches(rows: int) -> DataLoader[Any]:
    random = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, FEATURES, generator=random)
    sex = (torch.rand(rows, generator=random) < 0.4).long()
    y = (x[:, 0] + sex > 0.5).float()
    parts = [(a, b, c) for a, b, c in zip(x.split(BATCH), y.split(BATCH), sex.split(BATCH), strict=True)]
    return DataLoader(parts, batch_size=None)  # type: ignore[arg-type]


def epoch(layered: bool, callback: bool, train: DataLoader[Any], valid: DataLoader[Any]) -> float:
    """Seconds of the second epoch of a fresh fit."""
    torch.manual_seed(0)
    watch = Stopwatch()
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[watch, *([FairnessCallback("sex")] if callback else [])],
    )
    trainer.fit(Module(layered), train, valid)
    return watch.seconds[1]


def measure(layered: bool, epochs: int, train: DataLoader[Any], valid: DataLoader[Any]) -> tuple[float, float, float]:
    """Median seconds without and with, and the median ratio of pairs; the order within a pair alternates."""
    without, with_ = [], []
    for k in range(epochs):
        for callback in (False, True) if k % 2 else (True, False):
            (with_ if callback else without).append(epoch(layered, callback, train, valid))
    ratios = [b / a for a, b in zip(without, with_, strict=True)]
    return statistics.median(without), statistics.median(with_), statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20, help="pairs of epochs")
    parser.add_argument("--train-rows", type=int, default=32 * BATCH)
    parser.add_argument("--valid-rows", type=int, default=8 * BATCH)
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    train, valid = batches(arguments.train_rows), batches(arguments.valid_rows)
    title = (
        f"FairnessCallback: MLP 64-512-256-64-1, batch {BATCH}, {arguments.train_rows} training and "
        f"{arguments.valid_rows} validation rows, {arguments.epochs} pairs of epochs"
    )
    print(header(title, describe(1, ["fairlayer", "torch", "lightning"])))
    print(f"{'module':<16}{'without':>12}{'with':>12}{'ratio':>9}")
    for name, layered in (("plain", False), ("FairModel", True)):
        a, b, ratio = measure(layered, arguments.epochs, train, valid)
        print(f"{name:<16}{1e3 * a:>10.1f}ms{1e3 * b:>10.1f}ms{ratio:>9.3f}")


if __name__ == "__main__":
    main()
