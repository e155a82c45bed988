"""A compiled call reads scores and categories where tensors hold them; it gives what the general way gives."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fairlayer as fl
from fairlayer.errors import CategoryError, FairlayerError, NonFiniteScoresError, ParameterError
from fairlayer.fused import switch
from fairlayer.fused.book import FAR, NEAR
from fairlayer.streaming import state as face
from fairlayer.streaming.calls.in_place import reads_in_place, step_in_place

pytestmark = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")
SEX = fl.DemographicParity("sex", tolerance=0.02)
BOTH = [SEX, fl.DemographicParity("race", tolerance=0.05)]


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(switch.SWITCH, "1")
    monkeypatch.setattr(switch, "_streams", switch._Library(switch.StreamSweeps))
    switch.stream_kernels(1)


def stream(constraints: Any = SEX, **options: Any) -> fl.InferenceState:
    return fl.InferenceState(constraints, **{"bounds": (0.0, 1.0), **options})


def met(state: fl.InferenceState, n: int = 200) -> fl.InferenceState:
    """Let a stream meet both groups, one after the other, and solve."""
    for i in range(n):
        state.emit(torch.tensor([0.3 + 0.4 * (i % 2)]), {"sex": [i % 2]})
    return state


def in_place(state: fl.InferenceState, scores: torch.Tensor, features: Any, at: float | None = None) -> Any:
    if not reads_in_place(scores, scores.dtype):
        return None
    return state._live.shortly(step_in_place, (scores, len(scores), scores.dtype is torch.float64), features, at)


def columns(how: str, sex: np.ndarray, race: np.ndarray) -> dict[str, Any]:
    """The same categories as tensors, as arrays, as lists, or as words."""
    kinds: dict[str, Any] = {
        "tensors": torch.tensor,
        "arrays": np.asarray,
        "lists": lambda codes: codes.tolist(),
        "strided": lambda codes: torch.tensor(np.repeat(codes, 2))[::2],
        "mixed": torch.tensor,
    }
    found = {"sex": kinds[how](sex), "race": kinds[how](race)}
    return {**found, "race": race.tolist()} if how == "mixed" else found


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    how=st.sampled_from(["tensors", "arrays", "lists", "strided", "mixed"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    geometry=st.sampled_from(["euclidean", "entropic", "likelihood", "logits"]),
    several=st.booleans(),
    clocked=st.booleans(),
)
def test_a_stream_is_the_same_in_place_and_by_the_general_way(
    seed: int, how: str, dtype: torch.dtype, geometry: str, *, several: bool, clocked: bool
) -> None:
    options: dict[str, Any] = {"geometry": "entropic" if geometry == "logits" else geometry, "memory": 200.0}
    if geometry == "logits":
        options |= {"from_logits": True, "bounds": None}
    window = "1d" if clocked else 100
    ours, plain = (stream(BOTH if several else SEX, window=window, **options) for _ in range(2))
    random, taken, calls, count = np.random.default_rng(seed), 0, 0, 0
    while count < 700:
        n = int(random.choice([1, 1, 2, 17, 40]))
        sex, race = random.integers(0, 2, n), random.integers(0, 3, n)
        raw = np.clip(0.35 + 0.25 * sex + 0.05 * race + 0.15 * random.standard_normal(n), 0.01, 0.99)
        scores = torch.tensor(np.log(raw / (1.0 - raw)) if geometry == "logits" else raw, dtype=dtype)
        scores = scores[:, None] if random.random() < 0.5 else scores
        at = {"at": 600.0 * count} if clocked else {}
        before = ours._live.machine.history._written
        found = ours.emit(scores, columns(how, sex, race), **at)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(face, "reads_in_place", lambda *_: False)
            wanted = plain.emit(scores, columns("lists", sex, race), **at)
        assert found.shape == scores.shape
        assert found.dtype is dtype
        assert (found - wanted).abs().max() <= (1e-12 if dtype is torch.float64 else 1e-7)
        taken += ours._live.machine.history._written != before
        calls, count = calls + 1, count + n
    assert taken > calls // 2
    assert ours.counts() == plain.counts()
    one, other = ours.report(), plain.report()
    assert [bucket.samples for bucket in one.buckets] == [bucket.samples for bucket in other.buckets]
    assert ours.phase is plain.phase


def test_it_is_what_serves() -> None:
    state = met(stream())
    found = in_place(state, torch.tensor([[0.4], [0.6]]), {"sex": torch.tensor([0, 1])})
    assert found is not None
    assert found.shape == (2, 1)
    assert not found.requires_grad
    assert state.samples == 202


@pytest.mark.parametrize(
    "codes", [[0, -1], [0, 7], [0, 2], [-(2**62), 0], [2**62, 0]], ids=["below", "far", "unknown", "least", "largest"]
)
def test_a_category_that_is_not_in_the_tables_goes_the_general_way(codes: list[int]) -> None:
    state = met(stream())
    before = state.samples
    assert in_place(state, torch.tensor([0.4, 0.6]), {"sex": torch.tensor(codes)}) is None
    assert state.samples == before


def test_a_combination_never_met_goes_the_general_way() -> None:
    state = stream(BOTH)
    for i in range(60):
        state.emit(torch.tensor([0.5]), {"sex": [i % 2], "race": [i % 2]})
    features = {"sex": torch.tensor([0]), "race": torch.tensor([1])}
    assert in_place(state, torch.tensor([0.4]), features) is None
    state.emit(torch.tensor([0.4]), features)
    assert list(state.counts().values()) == [30, 30, 1]
    assert in_place(state, torch.tensor([0.4]), features) is not None


@pytest.mark.parametrize(
    "scores",
    [
        torch.tensor([0.2, 0.4], dtype=torch.float16),
        torch.tensor([0.2, 9.0, 0.4])[::2],
        torch._neg_view(torch.tensor([-0.2, -0.4])),
        torch.nn.Parameter(torch.tensor([0.2, 0.4])),
    ],
    ids=["half", "strided", "negated", "parameter"],
)
def test_other_tensors_are_read_the_general_way(scores: torch.Tensor) -> None:
    state, other = met(stream()), met(stream())
    assert not reads_in_place(scores, scores.dtype)
    found = state.emit(scores, {"sex": torch.tensor([0, 1])})
    wanted = other.emit(torch.tensor([0.2, 0.4], dtype=scores.dtype), {"sex": [0, 1]})
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    "column", [torch.tensor([0.0, 1.0]), torch.tensor([0, 1], dtype=torch.int32), torch.tensor([True, False])]
)
def test_columns_that_are_no_int64_are_never_read_as_such(column: torch.Tensor) -> None:
    state, other = met(stream()), met(stream())
    scores = torch.tensor([0.2, 0.4])
    assert torch.equal(state.emit(scores, {"sex": column}), other.emit(scores, {"sex": [int(c) for c in column]}))


def test_a_column_of_another_length_is_refused_and_nothing_changes() -> None:
    state = met(stream())
    before = state.state_dict()["machine"]["policy"]
    with pytest.raises(FairlayerError):
        state.emit(torch.tensor([0.2, 0.4]), {"sex": torch.tensor([0])})
    assert np.array_equal(before["book"], state.state_dict()["machine"]["policy"]["book"], equal_nan=True)


@pytest.mark.parametrize("due", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_no_number_changes_nothing_even_where_a_solution_is_due(bad: float, *, due: bool) -> None:
    state = met(stream())
    if due:
        state._live.machine.own["next_refresh"] = 0.0  # type: ignore[index]
    before, revision = state.state_dict()["machine"]["policy"], state._live.machine.revision
    with pytest.raises(NonFiniteScoresError):
        state.emit(torch.tensor([0.2, bad]), {"sex": torch.tensor([0, 1])})
    after = state.state_dict()["machine"]["policy"]
    assert np.array_equal(before["book"], after["book"], equal_nan=True)
    assert before["weight"] == after["weight"]
    assert revision == state._live.machine.revision


@pytest.mark.parametrize("change", [False, True])
def test_a_call_that_lets_a_solution_rest_still_tells_of_a_change(*, change: bool) -> None:
    state = met(stream(), 600)
    machine = state._live.machine
    own: Any = machine.own
    own["next_refresh"] = own["solved"] = before = float(state.samples)
    own["book"][NEAR : FAR + 1] = 0.0 if change else np.inf
    assert machine.policy.compiled(own, machine).rests(own, machine)
    assert in_place(state, torch.tensor([0.3]), {"sex": torch.tensor([0])}) is not None
    assert machine.own["next_refresh"] == (0.0 if change else before + own["wait"])


def test_scores_outside_the_probabilities_go_the_general_way() -> None:
    state = met(stream(geometry="entropic"))
    assert in_place(state, torch.tensor([0.4, 1.5]), {"sex": torch.tensor([0, 1])}) is None


def test_time_never_goes_back_and_is_kept() -> None:
    state = stream(window="1h")
    for i in range(60):
        state.emit(torch.tensor([0.5]), {"sex": torch.tensor([i % 2])}, at=float(i))
    assert in_place(state, torch.tensor([0.4]), {"sex": torch.tensor([0])}, at=61.0) is not None
    assert state._live.machine.windows.at == 61.0
    with pytest.raises(ParameterError, match="never goes back"):
        state.emit(torch.tensor([0.4]), {"sex": torch.tensor([0])}, at=60.0)
    with pytest.raises(ParameterError, match="without at="):
        state.emit(torch.tensor([0.4]), {"sex": torch.tensor([0])})


def test_a_full_journal_is_summed_up_before_the_next_call() -> None:
    state = met(stream())
    for _ in range(150):
        state.emit(torch.full((40,), 0.5), {"sex": torch.arange(40) % 2})
    assert sum(state.counts().values()) == state.samples == 6_200
    assert state.report().samples == 6_200


def test_transforms_go_the_general_way_or_are_refused() -> None:
    state = met(stream())

    def emitted(scores: torch.Tensor) -> torch.Tensor:
        return state.emit(scores, {"sex": torch.tensor([0, 1])}).sum() + scores.sum()

    before = state.samples
    try:
        torch.func.grad(emitted)(torch.tensor([0.2, 0.4]))
    except (RuntimeError, FairlayerError):
        assert state.samples == before
    else:
        assert state.samples == before + 2


def test_a_closed_vocabulary_still_refuses_the_unknown() -> None:
    from fairlayer.groups import Vocabulary

    state, words = met(stream()), Vocabulary().learn({"sex": [0, 1]})
    state.adopt(words.closed())
    with pytest.raises(CategoryError):
        state.emit(torch.tensor([0.2]), {"sex": torch.tensor([5])}, vocabulary=words.closed())


@pytest.mark.parametrize("way", ["1", "0"])
@pytest.mark.parametrize("n", [1, 2, 40])
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_log_odds_that_are_no_finite_numbers_are_refused(
    way: str, n: int, odd: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sigmoid of infinity is a probability, and a comparison with NaN is false: neither is a prediction."""
    monkeypatch.setenv(switch.SWITCH, way)
    monkeypatch.setattr(switch, "_streams", switch._Library(switch.StreamSweeps))
    state = met(stream(geometry="entropic", from_logits=True))
    scores = torch.zeros(n)
    scores[n // 2] = odd
    with pytest.raises(NonFiniteScoresError):
        state.emit(scores, {"sex": torch.arange(n) % 2})
    assert state.samples == 200
