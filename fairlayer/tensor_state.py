"""What a module remembers beside its weights, as one tensor: the only encoding of every `get_extra_state`.

Libraries that save, load or average a `state_dict` expect tensors and nothing else. So plain containers become

    content  =  magic, lengths, checksum  |  JSON text  |  the bytes of the arrays, little-endian
    tensor   =  the content, seven bits to a uint8 whose lowest bit is 1, then ones up to the room

The room is fixed until the content outgrows it, and then doubles: a module that has learnt nothing has a tensor of the
same size as one that has, into which `torch.distributed.checkpoint` can read. The lowest bit is a guard. A loop that
averages two equal tensors, `e * decay + v * (1 - decay)`, and rounds or cuts the result off is at most 1 too low,
which takes the guard and leaves the content. A loop that averages two different contents changes the content, which
the checksum tells.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fairlayer._typing import ByteArray
from fairlayer.errors import CheckpointError, FairlayerError

__all__ = [
    "PAGE",
    "ROOM_OF_WORDS",
    "check_states",
    "from_tensor",
    "moved",
    "read_tensor",
    "refuse_foreign",
    "to_tensor",
]

Read = TypeVar("Read")

PAGE = 4096  # bytes of the smallest room
ROOM_OF_WORDS = 4 * PAGE  # for the categories of the sensitive features, about 14,000 letters

_MAGIC = b"fairlayer"
_VERSION = 1
_LENGTHS = struct.Struct("<QQ")  # of the text and of the arrays
_DIGEST = 16
_HEAD = len(_MAGIC) + 1 + _LENGTHS.size + _DIGEST
_ARRAYS = "biuf"  # kinds of dtype that an array may have
_EARLIER = (
    "Load everything else with model.load_state_dict({k: v for k, v in state.items() if not "
    "k.endswith('_extra_state')}, strict=False), and let fit_categories learn the categories again. What a FairModel's "
    "stream had counted is in state['_extra_state']['stream'], which model.inference_state.load_state_dict reads."
)


def to_tensor(kind: str, state: Mapping[str, Any], *, room: int = PAGE) -> Tensor:
    """Return plain containers, numbers, texts, arrays and tensors as one uint8 tensor (room,) on the CPU.

    Args:
        kind: what the state is of; `from_tensor` asks for the same.
        state: a state of dicts, lists, tuples, None, bool, int, float, str, NumPy arrays and tensors; kept exactly.
        room: bytes of the tensor, a multiple of 8; doubled until the content fits.

    Raises:
        CheckpointError: something else is in the state.

    Example:
        >>> kept = to_tensor("counts", {"seen": 3, "sums": torch.tensor([0.1, float("inf")])})
        >>> kept.dtype, kept.shape, from_tensor("counts", kept)
        (torch.uint8, torch.Size([4096]), {'seen': 3, 'sums': tensor([0.1000,    inf])})
    """
    arrays = bytearray()
    text = json.dumps({"kind": kind, "state": _to_json(state, arrays)}).encode()
    content = _seal(text, bytes(arrays))
    data = np.frombuffer(content + bytes(-len(content) % 7), dtype=np.uint8)
    while room * 7 < len(data) * 8:
        room *= 2
    filled = np.ones(room, dtype=np.uint8)
    filled[: len(data) // 7 * 8] = _guarded(data)
    return torch.from_numpy(filled)


def from_tensor(kind: str, value: Any) -> dict[str, Any]:
    """Return what `to_tensor` was given.

    Args:
        kind: what the state must be of.
        value: the tensor, on any device and of any real dtype.

    Raises:
        CheckpointError: it is no such tensor, its content was changed, or it is the state of something else.
    """
    if not isinstance(value, Tensor) or value.is_meta:
        raise CheckpointError(_not_a_tensor(kind, value))
    text, arrays = _unseal(kind, _content(kind, value))
    read = json.loads(text)
    if read["kind"] != kind:
        raise CheckpointError(
            f"a state of kind '{kind}' was asked for, but this tensor holds one of kind '{read['kind']}'. Load the "
            "checkpoint into a model of the same structure."
        )
    state: dict[str, Any] = _from_json(read["state"], arrays)
    return state


def read_tensor(kind: str, value: Any, read: Callable[[Mapping[str, Any]], Read]) -> Read:
    """Return what `read` makes of what `to_tensor` was given; where it lacks something, that is named.

    Args:
        kind: what the state must be of.
        value: the tensor.
        read: a function that takes the state, and changes nothing.

    Raises:
        CheckpointError: as `from_tensor`; or the state lacks what `read` looks for.

    Example:
        >>> read_tensor("counts", to_tensor("counts", {"seen": 3}), lambda state: int(state["seen"]))
        3
    """
    state = from_tensor(kind, value)
    try:
        return read(state)
    except FairlayerError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the state of kind '{kind}' holds {sorted(map(str, state))}, which cannot be read ({error!r}): another "
            "version of fairlayer wrote it. Load it with that version. Nothing of this state was loaded."
        ) from error


def check_states(module: nn.Module, state_dict: Mapping[str, Any], prefix: str) -> None:
    """Read every state of this package in a `state_dict` before any of it is loaded, so that a bad one changes nothing.

    A module of this package calls it first in `_load_from_state_dict`, with the arguments of that.

    Raises:
        FairlayerError: a state cannot be read by the module that it is for.
    """
    for name, inner in module.named_modules():
        key = f"{prefix}{name}." if name else prefix
        state = state_dict.get(f"{key}_extra_state")
        if state is not None and hasattr(inner, "_read_state"):
            inner._read_state(state)


def refuse_foreign(kind: str, saved: Collection[str], own: Collection[str]) -> None:
    """Raise where a state is about other things than those that read it, and about none of theirs.

    Args:
        kind: what the state is of.
        saved: the names that it is about: of features, or of constraints.
        own: the names that its reader knows.

    Raises:
        CheckpointError: no name is among both.

    Example:
        >>> refuse_foreign("vocabulary", ["race"], ["sex"])
        Traceback (most recent call last):
        fairlayer.errors.CheckpointError: the state of kind 'vocabulary' is about ['race'], but this module is about ...
    """
    if saved and not set(saved) & set(own):
        raise CheckpointError(
            f"the state of kind '{kind}' is about {list(saved)}, but this module is about {list(own)}. Load it into a "
            "module with the same constraints. Nothing of this state was loaded."
        )


def moved(tensor: Tensor, move: Callable[[Tensor], Tensor]) -> Tensor:
    """Return a tensor that is not a buffer on the device to which `nn.Module._apply` moves buffers; its dtype stays.

    Example:
        >>> moved(torch.tensor(0.1, dtype=torch.float64), lambda buffer: buffer.half()).dtype
        torch.float64
    """
    device = move(torch.empty(0, device=tensor.device)).device
    return tensor if device.type == "meta" else tensor.to(device)


# ---- the content and its checksum


def _seal(text: bytes, arrays: bytes) -> bytes:
    lengths = _LENGTHS.pack(len(text), len(arrays))
    return _MAGIC + bytes([_VERSION]) + lengths + _digest(lengths, text, arrays) + text + arrays


def _unseal(kind: str, content: bytes) -> tuple[bytes, bytes]:
    if len(content) < _HEAD or not content.startswith(_MAGIC):
        raise CheckpointError(_changed(kind))
    version = content[len(_MAGIC)]
    if version != _VERSION:
        raise CheckpointError(
            f"this state of kind '{kind}' is of version {version}, but this version of fairlayer reads {_VERSION}. "
            "Load it with the version of fairlayer that wrote it."
        )
    lengths = content[len(_MAGIC) + 1 :][: _LENGTHS.size]
    long, wide = _LENGTHS.unpack(lengths)
    text, arrays = content[_HEAD:][:long], content[_HEAD + long :][:wide]
    if content[_HEAD - _DIGEST : _HEAD] != _digest(lengths, text, arrays):
        raise CheckpointError(_changed(kind))
    return text, arrays


def _digest(*parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), digest_size=_DIGEST).digest()


# ---- seven bits to a byte


def _guarded(data: ByteArray) -> ByteArray:
    sevens = np.unpackbits(data).reshape(-1, 7)
    return np.packbits(np.pad(sevens, ((0, 0), (0, 1)), constant_values=1), axis=1)[:, 0]


def _content(kind: str, value: Tensor) -> bytes:
    numbers = value.detach().cpu().reshape(-1).to(torch.float64 if value.is_floating_point() else torch.int64).numpy()
    if not len(numbers) or not np.isfinite(numbers).all() or numbers.min() < 0 or numbers.max() >= 256:
        raise CheckpointError(_changed(kind))
    octets = numbers.astype(np.uint8)  # cuts fractions off
    if octets[:4].tobytes() == b"PK\x03\x04":  # the zip archive of torch.save
        raise CheckpointError(
            f"this state of kind '{kind}' was written by states_as_tensors of an earlier version, as torch.save's "
            "bytes; torch.load(io.BytesIO(tensor.numpy().tobytes()), weights_only=True) shows them. " + _EARLIER
        )
    return np.packbits(np.unpackbits(octets[:, None], axis=1)[:, :7]).tobytes()


# ---- containers as JSON


def _to_json(value: Any, arrays: bytearray) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_to_json(item, arrays) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_to_json(item, arrays) for item in value]}
    if isinstance(value, Mapping):
        return {"dict": [[_to_json(key, arrays), _to_json(item, arrays)] for key, item in value.items()]}
    if isinstance(value, Tensor) and value.dtype != torch.bfloat16:  # NumPy has none
        return {"tensor": _array_to_json(value.detach().cpu().numpy(), arrays)}
    if isinstance(value, np.ndarray):
        return {"array": _array_to_json(value, arrays)}
    raise _no_state(value)


def _array_to_json(array: Any, arrays: bytearray) -> dict[str, Any]:
    if array.dtype.kind not in _ARRAYS:
        raise _no_state(array)
    plain = array.astype(array.dtype.newbyteorder("<"))
    where = {"dtype": plain.dtype.str, "shape": list(plain.shape), "start": len(arrays)}
    arrays += plain.tobytes()
    return where


def _from_json(value: Any, arrays: bytes) -> Any:
    if isinstance(value, list):
        return [_from_json(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    [(what, inside)] = value.items()
    if what == "tuple":
        return tuple(_from_json(item, arrays) for item in inside)
    if what == "dict":
        return {_from_json(key, arrays): _from_json(item, arrays) for key, item in inside}
    array = _array_from_json(inside, arrays)
    return torch.from_numpy(array) if what == "tensor" else array


def _array_from_json(where: Mapping[str, Any], arrays: bytes) -> Any:
    dtype, shape = np.dtype(where["dtype"]), tuple(where["shape"])
    array = np.frombuffer(arrays, dtype, count=math.prod(shape), offset=where["start"]).reshape(shape)
    return array.astype(dtype.newbyteorder("="))  # a copy that may be written to


# ---- what the errors say


def _no_state(value: Any) -> CheckpointError:
    what = f"{type(value).__name__} of {value.dtype}" if hasattr(value, "dtype") else type(value).__name__
    return CheckpointError(
        f"a state_dict keeps dicts, lists, tuples, None, bool, int, float, str, and arrays and tensors of numbers, but "
        f"the state holds {what}: {value!r:.80}. Give categories as text or whole numbers."
    )


def _not_a_tensor(kind: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return (
            f"the state of kind '{kind}' is a dict, as an earlier version of fairlayer wrote it; this version keeps "
            "tensors only. " + _EARLIER
        )
    found = "a tensor on the meta device, which holds nothing" if isinstance(value, Tensor) else type(value).__name__
    return (
        f"the state of kind '{kind}' must be the tensor that state_dict() returned, but is {found}. Load the "
        "state_dict that was saved."
    )


def _changed(kind: str) -> str:
    return (
        f"the tensor of the state of kind '{kind}' is not as state_dict() returned it: its checksum does not fit. A "
        "loop that averages the values of two state_dicts changes it, and so does a checkpoint that was read in part. "
        "Average parameters and buffers only (torch.optim.swa_utils.AveragedModel does), or copy the entries whose "
        "name ends in '_extra_state' from one model; then load again. Nothing of this state was loaded."
    )
