"""What a batch holds, and which numbers in a step's output are predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fairlayer.integrations.lightning.errors import BatchReadingError

__all__ = ["Labelled", "as_scores", "read_labelled", "scores_in"]

PREDICTIONS = ("preds", "scores", "logits")  # keys of a step's output, of a model's output


@dataclass(frozen=True)
class Labelled:
    """Labels (None where there are none) and one column per sensitive feature, of the n rows of a batch."""

    y: Any
    sensitive: Mapping[str, Any]

    def __len__(self) -> int:
        return len(next(iter(self.sensitive.values())))


def read_labelled(batch: Any, names: Sequence[str]) -> Labelled:
    """Read `(x, y, sensitive)`, or a dict with the keys x, y, sensitive_features.

    `sensitive` is a tensor (n,), a tensor (n, a) whose columns are `names` in order, or a dict of name -> column.

    Raises:
        BatchReadingError: it is something else.
    """
    y, sensitive = _parts(batch)
    if isinstance(sensitive, Mapping):
        _check_names(sensitive, names)
        return Labelled(y, {name: sensitive[name] for name in names})
    columns = torch.as_tensor(sensitive)
    if columns.ndim == 1 and len(names) == 1:
        return Labelled(y, {names[0]: columns})
    if columns.ndim == 2 and columns.shape[1] == len(names):
        return Labelled(y, {name: columns[:, place] for place, name in enumerate(names)})
    raise BatchReadingError(
        f"sensitive features {list(names)} were named, so a tensor of them has the shape (n, {len(names)}), but the "
        f"batch holds {tuple(columns.shape)}. Name one feature per column, or give a dict of name -> column."
    )


def _parts(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, Mapping) and "sensitive_features" in batch:
        return batch.get("y"), batch["sensitive_features"]
    if isinstance(batch, tuple | list) and len(batch) == 3:
        return batch[1], batch[2]
    found = type(batch).__name__ + (f" of {len(batch)}" if hasattr(batch, "__len__") else "")
    raise BatchReadingError(
        "a batch is read as (x, y, sensitive), or as a dict with the keys x, y, sensitive_features, but the loader "
        f"gave a {found}. Pass batch_adapter=, a function from your batch to one of these."
    )


def _check_names(sensitive: Mapping[str, Any], names: Sequence[str]) -> None:
    missing = [name for name in names if name not in sensitive]
    if missing:
        raise BatchReadingError(
            f"the sensitive features {missing} were named, but the batch holds {list(sensitive)}. "
            "Name those it holds, or add the columns."
        )


def scores_in(outputs: Any, n: int) -> Tensor | None:
    """Return the predictions in what a step returned, None where it holds none (a loss only)."""
    if isinstance(outputs, Mapping):
        return next((outputs[key] for key in PREDICTIONS if isinstance(outputs.get(key), Tensor)), None)
    if isinstance(outputs, Tensor):
        return outputs if outputs.ndim > 0 and len(outputs) == n else None
    logits = getattr(outputs, "logits", None)
    return logits if isinstance(logits, Tensor) else None


def as_scores(predictions: Tensor, n: int, *, logits: bool) -> Tensor:
    """Return one score (n,) per row: of class 1 where there are two columns.

    Raises:
        BatchReadingError: another shape.
    """
    found = predictions.detach()
    if found.ndim == 2 and found.shape == (n, 2):
        return found.softmax(dim=1)[:, 1] if logits else found[:, 1]
    if found.ndim == 1 or found.shape == (n, 1):
        found = found.reshape(-1)
    if found.shape != (n,):
        raise BatchReadingError(
            f"predictions of the shape {tuple(predictions.shape)} were found for a batch of {n} rows; one score per "
            "row is needed: (n,), (n, 1), or (n, 2) for two classes. Pass predict=, a function that returns them."
        )
    return found.sigmoid() if logits else found
