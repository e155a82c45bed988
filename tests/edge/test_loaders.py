"""What a batch of a loader holds, for every entrance that takes a loader."""

from __future__ import annotations

from collections import UserDict, namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fairlayer as fl
from fairlayer import errors
from fairlayer.distillation import remaining_gap
from fairlayer.edge import read_batch
from fairlayer.integrations.lightning import FairLightningModule
from fairlayer.integrations.lightning.reading import BatchReadingError, read_labelled

N = 64
GENERATOR = torch.Generator().manual_seed(0)
GROUP = torch.arange(N) % 2
X = torch.stack([GROUP.float(), torch.rand(N, generator=GENERATOR)], dim=1)
Y = (torch.rand(N, generator=GENERATOR) < 0.5).float()
PARITY = fl.DemographicParity("g", tolerance=0.02)


class Second(nn.Module):
    """The second column is the score."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x[:, 1] + 0.3 * x[:, 0]


def named() -> fl.FairModel:
    return fl.FairModel(Second(), [PARITY], bounds=(0.0, 1.0)).eval()


def by_column() -> fl.FairModel:
    return fl.FairModel(Second(), bounds=(0.0, 1.0), protected_attr_idx=0, tolerance=0.02).eval()


Batch = namedtuple("Batch", ["sensitive_features", "x", "y"])
FORMS: dict[str, Any] = {
    "three": (X, Y, GROUP),
    "three, as a list": [X, Y, {"g": GROUP}],
    "dict": {"x": X, "y": Y, "sensitive_features": {"g": GROUP}},
    "named tuple": Batch({"g": GROUP}, X, Y),
    "pair with named columns": (X, {"g": GROUP}),
}
ENTRANCES: dict[str, Callable[[fl.FairModel, Any], Any]] = {
    "stats": lambda model, loader: model.get_aggregate_fairness_stats(loader),
    "warm start": lambda model, loader: model.warm_start(loader),
    "amortised": lambda model, loader: model.amortised(loader),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_alike(form: str) -> None:
    stats = named().get_aggregate_fairness_stats([FORMS[form]])
    assert stats["samples"] == N
    raw = 0.5 * X[:, 1] + 0.3 * X[:, 0]
    expected = float((raw[GROUP == 1].mean() - raw[GROUP == 0].mean()).abs())
    assert stats["raw_pooled_aggregate_gap"] == pytest.approx(expected, abs=1e-6)
    [gap] = remaining_gap(Second(), [FORMS[form]], [PARITY])
    assert gap.scores == pytest.approx(expected, abs=1e-6)
    for entrance in ENTRANCES.values():
        entrance(named(), [FORMS[form]])


def test_a_pair_of_tensors_is_refused() -> None:
    """Its labels must not become groups."""
    loader = DataLoader(TensorDataset(X, Y), batch_size=32)
    said = r"a pair of which the second part is a Tensor: it may hold labels or sensitive features"
    for entrance in ENTRANCES.values():
        with pytest.raises(errors.ShapeError, match=said):
            entrance(named(), loader)
    with pytest.raises(errors.ShapeError, match=said):
        remaining_gap(Second(), loader, [PARITY])
    with pytest.raises(BatchReadingError, match=said):
        read_labelled((X, Y), ["g"])
    with pytest.raises(errors.ShapeError, match=said):
        trainer().fit(FairLightningModule(nn.Linear(2, 1), [PARITY], penalties=[]), loader)


def test_a_pair_is_inputs_and_labels_where_the_groups_are_columns_of_x() -> None:
    loader = DataLoader(TensorDataset(X, Y), batch_size=32)
    whole = by_column().get_aggregate_fairness_stats([{"x": X, "y": Y}])
    stats = by_column().get_aggregate_fairness_stats(loader)
    assert stats["raw_pooled_aggregate_gap"] == pytest.approx(whole["raw_pooled_aggregate_gap"], abs=1e-6)
    alone = by_column().get_aggregate_fairness_stats(DataLoader(TensorDataset(X), batch_size=32))
    assert alone == stats
    for entrance in ENTRANCES.values():
        entrance(by_column(), loader)
    odds = fl.FairModel(Second(), [fl.EqualOpportunity("x[0]", 0.02)], bounds=(0.0, 1.0), protected_attr_idx=0).eval()
    expected = Second()(X)[Y == 1]
    groups = GROUP[Y == 1]
    gap = float((expected[groups == 1].mean() - expected[groups == 0].mean()).abs())
    found = odds.get_aggregate_fairness_stats([(X, Y)])
    assert found["raw_pooled_aggregate_gap"] == pytest.approx(gap, abs=1e-6)


def test_a_module_reads_pairs_where_nothing_reads_groups() -> None:
    loader = DataLoader(TensorDataset(X, Y), batch_size=32)
    trainer().fit(FairLightningModule(nn.Sequential(nn.Linear(2, 1), nn.Sigmoid(), nn.Flatten(0))), loader)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (X, "a Tensor"),
        ((X,), "a tuple of 1"),
        ((X, Y, GROUP, GROUP), "a tuple of 4"),
        ("text", "a str"),
        ({"y": Y}, r"the keys \['y'\]"),
        ({"x": X, "labels": Y}, "The key 'labels' is called 'y' here"),
        ({"x": X, "groups": GROUP}, "The key 'groups' is called 'sensitive_features' here"),
    ],
)
def test_what_is_no_batch_is_refused(batch: Any, said: str) -> None:
    with pytest.raises(errors.ShapeError, match=said) as caught:
        read_batch(batch)
    assert "(x, y, sensitive_features), a dict with the keys" in str(caught.value)


Named = namedtuple("Named", ["groups", "x", "y"])
OtherOrder = namedtuple("OtherOrder", ["target", "inputs", "group"])
InOrder = namedtuple("InOrder", ["inputs", "target", "group"])


class Encoding(UserDict[str, Any]):
    """A mapping that is no dict, as the BatchEncoding of transformers."""


REFUSED: dict[str, tuple[Any, str]] = {
    "no inputs": ((None, Y, {"g": GROUP}), "whose inputs x are None"),
    "no inputs in a dict": ({"x": None, "y": Y, "sensitive_features": {"g": GROUP}}, "whose inputs x are None"),
    "no inputs in a pair": ((None, {"g": GROUP}), "whose inputs x are None"),
    "features second": ((X, {"g": GROUP}, Y), r"the labels y, is a dict .*\['g'\]: sensitive features stand third"),
    "rows": ([(X[i], Y[i], GROUP[i]) for i in range(3)], "a list of 3 rows, .*put together. Leave collate_fn"),
    "tokens": (Encoding(input_ids=X, labels=Y), "The key 'labels' is called 'y' here"),
    "other names": (Named(GROUP, X, Y), "The key 'groups' is called 'sensitive_features' here"),
    "other order": (OtherOrder(Y, X, GROUP), "The key 'target' is called 'y' here"),
    "no features": ((X, Y, None), "'g', but the features given are: none"),
    "no features in a dict": ({"x": X, "y": Y}, "'g', but the features given are: none"),
    "too few": ((X, Y, {"g": GROUP[:3]}), "64 scores, but the sensitive features have 3 entries"),
    "no row": ((X[:0], Y[:0], {"g": GROUP[:0]}), "the batch is empty"),
    "nothing": (None, "a NoneType, which cannot be read"),
}
ALL: dict[str, Callable[[fl.FairModel, Any], Any]] = {
    **ENTRANCES,
    "remaining gap": lambda model, loader: remaining_gap(Second(), loader, [PARITY]),
}
every_entrance = pytest.mark.parametrize("entrance", ALL.values(), ids=ALL)


@every_entrance
@pytest.mark.parametrize("form", REFUSED)
def test_no_entrance_reads_what_it_cannot_constrain(entrance: Callable[..., Any], form: str) -> None:
    batch, said = REFUSED[form]
    model = named()
    with pytest.raises(errors.FairlayerError, match=said):
        entrance(model, [batch])
    assert model.inference_state.samples == 0


@every_entrance
@pytest.mark.parametrize(
    "batch",
    [
        Encoding(x=X, y=Y, sensitive_features={"g": GROUP}),
        InOrder(X, Y, GROUP),
        (X, Y, GROUP.tolist()),
        (X[:1], Y[:1], {"g": GROUP[:1]}),
    ],
    ids=["a mapping", "a named tuple in order", "a list of groups", "one row"],
)
def test_what_can_be_read_is(entrance: Callable[..., Any], batch: Any) -> None:
    entrance(named(), [batch])
    if not isinstance(batch, tuple) or len(batch[0]) == N:
        assert named().get_aggregate_fairness_stats([batch]) == named().get_aggregate_fairness_stats([(X, Y, GROUP)])


@every_entrance
@pytest.mark.parametrize(
    ("loader", "error", "said"),
    [
        ([], errors.EmptyBatchError, "gave no batch. A generator can be read once"),
        (X, errors.ShapeError, "a loader gives batches, but Tensor was given"),
        ({"x": X}, errors.ShapeError, "but dict was given"),
        (3, errors.ShapeError, "but int was given"),
        (None, errors.ShapeError, "but NoneType was given"),
        (TensorDataset(X, Y, GROUP), errors.ShapeError, "but TensorDataset was given. Pass a DataLoader"),
    ],
)
def test_what_is_no_loader_is_named(
    entrance: Callable[..., Any], loader: Any, error: type[Exception], said: str
) -> None:
    model = named()
    model(X[:4], sensitive_features={"g": GROUP[:4]}, inference=True)
    with pytest.raises(error, match=said):
        entrance(model, loader)
    assert model.inference_state.samples == 4


@every_entrance
def test_a_generator_that_is_used_up_is_named(entrance: Callable[..., Any]) -> None:
    used = (batch for batch in [(X, Y, GROUP)])
    entrance(named(), used)
    with pytest.raises(errors.EmptyBatchError, match="make it anew, or pass a DataLoader"):
        entrance(named(), used)


def test_a_column_of_labels_is_refused_with_the_remedy() -> None:
    odds = fl.FairModel(Second(), [fl.EqualOpportunity("g", 0.02)], bounds=(0.0, 1.0)).eval()
    for entrance in (ALL["stats"], ALL["amortised"]):
        with pytest.raises(errors.ShapeError, match=r"y must have shape \(64,\).*squeeze"):
            entrance(odds, [(X, Y[:, None], {"g": GROUP})])


@pytest.mark.parametrize("given", [{}, {"other": ["a"] * N}])
def test_categories_of_other_features_are_not_learnt(given: Any) -> None:
    model = named()
    for learner in (model, model.projection, fl.Penalty(PARITY)):
        with pytest.raises(errors.MissingSensitiveFeatureError, match=r"\['g'\] were to be learnt, but .*Pass sens"):
            learner.fit_categories(given)
    assert model.projection.vocabulary.open
    with pytest.raises(errors.ShapeError, match=r"is a DataLoader\. It must be a column"):
        model.fit_categories(DataLoader(TensorDataset(X, GROUP)))


def test_other_keys_of_a_dict_are_left_alone() -> None:
    assert read_batch({"x": X, "id": [1], "y": Y, "labels": Y}).y is Y


def test_a_refused_batch_counts_nothing() -> None:
    model = named()
    with pytest.raises(errors.ShapeError):
        model.get_aggregate_fairness_stats([(X, Y)])
    assert model.inference_state.samples == 0


def trainer() -> Trainer:
    return Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
