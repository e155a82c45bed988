"""What the states of a metric are about, as one more state.

torchmetrics compares states by their values: a `MetricCollection` shares one state between metrics whose states are
equal after the first batch, and `merge_state` and ranks add up what has the same shape. So that metrics of other groups
or another threshold are never taken for one another, what they are about is a state too.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from fairlayer.errors import ConstraintDefinitionError

__all__ = ["alike", "identity"]


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
