"""A stream that ends in any way and goes on under another limit: the same counts, and a way without a cliff."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer.errors import ParameterError
from fairlayer.groups import Vocabulary
from fairlayer.streaming import Phase
from fairlayer.streaming.durable import DurableStream, read_state
from fairlayer.streaming.store import StreamStore

WORDS = Vocabulary().learn({"sex": ["F", "M"]})
WIDE, NARROW = 0.15, 0.02


def opened(path: Path, tolerance: float) -> DurableStream:
    state = fl.InferenceState([fl.DemographicParity("sex", tolerance=tolerance)], bounds=(0.0, 1.0))
    return DurableStream(state, StreamStore(path, every=1000), vocabulary=WORDS)


def asked(stream: DurableStream, draw: np.random.Generator, n: int) -> list[float]:
    """Ask n times; return how far women's scores were moved beside men's, as the shifts stood after each."""
    found = []
    for i in range(n):
        raw = float(np.clip(draw.normal(0.6 if i % 2 else 0.35, 0.1), 0.0, 1.0))
        stream.answer(torch.tensor([raw], dtype=torch.float64), {"sex": ["FM"[i % 2]]})
        shifts = stream.state.shifts()
        found.append(shifts.get("sex=F", 0.0) - shifts.get("sex=M", 0.0))
    return found


def kill(stream: DurableStream) -> None:
    """What SIGKILL leaves: the file as it is, and no snapshot of the end."""
    stream.store.close()


@pytest.mark.parametrize("before", [300, 1300])
@pytest.mark.parametrize("end", [DurableStream.close, kill], ids=["closed", "killed"])
def test_another_tolerance_is_reached_on_the_same_counts_and_without_a_cliff(
    before: int, end: object, tmp_path: Path
) -> None:
    path, draw = tmp_path / "s.sqlite", np.random.default_rng(0)
    first = opened(path, WIDE)
    was = asked(first, draw, before)[-1]
    counts, pooled = first.state.counts(), first.state.pooled_gap()
    end(first)  # type: ignore[operator]
    assert read_state(path, opened_state(NARROW), WORDS).phase is Phase.CHANGING  # who looks sees the same
    second = opened(path, NARROW)
    assert second.state.counts() == counts
    assert second.state.pooled_gap() == pytest.approx(pooled, abs=1e-12)
    assert second.state.phase is Phase.CHANGING
    way = asked(second, draw, 500)
    kill(second)  # half-way: the third goes on from there, and does not begin anew
    third = opened(path, NARROW)
    assert third.state.phase is Phase.CHANGING
    way += asked(third, draw, 700)
    assert third.state.phase is not Phase.CHANGING
    third.close()
    steps = np.abs(np.diff([was, *way]))
    assert abs(way[-1] - was) > 0.08  # there was a way to go: 0.13 of tolerance
    assert steps.max() < 0.03, steps.max()
    assert [event.kind for event in third.state.events].count("limits changed") == 1
    assert abs(way[499] - was) < 0.75 * abs(way[-1] - was)  # in a straight line over the memory
    assert abs(way[501] - way[499]) < 0.03


def opened_state(tolerance: float) -> fl.InferenceState:
    return fl.InferenceState([fl.DemographicParity("sex", tolerance=tolerance)], bounds=(0.0, 1.0))


def test_a_stream_that_changes_nothing_has_no_way_to_go(tmp_path: Path) -> None:
    path, draw = tmp_path / "s.sqlite", np.random.default_rng(0)
    first = opened(path, WIDE)
    asked(first, draw, 300)
    kill(first)
    again = opened(path, WIDE)
    assert again.state.phase is not Phase.CHANGING
    assert not [event for event in again.state.events if event.kind == "limits changed"]
    again.close()


def test_a_state_whose_book_lacks_rows_is_completed_and_one_with_more_is_refused() -> None:
    state, draw = opened_state(NARROW), np.random.default_rng(0)
    for i in range(200):
        state.emit(torch.tensor([float(draw.normal(0.6 if i % 2 else 0.4, 0.1))]), {"sex": ["FM"[i % 2]]})
    saved = state.state_dict()
    whole = saved["machine"]["policy"]["book"]
    saved["machine"]["policy"]["book"] = whole[:19]  # as an earlier version wrote it
    again = opened_state(NARROW)
    again.load_state_dict(saved)
    for each in (state, again):
        each.emit(torch.tensor([0.5]), {"sex": ["F"]})
    assert again.state_dict()["machine"]["policy"]["book"].shape == whole.shape
    assert again.shifts() == pytest.approx(state.shifts(), abs=0.02)
    saved["machine"]["policy"]["book"] = torch.cat([whole, whole[:1]])
    with pytest.raises(ParameterError, match="another version wrote"):
        opened_state(NARROW).load_state_dict(saved)
