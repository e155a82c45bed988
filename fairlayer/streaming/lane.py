"""The calls of a stream of two groups on one device, where they wait until the host counts them.

The device holds what the groups were given, for the next step, and a journal of the calls. The journal is copied to the
host without waiting, and counted there when the copy has long arrived, or when somebody reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.streaming.device import Call, Rule, emit

__all__ = ["MOST_WAITING", "Block", "Lane", "place_of"]

MOST_WAITING = 4096  # samples in the journal


class Block(NamedTuple):
    """Calls that have come from the device, one after the other.

    `codes` (n,) are 0 or 1 for the groups, -1 for a missing category and -2 for an unknown one; `emitted` (n,) is NaN
    where the input was bad.
    """

    sizes: tuple[int, ...]  # of the calls
    shifts: FloatArray  # (3,), in force
    codes: IntArray
    raw: FloatArray
    emitted: FloatArray

    @property
    def good(self) -> BoolArray:
        """Whether each sample counts, (n,)."""
        return ~np.isnan(self.emitted)

    def per_call(self, good: BoolArray, values: FloatArray) -> list[tuple[int, float]]:
        """Return (samples, mean value) of each call that has good samples, with a value for each of these."""
        calls = np.repeat(np.arange(len(self.sizes)), self.sizes)[good]
        counts, sums = np.bincount(calls), np.bincount(calls, values)
        return [(n, total / n) for n, total in zip(counts.tolist(), sums.tolist(), strict=True) if n]


class Lane:
    """A stream on one device, and the calls that the host has not counted yet.

    Args:
        numbers: what the two groups are called in a column on the device.
        cells: of the two groups.
        past: (2, 2), counts and sums of what they were given.
        rule: bounds and softness, on the device.
    """

    def __init__(
        self,
        numbers: Sequence[int],
        cells: Sequence[int],
        past: Sequence[Sequence[float]],
        rule: Rule,
    ) -> None:
        device = rule.ones.device
        self.cells, self.rule, self.place = list(cells), rule, place_of(device)
        self.uncounted = 0  # samples
        self._names = torch.tensor([[number] for number in (*numbers, -1)], device=device)
        self._past = torch.tensor(past, dtype=torch.float64, device=device)
        self._calls: list[tuple[Tensor, Tensor, Tensor]] = []  # (member, raw, emitted)
        self._waiting = 0  # samples of these
        self._sent: list[tuple[tuple[int, ...], FloatArray, Tensor, torch.cuda.Event | None]] = []

    def shift(self, shifts: FloatArray) -> None:
        """Use this feed-forward, (cells,), from now on."""
        self.send()
        self._host_shifts = np.append(shifts[self.cells], 0.0)
        self._shifts = torch.cat([self._past.new_full((1,), shift) for shift in self._host_shifts.tolist()])

    def emit(self, column: Tensor, scores: Tensor, call: Call) -> Tensor:
        """Emit one call, in the shape of the scores; half precision becomes float32."""
        raw = scores.detach().to(torch.float64, copy=True).reshape(-1)
        if column.is_floating_point():
            column = column.detach().nan_to_num(nan=-1.0)
        member = column == self._names
        emitted, self._past = emit(self._past, self._shifts, member, raw, rule=self.rule, call=call)
        self._calls.append((member, raw, emitted))
        self.uncounted += len(raw)
        self._waiting += len(raw)
        if self._waiting >= MOST_WAITING:
            self.send()
        dtype = torch.float64 if scores.dtype is torch.float64 else torch.float32
        return emitted.to(dtype, copy=True).reshape(scores.shape)

    def send(self) -> None:
        """Begin to copy the calls so far to the host, without waiting."""
        if not self._calls:
            return
        members, raws, values = zip(*self._calls, strict=True)
        arrived = None
        with torch.cuda.stream(self.place[1]):  # whoever asks, it queues up behind the calls
            table = torch.cat((torch.cat(members, 1).double(), torch.stack((torch.cat(raws), torch.cat(values)))))
            host = table.to("cpu", non_blocking=True)  # into pinned memory
            if host.is_pinned():
                arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
                arrived.record()
        self._sent.append((tuple(len(raw) for raw in raws), self._host_shifts, host, arrived))
        self._calls, self._waiting = [], 0

    def receive(self) -> list[Block]:
        """Return what was sent, to be counted; wait for it where it has not arrived."""
        blocks, self._sent = [_arrived(*sent) for sent in self._sent], []
        self.uncounted -= sum(len(block.raw) for block in blocks)
        return blocks


def place_of(device: torch.device) -> tuple[torch.device, torch.cuda.Stream | None]:
    """Return a device and the queue on which work for it is put now; a lane keeps to one of each."""
    with_queues = device.type == "cuda" and torch.cuda.is_available()
    return device, torch.cuda.current_stream(device) if with_queues else None


def _arrived(sizes: tuple[int, ...], shifts: FloatArray, host: Tensor, event: torch.cuda.Event | None) -> Block:
    if event is not None:
        event.synchronize()
    table: FloatArray = host.numpy()
    codes = np.select([table[0] > 0, table[1] > 0, table[2] > 0], [0, 1, -1], -2)
    return Block(sizes, shifts, codes, table[3], table[4])
