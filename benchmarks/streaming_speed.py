"""What a streamed call costs beside the bare network, and beside fairness_training."""

from __future__ import annotations

import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from epoch import Data, make_data, make_network
from torch import Tensor, nn

import fairlayer as fl
from fairlayer.fused import switch

TOLERANCE = 0.02
BARE, OURS, THEIRS = "bare MLP", "fairlayer", "fairness_training"
Call = Callable[[int], Any]
ASKED: dict[str, list[fl.Constraint]] = {
    "one parity": [fl.DemographicParity("group", tolerance=TOLERANCE)],
    "two constraints": [
        fl.DemographicParity("group", tolerance=TOLERANCE),
        fl.DemographicParity("race", tolerance=0.05),
    ],
    "12 cells": [fl.DemographicParity(("group", "race"), tolerance=0.05)],
}


def run_speed(
    batch: int, block: int, calls: int, their_calls: int, *, asked: str = "one parity", compiled: bool = False
) -> dict[str, Any]:
    """Time calls in turns of `block` calls each; return microseconds and ratios to the bare network.

    In blocks a call finds the processor's caches as its like has left them, as in a loop that does nothing else. In
    turns of one the bare network finds them cold, and loads the rows that the next one reads too: that flatters it.
    Compiled steps are loaded before anything is timed.
    """
    data = make_data()
    network = _trained(data)
    steps: dict[str, Call] = {BARE: _bare(network, data, batch), OURS: _ours(network, data, batch, asked)}
    with _kernels(compiled):
        times = _interleave(steps, calls, block, warm=max(200, calls // 10))
    floor = times[BARE]
    record: dict[str, Any] = {"batch": batch, "block": block, "calls": calls, "asked": asked, "us": {}, "ratio": {}}
    record["way"] = "compiled" if compiled else "plain"
    try:
        if not their_calls:
            raise ImportError("not asked for here")
        theirs = _interleave({BARE: steps[BARE], THEIRS: _theirs(network, data, batch)}, their_calls, block, warm=5)
        times[THEIRS] = theirs[THEIRS]
        record["their_calls"] = their_calls
    except ImportError as error:
        record["skipped"] = str(error)
    for name, each in times.items():
        base = floor if name != THEIRS else theirs[BARE]
        record["us"][name] = {"median": statistics.median(each), "mean": statistics.fmean(each)}
        record["ratio"][name] = {
            "median": statistics.median(each) / statistics.median(base),
            "mean": statistics.fmean(each) / statistics.fmean(base),
        }
    return record


def _trained(data: Data) -> nn.Module:
    """A hundred steps, so that there is a gap for the stream to close."""
    network = make_network()
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for rows in torch.arange(len(data.x)).split(256)[:100]:
        x, y = data.batch(rows)
        loss = nn.functional.binary_cross_entropy(network(x), y)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return network.eval()


def _batches(data: Data, batch: int) -> list[tuple[Tensor, Tensor]]:
    """Rows and groups of each request, made beforehand: reading a request is not timed."""
    codes = data.x[:, 0].long()
    return list(zip(data.x.split(batch), codes.split(batch), strict=True))


def _bare(network: nn.Module, data: Data, batch: int) -> Call:
    requests = _batches(data, batch)

    def call(i: int) -> Tensor:
        return network(requests[i % (len(requests) - 1)][0])

    return call


def _ours(network: nn.Module, data: Data, batch: int, asked: str = "one parity") -> Call:
    requests = _batches(data, batch)
    races = torch.randint(6, (len(data.x),), generator=torch.Generator().manual_seed(1)).split(batch)
    columns = [{"group": group, "race": race} for (_, group), race in zip(requests, races, strict=False)]
    if asked == "one parity":
        columns = [{"group": each["group"]} for each in columns]
    model = fl.FairModel(network, ASKED[asked], bounds=(0.0, 1.0))

    def call(i: int) -> Tensor:
        j = i % (len(requests) - 1)
        return model(requests[j][0], sensitive_features=columns[j], inference=True)

    return call


@contextmanager
def _kernels(compiled: bool) -> Iterator[None]:
    """Let streams use compiled steps, or plain ones, as another process would."""
    before = switch._streams, os.environ.get(switch.SWITCH)
    switch._streams, os.environ[switch.SWITCH] = switch._Library(switch.StreamSweeps), "1" if compiled else "0"
    if (switch.stream_kernels(1) is not None) is not compiled:
        raise RuntimeError("numba is not installed, so that there are no compiled steps to time")
    try:
        yield
    finally:
        switch._streams = before[0]
        os.environ.pop(switch.SWITCH)
        if before[1] is not None:
            os.environ[switch.SWITCH] = before[1]


def _theirs(network: nn.Module, data: Data, batch: int) -> Call:
    from fairness_training import FairModel

    warnings.simplefilter("ignore")
    requests = _batches(data, batch)
    model = FairModel.wrap(
        network, 0, input_dim=data.x.shape[1], fairness_tolerance=TOLERANCE, prediction_bounds=(0.0, 1.0)
    ).eval()

    def call(i: int) -> Tensor:
        return model(requests[i % (len(requests) - 1)][0], inference=True)

    return call


@torch.no_grad()
def _interleave(steps: dict[str, Call], calls: int, block: int, warm: int) -> dict[str, list[float]]:
    """Return microseconds of each call; the first `warm` of each are left out."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for first in range(0, warm + calls, block):
        for name, step in steps.items():
            for i in range(first, min(first + block, warm + calls)):
                start = time.perf_counter()
                step(i)
                if i >= warm:
                    times[name].append(1e6 * (time.perf_counter() - start))
    return times
