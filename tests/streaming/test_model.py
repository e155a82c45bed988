"""FairModel on streams: loaders, statistics, columns of x, subclasses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer import errors
from tests.streaming.streams import lending, one, tensor

KEYS = {
    "weighted_avg_fairness_gap",
    "pooled_aggregate_gap",
    "raw_pooled_aggregate_gap",
    "mean_squared_change",
    "samples",
    "batches",
}
PARITY = fl.DemographicParity("sex", 0.02)


def spread(values: np.ndarray, sex: np.ndarray) -> float | None:
    means = [values[sex == g].mean() for g in np.unique(sex)]
    return max(means) - min(means) if len(means) > 1 else None


def loader(seed: int, n: int, size: int, kind: str = "pair") -> list[Any]:
    scores, sex = lending(seed, n)
    y = (scores > 0.5).astype(np.float64)
    found: list[Any] = []
    for start in range(0, n, size):
        p = slice(start, start + size)
        x, features = tensor(scores[p])[:, None], {"sex": sex[p]}
        found.append(
            {
                "pair": (x, features),
                "triple": (x, y[p], features),
                "list": [x, y[p], features],
                "dict": {"x": x, "y": y[p], "sensitive_features": features},
                "dict without y": {"x": x, "sensitive_features": features},
            }[kind]
        )
    return found


def new_model(policy: Any = "anytime", **more: Any) -> fl.FairModel:
    return fl.FairModel(torch.nn.Identity(), [PARITY], bounds=(0.0, 1.0), policy=policy, **more).eval()


class Recording(fl.FairModel):
    """A subclass without backbone that keeps what it emitted."""

    def __init__(self, **more: Any) -> None:
        super().__init__(None, [PARITY], bounds=(0.0, 1.0), **more)
        self.weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.emitted: list[np.ndarray] = []

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x[:, 0]


@pytest.mark.parametrize("kind", ["pair", "triple", "list", "dict", "dict without y"])
@pytest.mark.parametrize("policy", ["anytime", "tracking", "per_batch"])
@pytest.mark.parametrize("size", [1, 7, 300])
def test_statistics_are_those_of_the_emitted_predictions(kind: str, policy: str, size: int) -> None:
    n = 300 if size == 1 else 600
    scores, sex = lending(2, n)
    model, twin = new_model(policy), new_model(policy)
    stats = model.get_aggregate_fairness_stats(loader(2, n, size, kind))
    assert set(stats) == KEYS
    assert all(isinstance(value, float) for value in stats.values())
    emitted, weighted = [], 0.0
    for start in range(0, n, size):
        p = slice(start, start + size)
        labels = None if kind in ("pair", "dict without y") else (scores[p] > 0.5).astype(np.float64)
        x, features = tensor(scores[p])[:, None], {"sex": sex[p]}
        y = twin(x, sensitive_features=features, y=labels, inference=True).numpy().reshape(-1)
        emitted.append(y)
        weighted += len(y) * (spread(y, sex[p]) or 0.0)
    values = np.concatenate(emitted)
    assert stats["weighted_avg_fairness_gap"] == pytest.approx(weighted / n, abs=1e-9)
    assert stats["pooled_aggregate_gap"] == pytest.approx(spread(values, sex), abs=1e-9)
    assert stats["raw_pooled_aggregate_gap"] == pytest.approx(spread(scores, sex), abs=1e-9)
    assert stats["mean_squared_change"] == pytest.approx(((values - scores) ** 2).mean(), abs=1e-9)
    assert (stats["samples"], stats["batches"]) == (n, -(-n // size))


@pytest.mark.parametrize("policy", ["anytime", "tracking", "per_batch"])
@pytest.mark.parametrize("size", [1, 5])
def test_labels_that_no_constraint_reads_change_nothing(policy: str, size: int) -> None:
    plain, labelled = new_model(policy), new_model(policy)
    for x, y, features in loader(3, 200, size, "triple"):
        a = plain(x, sensitive_features=features, inference=True)
        b = labelled(x, sensitive_features=features, y=y, inference=True)
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


def test_keys_do_not_change_with_the_data() -> None:
    lonely = [(tensor([[0.3]]), {"sex": [0]})]
    stats = new_model().get_aggregate_fairness_stats(lonely)
    assert set(stats) == KEYS
    assert stats["pooled_aggregate_gap"] == 0.0


def test_a_loader_without_a_batch_has_no_gap_of_0() -> None:
    with pytest.raises(errors.EmptyBatchError, match="gave no batch"):
        new_model().get_aggregate_fairness_stats([])


def test_reset_before() -> None:
    model = new_model()
    model.get_aggregate_fairness_stats(loader(0, 100, 1))
    assert model.inference_state.samples == 100
    again = model.get_aggregate_fairness_stats(loader(1, 50, 1))
    assert model.inference_state.samples == 50
    assert again == new_model().get_aggregate_fairness_stats(loader(1, 50, 1))
    model.get_aggregate_fairness_stats(loader(2, 30, 1), reset_before=False)
    assert model.inference_state.samples == 80


@pytest.mark.parametrize("training", [True, False])
def test_statistics_leave_the_mode_alone(training: bool) -> None:
    model = new_model().train(training)
    model.get_aggregate_fairness_stats(loader(0, 20, 4))
    assert model.training is training


@pytest.mark.parametrize("kind", ["pair", "triple", "list", "dict", "dict without y"])
def test_warm_start_takes_any_loader_and_counts_nothing(kind: str) -> None:
    model = new_model("tracking")
    model.warm_start(loader(5, 800, 50, kind))
    state = model.inference_state
    assert state.samples == 0
    assert state.phase is fl.Phase.COLD
    assert state.pooled_gap() == {PARITY.name: None}
    scores, sex = lending(5, 800)
    exact = fl.project(tensor(scores), [PARITY], sensitive_features={"sex": sex}, bounds=(0.0, 1.0))
    first = float(model(tensor([[0.5]]), sensitive_features={"sex": [1]}, inference=True))
    moved = exact.value.numpy() - scores
    assert first - 0.5 == pytest.approx(moved[sex == 1].mean(), abs=0.02)
    assert first > 0.55


def test_warm_start_twice_adds_up_and_bad_one_adds_nothing() -> None:
    model = new_model("tracking")
    model.warm_start(loader(5, 200, 50))
    before = model.inference_state.state_dict()["machine"]["history"]["sketch"]
    with pytest.raises(errors.NonFiniteScoresError):
        model.warm_start([(tensor([[float("nan")]]), {"sex": [0]})])
    assert torch.equal(model.inference_state.state_dict()["machine"]["history"]["sketch"], before)
    model.warm_start(loader(6, 100, 100))
    assert float(model.inference_state.state_dict()["machine"]["history"]["sketch"].sum()) == pytest.approx(300)


@pytest.mark.parametrize("batch", [torch.zeros(3, 1), (torch.zeros(3, 1),), {"y": 1}, None])
def test_other_batches_are_refused(batch: Any) -> None:
    with pytest.raises(errors.ShapeError, match="sensitive"):
        new_model().get_aggregate_fairness_stats([batch])


class TestColumnsOfX:
    @staticmethod
    def model(index: Any = 0, **more: Any) -> fl.FairModel:
        class Last(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x[:, -1:]

        return fl.FairModel(
            Last(), bounds=(0.0, 1.0), policy="anytime", protected_attr_idx=index, tolerance=0.02, **more
        ).eval()

    def test_stream(self) -> None:
        scores, sex = lending(0, 300)
        x = torch.tensor(np.stack([sex, scores], axis=1))
        model, values = self.model(), []
        for row in x:
            values.append(float(model(row[None], inference=True)))
        assert spread(np.array(values), sex) <= 0.02 + 1e-9
        assert model.inference_state.counts() == {"x[0]=0": (sex == 0).sum(), "x[0]=1": (sex == 1).sum()}

    def test_a_float_column_takes_the_single_path(self) -> None:
        model = self.model()
        model(torch.tensor([[0.0, 0.4], [1.0, 0.7]]), inference=True)
        state = model.inference_state
        assert state.emit_simply(torch.tensor([0.5]), {"x[0]": torch.tensor([1.0])}) is not None

    def test_two_columns(self) -> None:
        rng = np.random.default_rng(0)
        scores = rng.random(200)
        a, b = rng.integers(0, 2, 200), rng.integers(0, 3, 200)
        scores = np.clip(0.5 * scores + 0.2 * a + 0.1 * b, 0, 1)
        x = torch.tensor(np.stack([a, b, scores], axis=1).astype(np.float64))
        model = self.model([0, 1])
        values = np.array([float(model(row[None], inference=True)) for row in x])
        assert spread(values, a) <= 0.02 + 1e-9
        assert spread(values, b) <= 0.02 + 1e-9

    def test_statistics(self) -> None:
        scores, sex = lending(0, 60)
        x = torch.tensor(np.stack([sex, scores], axis=1))
        stats = self.model().get_aggregate_fairness_stats([(part, None) for part in x.split(5)])
        assert stats["raw_pooled_aggregate_gap"] == pytest.approx(spread(scores, sex))
        assert stats["pooled_aggregate_gap"] <= 0.02 + 1e-9


def test_subclass_streams() -> None:
    model = Recording(policy="anytime").eval()
    scores, sex = lending(0, 200)
    values = []
    for z, s in zip(scores, sex, strict=True):
        y = model(tensor([[z]]), sensitive_features={"sex": [int(s)]}, inference=True)
        assert y.shape == (1,)
        assert not y.requires_grad
        values.append(float(y))
    assert spread(np.array(values), sex) <= 0.02 + 1e-9
    y = model(tensor(scores[:6])[:, None], sensitive_features={"sex": sex[:6]}, inference=True)
    assert y.shape == (6,)
    assert not y.requires_grad
    stats = model.get_aggregate_fairness_stats(loader(1, 40, 4))
    assert stats["samples"] == 40.0


@pytest.mark.parametrize("n", [1, 3, 40])
@pytest.mark.parametrize("shape", ["flat", "column"])
def test_shape_and_dtype_of_predictions(n: int, shape: str) -> None:
    model = new_model(b_tau=32)
    scores, sex = lending(0, n + 2)
    model(tensor(scores[:2]), sensitive_features={"sex": [0, 1]}, inference=True)
    raw = torch.tensor(scores[2:], dtype=torch.float32)
    raw = raw if shape == "flat" else raw[:, None]
    raw.requires_grad_()
    y = model(raw, sensitive_features={"sex": sex[2:]}, inference=True)
    assert y.shape == raw.shape
    assert y.dtype == torch.float32
    assert not y.requires_grad


def test_large_batch_counts_in_the_history() -> None:
    model = new_model(b_tau=16)
    scores, sex = lending(0, 40)
    y = model(tensor(scores), sensitive_features={"sex": sex}, inference=True).numpy()
    assert model.inference_state.samples == 40
    assert model.inference_state.pooled_gap()[PARITY.name] == pytest.approx(spread(y, sex), abs=1e-12)
    assert model.inference_state.mean_squared_change() == pytest.approx(((y - scores) ** 2).mean(), abs=1e-12)


def test_training_batches_do_not_touch_the_stream() -> None:
    model = new_model()
    model(one(0.5), sensitive_features={"sex": [0]}, inference=True)
    before = model.inference_state.counts()
    model.train()
    model(torch.rand(20, dtype=torch.float64), sensitive_features={"sex": [0, 1] * 10})
    model.eval()
    model(torch.rand(20, dtype=torch.float64), sensitive_features={"sex": [0, 1] * 10})
    assert model.inference_state.counts() == before


def test_bounds_and_margin_reach_the_stream() -> None:
    model = fl.FairModel(torch.nn.Identity(), [PARITY], bounds=(0.0, 1.0), margin=0.01, policy="anytime").eval()
    for score in (-5.0, 7.0):
        model(tensor([score, score]), sensitive_features={"sex": [0, 1]}, inference=True)
        y = float(model(one(score), sensitive_features={"sex": [None]}, inference=True))
        assert y == pytest.approx(0.01 if score < 0 else 0.99)


def test_bounds_per_sample_are_refused() -> None:
    bounds = (torch.zeros(3), torch.ones(3))
    model = fl.FairModel(torch.nn.Identity(), [PARITY], bounds=bounds).eval()
    with pytest.raises(errors.InvalidBoundsError, match="same for all"):
        model(torch.rand(3), sensitive_features={"sex": [0, 1, 0]}, inference=True)


def test_a_floor_out_of_reach_does_not_cost_the_parity() -> None:
    """What cannot be met gives way by itself; what can is held."""
    constraints = [PARITY, fl.MinimumRate("sex", 0.7)]
    model = fl.FairModel(torch.nn.Identity(), constraints, bounds=(0.0, 0.6), policy="anytime").eval()
    scores, sex = lending(0, 60)
    values = []
    for z, s in zip(scores, sex, strict=True):
        values.append(float(model(one(float(z)), sensitive_features={"sex": [int(s)]}, inference=True)))
        gap = spread(np.array(values), sex[: len(values)])
        assert gap is None or gap <= 0.02 + 1e-6
    assert model.inference_state.phase is fl.Phase.SATURATED


@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_category_that_training_never_met_is_refused(size: int) -> None:
    """In streams of any batch size, as in evaluation mode elsewhere: a misspelt category is no group of its own."""
    model = fl.FairModel(torch.nn.Identity(), [PARITY], bounds=(0.0, 1.0), b_tau=8)
    model(tensor([0.1, 0.2, 0.3, 0.4]), sensitive_features={"sex": ["F", "M"] * 2})
    model.eval()
    for _ in range(2):
        with pytest.raises(errors.CategoryError, match="'Femlae'"):
            model(tensor([0.1] * size), sensitive_features={"sex": ["Femlae"] * size}, inference=True)
        model(one(0.5), sensitive_features={"sex": ["F"]}, inference=True)
    assert model.inference_state.counts() == {"sex=F": 2}


def test_a_stream_of_a_new_model_meets_categories_in_batches_of_any_size() -> None:
    model = fl.FairModel(torch.nn.Identity(), [PARITY], bounds=(0.0, 1.0), policy="anytime", b_tau=8).eval()
    for sex, size in [("F", 8), ("M", 1), ("X", 9), ("F", 2), ("Y", 3)]:
        model(tensor([0.1] * size), sensitive_features={"sex": [sex] * size}, inference=True)
    assert model.inference_state.counts() == {"sex=F": 10, "sex=M": 1, "sex=X": 9, "sex=Y": 3}
