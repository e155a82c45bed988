"""What torch is doing around a call: recording by an example, compiling a graph, or running a forward again."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from fairlayer.errors import TracingError

__all__ = ["in_backward", "outside_graphs", "refuse_tracing"]

_tracing_state = torch._C._get_tracing_state  # looked up once: each request asks
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


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
    if _tracing_state() is not None:
        raise TracingError(
            f"{what} projects each batch by its groups, which torch.jit.trace and torch.onnx.export(dynamo=False) "
            "cannot record: the groups and shifts of the example would be replayed for every batch. Export "
            "model.amortised(loader) or model.without_layer(), and keep the layer in Python where it must hold."
        )


def outside_graphs(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let `torch.compile` break its graph at this function: groups are read on the host."""

    @wraps(function)
    def called(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if torch.compiler.is_compiling():
            eager: Callable[Arguments, Result] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
            return eager(*args, **kwargs)
        return function(*args, **kwargs)

    return called
