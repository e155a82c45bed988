"""What torch is doing around a call: recording by an example batch, or running a forward again in the backward."""

from __future__ import annotations

import torch

from fairlayer.errors import TracingError

__all__ = ["in_backward", "refuse_tracing"]


def in_backward() -> bool:
    """Return whether a backward pass is running on this thread, where checkpointing runs forwards again.

    Example:
        >>> in_backward()
        False
    """
    return torch._C._current_graph_task_id() != -1


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
