"""What a batch holds, and which numbers in a step's output are predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fairlayer.edge import read_batch
from fairlayer.errors import ShapeError
from fairlayer.groups.reading import ReadColumns, named_columns
from fairlayer.integrations.lightning.errors import BatchReadingError

__all__ = ["BatchLabels", "as_scores", "check_returned", "read_labelled", "scores_in"]

PREDICTIONS = ("preds", "scores", "logits")  # keys of a step's output, of a model's output


@dataclass(frozen=True)
class BatchLabels:
    """Labels (None where there are none) and one column per sensitive feature, of the n rows of a batch."""

    y: Any
    sensitive: Mapping[str, Any]

    def __len__(self) -> int:
        return len(next(iter(self.sensitive.values())))


def read_labelled(batch: Any, names: Sequence[str]) -> BatchLabels:
    """Read `(x, y, sensitive)`, or a dict with the keys x, y, sensitive_features.

    `sensitive` is what `project` takes: a dict of name -> column, a frame, a column, or a tensor (n, a) whose columns
    are `names` in order.

    Raises:
        BatchReadingError: it is something else.
    """
    try:
        read = read_batch(batch, needs_x=False)
        columns = ReadColumns(named_columns(read.sensitive_features, names), None)
    except ShapeError as error:
        raise BatchReadingError(
            f"{error} Pass batch_adapter=, a function from your batch to (x, y, sensitive_features)."
        ) from error
    missing = [name for name in names if name not in columns]
    if missing:
        raise BatchReadingError(
            f"the sensitive features {missing} were named, but the batch holds {list(columns)}. "
            "Name those it holds, or add the columns."
        )
    return BatchLabels(read.y, {name: columns.column(name) for name in names})


def scores_in(outputs: Any) -> Tensor | None:
    """Return the predictions that a step, or a model, named as such; None where it named none."""
    if isinstance(outputs, Mapping):
        return next((outputs[key] for key in PREDICTIONS if isinstance(outputs.get(key), Tensor)), None)
    logits = getattr(outputs, "logits", None)
    return logits if isinstance(logits, Tensor) else None


def check_returned(outputs: Any, caught: Tensor) -> None:
    """Refuse a bare tensor of one number per row, unless it is the predictions that were caught: it may be losses.

    Raises:
        BatchReadingError: nobody can tell what it is.
    """
    if not isinstance(outputs, Tensor) or outputs.ndim == 0 or len(outputs) != len(caught):
        return
    returned, known = outputs.detach().reshape(-1), caught.detach().reshape(-1)
    if returned.shape != known.shape or not bool((returned == known).all()):
        raise BatchReadingError(
            f"the step returned a tensor of shape {tuple(outputs.shape)}, which may be predictions or losses, and is "
            "not what the module gave in this step. Return {'preds': ...} or {'loss': ...} in the step, or pass "
            "predict=, a function of (module, batch, outputs) that returns the predictions."
        )


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
