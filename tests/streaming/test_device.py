"""Steps on an accelerator: the same predictions as on the host, without a look at any value.

The lane runs on tensors of any device, so what it computes is tested on the CPU. That it never waits is tested on fake
CUDA tensors, which have no values to read, and on real ones where there is a device.
"""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fairlayer as fl
from fairlayer import errors
from fairlayer.groups import Vocabulary
from fairlayer.streaming import lane as lanes
from tests.streaming.streams import lending, tensor

SEXES = Vocabulary({"g": (0, 1)}, open=False)
BOUNDS: list[tuple[float | None, float | None]] = [(0.0, 1.0), (None, None), (0.0, None), (None, 1.0)]
POLICIES = [
    fl.Anytime(),
    fl.Anytime(allowance=1.0, settle=200),
    fl.Tracking(),
    fl.Tracking(rate=0.5, aim=0.3, allowance=0.2, settle=100),
    fl.Tracking(rate=0.05, limit=0.2, aim=0.0, allowance=0.0),
]


def new_stream(policy: Any, tolerance: float = 0.02, bounds: Any = (0.0, 1.0), **settings: Any) -> fl.InferenceState:
    constraints = [fl.DemographicParity("g", tolerance)]
    return fl.InferenceState(constraints, bounds=bounds, policy=policy, **{"non_blocking": True, **settings})


def on_host(stream: fl.InferenceState, scores: torch.Tensor, groups: Any) -> torch.Tensor:
    return stream.emit(scores, {"g": groups}, vocabulary=SEXES)


def on_device(stream: fl.InferenceState, scores: torch.Tensor, groups: Any) -> torch.Tensor:
    """What `emit` does with scores on an accelerator under `non_blocking=True`."""
    emitted = stream._on_device(scores, {"g": groups})
    return on_host(stream, scores, groups) if emitted is None else emitted


def hold(stream: fl.InferenceState, shifts: Any) -> None:
    """Fix the feed-forward."""
    stream.warm_start(tensor([0.5, 0.5, 0.5]), {"g": [0, 1, -1]}, SEXES)  # all groups are known, and none was emitted
    stream._machine.own = {**stream._machine.own, "shifts": np.array([*shifts, 0.0]), "next_refresh": np.inf}


def calls(seed: int, n: int, *, largest: int = 64, span: float = 1.0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of an adversary: mixed sizes, absent groups, ties, scores at and beyond the bounds."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        size = int(rng.choice([1, 1, 2, 3, 7, rng.integers(1, largest + 1)]))
        share = rng.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        groups = (rng.random(size) < share).astype(np.int64)
        kind = rng.integers(5)
        scores = {
            0: rng.random(size),
            1: np.full(size, rng.choice([0.0, 0.3, 1.0])),
            2: np.where(groups == rng.integers(2), 0.0, 1.0),
            3: rng.normal(0.5, 1.0, size),
            4: np.round(rng.random(size), 1),
        }[int(kind)]
        yield scores * span, np.where(rng.random(size) < 0.02, -1, groups)


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@pytest.mark.parametrize("tolerance", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_equals_the_host(policy: Any, tolerance: float, bounds: Any, seed: int) -> None:
    host, device = (new_stream(policy, tolerance, bounds) for _ in range(2))
    for stream in (host, device):
        hold(stream, [0.15, -0.1])
    for scores, groups in calls(seed, 150):
        expected = on_host(host, tensor(scores), torch.from_numpy(groups))
        found = device._on_device(tensor(scores), {"g": torch.from_numpy(groups)})
        assert found is not None
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_meters_equal_the_host(policy: Any) -> None:
    host, device = (new_stream(policy) for _ in range(2))
    for stream in (host, device):
        hold(stream, [0.15, -0.1])
    for i, (scores, groups) in enumerate(calls(7, 120)):
        on_host(host, tensor(scores), torch.from_numpy(groups))
        on_device(device, tensor(scores), torch.from_numpy(groups))
        if i % 10 == 9:
            assert device.phase is host.phase
            assert device.counts() == host.counts()
            assert device.pooled_gap() == pytest.approx(host.pooled_gap(), abs=1e-9)
            assert device.mean_squared_change() == pytest.approx(host.mean_squared_change(), abs=1e-9)
            ours, theirs = device._machine.rule.to_state(), host._machine.rule.to_state()
            assert ours["correction"] == pytest.approx(theirs["correction"], abs=1e-9)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("size", [2, 5])
def test_saturated_is_seen(policy: Any, size: int) -> None:
    phases, found = [], []
    for step in (on_host, on_device):
        stream = new_stream(policy)
        hold(stream, [0.0, 0.0])
        past = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(100)
        stream.absorb(past, past, {"g": torch.tensor([0, 1]).repeat(100)}, SEXES)  # a gap that no call can close
        stream._machine.own = {**stream._machine.own, "shifts": np.zeros(3), "next_refresh": np.inf}
        found.append(step(stream, torch.full((size,), 0.5, dtype=torch.float64), torch.ones(size, dtype=torch.long)))
        phases.append(stream.phase)
    assert phases[0] is phases[1]
    torch.testing.assert_close(*found, rtol=0, atol=1e-9)
    assert phases[0] is fl.Phase.SATURATED or found[0].min() > 0.0


class Sums:
    """What a reader of the emitted predictions adds up."""

    def __init__(self) -> None:
        self.count, self.total = np.zeros(2), np.zeros(2)

    def add(self, groups: np.ndarray, emitted: torch.Tensor) -> float:
        """Count a call, and return the gap."""
        for g in (0, 1):
            self.count[g] += (groups == g).sum()
            self.total[g] += emitted.numpy().reshape(-1)[groups == g].sum()
        return float(np.ptp(self.total / self.count)) if self.count.all() else 0.0


@pytest.mark.parametrize("memory", [None, 50.0])
@pytest.mark.parametrize("tolerance", [0.0, 0.05])
@pytest.mark.parametrize("seed", range(3))
def test_anytime_holds_with_its_late_feed_forward(seed: int, tolerance: float, memory: float | None) -> None:
    stream, sums = new_stream("anytime", tolerance, memory=memory), Sums()
    for scores, groups in calls(seed, 250):
        gap = sums.add(groups, on_device(stream, tensor(scores), torch.from_numpy(groups)))
        assert gap <= tolerance + 1e-6
    assert stream._machine.revision > 20
    assert stream.pooled_gap()["DemographicParity('g')"] == pytest.approx(gap, abs=1e-9)


@pytest.mark.parametrize(("rate", "limit"), [(0.05, 1.0), (2.0, 0.3)])
@pytest.mark.parametrize("seed", range(3))
def test_tracking_holds_with_its_late_feed_forward(seed: int, rate: float, limit: float) -> None:
    policy = fl.Tracking(rate=rate, limit=limit, allowance=0.0, aim=0.0)
    stream, sums = new_stream(policy, 0.02), Sums()
    for scores, groups in calls(seed, 250):
        gap = sums.add(groups, on_device(stream, tensor(np.clip(scores, 0, 1)), torch.from_numpy(groups)))
        assert not sums.count.all() or gap <= 0.02 + (1.0 + limit) / rate * (1.0 / sums.count).sum() + 1e-9


def test_settled_tracking_keeps_within_tolerance_and_near_the_host() -> None:
    scores, sex = lending(0, 6000)
    host, device, sums = new_stream("tracking"), new_stream("tracking"), Sums()
    for start in range(0, 6000, 8):
        part, groups = tensor(scores[start : start + 8]), sex[start : start + 8]
        on_host(host, part, torch.from_numpy(groups))
        gap = sums.add(groups, on_device(device, part, torch.from_numpy(groups)))
        assert start < 2000 or gap <= 0.02 + 1e-6
    assert device.mean_squared_change() == pytest.approx(host.mean_squared_change(), rel=0.02)


def test_a_mixed_stream_counts_everything_once() -> None:
    stream, sums, moved = new_stream("tracking"), Sums(), 0.0
    for i, (scores, groups) in enumerate(calls(11, 400)):
        groups = np.abs(groups)  # noqa: PLW2901
        raw, column = tensor(scores), torch.from_numpy(groups)
        if i % 40 == 39:
            emitted = stream.emit(raw, {"g": column}, y=np.zeros(len(raw)), vocabulary=SEXES)
        elif i % 13 == 12:
            emitted = on_host(stream, raw, groups.tolist())  # a call on the host, in between
        elif i % 7 == 6:
            emitted = on_device(stream, raw, groups.tolist())  # categories on the host
        else:
            emitted = on_device(stream, raw, column)
        moved += float(((emitted - raw) ** 2).sum())
        gap = sums.add(groups, emitted)
        if i == 200:
            state = stream.state_dict()
            stream = new_stream("tracking")
            stream.load_state_dict(state)
        if i == 300:
            stream = copy.deepcopy(stream)
    assert (
        list(stream.counts().values()) == sums.count.tolist()
        or list(stream.counts().values()) == sums.count[::-1].tolist()
    )
    assert stream.samples == sums.count.sum()
    assert stream.pooled_gap()["DemographicParity('g')"] == pytest.approx(gap, abs=1e-9)
    assert stream.mean_squared_change() == pytest.approx(moved / sums.count.sum(), abs=1e-9)


def test_merge_and_reset_see_the_lane() -> None:
    one, other = (new_stream("anytime") for _ in range(2))
    for stream in (one, other):
        hold(stream, [0.0, 0.0])
        on_device(stream, tensor([0.2, 0.9, 0.4]), torch.tensor([0, 1, 1]))
    one.merge(other)
    assert sum(one.counts().values()) == 6
    on_device(one, tensor([0.2, 0.9, 0.4]), torch.tensor([0, 1, 1]))
    assert sum(one.counts().values()) == 9
    one.reset()
    assert one.samples == 0


BAD = [
    (np.nan, 0, errors.NonFiniteScoresError, "1 scores were NaN, infinite"),
    (-np.inf, 1, errors.NonFiniteScoresError, "1 scores were NaN, infinite"),
    (1e40, 0, errors.NonFiniteScoresError, "1 scores were NaN, infinite or beyond 1e28"),
    (0.5, 2, errors.CategoryError, "1 samples had a category"),
]


@pytest.mark.parametrize("bad", BAD, ids=str)
@pytest.mark.parametrize("policy", [fl.Anytime(), fl.Tracking(), fl.Tracking(aim=0.0)], ids=str)
@pytest.mark.parametrize("size", [1, 5])
def test_bad_input_is_nan_and_told_late(policy: Any, size: int, bad: tuple[float, int, type[Exception], str]) -> None:
    score, group, error, text = bad
    clean, stream = new_stream(policy), new_stream(policy)
    for one in (clean, stream):
        hold(one, [0.1, 0.0])
        on_device(one, tensor([0.2, 0.9, 0.4, 0.8]), torch.tensor([0, 1, 1, 0]))
    others, groups = tensor([0.3, 0.9, 0.1, 0.6][: size - 1]), torch.tensor([1, 0, 1, 0][: size - 1])
    emitted = on_device(stream, torch.cat([tensor([score]), others]), torch.cat([torch.tensor([group]), groups]))
    assert emitted[0].isnan()
    assert not emitted[1:].isnan().any()
    after = on_device(stream, tensor([0.3, 0.5]), torch.tensor([0, 1]))
    assert not after.isnan().any()
    with pytest.raises(error, match=text):
        stream.pooled_gap()
    if size > 1:
        on_device(clean, others, groups)
    on_device(clean, tensor([0.3, 0.5]), torch.tensor([0, 1]))
    assert stream.counts() == clean.counts()  # told once
    assert stream.samples == clean.samples
    assert stream.pooled_gap() == pytest.approx(clean.pooled_gap(), abs=0.01)  # slack follows the samples that came


@pytest.mark.parametrize("column", [torch.int32, torch.uint8, torch.bool, torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types_and_shapes(dtype: torch.dtype, column: torch.dtype) -> None:
    stream, exact = new_stream("anytime"), new_stream("anytime")
    for one in (stream, exact):
        hold(one, [0.1, 0.0])
    for scores, groups in calls(3, 20):
        raw, codes = tensor(scores).to(dtype).requires_grad_(), torch.from_numpy(np.abs(groups))
        emitted = on_device(stream, raw[:, None], codes.to(column))
        assert emitted.shape == (len(raw), 1)
        assert emitted.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)
        assert not emitted.requires_grad
        expected = on_device(exact, raw.double(), codes)
        torch.testing.assert_close(emitted[:, 0].double(), expected.to(emitted.dtype).double(), rtol=0, atol=0)


def test_the_caller_may_overwrite_what_it_gave_and_got() -> None:
    stream = new_stream("anytime")
    hold(stream, [0.0, 0.0])
    raw = tensor([0.2, 0.9])
    column = torch.tensor([0, 1])
    emitted = on_device(stream, raw, column)
    moved = float(((emitted - raw) ** 2).mean())
    for mine in (raw, emitted, column):
        mine.zero_()
    assert stream.mean_squared_change() == pytest.approx(moved)


def test_under_inference_mode_and_outside_in_turn() -> None:
    stream, sums = new_stream("anytime"), Sums()
    for i, (scores, groups) in enumerate(calls(5, 60)):
        with torch.inference_mode(i % 2 == 0):
            gap = sums.add(groups, on_device(stream, tensor(scores), torch.from_numpy(groups)))
        assert gap <= 0.02 + 1e-6


def stays_on_host() -> Iterator[Any]:
    parity = fl.DemographicParity("g", 0.1)
    yield "explicit", [parity], fl.Tracking(implicit=False), SEXES, "the policy Tracking"
    yield "per batch", [parity], "per_batch", SEXES, "the policy PerBatch"
    yield "three groups", [parity], "anytime", Vocabulary({"g": (0, 1, 2)}, open=False), "3 categories, not two"
    yield "open vocabulary", [parity], "anytime", None, "call fit_categories"
    yield "two constraints", [parity, fl.MinimumRate("g", 0.1)], "anytime", SEXES, "one parity over one feature"
    yield "a floor", [fl.MinimumRate("g", 0.1)], "anytime", SEXES, "no plain means of two groups"
    yield "labels", [fl.EqualOpportunity("g", 0.1)], "anytime", SEXES, "no plain means of two groups"


@pytest.mark.parametrize(
    ("constraints", "policy", "words", "reason"),
    [c[1:] for c in stays_on_host()],
    ids=[c[0] for c in stays_on_host()],
)
def test_other_streams_stay_on_the_host_and_say_so_once(
    constraints: Any, policy: Any, words: Vocabulary | None, reason: str
) -> None:
    stream, texts = fl.InferenceState(constraints, bounds=(0.0, 1.0), policy=policy, non_blocking=True), list[str]()
    for _ in range(2):
        stream.emit(tensor([0.2, 0.9]), {"g": [0, 1]}, vocabulary=words)
    for _ in range(3):
        with warnings.catch_warnings(record=True) as said:
            assert stream._on_device(tensor([0.3, 0.4]), {"g": torch.tensor([0, 1])}) is None
        texts += [str(warning.message) for warning in said]
    assert len(texts) == 1
    assert "waits for the device: " in texts[0]
    assert reason in texts[0]
    assert stream.samples == 4


@pytest.mark.parametrize(
    ("scores", "column", "reason"),
    [
        (torch.rand(600), torch.arange(600) % 2, "more than 512 samples"),
        (torch.rand(2), [0, -1], "missing or new"),
        (torch.rand(2), torch.zeros(2, 1), "no column of numbers"),
    ],
    ids=["many", "missing", "shape"],
)
def test_a_call_that_waits_says_why(scores: torch.Tensor, column: Any, reason: str, met: Any) -> None:
    stream = met("anytime")
    with pytest.warns(UserWarning, match=reason):
        assert stream._on_device(scores, {"g": column}) is None
    assert on_device(stream, tensor([0.3, 0.4]), torch.tensor([0, 1])).shape == (2,)  # the next one does not wait
    assert stream._machine.arrears is not None


@pytest.mark.parametrize(("given", "reason"), [({"ids": ["a"]}, "ids="), ({"y": [1]}, "y=")])
def test_ids_and_labels_make_a_call_wait(given: Any, reason: str, met: Any) -> None:
    stream = met("anytime")
    with FakeTensorMode():
        scores = torch.zeros(1, device="cuda")
        with pytest.warns(UserWarning, match=reason), pytest.raises(RuntimeError):  # it reads
            stream.emit(scores, {"g": [0]}, **given)


def test_on_the_cpu_it_changes_nothing() -> None:
    waiting, free = new_stream("anytime", non_blocking=False), new_stream("anytime")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scores, groups in calls(2, 60):
            emitted = [on_host(stream, tensor(scores), groups.tolist()) for stream in (waiting, free)]
            assert torch.equal(*emitted)
        free.emit(tensor([0.5]), {"g": [0]}, ids=["a"])  # not even a word
        with pytest.raises(errors.NonFiniteScoresError):
            free.emit(tensor([np.nan]), {"g": [0]})
    assert free._machine.arrears is None


def test_it_is_kept() -> None:
    stream = new_stream("anytime")
    copies = [copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))]
    stream.load_state_dict(new_stream("anytime", non_blocking=False).state_dict())
    stream.reset()
    assert [each.non_blocking for each in (stream, *copies)] == [True] * 3
    assert not fl.InferenceState([fl.DemographicParity("g", 0.1)]).non_blocking
    old = stream.__getstate__()
    del old["non_blocking"]  # as it was saved before there was such an argument
    stream.__setstate__(old)
    assert not stream.non_blocking
    model = fl.FairModel(torch.nn.Identity(), [fl.DemographicParity("g", 0.1)], policy="tracking", non_blocking=True)
    assert pickle.loads(pickle.dumps(model)).inference_state.non_blocking


def test_names_are_looked_up_on_the_host() -> None:
    words = Vocabulary({"g": ("F", "M")}, open=False)
    stream = new_stream("anytime")
    stream.emit(tensor([0.2, 0.9]), {"g": ["M", "F"]}, vocabulary=words)
    with pytest.warns(UserWarning, match="no column of numbers"):  # which mean nothing here
        assert stream._on_device(tensor([0.3]), {"g": torch.tensor([0])}) is None
    with pytest.warns(UserWarning, match="missing or new"):
        assert stream._on_device(tensor([0.3]), {"g": ["X"]}) is None  # the host says what is wrong
    assert stream._on_device(tensor([0.3, 0.4, 0.5]), {"g": ["F", "M", "M"]}) is not None
    assert stream.counts() == {"g=M": 3, "g=F": 2}


def test_a_category_met_on_the_device_is_known_after_any_reading(met: Any) -> None:
    stream = met("anytime")
    on_device(stream, tensor([0.3, 0.4]), torch.tensor([0, -1]))  # the first without a category
    with pytest.raises(errors.MissingSensitiveFeatureError):
        stream.emit(tensor([0.3]), {"h": [0]}, y=[1])
    with pytest.raises(errors.CategoryError):
        on_host(stream, tensor([0.3, 0.4]), np.array([1, 3]))
    assert stream.counts() == {"g=0": 2, "g=1": 1, "g=unknown": 1}


def test_many_threads_are_one_stream() -> None:
    stream = new_stream("anytime", 0.05)
    hold(stream, [0.0, 0.0])

    def work(seed: int) -> None:
        for i, (scores, groups) in enumerate(calls(seed, 60, largest=8)):
            (on_host if i % 11 == 5 else on_device)(stream, tensor(scores), torch.from_numpy(np.abs(groups)))
            if i % 7 == 3:
                assert (stream.pooled_gap()["DemographicParity('g')"] or 0.0) <= 0.05 + 1e-6

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = sum(len(scores) for seed in range(4) for scores, _ in calls(seed, 60, largest=8))
    assert stream.samples == sum(stream.counts().values()) == expected


# ---- it never waits


class Host:
    """Stands in for the arrival of a copy: that its values lie on the host is all that can be seen here."""

    def __init__(self) -> None:
        self.samples = 0

    def __call__(self, sizes: tuple[int, ...], shifts: Any, host: torch.Tensor, event: Any) -> lanes.Block:
        assert host.device.type == "cpu"
        assert host.shape == (5, sum(sizes))
        assert event is None
        self.samples += sum(sizes)
        values = np.linspace(0.0, 1.0, sum(sizes))
        return lanes.Block(sizes, shifts, np.arange(sum(sizes)) % 2, values, values)


class Placed(TorchDispatchMode):
    """Notes which operations read or write memory of the host."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.to_host, self.wrong = 0, 0, list[str]()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        self.operations += 1
        places = {leaf.device.type for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)}
        if "cpu" in places:
            awaited = not (kwargs or {}).get("non_blocking") and "cuda" in places
            self.wrong += [str(operation)] if awaited else []
            self.to_host += "cuda" in places
        return result


@pytest.fixture
def met() -> Any:
    """A stream of either policy that has met both groups."""

    def make(policy: Any, bounds: Any = (0.0, 1.0), **settings: Any) -> fl.InferenceState:
        stream = new_stream(policy, bounds=bounds, **settings)
        on_host(stream, tensor([0.2, 0.9]), torch.tensor([0, 1]))
        return stream

    return make


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@pytest.mark.parametrize("policy", [*POLICIES, fl.Anytime(0.1)], ids=str)
def test_no_value_is_read(policy: Any, bounds: Any, met: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, host = met(policy, bounds), Host()
    monkeypatch.setattr(lanes, "_arrived", host)
    with FakeTensorMode():
        column, scores = torch.zeros(1, dtype=torch.long, device="cuda"), torch.zeros(1, device="cuda")
        stream.emit(scores, {"g": column})  # opens the lane, which may wait
        with Placed() as placed:
            for i in range(60):
                n = (1, 3, 64)[i % 3]
                scores = torch.zeros((n, 1), device="cuda", dtype=(torch.float32, torch.float64)[i % 2])
                emitted = stream.emit(scores, {"g": torch.zeros(n, dtype=torch.long, device="cuda")})
                assert emitted.shape == (n, 1)
                assert emitted.device.type == "cuda"
    assert stream._machine.arrears is not None  # no call went over the host
    assert host.samples > 500  # several times the feed-forward was solved anew
    assert placed.wrong == []
    assert placed.to_host > 5


def test_a_model_takes_this_way(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()
    monkeypatch.setattr(lanes, "_arrived", host)
    parity = [fl.DemographicParity("g", 0.02)]
    model = fl.FairModel(torch.nn.Identity(), parity, bounds=(0.0, 1.0), policy="tracking", non_blocking=True).eval()
    model.fit_categories({"g": [0, 1]})
    with torch.no_grad():
        model(torch.tensor([[0.2], [0.9]]), sensitive_features={"g": [0, 1]}, inference=True)
    with FakeTensorMode(), torch.no_grad():
        for n in [1, 4] * 10:
            x, column = torch.zeros((n, 1), device="cuda"), torch.zeros(n, dtype=torch.long, device="cuda")
            assert model(x, sensitive_features={"g": column}, inference=True).shape == (n, 1)
    assert host.samples > 20


def test_a_loaded_stream_first_asks_for_the_vocabulary(met: Any) -> None:
    stream = new_stream("anytime")
    stream.load_state_dict(met("anytime").state_dict())
    unread = FakeTensorMode()
    with unread:
        scores, column = torch.zeros(1, device="cuda"), torch.zeros(1, dtype=torch.long, device="cuda")
        assert stream.emit_simply(scores, {"g": column}) is None  # and `emit` is called, with a vocabulary
    stream.absorb(tensor([0.5]), tensor([0.5]), {"g": [0]}, SEXES)
    with unread:
        assert stream.emit_simply(scores, {"g": column}) is not None


def test_waiting_would_be_found_out() -> None:
    with FakeTensorMode(), Placed() as placed:
        scores = torch.zeros(3, device="cuda")
        scores.to("cpu", non_blocking=True)
        assert placed.wrong == []
        scores.cpu()
        assert placed.wrong == ["aten._to_copy.default"]
        with pytest.raises(DataDependentOutputException):
            bool((scores > 0).any())


@pytest.mark.parametrize("n", [1, 3])
def test_without_it_the_scores_are_read(n: int, met: Any) -> None:
    stream = met("anytime", non_blocking=False)
    with FakeTensorMode():
        scores = torch.zeros(n, device="cuda")
        with pytest.raises((DataDependentOutputException, RuntimeError)):
            stream.emit(scores, {"g": torch.zeros(n, dtype=torch.long, device="cuda")})
    assert stream._machine.arrears is None


@pytest.mark.parametrize(
    ("policy", "n", "most"), [("anytime", 1, 30), ("anytime", 32, 55), ("tracking", 1, 40), ("tracking", 32, 80)]
)
def test_number_of_operations(policy: str, n: int, most: int) -> None:
    stream = new_stream(policy)
    hold(stream, [0.0, 0.0])
    scores, groups = torch.rand(n), torch.arange(n) % 2
    on_device(stream, scores, groups)
    with Launches() as launches:
        on_device(stream, scores, groups)
    assert len(launches.names) <= most


class Launches(TorchDispatchMode):
    """Operations that are not views."""

    def __init__(self) -> None:
        super().__init__()
        self.names = list[str]()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not (operation.is_view or operation.name().startswith("aten::squeeze_")):
            self.names.append(operation.name())
        return operation(*args, **(kwargs or {}))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_on_a_gpu(policy: Any, met: Any) -> None:
    here, there = met(policy), met(policy)
    samples = [(tensor(scores), torch.from_numpy(groups)) for scores, groups in calls(0, 300)]
    placed: list[tuple[torch.Tensor, Any]] = [(scores.cuda(), groups.cuda()) for scores, groups in samples]
    for i, (scores, groups) in enumerate(samples):
        if i % 9 == 8 and groups.min() >= 0:
            placed[i] = (scores.cuda(), groups.tolist())  # categories from the host
    emitted = [there.emit(placed[0][0], {"g": placed[0][1]})]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        emitted += [there.emit(scores, {"g": groups}) for scores, groups in placed[1:]]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for (scores, groups), found in zip(samples, emitted, strict=True):
        torch.testing.assert_close(found.cpu(), on_device(here, scores, groups), rtol=0, atol=1e-9)
    assert there.counts() == here.counts()
    assert there.phase is here.phase
