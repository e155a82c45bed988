"""The state of a stream is data: saved, loaded, copied, merged, synchronised, and untouched by errors."""

from __future__ import annotations

import copy
import io
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer import errors
from fairlayer.streaming.cells import names_of
from tests.distributed.processes import start_processes
from tests.streaming.streams import emit_general, lending, one, regimes, tensor

PARITY = fl.DemographicParity("sex", 0.02)
OPPORTUNITY = fl.EqualOpportunity("sex", 0.02)
POLICIES = ["present", "anytime", "tracking", "per_batch", fl.Tracking(implicit=False, rate=1.0)]


def new_stream(policy: Any = "tracking", *, memory: float | None = None, labelled: bool = False) -> fl.InferenceState:
    constraints = [PARITY, OPPORTUNITY] if labelled else [PARITY]
    return fl.InferenceState(constraints, bounds=(0.0, 1.0), policy=policy, memory=memory)


def feed(stream: fl.InferenceState, seed: int, n: int, *, size: int = 1, ids: bool = False) -> list[float]:
    """Stream n samples and return what was emitted."""
    scores, sex = lending(seed, n)
    found: list[float] = []
    for start in range(0, n, size):
        part = slice(start, start + size)
        keys = list(range(start, min(start + size, n))) if ids else None
        found += stream.emit(tensor(scores[part]), {"sex": sex[part].tolist()}, ids=keys).tolist()
    return found


def same(a: Any, b: Any) -> bool:
    """Whether two nested states are bit-equal, types included."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def through_file(state: Any, folder: Path) -> Any:
    torch.save(state, folder / "state.pt")
    return torch.load(folder / "state.pt", weights_only=True)


CASES = [(policy, memory, size) for policy in POLICIES for memory, size in [(None, 1), (200.0, 3)]]


@pytest.mark.parametrize(("policy", "memory", "size"), CASES, ids=str)
class TestSaved:
    def test_goes_on_as_if_nothing_had_been(self, policy: Any, memory: float | None, size: int, tmp_path: Path) -> None:
        for n in (0, 1, 7, 40, 300):
            first = new_stream(policy, memory=memory)
            feed(first, 0, n, size=size)
            second = new_stream(policy, memory=memory)
            second.load_state_dict(through_file(first.state_dict(), tmp_path))
            assert same(second.state_dict(), first.state_dict())
            assert second.phase == first.phase
            assert second.multipliers == first.multipliers
            # Which sums were kept and which are made anew may change the last digits, no more.
            again = feed(second, 1, 90, size=size)
            np.testing.assert_allclose(again, feed(first, 1, 90, size=size), rtol=0, atol=1e-9)
            assert second.counts() == first.counts()
            assert second.phase == first.phase

    def test_copy_and_pickle(self, policy: Any, memory: float | None, size: int) -> None:
        first = new_stream(policy, memory=memory)
        feed(first, 0, 120, size=size)
        before = first.state_dict()
        for second in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
            assert same(second.state_dict(), before)
            more = feed(second, 1, 60, size=size)
            assert same(first.state_dict(), before)  # nothing is shared
            third = copy.deepcopy(first)
            np.testing.assert_allclose(feed(third, 1, 60, size=size), more, rtol=0, atol=1e-9)


def test_saved_state_is_a_value() -> None:
    stream = new_stream()
    feed(stream, 0, 50)
    state = stream.state_dict()
    before = copy.deepcopy(state)
    feed(stream, 1, 50)
    feed(stream, 2, 48, size=16)
    assert same(state, before)


@pytest.mark.parametrize("labelled", [False, True])
def test_waiting_labels_are_saved(labelled: bool, tmp_path: Path) -> None:
    first = new_stream(labelled=labelled)
    feed(first, 0, 40, ids=True, size=2)
    second = new_stream(labelled=labelled)
    second.load_state_dict(through_file(first.state_dict(), tmp_path))
    for stream in (first, second):
        stream.observe_labels([7, 3, 20], [1.0, 0.0, 1.0])
    assert same(second.state_dict(), first.state_dict())


@pytest.mark.parametrize("kind", [np.int64, np.str_])
def test_ids_from_numpy_are_saved_too(kind: Any, tmp_path: Path) -> None:
    stream = new_stream(labelled=True)
    ids = np.array([10, 11]).astype(kind)
    stream.emit(tensor([0.5, 0.9]), {"sex": [0, 1]}, ids=ids)
    other = new_stream(labelled=True)
    other.load_state_dict(through_file(stream.state_dict(), tmp_path))
    other.observe_labels(list(ids), [1.0, 0.0])


class TestModel:
    @staticmethod
    def model(dtype: torch.dtype = torch.float32) -> fl.FairModel:
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1), torch.nn.Sigmoid())
        return fl.FairModel(net, [PARITY], bounds=(0.0, 1.0), policy="anytime").to(dtype).eval()

    @staticmethod
    def feed(model: fl.FairModel, n: int, dtype: torch.dtype = torch.float32) -> list[float]:
        generator = torch.Generator().manual_seed(n)
        x = torch.randn(n, 4, generator=generator).to(dtype)
        sex = torch.randint(0, 2, (n,), generator=generator)
        with torch.no_grad():
            return [
                float(model(x[i : i + 1], sensitive_features={"sex": sex[i : i + 1]}, inference=True)) for i in range(n)
            ]

    def test_state_dict_carries_the_stream(self, tmp_path: Path) -> None:
        first, second = self.model(), self.model()
        self.feed(first, 80)
        second.load_state_dict(through_file(first.state_dict(), tmp_path))
        assert same(second.inference_state.state_dict(), first.inference_state.state_dict())
        np.testing.assert_allclose(self.feed(second, 50), self.feed(first, 50), rtol=0, atol=1e-6)

    def test_a_model_without_stream_loads_and_resets(self, tmp_path: Path) -> None:
        first, second = self.model(), self.model()
        self.feed(second, 20)
        second.load_state_dict(through_file(first.state_dict(), tmp_path))
        assert second.inference_state.samples == 0

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_state_outlives_a_change_of_dtype(self, dtype: torch.dtype) -> None:
        model = self.model()
        self.feed(model, 60)
        before = model.inference_state.state_dict()
        model.to(dtype)
        assert same(model.inference_state.state_dict(), before)
        other = self.model(dtype)
        other.load_state_dict(model.state_dict())
        assert same(other.inference_state.state_dict(), before)
        self.feed(other, 10, dtype)
        assert other.inference_state.samples == 70

    def test_copies_of_a_model_have_streams_of_their_own(self) -> None:
        model = self.model()
        self.feed(model, 30)
        other = copy.deepcopy(model)
        self.feed(other, 10)
        assert (model.inference_state.samples, other.inference_state.samples) == (30, 40)
        assert pickle.loads(pickle.dumps(model)).inference_state.samples == 30

    def test_reset(self) -> None:
        model = self.model()
        first = self.feed(model, 40)
        model.reset_inference_state()
        assert model.inference_state.samples == 0
        assert model.inference_state.phase is fl.Phase.COLD
        assert self.feed(model, 40) == first


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_both_paths_return_the_same_dtype(dtype: torch.dtype) -> None:
    stream = new_stream("anytime")
    stream.emit(tensor([0.5, 0.5]), {"sex": [0, 1]})
    single = stream.emit(torch.tensor([0.3], dtype=dtype), {"sex": [0]})
    general = emit_general(stream, torch.tensor([0.3], dtype=dtype), {"sex": [0]})
    assert single.dtype == general.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("groups", [2, 8])
def test_size_is_a_few_kilobytes(groups: int, tmp_path: Path) -> None:
    stream = fl.InferenceState([fl.DemographicParity("g", 0.02)], bounds=(0.0, 1.0))
    for group, score in regimes(0, 3000, groups):
        stream.emit(one(score), {"g": [group]})
    torch.save(stream.state_dict(), tmp_path / "state.pt")
    size = (tmp_path / "state.pt").stat().st_size
    assert size <= 12_000 + 4_000 * groups
    feed_more = list(regimes(1, 2000, groups))
    for group, score in feed_more:
        stream.emit(one(score), {"g": [group]})
    torch.save(stream.state_dict(), tmp_path / "state.pt")
    assert (tmp_path / "state.pt").stat().st_size <= size + 2_000 * groups


# --- errors change nothing


def _bad_calls() -> dict[str, tuple[Callable[[fl.FairModel], Any], type[Exception]]]:
    nan, inf = float("nan"), float("inf")

    def call(scores: Any, features: Any, **more: Any) -> Callable[[fl.FairModel], Any]:
        return lambda model: model(tensor(scores), sensitive_features=features, inference=True, **more)

    return {
        "one NaN score": (call([nan], {"sex": ["F"]}), errors.NonFiniteScoresError),
        "one infinite score": (call([inf], {"sex": ["F"]}), errors.NonFiniteScoresError),
        "NaN in a batch": (call([0.1, nan], {"sex": ["F", "M"]}), errors.NonFiniteScoresError),
        "unseen category": (call([0.1], {"sex": ["X"]}), errors.CategoryError),
        "unseen category in a batch": (call([0.1, 0.2], {"sex": ["F", "X"]}), errors.CategoryError),
        "wrong length": (call([0.1, 0.2], {"sex": ["F"]}), errors.ShapeError),
        "two groups for one score": (call([0.1], {"sex": ["F", "M"]}), errors.ShapeError),
        "missing feature": (call([0.1], {"race": ["F"]}), errors.MissingSensitiveFeatureError),
        "no features": (call([0.1], None), errors.MissingSensitiveFeatureError),
        "two columns": (call([[0.1, 0.2]], {"sex": ["F"]}), errors.ShapeError),
        "ids of wrong length": (call([0.1], {"sex": ["F"]}, ids=["a", "b"]), errors.ShapeError),
        "labels of wrong length": (call([0.1], {"sex": ["F"]}, y=[1.0, 0.0]), errors.ShapeError),
        "NaN label": (call([0.1], {"sex": ["F"]}, y=[nan]), errors.NonFiniteScoresError),
        "words for labels": (call([0.1], {"sex": ["F"]}, y=["yes"]), errors.LabelValueError),
        "soft membership": (call([0.1], {"sex": [[0.5, 0.5]]}), errors.FairlayerError),
        "empty batch": (call(np.zeros(0), {"sex": []}), errors.EmptyBatchError),
        "large batch with NaN": (call([0.1, nan] * 8, {"sex": ["F", "M"] * 8}), errors.NonFiniteScoresError),
        "large batch, unseen": (call([0.1, 0.2] * 8, {"sex": ["F", "X"] * 8}), errors.CategoryError),
        "large batch, wrong length": (call([0.1, 0.2] * 8, {"sex": ["F"] * 5}), errors.ShapeError),
    }


@pytest.mark.parametrize("policy", ["present", "anytime", "tracking", "per_batch"])
@pytest.mark.parametrize("name", _bad_calls())
def test_bad_input_leaves_the_state_bit_equal(name: str, policy: str) -> None:
    call, error = _bad_calls()[name]
    model = fl.FairModel(torch.nn.Identity(), [PARITY], bounds=(0.0, 1.0), policy=policy, b_tau=16).eval()
    model.fit_categories({"sex": ["F", "M"]})
    for seed in (0, 1):
        scores, sex = lending(seed, 30)
        for score, code in zip(scores, sex, strict=True):
            model(one(score), sensitive_features={"sex": ["FM"[code]]}, inference=True)
        before = model.inference_state.state_dict()
        with pytest.raises(error) as caught:
            call(model)
        assert len(str(caught.value)) > 20
        assert same(model.inference_state.state_dict(), before)


@pytest.mark.parametrize("policy", ["anytime", "tracking"])
def test_first_bad_input_leaves_the_state_empty(policy: str) -> None:
    stream = new_stream(policy)
    before = stream.state_dict()
    with pytest.raises(errors.NonFiniteScoresError):
        stream.emit(tensor([float("nan"), 0.1]), {"sex": ["F", "M"]})
    assert same(stream.state_dict(), before)


def test_a_constraint_that_a_stream_cannot_hold_is_refused_whole() -> None:
    """By the constructor, or by every step; never by an assertion, nor with half a step done."""
    for constraint in (
        fl.GroupCalibration("sex", tolerance=0.1, bins=3),
        fl.Affine(np.full((1, 3), 1 / 3), lower=[0.2], upper=[0.4]),
    ):
        try:
            stream = fl.InferenceState([constraint], bounds=(0.0, 1.0))
        except errors.FairlayerError:
            continue
        before = stream.state_dict()
        with pytest.raises(errors.FairlayerError):
            stream.emit(tensor([0.1, 0.2]), {"sex": ["F", "M"]}, y=[1.0, 0.0])
        assert same(stream.state_dict(), before)


def test_covariance_is_of_the_values_or_refused() -> None:
    constraint = fl.CovarianceBound("age", 0.05)
    rng = np.random.default_rng(0)
    ages, emitted = rng.integers(18, 90, 200), []
    try:
        stream = fl.InferenceState([constraint], policy="anytime", bounds=(0.0, 1.0))
        for age in ages.tolist():
            emitted.append(float(stream.emit(one(age / 100), {"age": [age]})))
    except errors.FairlayerError:
        return
    assert abs(np.mean((ages - ages.mean()) * np.array(emitted))) <= 0.05 + 1e-6


@pytest.mark.parametrize(
    "arguments", [{"rate": 0.0}, {"rate": -1.0}, {"limit": -1.0}, {"allowance": float("nan")}, {"settle": -5}], ids=str
)
def test_policies_are_checked(arguments: Any) -> None:
    with pytest.raises(errors.ConstraintDefinitionError):
        fl.InferenceState([PARITY], policy=fl.Tracking(**arguments))


@pytest.mark.parametrize("memory", [0.0, -5.0, float("nan")])
def test_memory_is_checked(memory: float) -> None:
    with pytest.raises(errors.ConstraintDefinitionError):
        fl.InferenceState([PARITY], memory=memory)


def test_unknown_policy() -> None:
    with pytest.raises(errors.ConstraintDefinitionError, match="'per_batch', 'present', 'tracking'"):
        fl.InferenceState([PARITY], policy="hard")


def test_state_of_other_features_is_refused() -> None:
    stream = new_stream()
    feed(stream, 0, 20)
    other = fl.InferenceState([fl.DemographicParity("race", 0.02)], bounds=(0.0, 1.0))
    before = other.state_dict()
    with pytest.raises(errors.ConstraintDefinitionError, match="race"):
        other.load_state_dict(stream.state_dict())
    assert same(other.state_dict(), before)


# --- categories


class TestCategories:
    def test_fitted_after_the_stream_began(self) -> None:
        """The history keeps its meaning, or there is a named error."""
        model = fl.FairModel(torch.nn.Identity(), [PARITY], bounds=(0.0, 1.0), policy="anytime")
        for sex in "MFF":
            model(one(0.9), sensitive_features={"sex": [sex]}, inference=True)
        try:
            model.fit_categories({"sex": ["F", "M"]})
            model(tensor([0.1, 0.1]), sensitive_features={"sex": ["F", "F"]}, inference=True)
        except errors.FairlayerError:
            assert model.inference_state.counts() == {"sex=M": 1, "sex=F": 2}
            return
        assert model.inference_state.counts() == {"sex=M": 1, "sex=F": 4}

    def test_one_that_the_stream_has_met_cannot_be_left_out(self) -> None:
        model = fl.FairModel(torch.nn.Identity(), [PARITY], bounds=(0.0, 1.0), policy="anytime").eval()
        for sex in "FMX":
            model(one(0.9), sensitive_features={"sex": [sex]}, inference=True)
        before = model.state_dict()["_extra_state"]
        with pytest.raises(errors.CategoryError, match="the stream has met sex='X'"):
            model.fit_categories({"sex": ["F", "M"]})
        assert same(model.state_dict()["_extra_state"], before)
        assert model.projection.vocabulary.open
        assert not model.projection.vocabulary.categories
        model.fit_categories({"sex": ["F", "M", "X"]})
        with pytest.raises(errors.CategoryError):
            model(one(0.9), sensitive_features={"sex": ["Y"]}, inference=True)
        assert model.inference_state.counts() == {"sex=F": 1, "sex=M": 1, "sex=X": 1}

    def test_training_meets_others(self) -> None:
        model = fl.FairModel(torch.nn.Identity(), [PARITY], bounds=(0.0, 1.0), policy="anytime")
        for sex in "FMY":
            model(one(0.9), sensitive_features={"sex": [sex]}, inference=True)
        model.train()
        model(torch.rand(8), sensitive_features={"sex": list("FMXZFMXZ")})
        try:
            model(tensor([0.1, 0.1]), sensitive_features={"sex": ["F", "Y"]}, inference=True)
        except errors.FairlayerError:
            assert model.inference_state.counts() == {"sex=F": 1, "sex=M": 1, "sex=Y": 1}
            return
        counts = model.inference_state.counts()
        assert {name: n for name, n in counts.items() if n} == {"sex=F": 2, "sex=M": 1, "sex=Y": 2}

    def test_order_of_appearance_does_not_matter(self) -> None:
        results = []
        for first in ("FM", "MF"):
            stream = new_stream("anytime")
            stream.emit(tensor([0.5, 0.5]), {"sex": list(first)})
            scores, sex = lending(0, 60)
            emitted = [float(stream.emit(one(z), {"sex": ["FM"[s]]})) for z, s in zip(scores, sex, strict=True)]
            results.append(emitted)
        np.testing.assert_allclose(results[0], results[1], atol=1e-12)

    def test_every_way_to_write_a_category_is_the_same_one(self) -> None:
        stream = fl.InferenceState([fl.DemographicParity("g", 0.1)], bounds=(0.0, 1.0), policy="anytime")
        for column in ([1, 0], np.array([1, 0]), torch.tensor([1, 0]), np.array([1.0, 0.0]), torch.tensor([1.0, 0.0])):
            stream.emit(tensor([0.5, 0.5]), {"g": column})
        for one_of in ([1], (1,), np.array([1]), torch.tensor([1]), [1.0], torch.tensor([1.0]), [True], [np.int64(1)]):
            stream.emit(one(0.5), {"g": one_of})
        stream.emit(one(0.5), torch.tensor([1]))
        assert stream.counts() == {"g=0": 5, "g=1": 14}


# --- replicas


def _sums(stream: fl.InferenceState) -> dict[str, list[float]]:
    history = stream.state_dict()["machine"]["history"]
    names = names_of(stream._live.machine)
    return {name: history["sums"][:, i].tolist() for i, name in enumerate(names)}


def assert_sums(found: dict[str, list[float]], expected: dict[str, list[float]]) -> None:
    assert set(found) == set(expected)
    for name, row in expected.items():
        np.testing.assert_allclose(found[name], row, atol=1e-9)


def test_merge_is_the_sum_of_both_streams() -> None:
    first, second = new_stream(), new_stream()
    a, b = feed(first, 0, 130), feed(second, 1, 90, size=3)
    alone = second.state_dict()
    (s0, g0), (s1, g1) = lending(0, 130), lending(1, 90)
    values, sex = np.array(a + b), np.concatenate([g0, g1])
    first.merge(second)
    assert same(second.state_dict(), alone)
    assert first.samples == 220
    for g in (0, 1):
        assert first.counts()[f"sex={g}"] == (sex == g).sum()
    gap = abs(values[sex == 0].mean() - values[sex == 1].mean())
    assert first.pooled_gap()[PARITY.name] == pytest.approx(gap, abs=1e-12)
    raw = np.concatenate([s0, s1])
    assert first.mean_squared_change() == pytest.approx(((values - raw) ** 2).mean(), abs=1e-12)
    sketch = first.state_dict()["machine"]["history"]["sketch"]
    assert float(sketch.sum()) == pytest.approx(220)


def test_merge_into_an_empty_stream_and_of_one() -> None:
    full, empty = new_stream(), new_stream()
    feed(full, 0, 50)
    expected = _sums(full)
    empty.merge(full)
    assert_sums(_sums(empty), expected)
    full.merge(new_stream())
    assert_sums(_sums(full), expected)
    assert full.samples == empty.samples == 50


def test_merge_of_other_categories_is_refused_whole() -> None:
    first, second = new_stream(), new_stream()
    first.emit(tensor([0.5, 0.9]), {"sex": ["F", "M"]})
    second.emit(tensor([0.5, 0.9]), {"sex": ["X", "Y"]})
    before = first.state_dict()
    with pytest.raises(errors.ConstraintDefinitionError, match="fit_categories"):
        first.merge(second)
    assert same(first.state_dict(), before)


def _labels_after(stream: fl.InferenceState, key: str) -> dict[str, float]:
    stream.observe_labels([key], [1.0])
    sums = stream.state_dict()["machine"]["history"]["sums"]
    return {name: float(sums[5, i]) for i, name in enumerate(names_of(stream._live.machine))}  # count1


def _replica(rank: int, port: int, folder: str) -> None:
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        model = fl.FairModel(torch.nn.Identity(), [PARITY], bounds=(0.0, 1.0), policy="anytime")
        model.fit_categories({"sex": ["F", "M"]})
        stream, found = model.inference_state, {}

        def send(seed: int, n: int) -> None:
            scores, sex = lending(seed, n)
            words = "FM" if rank == 0 else "MF"  # the replicas meet the groups in different order
            for score, code in zip(scores, sex, strict=True):
                model(one(score), sensitive_features={"sex": [words[code]]}, inference=True)

        model(one(0.5), sensitive_features={"sex": ["FM"[rank]]}, ids=["early"], inference=True)
        send(rank, 40 + 10 * rank)
        found["own 1"] = _sums(stream)
        stream.sync()
        found["synced 1"] = _sums(stream)
        stream.sync()
        found["synced 1 again"] = _sums(stream)
        found["late label"] = _labels_after(copy.deepcopy(stream), "early")
        send(10 + rank, 30)
        found["own 2"] = _sums(stream)
        stream.sync()
        found["synced 2"] = _sums(stream)
        other = copy.deepcopy(stream)
        other.sync()
        found["a copy"] = _sums(other)
        path = f"{folder}/state{rank}.pt"
        torch.save(stream.state_dict(), path)
        loaded = fl.InferenceState([PARITY], bounds=(0.0, 1.0), policy="anytime")
        loaded.load_state_dict(torch.load(path, weights_only=True))
        loaded.sync()
        found["loaded"] = _sums(loaded)
        found["samples"] = loaded.samples
        torch.save(found, f"{folder}/found{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes found that streamed, synchronised, streamed on, and synchronised again."""
    import socket

    folder = tmp_path_factory.mktemp("replicas")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start_processes(2, _replica, port, str(folder))
    return [torch.load(folder / f"found{rank}.pt", weights_only=True) for rank in (0, 1)]


def _plus(*parts: dict[str, list[float]], minus: dict[str, list[float]] | None = None) -> dict[str, list[float]]:
    names = {name for part in parts for name in part}
    total = {n: np.sum([part.get(n, [0.0] * 9) for part in parts], axis=0) for n in names}
    if minus is not None:
        total = {n: row - np.array(minus.get(n, [0.0] * 9)) for n, row in total.items()}
    return {n: row.tolist() for n, row in total.items()}


class TestTwoProcesses:
    def test_first_sync_is_the_sum(self, replicas: list[dict[str, Any]]) -> None:
        expected = _plus(replicas[0]["own 1"], replicas[1]["own 1"])
        for found in replicas:
            assert_sums(found["synced 1"], expected)

    def test_twice_in_a_row_counts_nothing_twice(self, replicas: list[dict[str, Any]]) -> None:
        for found in replicas:
            assert_sums(found["synced 1 again"], found["synced 1"])

    def test_next_sync_adds_what_is_new(self, replicas: list[dict[str, Any]]) -> None:
        both = [found["own 2"] for found in replicas]
        expected = _plus(*both, minus=replicas[0]["synced 1"])
        for found in replicas:
            assert_sums(found["synced 2"], expected)

    def test_late_labels_find_their_group(self, replicas: list[dict[str, Any]]) -> None:
        assert replicas[0]["late label"] == {"sex=F": 1.0, "sex=M": 0.0}
        assert replicas[1]["late label"] == {"sex=F": 0.0, "sex=M": 1.0}

    @pytest.mark.parametrize("which", ["a copy", "loaded"])
    def test_a_restart_counts_nothing_twice(self, replicas: list[dict[str, Any]], which: str) -> None:
        for found in replicas:
            assert_sums(found[which], found["synced 2"])


# --- sketch, memory


@pytest.mark.parametrize("memory", [5.0, 100.0])
def test_forgetting_survives_many_samples_at_once(memory: float) -> None:
    stream = new_stream("anytime", memory=memory)
    scores, sex = lending(0, 200_000)
    stream.warm_start(tensor(scores), {"sex": sex})
    stream.emit(tensor([0.2, 0.9]), {"sex": [0, 1]})
    sketch = stream.state_dict()["machine"]["history"]["sketch"]
    assert torch.isfinite(sketch).all()
    assert all(np.isfinite(shift) for shift in stream.shifts().values())


@pytest.mark.parametrize("size", [1, 4])
def test_a_single_wild_score_does_not_spoil_the_feed_forward(size: int) -> None:
    """Scores are clipped to the bounds in the end: one of 1e4 is one of 1."""
    scores, sex = lending(0, 4000)
    changes = {}
    for first in (1.0, 1e4):
        stream = new_stream("anytime")
        stream.emit(one(first), {"sex": [0]})
        total = 0.0
        for start in range(0, 4000, size):
            part = slice(start, start + size)
            emitted = stream.emit(tensor(scores[part]), {"sex": sex[part].tolist()}).numpy()
            total += float(((emitted - scores[part]) ** 2).sum())
        changes[first] = total
    assert changes[1e4] <= 1.3 * changes[1.0]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e12])
def test_scores_of_any_size_without_bounds(scale: float) -> None:
    stream = fl.InferenceState([fl.DemographicParity("g", 0.02 * scale)], policy="anytime")
    for group, score in regimes(0, 200, 2, scale=scale):
        stream.emit(one(score), {"g": [group]})
    gap = stream.pooled_gap()["DemographicParity('g')"]
    assert gap is not None
    assert gap <= 0.02 * scale * (1 + 1e-6)


def _memory_over(requests: int) -> tuple[int, int]:
    stream = new_stream("tracking", memory=500.0)
    feed(stream, 0, 6000)  # the trace has reached its length
    score, features = one(0.4), [{"sex": [0]}, {"sex": [1]}]
    tracemalloc.start()
    for i in range(1000):
        stream.emit(score, features[i % 2])
    before, _ = tracemalloc.get_traced_memory()
    for i in range(requests):
        stream.emit(score, features[i % 2])
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return before, after


def test_memory_is_constant() -> None:
    before, after = _memory_over(20_000)
    assert after - before <= 500_000


@pytest.mark.slow
@pytest.mark.parametrize("requests", [100_000, 1_000_000])
def test_memory_is_constant_at_length(requests: int) -> None:
    before, after = _memory_over(requests)
    print(f"{requests} requests: {before} -> {after} bytes")
    assert after - before <= 500_000


def test_waiting_predictions_are_bounded() -> None:
    stream = new_stream(labelled=True)
    scores, sex = lending(0, 250)
    for k in range(220):
        stream.emit(tensor(scores), {"sex": sex}, ids=[f"{k}-{i}" for i in range(250)])
    assert len(stream.state_dict()["pending"]["ids"]) == 50_000
    with pytest.raises(errors.ShapeError, match="latest 50000"):
        stream.observe_labels(["0-0"], [1.0])
    stream.observe_labels(["219-0"], [1.0])


def test_io_of_a_state_is_plain() -> None:
    """Only tensors and plain containers, so that the weights-only reader takes it."""
    stream = new_stream("per_batch")
    feed(stream, 0, 32, size=8)
    buffer = io.BytesIO()
    torch.save(stream.state_dict(), buffer)
    buffer.seek(0)
    assert same(torch.load(buffer, weights_only=True), stream.state_dict())


@pytest.mark.parametrize("policy", ["present", "anytime", "tracking"])
@pytest.mark.parametrize("bad", [float("nan"), "unseen"])
def test_bad_batches_change_nothing_at_any_moment(policy: str, bad: Any) -> None:
    """Also where the feed-forward is due to be solved anew."""
    model = fl.FairModel(torch.nn.Identity(), [PARITY], bounds=(0.0, 1.0), policy=policy).eval()
    model.fit_categories({"sex": [0, 1, 2]})
    scores, sex = lending(0, 120)
    score, code = (0.5, 2) if bad == "unseen" else (bad, 0)
    for start in range(0, 120, 3):
        part = slice(start, start + 3)
        model(tensor(scores[part]), sensitive_features={"sex": torch.from_numpy(sex[part])}, inference=True)
        before = model.inference_state.state_dict()
        features = {"sex": torch.tensor([0, 3 if code == 2 else 0, 1])}
        with pytest.raises(errors.FairlayerError):
            model(tensor([0.1, score, 0.3]), sensitive_features=features, inference=True)
        assert same(model.inference_state.state_dict(), before)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_reading_changes_nothing(scale: float) -> None:
    """Also without bounds, where the range of the histograms grows with the scores."""
    quiet, asked = (fl.InferenceState([fl.DemographicParity("sex", 0.02 * scale)], policy="anytime") for _ in range(2))
    rng = np.random.default_rng(0)
    for code in rng.integers(0, 2, 400).tolist():
        score = one(scale * rng.normal(0.3 * code))
        emitted = quiet.emit(score, {"sex": [code]})
        assert float(asked.emit(score, {"sex": [code]})) == pytest.approx(float(emitted), abs=1e-9 * scale)
        asked.pooled_gap()
        asked = copy.deepcopy(asked) if rng.random() < 0.1 else asked


def test_what_is_absorbed_has_a_prediction_per_score() -> None:
    stream = new_stream()
    before = stream.state_dict()
    with pytest.raises(errors.ShapeError, match="2 scores, but 1 predictions"):
        stream.absorb(tensor([0.1, 0.2]), tensor([0.1]), {"sex": [0, 1]})
    assert same(stream.state_dict(), before)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"bounds": (1.0, 0.0)}, errors.InvalidBoundsError),
        ({"bounds": (float("nan"), 1.0)}, errors.InvalidBoundsError),
        ({"bounds": ("a", 1.0)}, errors.InvalidBoundsError),
        ({"bounds": (0.0, 0.5, 1.0)}, errors.InvalidBoundsError),
        ({"memory": "5"}, errors.ConstraintDefinitionError),
        ({"memory": 1e-4}, errors.ConstraintDefinitionError),
        ({"policy": "hard"}, errors.ConstraintDefinitionError),
    ],
    ids=str,
)
def test_arguments_are_checked_at_once(arguments: Any, error: Any) -> None:
    with pytest.raises(error):
        fl.InferenceState([PARITY], **arguments)
    if error is errors.ConstraintDefinitionError:
        with pytest.raises(error):
            fl.FairModel(torch.nn.Identity(), [PARITY], **arguments)


def test_numbers_of_policies_and_batch_sizes_are_numbers() -> None:
    for make in (lambda: fl.Tracking(rate="fast"), lambda: fl.PerBatch(step=None)):  # type: ignore[arg-type]
        with pytest.raises(errors.ConstraintDefinitionError, match="must be a finite number"):
            make()
    for b_tau in ("many", None, -1, float("nan")):
        with pytest.raises(errors.ConstraintDefinitionError, match="b_tau must be a number"):
            fl.FairModel(torch.nn.Identity(), [PARITY], b_tau=b_tau)  # type: ignore[arg-type]
    for number in (np.float32(8.0), np.int64(8)):
        fl.FairModel(torch.nn.Identity(), [PARITY], b_tau=number, memory=number, policy=fl.Tracking(rate=number))  # type: ignore[arg-type]
    with pytest.raises(errors.ShapeError, match="found list"):
        new_stream().emit([0.5], {"sex": [0]})  # type: ignore[arg-type]


@pytest.mark.parametrize("state", [{}, {"machine": {}}, {"machine": None, "pending": {}}])
def test_what_is_no_state_is_refused(state: Any) -> None:
    stream = new_stream()
    stream.emit(tensor([0.1, 0.9]), {"sex": [0, 1]})
    before = stream.state_dict()
    with pytest.raises(errors.ParameterError, match="not the state of a stream"):
        stream.load_state_dict(state)
    older = copy.deepcopy(before)
    older["machine"]["history"]["range"] = older["machine"]["history"]["range"][:3]
    with pytest.raises(errors.ParameterError, match="another version"):
        stream.load_state_dict(older)
    assert same(stream.state_dict(), before)
