"""The compiled step and solution of the present policy give what the plain ones give."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fairlayer as fl
from fairlayer.errors import NonFiniteScoresError
from fairlayer.fused import switch
from fairlayer.fused.book import LONG, NEAR

needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")
ASKED: dict[str, list[fl.Constraint]] = {
    "parity": [fl.DemographicParity("sex", tolerance=0.02)],
    "two parities": [fl.DemographicParity("sex", tolerance=0.02), fl.DemographicParity("race", tolerance=0.05)],
    "cells": [fl.DemographicParity(["sex", "race"], tolerance=0.05)],
    "opportunity": [fl.EqualOpportunity("sex", tolerance=0.02)],
    "odds": [fl.EqualizedOdds("sex", tolerance=0.03)],
    "ratio": [fl.DisparateImpactRatio("sex", ratio=0.9)],
}


def streamed(way: str, seed: int, *, asked: str, geometry: str, memory: float, abrupt: bool) -> tuple[Any, ...]:
    """Return what a random stream emits in one of the two ways, and how often its guard and its cuts acted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(switch.SWITCH, "1" if way == "compiled" else "0")
        patch.setattr(switch, "_streams", switch._Library(switch.StreamSweeps))
        random = np.random.default_rng(seed)
        stream = fl.InferenceState(ASKED[asked], bounds=(0.0, 1.0), geometry=geometry, memory=memory)
        emitted, count = [], 0
        while count < 1_200:
            n = int(random.choice([1, 1, 1, 5, 32, 90]))
            sex, race = random.integers(0, 2, n), random.integers(0, 3, n)
            side = (count // 300) % 2 if abrupt else 0
            raw = np.clip(0.35 + (0.25 - 0.6 * side) * sex + 0.05 * race + 0.15 * random.standard_normal(n), 0.01, 0.99)
            y = torch.tensor((random.random(n) < raw) * 1.0) if asked in {"opportunity", "odds"} else None
            late = None if y is None or random.random() < 0.5 else [f"{count} {i}" for i in range(n)]
            features = {"sex": sex, "race": race}
            emitted.append(stream.emit(torch.tensor(raw), features, ids=late, y=None if late else y).numpy())
            if late:
                stream.observe_labels(late, y)
            count += n
        own = stream._live.machine.own
        assert (switch.stream_loaded() is not None) is (way == "compiled")
        return np.concatenate(emitted), own["guarded"], own["cuts"], own["book"]


@needs_numba
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    asked=st.sampled_from(sorted(ASKED)),
    geometry=st.sampled_from(["euclidean", "entropic", "likelihood"]),
    memory=st.sampled_from([50.0, 1000.0]),
    abrupt=st.booleans(),
)
def test_both_ways_emit_the_same(seed: int, **options: Any) -> None:
    plain, compiled = (streamed(way, seed, **options) for way in ("plain", "compiled"))
    assert np.abs(plain[0] - compiled[0]).max() <= 1e-12
    assert plain[1:3] == compiled[1:3]
    assert np.allclose(plain[3], compiled[3], rtol=1e-9, atol=1e-12, equal_nan=True)


@needs_numba
def test_the_guard_and_the_cuts_act_in_such_streams() -> None:
    acted = [
        streamed("compiled", seed, asked="parity", geometry="euclidean", memory=50.0, abrupt=True) for seed in range(3)
    ]
    assert sum(each[1] for each in acted) > 0
    assert sum(each[2] for each in acted) > 0


@needs_numba
def test_a_call_that_the_kernel_refuses_changes_nothing() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(switch.SWITCH, "1")
        patch.setattr(switch, "_streams", switch._Library(switch.StreamSweeps))
        stream = fl.InferenceState(ASKED["parity"], bounds=(0.0, 1.0))
        stream.emit(torch.tensor([0.2, 0.4]), {"sex": [0, 1]})
        before = stream.state_dict()["machine"]["policy"]
        with pytest.raises(NonFiniteScoresError):
            stream.emit(torch.tensor([0.2, float("nan")]), {"sex": [0, 1]})
        after = stream.state_dict()["machine"]["policy"]
    assert all(np.array_equal(before[name], after[name], equal_nan=True) for name in ("book", "curve"))
    assert before["weight"] == after["weight"]


@needs_numba
@pytest.mark.parametrize("way", ["plain", "compiled"])
def test_a_cell_asks_for_a_solution_with_samples_of_its_own_only(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(switch.SWITCH, "1" if way == "compiled" else "0")
    monkeypatch.setattr(switch, "_streams", switch._Library(switch.StreamSweeps))
    stream = fl.InferenceState(ASKED["parity"], bounds=(0.0, 1.0))
    random = np.random.default_rng(0)
    for _ in range(10):
        stream.emit(torch.tensor(random.uniform(0.3, 0.7, 30)), {"sex": np.arange(30) % 2})
    own = stream._live.machine.own
    own["next_refresh"] = own["wait"] = 1e9  # nothing is due by the count of samples
    own["book"][[LONG, NEAR], 1] = 5.0, 0.0
    stream.emit(torch.full((4,), 0.5), {"sex": np.zeros(4, dtype=np.int64)})
    assert stream._live.machine.own["next_refresh"] == 1e9
    stream.emit(torch.full((4,), 0.5), {"sex": np.arange(4) % 2})
    assert stream._live.machine.own["next_refresh"] == 0.0


@needs_numba
@pytest.mark.parametrize("way", ["plain", "compiled"])
@pytest.mark.parametrize("geometry", ["entropic", "likelihood"])
def test_predictions_keep_to_narrower_bounds(geometry: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(switch.SWITCH, "1" if way == "compiled" else "0")
    monkeypatch.setattr(switch, "_streams", switch._Library(switch.StreamSweeps))
    stream = fl.InferenceState(ASKED["parity"], bounds=(0.1, 0.9), geometry=geometry)
    scores, sex = torch.tensor([0.01, 0.95, 0.5, 0.3, 0.7, 0.99]).double(), torch.tensor([0, 0, 0, 1, 1, 1])
    for _ in range(100):
        block = stream.emit(scores, {"sex": sex})
    alone = torch.cat([stream.emit(scores[i : i + 1], {"sex": sex[i : i + 1]}) for i in range(6)])
    assert abs(stream.shifts()["sex=0"]) > 0.01
    for emitted in (block, alone):
        assert 0.1 <= float(emitted.min()) <= float(emitted.max()) <= 0.9
