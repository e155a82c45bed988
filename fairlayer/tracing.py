"""Tracing by example, which records what one batch did and replays it for every other."""

from __future__ import annotations

import torch

from fairlayer.errors import TracingError

__all__ = ["refuse_tracing"]


def refuse_tracing(what: str) -> None:
    """Refuse to run while `torch.jit.trace` or the TorchScript-based ONNX exporter records.

    Raises:
        TracingError: one of them records.

    Example:
        >>> refuse_tracing("FairModel")
    """
    if torch._C._get_tracing_state() is not None:
        raise TracingError(
            f"{what} projects each batch by its groups, which torch.jit.trace and torch.onnx.export(dynamo=False) "
            "cannot record: the groups and shifts of the example would be replayed for every batch. Export "
            "model.amortised(loader) or model.without_layer(), and keep the layer in Python where it must hold."
        )
