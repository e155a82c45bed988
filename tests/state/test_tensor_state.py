"""One tensor for plain containers: exact, compact, of a fixed size, and refused where it was changed."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fairlayer.errors import CheckpointError, FairlayerError
from fairlayer.tensor_state import PAGE, from_tensor, moved, to_tensor

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
KEYS = st.text() | st.integers() | st.booleans() | st.tuples(st.integers(), st.text())
TREES = st.recursive(
    LEAVES,
    lambda inside: st.lists(inside) | st.lists(inside).map(tuple) | st.dictionaries(KEYS, inside),
    max_leaves=20,
)


def alike(one: Any, other: Any) -> bool:
    """Equal in type and bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    if isinstance(one, dict):
        return alike(list(one.items()), list(other.items()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other)


@given(st.dictionaries(st.text(), TREES))
@settings(max_examples=60, deadline=None)
def test_containers_come_back_as_they_were(state: dict[str, Any]) -> None:
    assert alike(from_tensor("any", to_tensor("any", state)), state)


@pytest.mark.parametrize(
    "array",
    [
        np.array([math.nan, math.inf, -math.inf, -0.0, 5e-324, 0.1]),
        np.array([[2**63 - 1, -(2**63)]]),
        np.array(7, dtype=np.uint8),
        np.zeros((0, 3), dtype=np.float32),
        np.array([True, False]),
        np.arange(6, dtype=">f8").reshape(2, 3)[:, ::2],
        np.array([0.1, 65504.0], dtype=np.float16),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_and_tensors_come_back_to_the_bit(array: Any) -> None:
    native = array.astype(array.dtype.newbyteorder("="))
    found = from_tensor("any", to_tensor("any", {"array": array, "tensor": torch.from_numpy(native.copy())}))
    assert isinstance(found["array"], np.ndarray)
    assert isinstance(found["tensor"], Tensor)
    for back in (found["array"], found["tensor"].numpy()):
        assert (back.dtype, back.shape, back.tobytes()) == (native.dtype, native.shape, native.tobytes())
    found["tensor"].zero_()  # and may be written to


def test_the_size_is_the_room_until_it_is_outgrown_and_arrays_stay_compact() -> None:
    assert to_tensor("any", {}).shape == to_tensor("any", {"more": [1] * 500}).shape == (PAGE,)
    assert to_tensor("any", {}, room=4 * PAGE).shape == (4 * PAGE,)
    million = to_tensor("any", {"sums": np.zeros(1 << 17)})  # 1 MiB, and seven bits to a byte
    assert million.shape == (1 << 21,)
    tight = [to_tensor("any", {"text": "x" * n}, room=256) for n in range(300)]
    assert {len(t) for t in tight} == {256, 512}
    assert all(from_tensor("any", t) == {"text": "x" * n} for n, t in enumerate(tight))


@pytest.mark.parametrize(
    "other", [{1, 2}, Decimal(1), b"bytes", np.array(["text"]), torch.zeros(1, dtype=torch.bfloat16)]
)
def test_what_is_not_plain_is_refused_when_it_is_saved(other: Any) -> None:
    with pytest.raises(CheckpointError, match=rf"holds {type(other).__name__}.*Give categories as text"):
        to_tensor("any", {"inside": [other]})


def versioned(state: Tensor) -> Tensor:
    """Change the tenth byte, the version, from 1 to 2, in words of seven bits."""
    bits = np.unpackbits(state.numpy()[:, None], axis=1)
    content = np.packbits(bits[:, :7])
    assert content[9] == 1
    content[9] = 2
    bits[:, :7] = np.unpackbits(content)[: bits[:, :7].size].reshape(-1, 7)
    return torch.from_numpy(np.packbits(bits, axis=1)[:, 0])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.flip(0), "checksum does not fit"),
        (lambda t: t[:40], "checksum does not fit"),
        (lambda t: t[:100], "checksum does not fit"),
        (lambda t: t[:0], "checksum does not fit"),
        (torch.zeros_like, "checksum does not fit"),
        (lambda t: t.float() * math.nan, "checksum does not fit"),
        (lambda t: t.int() + 256, "checksum does not fit"),
        (lambda t: -t.int(), "checksum does not fit"),
        (lambda t: t.to("meta"), "meta device, which holds nothing"),
        (lambda t: t.numpy(), "must be the tensor that state_dict\\(\\) returned, but is ndarray"),
        (lambda t: None, "but is NoneType"),
        (lambda t: {"categories": {}}, "is a dict, as an earlier version"),
        (versioned, "is of version 2, but this version of fairlayer reads 1"),
    ],
)
def test_what_is_not_the_tensor_is_refused(change: Any, text: str) -> None:
    state = to_tensor("any", {"seen": 3, "text": "a" * 100})
    with pytest.raises(CheckpointError, match=text):
        from_tensor("any", change(state))
    for base in (FairlayerError, ValueError, RuntimeError):
        assert issubclass(CheckpointError, base)


def test_every_changed_bit_of_the_content_is_seen() -> None:
    state = to_tensor("any", {"sums": np.arange(3.0)})
    end = int((state != 1).nonzero().max()) + 1
    for place in range(end):
        for bit in range(1, 8):
            bad = state.clone()
            bad[place] ^= 1 << bit
            try:
                found = from_tensor("any", bad)
            except CheckpointError:
                continue
            assert place == end - 1  # bits behind the last byte fill its word up
            assert found["sums"].tolist() == [0.0, 1.0, 2.0]


def test_devices_are_followed_and_dtypes_are_not() -> None:
    tensor = torch.tensor([0.1], dtype=torch.float64)
    assert moved(tensor, lambda t: t.half()).dtype == torch.float64
    assert moved(tensor, lambda t: t.to("meta")) is tensor  # there is nothing to keep it in
