"""Tracing by example, which records what one batch did and replays it for every other; and graphs of torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from fairlayer.errors import TracingError

__all__ = ["outside_graphs", "refuse_tracing"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


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


def outside_graphs(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let `torch.compile` break its graph at this function: groups are read on the host."""

    @wraps(function)
    def called(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if torch.compiler.is_compiling():
            eager: Callable[Arguments, Result] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
            return eager(*args, **kwargs)
        return function(*args, **kwargs)

    return called
