"""What a fit keeps: a journal of its epochs, the best weights, the random numbers."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

__all__ = ["BestWeights", "EpochLog", "RandomNumbers"]

Entry = dict[str, float]


class EpochLog(Callback):
    """One entry per epoch: the losses, and means over validation batches of what `read` reads; kept in checkpoints.

    Args:
        read: function of (module, batch) -> numbers, called after each validation step.
        on_entry: a function that is told of each entry.

    Example:
        >>> log = EpochLog(lambda module, batch: {"mean": float(batch[0].mean())})
        >>> log.entries
        []
    """

    def __init__(
        self,
        read: Callable[[nn.Module, Any], Mapping[str, float]],
        on_entry: Callable[[Entry], None] | None = None,
    ) -> None:
        self.entries: list[Entry] = []
        self._read, self._on_entry = read, on_entry
        self._found: list[Mapping[str, float]] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._found = []

    def on_validation_batch_end(  # noqa: PLR0917 - Lightning's signature
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Read the batch."""
        self._found.append(self._read(pl_module, batch))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the entry."""
        losses = {key: float(trainer.callback_metrics[key]) for key in ("train/loss", "val/loss")}
        self.entries.append({"epoch": float(trainer.current_epoch + 1), **losses, **_means(self._found)})
        if self._on_entry is not None:
            self._on_entry(self.entries[-1])

    def state_dict(self) -> dict[str, Any]:
        """Return the entries."""
        return {"entries": self.entries}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self.entries = list(state_dict["entries"])


def _means(parts: Sequence[Mapping[str, float]]) -> Entry:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: float(np.mean([part[name] for part in parts if name in part])) for name in names}


class BestWeights(Callback):
    """Stop after `patience` epochs without a lower validation loss, and leave the weights of the best epoch.

    Unlike a checkpoint of the best epoch they need no folder; in checkpoints they travel along, so that a resumed fit
    stops where the uninterrupted one would have stopped.

    Args:
        patience: epochs without a lower loss after which training stops.
        start_competes: whether the weights before the first epoch are kept too, as epoch 0, where no epoch is better.
            The trainer then needs `num_sanity_val_steps=-1`, which measures them.

    Example:
        >>> BestWeights(patience=3, start_competes=True).weights is None
        False
    """

    def __init__(self, patience: int, *, start_competes: bool = False) -> None:
        self.patience, self.start_competes = patience, start_competes
        self.epoch, self.loss = 0, float("inf")
        self.weights: dict[str, Any] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights before the first epoch, where they compete."""
        if trainer.sanity_checking and self.start_competes and not self.weights:
            self.loss = float(trainer.callback_metrics["val/loss"])
            self.weights = copy.deepcopy(pl_module.state_dict())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once a fit that had stopped already."""
        trainer.should_stop = trainer.should_stop or trainer.current_epoch - self.epoch >= self.patience

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights if they are better."""
        epoch, loss = trainer.current_epoch + 1, float(trainer.callback_metrics["val/loss"])
        if loss < self.loss:
            self.epoch, self.loss, self.weights = epoch, loss, copy.deepcopy(pl_module.state_dict())
        trainer.should_stop = trainer.should_stop or epoch - self.epoch >= self.patience

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the best weights."""
        if self.weights:
            pl_module.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """Return the best weights, their epoch and loss."""
        return {"epoch": self.epoch, "loss": self.loss, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self.epoch, self.loss, self.weights = state_dict["epoch"], state_dict["loss"], state_dict["weights"]


class RandomNumbers(Callback):
    """A callback by which a resumed fit draws the random numbers that it would have drawn.

    These are the numbers of torch on the CPU, of NumPy and of Python.

    Example:
        >>> sorted(RandomNumbers().state_dict())
        ['numpy', 'python', 'torch']
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on from the checkpoint."""
        if self._restored is not None:
            torch.set_rng_state(self._restored["torch"])
            np.random.set_state(self._restored["numpy"])  # noqa: NPY002 - the global one is what is restored
            random.setstate(self._restored["python"])
            self._restored = None

    def state_dict(self) -> dict[str, Any]:
        """Return where the generators stand."""
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002
        return {
            "torch": torch.get_rng_state(),
            "numpy": (kind, torch.as_tensor(np.asarray(keys).astype(np.int64)), *rest),
            "python": random.getstate(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember what to restore when training starts."""
        kind, keys, *rest = state_dict["numpy"]
        self._restored = {**state_dict, "numpy": (kind, keys.numpy().astype(np.uint32), *rest)}
