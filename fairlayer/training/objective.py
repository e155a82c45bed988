"""What training lowers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fairlayer.data import Sample
from fairlayer.errors import NonFiniteScoresError
from fairlayer.model import FairModel
from fairlayer.training.config import Task

__all__ = ["check_finite", "objective"]


def _emit(model: nn.Module, rows: Sample) -> torch.Tensor:
    """What the model emits for these rows, labels known."""
    layered = isinstance(model, FairModel)
    known = {"sensitive_features": rows.sensitive, "y": rows.y} if layered else {}
    emitted: torch.Tensor = model(rows.x, **known)
    return emitted


def objective(model: nn.Module, rows: Sample, task: Task) -> torch.Tensor:
    loss = _loss(_emit(model, rows), rows.y, task)
    if isinstance(model, FairModel) and any(constraint.needs_labels for constraint in model.constraints):
        loss = loss + _loss(model.raw_scores(rows.x), rows.y, task)
    return loss


def _loss(predictions: torch.Tensor, y: torch.Tensor, task: Task) -> torch.Tensor:
    loss = F.binary_cross_entropy if task == "classification" else F.mse_loss
    return loss(predictions, y)


def check_finite(loss: torch.Tensor) -> None:
    if not torch.isfinite(loss):
        raise NonFiniteScoresError(
            f"the training loss became {loss.item()}. Use a smaller learning rate, or a larger margin "
            "inside the bounds."
        )
