"""Streams that are drawn: a stationary one and a drifting one, under each policy."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import fairlayer as fl
from fairlayer.streaming.policy import Policy

REQUESTS, WARM_UP, WINDOW = 20_000, 2_000, 1_000
MINORITY, RAW_GAP, DEVIATION, TOLERANCE = 0.3, 0.15, 0.2, 0.02
ATOL = 1e-9  # rounding of running sums
PARITY = fl.DemographicParity("group", tolerance=TOLERANCE)

Array = NDArray[Any]
POLICIES: dict[str, Policy | None] = {
    "tracking": fl.Tracking(),
    "anytime": fl.Anytime(),
    "anytime, allowance 2": fl.Anytime(allowance=2.0),
    "per_batch": fl.PerBatch(),
    "nothing": None,
}


@dataclass(frozen=True)
class Stream:
    """Raw scores and groups (0 or 1), in the order of arrival."""

    raw: Array
    group: Array

    def __len__(self) -> int:
        return len(self.raw)


def stationary(seed: int, n: int = REQUESTS) -> Stream:
    """Draw normal scores, clipped to [0, 1], whose group means differ by about 0.15."""
    random = np.random.default_rng(seed)
    group = (random.random(n) < MINORITY).astype(np.int64)
    return Stream(np.clip(random.normal(0.55 - RAW_GAP * group, DEVIATION), 0.0, 1.0), group)


def drifting(seed: int) -> Stream:
    """Draw scores whose gap swings by 0.1 in two sine waves, and steps from 0.1 up to 0.2 half-way."""
    random = np.random.default_rng(seed)
    time = np.arange(REQUESTS) / REQUESTS
    group = (random.random(REQUESTS) < MINORITY).astype(np.int64)
    gap = 0.1 + 0.1 * np.sin(4 * np.pi * time) + 0.1 * (time >= 0.5)
    return Stream(np.clip(random.normal(0.55 - gap * group, DEVIATION), 0.0, 1.0), group)


def emit(
    stream: Stream, policy: Policy | None, batch: int, *, warm: Stream | None = None, half_life: float | None = None
) -> tuple[Array, fl.InferenceState | None]:
    """Return the predictions of a stream that is served in batches of one size."""
    if policy is None:
        return stream.raw, None
    state = fl.InferenceState([PARITY], bounds=(0.0, 1.0), policy=policy, half_life=half_life)
    if warm is not None:
        state.warm_start(torch.from_numpy(warm.raw), {"group": warm.group})
    raw = torch.from_numpy(stream.raw)
    parts = [state.emit(raw[i : i + batch], {"group": stream.group[i : i + batch]}) for i in range(0, len(raw), batch)]
    return torch.cat(parts).numpy(), state


def project(stream: Stream) -> Array:
    """Return the exact projection of the whole stream at once: what hindsight would emit."""
    raw = torch.from_numpy(stream.raw)
    return fl.project(raw, [PARITY], sensitive_features={"group": stream.group}, bounds=(0.0, 1.0)).value.numpy()


def project_windows(stream: Stream) -> Array:
    """Return the exact projection of each window of 1,000 by itself."""
    parts = (slice(i, i + WINDOW) for i in range(0, len(stream), WINDOW))
    return np.concatenate([project(Stream(stream.raw[part], stream.group[part])) for part in parts])


def pooled_gaps(values: Array, group: Array, batch: int) -> Array:
    """Return the gap of the pooled means after each batch, NaN before both groups were seen. Plain sums."""
    second, ones = np.cumsum(values * group), np.cumsum(group)
    first, others = np.cumsum(values * (1 - group)), np.cumsum(1 - group)
    ends = np.unique(np.append(np.arange(batch - 1, len(values), batch), len(values) - 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.abs(first / others - second / ones)[ends]


def change(values: Array, stream: Stream) -> float:
    """Return the mean squared change."""
    return float(((values - stream.raw) ** 2).mean())


def run_stationary(seeds: Sequence[int], batches: Sequence[int]) -> list[dict[str, Any]]:
    """Serve the stationary stream; one record for each policy, start and batch size."""
    records = []
    for batch in batches:
        for name, policy in POLICIES.items():
            starts = ("cold", "warm") if isinstance(policy, fl.Tracking | fl.Anytime) else ("cold",)
            records += [_stationary(name, policy, batch, start, seeds) for start in starts]
    return records


def _stationary(name: str, policy: Policy | None, batch: int, start: str, seeds: Sequence[int]) -> dict[str, Any]:
    late, ever, ratios = [], [], []
    for seed in seeds:
        stream = stationary(seed)
        warm = stationary(10_000 + seed, WARM_UP) if start == "warm" else None
        values, _ = emit(stream, policy, batch, warm=warm)
        gaps = pooled_gaps(values, stream.group, batch)
        late.append(float(np.nanmax(gaps[len(gaps) // 10 :])) - TOLERANCE)
        ever.append(float(np.nanmax(gaps)) - TOLERANCE)
        ratios.append(change(values, stream) / change(project(stream), stream))
    return {
        "policy": name,
        "start": start,
        "batch": batch,
        "late_excess": max(late),
        "excess": max(ever),
        "ratio": statistics.fmean(ratios),
        "ratios": ratios,
        "within": max(late) <= ATOL,
    }


def run_drifting(seeds: Sequence[int], half_lives: Sequence[float | None]) -> list[dict[str, Any]]:
    """Serve the drifting stream one request at a time; one record for each policy and half-life."""
    records = []
    for name, policy in POLICIES.items():
        forgetful = isinstance(policy, fl.Tracking | fl.Anytime)
        records += [_drifting(name, policy, each, seeds) for each in (half_lives if forgetful else (None,))]
    return records


def _drifting(name: str, policy: Policy | None, half_life: float | None, seeds: Sequence[int]) -> dict[str, Any]:
    late, windows, whole, lasts = [], [], [], []
    for seed in seeds:
        stream = drifting(seed)
        values, state = emit(stream, policy, 1, half_life=half_life)
        gaps = pooled_gaps(values, stream.group, 1)
        late.append(float(np.nanmax(gaps[len(gaps) // 10 :])) - TOLERANCE)
        windows.append(change(values, stream) / change(project_windows(stream), stream))
        whole.append(change(values, stream) / change(project(stream), stream))
        lasts.append(None if state is None else state.phase.value)
    return {
        "policy": name,
        "half_life": half_life,
        "late_excess": max(late),
        "ratio_windows": statistics.fmean(windows),
        "ratio_whole": statistics.fmean(whole),
        "within": max(late) <= ATOL,
        "last_phase": lasts[0],
    }
