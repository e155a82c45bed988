"""A plain training loop: stratified minibatches, Adam, early stopping on the validation loss."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from fairlayer.constraints import Constraint
from fairlayer.data import Sample, StratifiedBatchSampler, consecutive_batches
from fairlayer.data.batches import joint_codes
from fairlayer.model import FairModel
from fairlayer.training.config import FitOptions, Task
from fairlayer.training.gaps import measure
from fairlayer.training.objective import check_finite, objective
from fairlayer.training.observed import Observed

__all__ = ["Epoch", "Fit", "fit"]


@dataclass(frozen=True)
class Epoch:
    """One pass over the training rows, and what the validation rows say after it.

    `gap` is what each constraint bounds, on the scores before the layer; `multiplier` is its price: half the
    squared move, summed over a batch, that one more unit of tolerance would save. Both are means over
    validation batches.
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
    """The epochs run; the model was left at the weights of epoch `best`."""

    history: tuple[Epoch, ...]
    best: int


def fit(
    model: nn.Module,
    train: Sample,
    valid: Sample,
    *,
    task: Task = "classification",
    options: FitOptions | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Fit:
    """Train `model` in place: a `FairModel` through its layer, any other module as it is.

    The loss is binary cross-entropy for classification and the mean squared error for regression, both on
    what the model emits.

    Raises:
        NonFiniteScoresError: the loss became NaN or infinite.

    Example:
        >>> import numpy as np
        >>> rows = Sample(torch.rand(64, 2), torch.rand(64).round(), {"sex": np.array(["f", "m"] * 32)})
        >>> net = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0), nn.Sigmoid())
        >>> len(fit(net, rows, rows, options=FitOptions(epochs=2, batch_size=16)).history)
        2
    """
    options = options or FitOptions()
    sampler = StratifiedBatchSampler(_strata(train), options.batch_size, seed=options.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    history: list[Epoch] = []
    best = _Best()
    for number in range(1, options.epochs + 1):
        train_loss = _train_epoch(model, train, sampler, optimizer, task)
        epoch = _validate(model, valid, options.batch_size, task, number=number, train_loss=train_loss)
        history.append(epoch)
        if on_epoch is not None:
            on_epoch(epoch)
        best = best.updated(epoch, model)
        if number - best.epoch >= options.patience:
            break
    model.load_state_dict(best.state)
    return Fit(tuple(history), best.epoch)


@dataclass(frozen=True)
class _Best:
    epoch: int = 0
    loss: float = float("inf")
    state: dict[str, Any] = field(default_factory=dict)

    def updated(self, epoch: Epoch, model: nn.Module) -> _Best:
        if epoch.valid_loss >= self.loss:
            return self
        return _Best(epoch.number, epoch.valid_loss, copy.deepcopy(model.state_dict()))


def constraints_of(model: nn.Module) -> Sequence[Constraint]:
    """The constraints of a `FairModel`; none for any other module."""
    return tuple(model.constraints) if isinstance(model, FairModel) else ()


def _strata(train: Sample) -> Any:
    """Rows with the same groups and the same binary label are one stratum."""
    columns = [column for column in train.sensitive.values() if column.dtype.kind != "f"]
    if _is_binary(train.y):
        columns.append(train.y.numpy())
    return joint_codes(columns or [torch.zeros(len(train)).numpy()])


def _is_binary(y: torch.Tensor) -> bool:
    return bool(((y == 0) | (y == 1)).all())


def _train_epoch(
    model: nn.Module,
    train: Sample,
    sampler: StratifiedBatchSampler,
    optimizer: torch.optim.Optimizer,
    task: Task,
) -> float:
    model.train()
    total = 0.0
    for index in sampler:
        rows = train.take(index)
        loss = objective(model, rows, task)
        check_finite(loss)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        total += loss.item() * len(rows)
    return total / len(train)


@torch.no_grad()
def _validate(model: nn.Module, valid: Sample, batch_size: int, task: Task, *, number: int, train_loss: float) -> Epoch:
    model.eval()
    total = 0.0
    seen: list[tuple[dict[str, float], dict[str, float]]] = []
    for part in consecutive_batches(len(valid), batch_size):
        rows = valid.take(part)
        total += objective(model, rows, task).item() * len(rows)
        seen.append(_watch(model, rows))
    gaps, multipliers = zip(*seen, strict=True)
    return Epoch(number, train_loss, total / len(valid), _averaged(gaps), _averaged(multipliers))


def _watch(model: nn.Module, rows: Sample) -> tuple[dict[str, float], dict[str, float]]:
    """Gap of the scores before the layer, and price, per constraint, in the batch just emitted."""
    if not isinstance(model, FairModel):
        return {}, {}
    raw = model.raw_scores(rows.x).numpy()
    observed = Observed(rows.sensitive, rows.y.numpy(), raw)
    measured = {c.name: measure(c, observed, raw).value for c in constraints_of(model)}
    known = {name: value for name, value in measured.items() if value is not None}
    last = model.last_projection
    return known, {} if last is None else {name: float(price) for name, price in last.multipliers.items()}


def _averaged(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for part in parts for name in part)
    values = {name: [part[name] for part in parts if name in part] for name in names}
    return {name: sum(found) / len(found) for name, found in values.items()}
