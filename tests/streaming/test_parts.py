"""Parts of a stream by themselves: its sketch, trace, events, the sums it keeps light, and the levels of its bands."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fairlayer as fl
from fairlayer.errors import NonFiniteScoresError
from fairlayer.fused import switch
from fairlayer.fused.book import BASE, COUNT, RAW, ROWS, SOLVED_COUNT, SOLVED_MEAN, SOLVED_SIZE, SOLVED_SPREAD, SUMS
from fairlayer.groups import Vocabulary
from fairlayer.streaming.cells import names_of
from fairlayer.streaming.control.bands import _Falling
from fairlayer.streaming.control.lease import Lease
from fairlayer.streaming.counts import sketch as room_of_sketches
from fairlayer.streaming.counts.history import History
from fairlayer.streaming.counts.sketch import Sketch
from fairlayer.streaming.policies.present.resting import has_hardly_moved
from fairlayer.streaming.policies.present.solving import _feed_of_parities, _feed_of_statements
from fairlayer.streaming.policies.present.state import lightened

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
    machine = state._live.machine
    before = state._live.watch.trace.until_now(machine, state.phase)[:-1]
    for _ in range(80):
        state.emit(torch.tensor([0.9]), {"sex": [1]})
    after = state._live.watch.trace.until_now(machine, state.phase)
    assert len(before) > 2
    for old, new in zip(before, after, strict=False):
        assert (old.samples, old.gaps, old.shifts, old.phase) == (new.samples, new.gaps, new.shifts, new.phase)


def test_only_the_latest_events_are_kept() -> None:
    machine = streamed(0)._live.machine
    for i in range(250):
        machine.note("counted", str(i))
    assert [event.text for event in machine.events] == [str(i) for i in range(50, 250)]


def test_sums_that_are_made_light_keep_the_share_that_others_told() -> None:
    machine = streamed(0)._live.machine
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
    own = state._live.machine.own
    own["borrowed_labels"] = own["labels"].copy()  # type: ignore[index]
    told = own["labels"].sum()
    state.emit(torch.linspace(0.1, 0.9, 20), features, y=y)
    own = state._live.machine.own
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


@pytest.mark.parametrize(("share", "rests"), [(0.0, True), (0.99, True), (1.01, False)])
def test_raw_means_rest_within_twice_their_slack(share: float, *, rests: bool) -> None:
    policy, size, spread = fl.Present(doubt=0.25), np.array([40.0, 90.0]), 0.2
    book = np.zeros((ROWS, 2))
    book[COUNT] = book[SOLVED_COUNT] = book[SOLVED_SIZE] = size
    book[SOLVED_MEAN], book[SOLVED_SPREAD] = 0.1, spread
    book[RAW] = 0.1 * size + share * 2.0 * policy.doubt * spread * np.sqrt(size)  # both means leave by two slacks
    assert has_hardly_moved(policy, {"book": book, "weight": 1.0}) is rests


def test_labels_that_had_to_make_room_are_counted_and_told_once() -> None:
    state = streamed(0)
    state._live.pending.limit = 5
    for first in (0, 8, 16):
        ids = list(range(first, first + 8))
        state.emit(torch.full((8,), 0.5), {"sex": [0, 1] * 4}, ids=ids)
    assert state.waiting_labels == 5
    assert state._live.machine.lost_labels == 19
    assert [event.kind for event in state.events].count("labels lost") == 1
    assert fl.InferenceState(PARITY, bounds=(0.0, 1.0)).state_dict()["machine"]["lost_labels"] == 0


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("way", ["0", "1"])
def test_no_short_way_goes_past_a_lease(n: int, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(switch.SWITCH, way)
    monkeypatch.setattr(switch, "_streams", switch._Library(switch.StreamSweeps))
    state = streamed(60)
    machine = state._live.machine
    machine.lease = Lease.begin(0.0, machine.history)
    means = machine.lease.sums / machine.lease.counts
    found = state.emit(torch.full((n,), 0.9, dtype=torch.float64), {"sex": torch.arange(n)})
    assert found.tolist() == pytest.approx(means[:n].tolist(), abs=1e-12)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("bad", [[float("nan")], [0.5, float("inf")]])
def test_a_plain_call_that_raises_where_a_solution_is_due_changes_nothing(bad: list[float]) -> None:
    state = streamed(60)
    state._live.machine.own["next_refresh"] = 0.0  # type: ignore[index]
    before, revision = state.state_dict()["machine"]["policy"], state._live.machine.revision
    with pytest.raises(NonFiniteScoresError):
        state.emit(torch.tensor(bad), {"sex": torch.arange(len(bad))})
    after = state.state_dict()["machine"]["policy"]
    assert np.array_equal(before["book"], after["book"], equal_nan=True)
    assert (before["weight"], before["next_refresh"]) == (after["weight"], after["next_refresh"])
    assert revision == state._live.machine.revision


def test_a_saved_stream_goes_on_with_its_transition() -> None:
    state = streamed(200)
    wider = fl.DemographicParity("sex", tolerance=0.2)
    state.change_constraints(wider, over=1000)
    other = fl.InferenceState(wider, bounds=(0.0, 1.0))
    other.load_state_dict(state.state_dict())
    assert state._live.machine.transition is not None
    assert other._live.machine.transition == state._live.machine.transition
    assert other.phase is state.phase is fl.streaming.Phase.CHANGING


def test_what_waits_for_a_label_keeps_its_category_under_other_codes() -> None:
    state = fl.InferenceState(fl.EqualOpportunity("sex", tolerance=0.05), bounds=(0.0, 1.0))
    state.emit(torch.tensor([0.4, 0.6]), {"sex": ["F", "M"]}, ids=["of F", "of M"])
    state.adopt(Vocabulary({"sex": ("M", "F")}, open=False))
    state.observe_labels(["of F"], [1.0])
    positive = state.state_dict()["machine"]["history"]["sums"][5]
    assert dict(zip(names_of(state._live.machine), positive.tolist(), strict=True)) == {"sex=F": 1.0, "sex=M": 0.0}


def test_a_step_that_fails_leaves_no_cell_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> Any:
        raise ArithmeticError("in the middle of a step")

    state = streamed(60)
    before = state.state_dict()["machine"]
    with monkeypatch.context() as patch:
        patch.setattr(fl.Present, "answer_many", failing)
        with pytest.raises(ArithmeticError):
            state.emit(torch.tensor([0.5]), {"sex": [7]})
    after = state.state_dict()["machine"]
    assert torch.equal(before["history"]["cells"], after["history"]["cells"])
    assert torch.equal(before["history"]["sums"], after["history"]["sums"])
    assert before["vocabulary"] == after["vocabulary"]
    state.emit(torch.tensor([0.5]), {"sex": [7]})
    assert state.samples == 61


def test_buckets_without_a_window_grow_longer_not_more() -> None:
    state, n = streamed(0), 20_000
    state.absorb(torch.full((n,), 0.5), torch.full((n,), 0.5), {"sex": torch.arange(n) % 2})
    lengths = [bucket.samples for bucket in state.report().buckets]
    assert sum(lengths) == n
    assert 10 <= len(lengths) <= 24
    assert len(set(lengths[:-1])) <= 2
    assert state._live.machine.windows.every == 1600.0


@pytest.mark.usefixtures("plain")
def test_no_solution_waits_longer_than_half_of_the_memory() -> None:
    state, ages = fl.InferenceState(PARITY, bounds=(0.0, 1.0), memory=400.0), []
    for i in range(1500):
        state.emit(torch.tensor([0.5]), {"sex": [i % 2]})
        ages.append(i + 1 - state._live.machine.own["solved"])
    assert 100 < max(ages[400:]) <= 200 + 26


@pytest.mark.parametrize("geometry", ["euclidean", "entropic"])
@pytest.mark.parametrize(
    "constraints",
    [
        [PARITY],
        [PARITY, fl.DemographicParity("race", tolerance=0.01)],
        [fl.DemographicParity(("sex", "race"), tolerance=0.03)],
        [fl.EqualizedOdds("sex", tolerance=0.03), fl.DemographicParity("race", tolerance=0.05)],
    ],
    ids=["one", "two", "crossed", "labels"],
)
@pytest.mark.parametrize("block", [None, 300])
@pytest.mark.usefixtures("plain")
def test_rows_of_parities_are_solved_as_statements_are(
    geometry: str, constraints: list[fl.Constraint], block: int | None
) -> None:
    draw = np.random.default_rng(4)
    stream = fl.InferenceState(constraints, bounds=(0.0, 1.0), geometry=geometry, policy=fl.Present(trust=1.0))
    for number in range(40):
        sex, race = draw.integers(0, 2, 20), draw.integers(0, 3, 20)
        scores = np.clip(draw.beta(2, 3, 20) - 0.2 * sex + 0.1 * (race == 1), 0.0, 1.0)
        features = {"sex": sex.tolist(), "race": race.tolist()}
        ids = [f"{number} {i}" for i in range(20)]
        stream.emit(torch.from_numpy(scores), features, ids=ids)
        stream.observe_labels(ids, torch.from_numpy((draw.random(20) < scores).astype(float)))
    machine, k = stream._live.machine, len(stream._live.machine.history.cells)
    more = None if block is None else (draw.integers(0, k, block), draw.random(block))
    books, feeds = [], []
    for solve in (_feed_of_parities, _feed_of_statements):
        books.append(machine.own["book"].copy())
        feeds.append(solve(machine.policy, machine.own, machine, more, books[-1]))
    assert np.abs(books[0][BASE]).max() > 1e-3
    np.testing.assert_allclose(books[0], books[1], rtol=1e-9, atol=1e-11)
    assert feeds[0].shifts == pytest.approx(feeds[1].shifts, rel=1e-9, abs=1e-11)
    assert feeds[0].prices == pytest.approx(feeds[1].prices, rel=1e-9, abs=1e-11)
    assert feeds[0].unmet == pytest.approx(feeds[1].unmet, abs=1e-11)


def test_a_draft_outlives_a_reader_of_the_sums() -> None:
    """A policy may read the sums while it answers: that empties the journal in which its answer is being written."""
    history = History(("sex",), Sketch())
    history.locate(np.array([[0], [1]]))
    for _ in range(3):
        history.emit_one(0, 0.5, 0.25)
    raw, emitted = history.draft(8)
    raw[:], emitted[:] = np.arange(8.0) / 8.0, np.arange(8.0) / 16.0
    assert history.sums["emitted"].tolist() == [0.75, 0.0]
    found = history.emit_draft(np.ones(8, dtype=np.int64))
    assert found.tolist() == (np.arange(8.0) / 16.0).tolist()
    assert history.sums["emitted"].tolist() == [0.75, 1.75]
    assert history.sums["raw"].tolist() == [1.5, 3.5]
    assert history.sketch.seen == 11


def test_a_step_that_begins_to_count_by_groups_keeps_the_sums_of_its_readers() -> None:
    """What singles have left in the journal is summed up within a block, once the group sums are made anew."""
    stream, random, total = (
        fl.InferenceState([PARITY], bounds=(0.0, 1.0), policy="tracking"),
        np.random.default_rng(0),
        0.0,
    )
    for n in [2, 1, 1, 1, 9, 1, 1, 12, 1, 1, 1, 30]:
        sex = np.arange(n) % 2
        total += float(stream.emit(torch.tensor(random.random(n)), {"sex": sex}).sum())
        stream._live.machine.scratch.pop("sums", None)  # as after a refused request
    assert float(stream._live.machine.history.sums["emitted"].sum()) == pytest.approx(total, abs=1e-9)


@pytest.mark.usefixtures("plain")
def test_a_plain_block_that_cannot_be_taken_changes_nothing() -> None:
    stream = fl.InferenceState([PARITY], bounds=(0.0, 1.0))
    for _ in range(40):
        stream.emit(torch.tensor([0.4, 0.6]), {"sex": ["F", "M"]})
    machine = stream._live.machine
    machine.own["next_refresh"] = math.inf  # no solution is due, so that nobody else has looked at the call
    before, written = machine.own["book"].copy(), machine.history._written
    for cells, scores in (([0, 1], [0.5, math.nan]), ([0, 2], [0.5, 0.5]), ([0, 1], [math.inf, 0.5])):
        assert machine.step_many(np.array(cells), np.array(scores)) is None
        np.testing.assert_array_equal(machine.own["book"], before)
        assert machine.history._written == written
    assert machine.step_many(np.array([0, 1]), np.array([0.5, 0.5])) is not None
