"""Parts of a stream by themselves: its sketch, trace, events, the sums it keeps light, and the levels of its bands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fairlayer as fl
from fairlayer.fused import switch
from fairlayer.fused.book import ROWS, SUMS
from fairlayer.streaming import sketch as room_of_sketches
from fairlayer.streaming.bands import _Falling
from fairlayer.streaming.policies.present.resting import RESTS, has_hardly_moved
from fairlayer.streaming.policies.present.state import lightened
from fairlayer.streaming.sketch import Sketch

PARITY = fl.DemographicParity("sex", tolerance=0.02)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(switch.SWITCH, "0")
    monkeypatch.setattr(switch, "_streams", switch._Library(switch.StreamSweeps))


def streamed(n: int, constraint: fl.Constraint = PARITY, **options: Any) -> fl.InferenceState:
    state, random = fl.InferenceState(constraint, bounds=(0.0, 1.0), **options), np.random.default_rng(0)
    for i in range(n):
        state.emit(torch.tensor([0.3 + 0.3 * (i % 2) + 0.1 * random.random()]), {"sex": [i % 2]})
    return state


@given(parts=st.lists(st.integers(1, 40), min_size=1, max_size=8), cells=st.integers(1, 4), seed=st.integers(0, 99))
def test_the_latest_scores_of_each_cell_are_kept_newest_first(parts: list[int], cells: int, seed: int) -> None:
    random, kept = np.random.default_rng(seed), Sketch(latest=16, memory=100.0)
    kept.grow(cells)
    told: list[list[float]] = [[] for _ in range(cells)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room_of_sketches, "stream_loaded", lambda: None)
        for n in parts:
            cell, score = random.integers(0, cells, n), random.random(n)
            kept.add(cell, score)
            for c, z in zip(cell.tolist(), score.tolist(), strict=True):
                told[c].insert(0, z)
    for c in range(cells):
        assert kept.newest(c).tolist() == told[c][:16]


@pytest.mark.usefixtures("plain")
def test_points_of_a_trace_stay_what_they_were() -> None:
    state = streamed(120)
    machine = state._machine
    before = state._watch.trace.until_now(machine, state.phase)[:-1]
    for _ in range(80):
        state.emit(torch.tensor([0.9]), {"sex": [1]})
    after = state._watch.trace.until_now(machine, state.phase)
    assert len(before) > 2
    for old, new in zip(before, after, strict=False):
        assert (old.samples, old.gaps, old.shifts, old.phase) == (new.samples, new.gaps, new.shifts, new.phase)


def test_only_the_latest_events_are_kept() -> None:
    machine = streamed(0)._machine
    for i in range(250):
        machine.note("counted", str(i))
    assert [event.text for event in machine.events] == [str(i) for i in range(50, 250)]


def test_sums_that_are_made_light_keep_the_share_that_others_told() -> None:
    machine = streamed(0)._machine
    book = np.full((ROWS, 2), 6e6)
    state = {**machine.own, "book": book, "borrowed": np.full((6, 2), 3e6), "weight": 2e6}
    found = lightened(state, machine)
    assert found["weight"] == 1.0
    assert found["book"][SUMS].tolist() == [[3.0, 3.0]] * 6
    assert found["borrowed"].tolist() == [[1.5, 1.5]] * 6
    assert (book == 6e6).all()


def test_labels_that_others_told_fade_like_all_labels() -> None:
    equal = fl.EqualOpportunity("sex", tolerance=0.05)
    state = fl.InferenceState(equal, bounds=(0.0, 1.0), memory=20.0)
    features, y = {"sex": [0, 1] * 10}, torch.tensor([0.0, 1.0, 1.0, 0.0] * 5)
    state.emit(torch.linspace(0.1, 0.9, 20), features, y=y)
    own = state._machine.own
    own["borrowed_labels"] = own["labels"].copy()  # type: ignore[index]
    told = own["labels"].sum()
    state.emit(torch.linspace(0.1, 0.9, 20), features, y=y)
    own = state._machine.own
    assert own["borrowed_labels"].sum() == pytest.approx(told * np.exp(-20 / 80.0))
    assert (own["labels"] >= own["borrowed_labels"]).all()


@pytest.mark.usefixtures("plain")
def test_log_odds_of_single_precision_are_squashed_in_double_precision() -> None:
    random = np.random.default_rng(0)
    scores = torch.tensor(random.normal(size=(20, 16)), dtype=torch.float32)
    features = {"sex": random.integers(0, 2, 16)}
    single, double = (fl.InferenceState(PARITY, geometry="entropic", from_logits=True, memory=1e6) for _ in range(2))
    for row in scores:
        found, wanted = single.emit(row, features), double.emit(row.double(), features)
        assert (found.double() - wanted).abs().max() <= 3.1e-8


@given(
    values=st.lists(st.integers(-64, 64), min_size=3, max_size=9, unique=True),
    place=st.integers(0, 8),
    limits=st.tuples(st.integers(-77, 77), st.integers(-77, 77)),
)
def test_the_least_shift_brings_a_value_between_its_limits(
    values: list[int], place: int, limits: tuple[int, int]
) -> None:
    low, high = np.sort(limits) / 64.0
    falls = np.sort(values)[::-1] / 64.0
    shifts = np.arange(len(falls)) - float(min(place, len(falls) - 1))
    line = _Falling(shifts.tolist(), (-falls).tolist())
    found = line.least(low, high)
    grid = np.union1d(np.linspace(shifts[0], shifts[-1], 4001), [found, 0.0])
    value = np.interp(grid, shifts, falls)
    inside = (value >= low - 1e-9) & (value <= high + 1e-9)
    if inside.any():
        assert low - 1e-9 <= np.interp(found, shifts, falls) <= high + 1e-9
        assert abs(found) <= np.abs(grid[inside]).min() + 1e-9
    else:
        assert found == (shifts[-1] if value.min() > high else shifts[0])


def test_raw_means_rest_within_twice_their_slack() -> None:
    state = streamed(300)
    own = dict(state._machine.own)
    book = np.zeros((ROWS, 2))
    book[2], book[4], book[17], book[18] = [10.0, 30.0], [1.0, 3.0], 0.1, 0.05  # counts, raw sums, means, slacks
    own["book"] = book
    assert has_hardly_moved(own)
    book[4] += 10.0 * 0.05 * np.sqrt(RESTS) * np.array([1.0, 3.0]) * 0.99
    assert has_hardly_moved(own)
    book[4] += 10.0 * 0.05 * np.sqrt(RESTS) * np.array([1.0, 3.0]) * 0.02
    assert not has_hardly_moved(own)
