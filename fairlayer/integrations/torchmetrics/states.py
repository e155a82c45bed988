"""The states of a metric: what they are about, as one more state, and which saved ones it takes over.

torchmetrics compares states by their values: a `MetricCollection` shares one state between metrics whose states are
equal after the first batch, and `merge_state` and ranks add up what has the same shape. So that metrics of other groups
or another threshold are never taken for one another, what they are about is a state too. A saved state is read before
it is taken over, since torchmetrics would set whatever it finds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from fairlayer.errors import CheckpointError, ConstraintDefinitionError

__all__ = ["alike", "check_saved", "identity"]


def identity(*about: object) -> Tensor:
    """Return eight bytes that tell one description from another, the same on every rank.

    Example:
        >>> bool((identity("sex", 0.5) == identity("sex", 0.5)).all()), bool((identity("a") == identity("b")).all())
        (True, False)
    """
    return torch.tensor(list(hashlib.sha256(repr(about).encode()).digest()[:8]))


def alike(parts: Tensor) -> Tensor:
    """Return what all parts (parts, 8) say.

    Raises:
        ConstraintDefinitionError: they differ.
    """
    if bool((parts != parts[0]).any()):
        raise ConstraintDefinitionError(
            "the states of metrics with different groups, constraints or thresholds were to be pooled. Build the "
            "metric with the same arguments everywhere, categories in the same order."
        )
    return parts[0]


def check_saved(metric: Metric, state_dict: Mapping[str, Any], prefix: str, *, unknown: str = "") -> None:
    """Raise where a `state_dict` holds states of this metric that it cannot take over; nothing has changed then.

    Args:
        metric: what is to be loaded into; it has a state `about`, see `identity`.
        state_dict: a `state_dict` with persistent states of this metric, or with none of them.
        prefix: the prefix of their names.
        unknown: the name of a state in which NaN stands for what is not known.

    Raises:
        CheckpointError: a state is missing, is not a tensor, has another shape, holds NaN, or is about other groups,
            another constraint or another threshold.
    """
    defaults: Mapping[str, Any] = metric._defaults
    found = {name: state_dict[prefix + name] for name in defaults if prefix + name in state_dict}
    if not found:
        return
    kind = type(metric).__name__
    missing = [name for name in defaults if name not in found]
    if missing:
        raise CheckpointError(_text(kind, f"lacks {missing}, of {list(defaults)}"))
    about = found["about"]
    if not isinstance(about, Tensor) or not torch.equal(about.cpu().long(), defaults["about"].cpu()):
        raise CheckpointError(_text(kind, "is about other groups, another constraint or another threshold"))
    lengths = set()
    for name, default in defaults.items():
        state = found[name]
        if not isinstance(state, Tensor):
            raise CheckpointError(_text(kind, f"holds {type(state).__name__} as {name!r}, where a tensor was saved"))
        if isinstance(default, Tensor) and state.shape != default.shape:
            shapes = f"{tuple(state.shape)} instead of {tuple(default.shape)}"
            raise CheckpointError(_text(kind, f"holds {name!r} of shape {shapes}"))
        if name != unknown and not bool(torch.isfinite(state).all()):
            raise CheckpointError(_text(kind, f"holds NaN or infinity in {name!r}"))
        lengths |= set() if isinstance(default, Tensor) else {tuple(state.shape)}
    if len(lengths) > 1 or any(len(shape) != 1 for shape in lengths):
        raise CheckpointError(_text(kind, f"holds columns of different shapes {sorted(lengths)}"))


def _text(kind: str, found: str) -> str:
    return (
        f"the saved state of {kind} {found}. Build the metric with the same arguments, categories in the same order, "
        "and load the state_dict that was saved; or leave its entries out and count again. Nothing was loaded."
    )
