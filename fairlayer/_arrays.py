"""Tensors on any device -> arrays on the host; the only file that touches torch's private transform state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from fairlayer._typing import FloatArray
from fairlayer.errors import BackendError

__all__ = [
    "held_by_host",
    "hidden_batch",
    "hide_batch",
    "holds_no_numbers",
    "host_array",
    "host_float64",
    "is_batched",
    "is_followed",
    "outside_transforms",
    "plain_tensor",
    "transforming",
    "with_graph",
    "without_derivatives",
]


_EXACT = (torch.float32, torch.float64)
_HALF = (torch.bfloat16, torch.float16)


transforming: Callable[[], bool] = torch._C._are_functorch_transforms_active
"""Whether a torch.func transform is active, under which some tensors hold no data."""


def is_batched(tensor: torch.Tensor) -> bool:
    """Return whether torch.vmap has hidden a batch dimension of the tensor."""
    return bool(torch._C._functorch.is_batchedtensor(tensor))


def is_followed(tensor: torch.Tensor) -> bool:
    """Return whether a torch.func transform follows the tensor, which then has no data of its own."""
    return transforming() and bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def outside_transforms() -> AbstractContextManager[object]:
    """Return a context in which operations on plain tensors are not seen by an active torch.func transform."""
    context: AbstractContextManager[object] = torch._C._DisableFuncTorch() if transforming() else nullcontext()
    return context


def holds_no_numbers(tensor: torch.Tensor) -> bool:
    """Return whether a tensor has only a shape and a dtype: on the meta device, or fake while a program is planned."""
    return tensor.is_meta or type(tensor).__name__ == "FakeTensor"


def held_by_host(tensor: torch.Tensor) -> Any:
    """Return the numbers of a tensor to look at: as an array where the host holds them as they are, else the tensor.

    Torch spreads a look at many numbers over its threads, and where cores are busy these wait for each other for much
    longer than the look itself takes.
    """
    if transforming() or not tensor.is_cpu or tensor.dtype not in _EXACT or tensor.requires_grad:
        return tensor
    return tensor.resolve_neg().numpy()


@contextmanager
def with_graph() -> Iterator[None]:
    """Record a graph, also inside the implementation of an operator, where torch does not by itself."""
    keys = (torch._C.DispatchKey.AutogradCPU, torch._C.DispatchKey.AutogradCUDA, torch._C.DispatchKey.ADInplaceOrView)
    included, excluded = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
    for key in keys:
        excluded = excluded.remove(key)
    with torch._C._ForceDispatchKeyGuard(included, excluded), torch.enable_grad():
        yield


def hidden_batch(tensor: torch.Tensor) -> tuple[torch.Tensor, int | None]:
    """Return the plain values of a tensor with the dimension that torch.vmap hides first, and the level of that vmap.

    Raises:
        BackendError: several of them hide dimensions.
    """
    functorch = torch._C._functorch
    level, place = None, None
    while is_followed(tensor):
        if is_batched(tensor):
            if level is not None:
                raise BackendError(
                    "torch.vmap over torch.vmap over scores was asked, but only one dimension of problems is served. "
                    "Flatten the dimensions of both into one."
                )
            level, place = functorch.maybe_get_level(tensor), functorch.maybe_get_bdim(tensor)
        tensor = functorch.get_unwrapped(tensor)
    plain = tensor.detach()
    return (plain if place is None else plain.movedim(place, 0)), level


def hide_batch(tensor: torch.Tensor, level: int) -> torch.Tensor:
    """Return a tensor whose first dimension is hidden as that of a torch.vmap level is."""
    hidden: torch.Tensor = torch._C._functorch._add_batch_dim(tensor, 0, level)
    return hidden


def plain_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return the values of a tensor without any graph, tangent or torch.func transform around it.

    Raises:
        BackendError: torch.vmap has hidden a batch dimension, so there is more than one value.
    """
    while is_followed(tensor):
        if is_batched(tensor):
            raise BackendError(
                "torch.vmap over scores was asked, but each batch is a problem of its own. Give independent scores as "
                "columns (n, k), or loop over the batches."
            )
        tensor = torch._C._functorch.get_unwrapped(tensor)
    with outside_transforms():
        return without_derivatives(tensor)


def host_array(tensor: torch.Tensor) -> Any:
    """Return a tensor as an array; half precision becomes float32, which NumPy can hold.

    Raises:
        BackendError: torch.vmap has hidden a batch dimension, so there is more than one array.
    """
    if not transforming():
        return _host_array(tensor)
    while is_followed(tensor):
        if is_batched(tensor):
            raise BackendError(
                "torch.vmap has hidden a batch dimension of the groups, labels or binned scores, so that there is more "
                "than one problem. Keep them outside of vmap (in_dims=None), or loop over the problems."
            )
        tensor = torch._C._functorch.get_unwrapped(
            tensor
        )  # groups and labels are constants: no derivative reaches them
    with torch._C._DisableFuncTorch():
        return _host_array(tensor)


def host_float64(tensor: torch.Tensor) -> FloatArray:
    """Return a tensor as a float64 array."""
    if tensor.is_cpu and tensor.dtype in _EXACT and not (tensor.requires_grad or forward_ad._current_level >= 0):
        array = host_array(tensor) if transforming() or tensor.is_neg() else tensor.numpy()  # usual: with few calls
    else:
        array = host_array(tensor)
    if array.dtype != np.float64:
        array = array.astype(np.float64)
    exact: FloatArray = array
    return exact


def without_derivatives(tensor: torch.Tensor) -> torch.Tensor:
    """Return the values of a tensor, without graph and without forward-mode tangent."""
    if forward_ad._current_level >= 0:
        tensor = forward_ad.unpack_dual(tensor).primal  # type: ignore[no-untyped-call]
    return tensor.detach() if tensor.requires_grad else tensor


def _host_array(tensor: torch.Tensor) -> Any:
    plain = without_derivatives(tensor).resolve_neg()
    if plain.dtype in _HALF:
        plain = plain.float()
    return plain.numpy() if plain.is_cpu else plain.cpu().numpy()
