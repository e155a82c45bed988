"""Phases of a stream, and the callback that tells of their changes."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np
import pytest

import fairlayer as fl
from fairlayer import Phase
from fairlayer.errors import SolverError
from tests.streaming.streams import emit_general, lending, one, tensor

PARITY = fl.DemographicParity("sex", 0.02)


def new_stream(policy: Any = "anytime", constraints: Any = None, **more: Any) -> tuple[fl.InferenceState, list[Any]]:
    stream = fl.InferenceState(constraints or [PARITY], **{"bounds": (0.0, 1.0), "policy": policy, **more})
    changes: list[tuple[Phase, Phase]] = []
    stream.on_phase_change(lambda before, after: changes.append((before, after)))
    return stream, changes


def observed(phases: list[Phase]) -> list[tuple[Phase, Phase]]:
    """Changes that a reader of `phase` after every step sees."""
    return [(a, b) for a, b in zip([Phase.COLD, *phases], phases, strict=False) if a != b]


@pytest.mark.parametrize("policy", ["anytime", "tracking"])
@pytest.mark.parametrize("size", [1, 4])
def test_from_cold_to_steady(policy: str, size: int) -> None:
    stream, changes = new_stream(policy)
    assert stream.phase is Phase.COLD
    scores, sex = lending(0, 3000)
    sex[:12] = 0
    sex[12] = 1
    phases = []
    for start in range(0, 3000, size):
        part = slice(start, start + size)
        stream.emit(tensor(scores[part]), {"sex": sex[part].tolist()})
        phases.append(stream.phase)
        if start + size <= 12:
            assert stream.phase is Phase.COLD
        elif start + size < 1000:
            assert stream.phase is Phase.WARMING
    assert phases[-1] is Phase.STEADY
    assert changes == observed(phases)
    assert changes[0] == (Phase.COLD, Phase.WARMING)


@pytest.mark.parametrize("general", [False, True])
def test_each_change_is_told_once_and_in_order(general: bool) -> None:
    """Also a change that lasts for a few requests, late in a stream."""
    stream, changes = new_stream("anytime", memory=200.0)
    scores, sex = lending(0, 6000)
    flipped = np.where((np.arange(6000) // 1500) % 2 == 0, sex, 1 - sex)
    phases = []
    for score, code in zip(scores, flipped, strict=True):
        features = {"sex": [int(code)]}
        emit_general(stream, one(score), features) if general else stream.emit(one(score), features)
        phases.append(stream.phase)
    assert len(observed(phases)) >= 2
    assert changes == observed(phases)


def test_limits_that_cannot_be_met() -> None:
    stream, changes = new_stream("anytime", [fl.MinimumRate("sex", 0.6)], bounds=(0.0, 0.5))
    for score, sex in [(0.2, 0), (0.3, 1), (0.4, 0)]:
        assert float(stream.emit(one(score), {"sex": [sex]})) == pytest.approx(0.5)
    assert stream.phase is Phase.SATURATED
    assert changes[-1][1] is Phase.SATURATED


@pytest.mark.parametrize("policy", ["anytime", "tracking"])
@pytest.mark.parametrize("size", [1, 2])
def test_saturated_while_a_past_gap_cannot_be_closed(policy: str, size: int) -> None:
    """A floor that the past has missed by far: predictions stand at their bound until it is made good."""
    floor = fl.MinimumRate("sex", 0.5)
    before = fl.InferenceState([floor], bounds=(0.0, 0.1), policy=policy)
    scores = np.full(200, 0.05)
    before.emit(tensor(scores), {"sex": [0, 1] * 100})
    stream, changes = new_stream(policy if policy == "anytime" else fl.Tracking(rate=1e3, allowance=0.0), [floor])
    stream.merge(before)
    phases = []
    for _ in range(150):  # 90 make the past good
        emitted = stream.emit(tensor([0.3] * 2), {"sex": [0, 1]}) if size == 2 else None
        if emitted is None:
            emitted = stream.emit(one(0.3), {"sex": [0]})
            stream.emit(one(0.3), {"sex": [1]})
        phases.append(stream.phase)
        if float(emitted.max()) == 1.0 and len(phases) < 50:
            assert stream.phase is Phase.SATURATED
    assert Phase.SATURATED in phases
    assert phases[-1] is not Phase.SATURATED
    assert all(a != b for a, b in changes)


@pytest.mark.parametrize("size", [1, 2])
def test_saturated_under_a_parity(size: int) -> None:
    """Two groups that are far apart from before: the limits cannot be met for a while, on both paths."""
    before = fl.InferenceState([fl.DemographicParity("sex", 1.0)], bounds=(0.0, 1.0), policy="anytime")
    before.emit(tensor([0.1, 0.9] * 20), {"sex": [0, 1] * 20})
    stream, _ = new_stream("anytime")
    stream.merge(before)
    phases = []
    for _ in range(60):
        if size == 2:
            stream.emit(tensor([0.1, 0.9]), {"sex": [0, 1]})
            phases.append(stream.phase)
        else:
            for sex in (0, 1):
                stream.emit(one([0.1, 0.9][sex]), {"sex": [sex]})
                phases.append(stream.phase)
    assert phases[0] is Phase.SATURATED
    gap = stream.pooled_gap()[PARITY.name]
    assert gap is not None
    assert (phases[-1] is Phase.SATURATED) == (gap > 0.02 + 1e-6)
    assert sum(a != b for a, b in itertools.pairwise(phases)) <= 2, phases  # no flicker


@pytest.mark.parametrize("policy", ["anytime", "tracking"])
def test_drifting_on_a_change_of_regime_and_back(policy: str) -> None:
    stream, changes = new_stream(policy, memory=720.0)
    scores, sex = lending(3, 12_000)
    flipped = np.where(np.arange(12_000) < 4000, sex, 1 - sex)
    phases = []
    for score, code in zip(scores, flipped, strict=True):
        stream.emit(one(score), {"sex": [int(code)]})
        phases.append(stream.phase)
    assert set(phases[2500:4000]) == {Phase.STEADY}
    assert Phase.DRIFTING in phases[4000:9000]
    assert set(phases[-1000:]) == {Phase.STEADY}
    assert [(a, b) for a, b in changes if Phase.DRIFTING in (a, b)][-1] == (Phase.DRIFTING, Phase.STEADY)


def test_callback_may_read_the_state() -> None:
    stream, _ = new_stream("anytime")
    seen: list[Any] = []
    stream.on_phase_change(
        lambda before, after: seen.append((stream.phase, stream.pooled_gap(), stream.counts(), stream.state_dict()))
    )
    thread = threading.Thread(target=lambda: stream.emit(tensor([0.5, 0.9]), {"sex": [0, 1]}), daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "deadlock: the callback is called under the lock"
    assert seen[0][0] is Phase.WARMING
    assert seen[0][2] == {"sex=0": 1, "sex=1": 1}


def test_a_new_group_makes_the_stream_cold_or_is_served() -> None:
    """A category met late has been seen with its first sample, so the stream never turns COLD again by it."""
    stream, _ = new_stream("anytime")
    for score, sex in [(0.5, "F"), (0.6, "M"), (0.9, "X"), (0.1, "Y")]:
        stream.emit(one(score), {"sex": [sex]})
    assert stream.phase is Phase.WARMING
    gap = stream.pooled_gap()[PARITY.name]
    assert gap is not None
    assert gap <= 0.02 + 1e-9


def test_reset_starts_cold_again() -> None:
    stream, changes = new_stream("anytime")
    stream.emit(tensor([0.5, 0.9]), {"sex": [0, 1]})
    stream.reset()
    assert stream.phase is Phase.COLD
    stream.emit(tensor([0.5, 0.9]), {"sex": [0, 1]})
    assert [b for _, b in changes].count(Phase.WARMING) == 2


def test_not_saturated_within_the_tolerance() -> None:
    """Tracking aims a little inside; a prediction at its bound that misses the aim misses no limit."""
    stream, changes = new_stream("tracking")
    rng = np.random.default_rng(0)
    for code in (rng.random(4000) < 0.3).astype(int).tolist():
        stream.emit(one(np.clip(rng.normal(0.3 + 0.4 * code, 0.6), 0, 1)), {"sex": [code]})
        gap = stream.pooled_gap()[PARITY.name]
        assert gap is None or gap > 0.02 + 1e-9 or stream.phase is not Phase.SATURATED
    assert changes


def test_a_picture_of_a_loaded_stream_begins_with_it() -> None:
    stream, _ = new_stream()
    for code in range(600):
        stream.emit(one(0.5), {"sex": [code % 2]})
    stream.load_state_dict(new_stream()[0].state_dict())
    for code in range(40):
        stream.emit(one(0.5), {"sex": [code % 2]})
    assert stream._live.watch.trace.latest <= 40


def test_a_feed_forward_that_cannot_be_solved_fails_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsolved(*_: Any) -> Any:
        raise SolverError("it did not settle")

    stream, _ = new_stream()
    stream.emit(tensor([0.1, 0.9] * 4), {"sex": [0, 1] * 4})
    monkeypatch.setattr("fairlayer.streaming.policies.pooled.feed_forward", unsolved)
    with pytest.warns(UserWarning, match="stays as it was: it did not settle"):
        stream.emit(tensor([0.1, 0.9] * 4), {"sex": [0, 1] * 4})
    gap = stream.pooled_gap()[PARITY.name]
    assert gap is not None
    assert gap <= 0.02 + 1e-9


def test_a_picture_ends_where_the_stream_stands() -> None:
    pytest.importorskip("matplotlib")
    stream, _ = new_stream()
    assert stream.plot().axes
    scores, sex = lending(0, 1003)
    for score, code in zip(scores, sex.tolist(), strict=True):
        stream.emit(one(score), {"sex": [code]})
    gaps, shifts = stream.plot().axes[:2]
    line = next(line for line in gaps.get_lines() if line.get_label() == PARITY.name)
    assert line.get_xdata()[-1] == 1003
    assert line.get_ydata()[-1] == pytest.approx(stream.pooled_gap()[PARITY.name])
    assert shifts.get_lines()[0].get_xdata()[-1] == 1003
    assert stream.plot().axes[0].get_lines()[0].get_xdata()[-1] == 1003
    assert stream._live.watch.trace.latest < 1003
