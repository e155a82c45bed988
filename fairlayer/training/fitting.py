"""Training by Lightning: stratified minibatches, AdamW, early stopping on the validation loss."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fairlayer.constraints import Constraint
from fairlayer.data import TensorTable
from fairlayer.errors import ParameterError, require
from fairlayer.model import FairModel
from fairlayer.training.config import FitOptions, Task
from fairlayer.training.gaps import measure
from fairlayer.training.observed import Observed

__all__ = ["Epoch", "Fit", "FitFolder", "fit"]

GAP, PRICE = "gap ", "price "  # prefixes in the journal


@dataclass(frozen=True)
class Epoch:
    """One pass over the training rows, and what the validation rows say after it.

    `gap` is what each constraint bounds, on the scores before the layer; `multiplier` is its price: half the
    squared move per prediction that one more unit of tolerance would save. Both are means over validation batches.

    Example:
        >>> Epoch(1, train_loss=0.52, valid_loss=0.55, gap={"parity": 0.08}).to_dict()["valid_loss"]
        0.55
    """

    number: int
    train_loss: float
    valid_loss: float
    gap: Mapping[str, float] = field(default_factory=dict)
    multiplier: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"epoch": self.number, **{k: v for k, v in vars(self).items() if k != "number"}}


@dataclass(frozen=True)
class Fit:
    """The epochs run; the model was left at the weights of epoch `best`, 0 for those that it came with.

    Example:
        >>> found = Fit((Epoch(1, 0.52, 0.55), Epoch(2, 0.48, 0.56)), best=1)
        >>> found.history[found.best - 1].valid_loss
        0.55
    """

    history: tuple[Epoch, ...]
    best: int
    seconds: float = 0.0


@dataclass(frozen=True)
class FitFolder:
    """Where a fit keeps a checkpoint after each epoch, and whether it goes on from the one that is there.

    Example:
        >>> FitFolder(Path("checkpoints/plain"), resume=True).last.name
        'last.ckpt'
    """

    path: Path
    resume: bool = False

    @property
    def last(self) -> Path:
        return self.path / "last.ckpt"


def fit(
    model: nn.Module,
    train: TensorTable,
    valid: TensorTable,
    *,
    task: Task = "classification",
    loss: str | None = None,
    start_competes: bool = False,
    options: FitOptions | None = None,
    watched: Sequence[Constraint] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    folder: FitFolder | None = None,
    logger: Any = None,
) -> Fit:
    """Train `model` in place: a `FairModel` through its layer, any other module as it is.

    The loss is on what the model emits.

    Args:
        loss: "cross_entropy" or "squared_error"; None for the one that belongs to the geometry of a `FairModel`, else
            to the task.
        start_competes: whether the weights that the model comes with are left in it, as epoch 0, where no epoch has a
            lower validation loss.
        watched: constraints whose gap each epoch tells; by default those of the model.
        on_epoch: a function that is told of each epoch.
        folder: the folder in which a checkpoint is kept after each epoch (weights, optimiser, batches to come, random
            numbers, and the stream of a `FairModel`), and from which training resumes if told to.
        logger: a logger of Lightning, or several.
        train: the training rows.
        valid: the validation rows, which choose the epoch.

    Raises:
        NonFiniteScoresError: the loss became NaN or infinite.
        ParameterError: the checkpoint to go on from has been trained for more epochs than are asked for.

    Example:
        >>> import numpy as np, torch
        >>> rows = TensorTable(torch.rand(64, 2), torch.rand(64).round(), {"sex": np.array(["f", "m"] * 32)})
        >>> net = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0), nn.Sigmoid())
        >>> len(fit(net, rows, rows, options=FitOptions(epochs=2, batch_size=16)).history)
        2
    """
    options, start = options or FitOptions(), time.perf_counter()
    with _quiet():
        tools = require("fairlayer.integrations.lightning", "train")
        keeper = tools.BestWeights(options.patience, start_competes=start_competes)
        journal = tools.EpochLog(_Watch(model, watched), _telling(on_epoch))
        trainer = _trainer(
            options,
            [journal, keeper, tools.RandomNumbers(), *_measured(tools, train, task)],
            folder,
            logger,
            start_competes=start_competes,
        )
        module = tools.FairLightningModule(
            model, task=task, loss=loss, learning_rate=options.learning_rate, weight_decay=options.weight_decay
        )
        rows = tools.SampleDataModule(train, valid, batch_size=options.batch_size, seed=options.seed)
        trainer.fit(module, datamodule=rows, ckpt_path=_checkpoint(folder, options.epochs), weights_only=True)
    return Fit(tuple(_epoch(entry) for entry in journal.entries), keeper.epoch, time.perf_counter() - start)


def _trainer(
    options: FitOptions, callbacks: list[Any], folder: FitFolder | None, logger: Any, *, start_competes: bool
) -> Any:
    lightning = require("lightning.pytorch", "train")
    if folder is not None:
        callbacks = [*callbacks, _keeping(lightning, folder)]
    return lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        devices=1,
        callbacks=callbacks,
        logger=logger or False,
        log_every_n_steps=1,
        enable_checkpointing=folder is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=-1 if start_competes else 0,
    )


def _keeping(lightning: Any, folder: FitFolder) -> Any:
    """A checkpoint after every epoch, each in place of the one before."""
    if not folder.resume:
        folder.last.unlink(missing_ok=True)  # of an earlier run
    return lightning.callbacks.ModelCheckpoint(
        dirpath=folder.path,
        filename=folder.last.stem,
        save_top_k=1,
        every_n_epochs=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


def _checkpoint(folder: FitFolder | None, epochs: int) -> str | None:
    if folder is None or not folder.resume or not folder.last.is_file():
        return None
    done = torch.load(folder.last, map_location="cpu", weights_only=True)["epoch"] + 1
    if done > epochs:
        raise ParameterError(
            f"'{folder.last}' has been trained for {done} epochs, more than the {epochs} that are asked for. Ask for "
            f"{done} or more (--epochs {done}), or begin anew in another folder."
        )
    return str(folder.last)


def _measured(tools: Any, train: TensorTable, task: Task) -> list[Any]:
    """Return the disparities of the groups, for loggers."""
    threshold = 0.5 if task == "classification" else None
    names = [name for name, column in train.sensitive.items() if column.dtype.kind != "f"]
    return [tools.FairnessCallback(names, stop_on_infeasible=False, threshold=threshold)] if names else []


def _telling(on_epoch: Callable[[Epoch], None] | None) -> Callable[[Mapping[str, float]], None] | None:
    return None if on_epoch is None else (lambda entry: on_epoch(_epoch(entry)))


def _epoch(entry: Mapping[str, float]) -> Epoch:
    return Epoch(
        int(entry["epoch"]),
        entry["train/loss"],
        entry["val/loss"],
        _without(GAP, entry),
        _without(PRICE, entry),
    )


def _without(prefix: str, entry: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in entry.items() if name.startswith(prefix)}


class _Watch:
    """Gap of the scores before the layer, and price, per constraint, in the batch just emitted."""

    def __init__(self, model: nn.Module, watched: Sequence[Constraint] | None) -> None:
        self.model = model
        self.constraints = constraints_of(model) if watched is None else tuple(watched)

    def __call__(self, module: nn.Module, batch: Mapping[str, Any]) -> dict[str, float]:
        if not self.constraints:
            return {}
        layered = self.model if isinstance(self.model, FairModel) else None
        raw = (self.model(batch["x"]) if layered is None else layered.raw_scores(batch["x"])).detach().numpy()
        observed = Observed(batch["sensitive_features"], batch["y"].numpy(), raw)
        gaps = {GAP + c.name: measure(c, observed, raw).value for c in self.constraints}
        last = None if layered is None else layered.last_projection
        prices = {} if last is None else last.multipliers
        known = {name: value for name, value in gaps.items() if value is not None}
        return known | {PRICE + name: float(price) / len(raw) for name, price in prices.items()}


def constraints_of(model: nn.Module) -> Sequence[Constraint]:
    """Return the constraints of a `FairModel`; none for any other module."""
    return tuple(model.constraints) if isinstance(model, FairModel) else ()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's advice, which is for those who write a Trainer themselves."""
    require("lightning.pytorch", "train")  # sets the level of its loggers when it is imported
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning.*")
            warnings.filterwarnings("ignore", message=".*(num_workers|many workers|LeafSpec|Checkpoint directory).*")
            yield
    finally:
        logger.setLevel(level)
