"""The training loop."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fairlayer.constraints import DemographicParity, MeanResidualParity
from fairlayer.data import TensorTable
from fairlayer.errors import DataError, NonFiniteScoresError, ParameterError
from fairlayer.model import FairModel
from fairlayer.training import Epoch, FitOptions, fit
from fairlayer.training.fitting import FitFolder

N = 600


def rows(seed: int = 0) -> TensorTable:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N, 3, generator=generator)
    y = (x[:, 0] + 0.5 * torch.randn(N, generator=generator) > 0).float()
    sex = np.where(x[:, 1].numpy() + 0.5 * x[:, 0].numpy() > 0.4, "f", "m").astype(object)
    return TensorTable(x, y, {"sex": sex})


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0), nn.Sigmoid())


def layered(*constraints: object) -> FairModel:
    chosen = constraints or (DemographicParity("sex", 0.05),)
    return FairModel(network(), chosen, geometry="entropic")  # type: ignore[arg-type]


def test_training_lowers_the_loss_of_either_model() -> None:
    for model in (network(), layered()):
        history = fit(model, rows(), rows(1), options=FitOptions(epochs=8, batch_size=100)).history
        assert history[-1].valid_loss < history[0].valid_loss - 0.05


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second = layered(), layered()
    for model in (first, second):
        fit(model, rows(), rows(1), options=FitOptions(epochs=2, batch_size=100, seed=5))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_early_stopping_leaves_the_best_weights() -> None:
    model, seen = network(), []
    validation = TensorTable(rows(1).x, 1 - rows(1).y, rows(1).sensitive)  # learning makes it worse

    def keep(epoch: Epoch) -> None:
        seen.append((epoch.valid_loss, copy.deepcopy(model.state_dict())))

    fitted = fit(model, rows(), validation, options=FitOptions(epochs=30, batch_size=100, patience=3), on_epoch=keep)
    assert fitted.best == 1
    assert len(fitted.history) == 4
    best = min(seen, key=lambda pair: pair[0])[1]
    assert all(torch.equal(model.state_dict()[name], best[name]) for name in best)


def test_the_start_competes_for_the_best_epoch() -> None:
    model = layered()
    fit(model, rows(), rows(1), options=FitOptions(epochs=8, batch_size=100))
    before = copy.deepcopy(model.state_dict())
    options = FitOptions(epochs=2, batch_size=100, learning_rate=5.0)  # steps so long that no epoch can be better
    fitted = fit(model, rows(), rows(1), options=options, start_competes=True)
    assert (fitted.best, len(fitted.history)) == (0, 2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert fit(model, rows(), rows(1), options=options).best > 0  # and only where it is asked to


@pytest.mark.parametrize(
    ("geometry", "expected"), [("entropic", "cross_entropy"), ("likelihood", "cross_entropy"), ("euclidean", "mse")]
)
def test_the_loss_is_the_one_of_the_geometry(geometry: str, expected: str) -> None:
    model = FairModel(network(), [DemographicParity("sex", 1.0)], bounds=(0.0, 1.0), geometry=geometry)
    fitted = fit(model, rows(), rows(1), options=FitOptions(epochs=1, batch_size=100))
    with torch.no_grad():
        scores, y = model(rows(1).x, sensitive_features=rows(1).sensitive), rows(1).y
    loss = nn.functional.mse_loss if expected == "mse" else nn.functional.binary_cross_entropy
    assert fitted.history[0].valid_loss == pytest.approx(float(loss(scores, y)), abs=1e-6)


def test_epochs_tell_gap_and_multiplier_of_each_constraint() -> None:
    told: list[Epoch] = []
    fit(layered(), rows(), rows(1), options=FitOptions(epochs=2, batch_size=100), on_epoch=told.append)
    assert [epoch.number for epoch in told] == [1, 2]
    assert set(told[0].gap) == set(told[0].multiplier) == {"DemographicParity('sex')"}
    model, valid, last = layered(DemographicParity("sex", 0.001)), rows(1), list[Epoch]()
    fit(model, rows(), valid, options=FitOptions(epochs=1, batch_size=N), on_epoch=last.append)
    model.eval()
    with torch.no_grad():
        raw = model.raw_scores(valid.x)
        model(valid.x, sensitive_features=valid.sensitive)
    means = [float(raw[torch.tensor(valid.sensitive["sex"] == sex)].mean()) for sex in ("f", "m")]
    name = "DemographicParity('sex')"
    assert last[0].gap[name] == pytest.approx(abs(means[0] - means[1]), abs=1e-6)  # before the layer
    assert model.last_projection is not None
    price = float(model.last_projection.multipliers[name])
    assert last[0].multiplier[name] == pytest.approx(price / N, rel=1e-4)
    assert price > 0


def test_label_based_constraints_also_train_the_raw_scores() -> None:
    """The layer repairs group means with the labels it sees; the raw scores must be right without it."""
    data = rows()
    rare = TensorTable(data.x, (data.x[:, 0] > 1.0).float(), data.sensitive)
    model = layered(MeanResidualParity("sex", 0.0))
    fit(model, rare, rare, options=FitOptions(epochs=15, batch_size=100, learning_rate=1e-2))
    with torch.no_grad():
        raw = model.raw_scores(rare.x)
    assert rare.y.mean() < 0.2
    assert abs(raw.mean() - rare.y.mean()) < 0.05


def test_regression_learns_by_squared_error() -> None:
    data = TensorTable(rows().x, 3 * rows().x[:, 0], rows().sensitive)
    model = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    options = FitOptions(epochs=60, batch_size=100, learning_rate=0.1, weight_decay=0.0, patience=60)  # a slope of 3
    assert fit(model, data, data, task="regression", options=options).history[-1].valid_loss < 0.05


def test_a_batch_never_lacks_a_group_that_has_enough_rows() -> None:
    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.sizes = network(), []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.sizes.append(len(x))
            return self.net(x)

    watching = Watching()
    model = FairModel(watching, [DemographicParity("sex", 0.05)], bounds=(0.0, 1.0), margin=1e-4, on_empty="raise")
    fit(model, rows(), rows(1), options=FitOptions(epochs=1, batch_size=70))
    assert watching.sizes[:8] == [75] * 8  # 600 rows in 8 batches: none dropped, no small tail


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    broken = TensorTable(rows().x, torch.full((N,), float("nan")), rows().sensitive)
    with pytest.raises(NonFiniteScoresError, match="loss became nan"):
        fit(nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), broken, broken, task="regression")


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"patience": 0}])
def test_senseless_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(DataError, match=next(iter(wrong))):
        FitOptions(**wrong)  # type: ignore[arg-type]


def test_a_fit_does_not_go_on_to_fewer_epochs_than_it_had(tmp_path: Path) -> None:
    def fitted(epochs: int) -> int:
        folder = FitFolder(tmp_path, resume=True)
        return len(fit(network(), rows(0), rows(1), options=FitOptions(epochs=epochs), folder=folder).history)

    assert fitted(3) == 3
    assert fitted(3) == 3
    with pytest.raises(ParameterError, match=r"has been trained for 3 epochs, more than the 2 that are asked for. Ask"):
        fitted(2)
    assert fitted(4) == 4
