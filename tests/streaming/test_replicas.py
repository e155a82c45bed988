"""Replicas that exchange what they have emitted: no swing, no wait, nothing counted twice."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import distributed

import fairlayer as fl
from fairlayer.groups import Vocabulary
from tests.streaming.streams import lending, one, tensor

PARITY = fl.DemographicParity("s", 0.02)
Exchange = Callable[[list[fl.InferenceState]], None]


@pytest.fixture
def exchange(monkeypatch: pytest.MonkeyPatch) -> Exchange:
    """Let `sync` of several objects run over threads in place of processes."""
    local, box = threading.local(), {}

    def run(states: list[fl.InferenceState]) -> None:
        barrier = threading.Barrier(len(states))

        def gather(into: list[Any], value: Any, group: Any = None) -> None:
            box[local.rank] = value
            barrier.wait(60)
            into[:] = [box[rank] for rank in range(len(states))]
            barrier.wait(60)

        monkeypatch.setattr(distributed, "get_world_size", lambda group=None: len(states))
        monkeypatch.setattr(distributed, "all_gather_object", gather)

        def sync(rank: int) -> None:
            local.rank = rank
            states[rank].sync()

        threads = [threading.Thread(target=sync, args=(rank,)) for rank in range(len(states))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)

    return run


def new_states(count: int, **more: Any) -> list[fl.InferenceState]:
    words = Vocabulary().learn({"s": ["F", "M"]})
    states = [fl.InferenceState([PARITY], **{"bounds": (0.0, 1.0), **more}) for _ in range(count)]
    for state in states:
        state.adopt(words)
    return states


@pytest.mark.parametrize("geometry", ["euclidean", "entropic"])
def test_replicas_with_unlike_traffic_do_not_swing(exchange: Exchange, geometry: str) -> None:
    states = new_states(4, geometry=geometry)
    randoms = [np.random.default_rng(i) for i in range(4)]
    sums, counts, gaps, ends, raw_ends = np.zeros(2), np.zeros(2), [], 0, 0
    for _ in range(8):
        for i, state in enumerate(states):
            for _ in range(400):
                group = int(randoms[i].random() < 0.2 + 0.2 * i)
                z = float(np.clip(randoms[i].beta(2, 3) + 0.2 * group + 0.05 * i, 0, 1))
                y = state.emit(one(z), {"s": ["FM"[group]]}).item()
                sums[group] += y
                counts[group] += 1
                ends += y <= 1e-6 or y >= 1 - 1e-6
                raw_ends += z <= 0 or z >= 1
        exchange(states)
        gaps.append(abs(float(np.diff(sums / counts)[0])))
    assert all(later <= before + 0.005 for before, later in itertools.pairwise(gaps))
    assert gaps[-1] <= 0.045
    assert ends <= raw_ends + 0.01 * counts.sum()
    assert all(state.samples == counts.sum() for state in states)


def test_nothing_is_counted_twice(exchange: Exchange) -> None:
    states = new_states(3)
    for round_ in range(3):
        for i, state in enumerate(states):
            scores, sex = lending(10 * round_ + i, 50)
            state.emit(tensor(scores), {"s": ["FM"[code] for code in sex]})
        exchange(states)
        exchange(states)
        assert {state.samples for state in states} == {150 * (round_ + 1)}
        for state in states:
            assert sum(state.counts().values()) == 150 * (round_ + 1)
    for state in states[1:]:
        assert state.counts() == states[0].counts()
        assert state.pooled_gap() == pytest.approx(states[0].pooled_gap(), abs=1e-9)
    for state in states:
        table = state.state_dict()["machine"]["history"]
        assert 150 < float(table["sketch"].sum() / table["range"][2]) <= 450  # the others' scores fade with time


def test_a_slow_peer_keeps_no_request_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the exchange hangs, requests are answered and counted, and what they emit is not lost."""
    release, entered = threading.Event(), threading.Event()

    def gather(into: list[Any], value: Any, group: Any = None) -> None:
        entered.set()
        assert release.wait(60)
        into[:] = [value, value]

    monkeypatch.setattr(distributed, "get_world_size", lambda group=None: 2)
    monkeypatch.setattr(distributed, "all_gather_object", gather)
    [state] = new_states(1)
    state.emit(one(0.5), {"s": ["F"]})
    thread = threading.Thread(target=state.sync, daemon=True)
    thread.start()
    assert entered.wait(60)
    answered = threading.Event()

    def ask() -> None:
        for _ in range(20):
            state.emit(one(0.5), {"s": ["M"]})
        answered.set()

    threading.Thread(target=ask, daemon=True).start()
    assert answered.wait(60), "a request waits for the peer"
    release.set()
    thread.join(60)
    assert state.samples == 21


def test_a_peer_that_dies_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather(into: list[Any], value: Any, group: Any = None) -> None:
        raise RuntimeError("connection closed by peer")

    monkeypatch.setattr(distributed, "get_world_size", lambda group=None: 2)
    monkeypatch.setattr(distributed, "all_gather_object", gather)
    [state] = new_states(1)
    state.emit(one(0.5), {"s": ["F"]})
    with pytest.raises(RuntimeError, match="peer"):
        state.sync()
    start = time.monotonic()
    state.emit(one(0.5), {"s": ["M"]})
    assert time.monotonic() - start < 30
    assert state.samples == 2


def test_a_merger_of_two_good_histories_moves_nobody_far() -> None:
    """Each holds its own gap, and together they are far apart: that is no reason to answer 0 or 1 by group."""
    first, second = new_states(2)
    for state, shares, level in ((first, 0.95, 0.6), (second, 0.05, 0.1)):
        rng = np.random.default_rng(0)
        for _ in range(800):
            z = float(np.clip(level + 0.2 * rng.random(), 0, 1))
            state.emit(one(z), {"s": ["F" if rng.random() < shares else "M"]})
    first.merge(second)
    rng = np.random.default_rng(1)
    y = [first.emit(one(0.6 + 0.2 * rng.random()), {"s": ["FM"[i % 2]]}).item() for i in range(300)]
    # The nearest answer to the joint gap of .5 moves each group by .24: a score of .79 then lies beyond 1 by itself.
    assert np.mean([value <= 0 or value >= 1 for value in y]) <= 0.02


@pytest.mark.parametrize("geometry", ["euclidean", "entropic"])
def test_a_replica_without_any_request_joins_one_whose_labels_are_counted(exchange: Exchange, geometry: str) -> None:
    """Nobody has answered the empty one yet, so that it holds no counts of labels of any width."""
    rng = np.random.default_rng(0)

    def replica(calls: int) -> fl.InferenceState:
        rule = fl.EqualOpportunity("s", 0.02)
        state = fl.InferenceState([rule], bounds=(0.0, 1.0), policy="present", geometry=geometry)
        for _ in range(calls):
            state.emit(tensor(rng.random(4)), {"s": rng.integers(0, 2, 4)}, y=rng.integers(0, 2, 4))
        return state

    for first, second in ((100, 0), (0, 100)):
        merged = replica(first)
        merged.merge(replica(second))
        assert merged.samples == 400
    both = [replica(100), replica(0)]
    exchange(both)
    for state in both:
        state.emit(tensor(rng.random(4)), {"s": rng.integers(0, 2, 4)}, y=rng.integers(0, 2, 4))
