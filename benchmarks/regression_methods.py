"""The methods of the regression experiment: each learns from one data set and returns its predictions for a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from regression_data import DataSet, Part, Setting
from sklearn.linear_model import Ridge
from torch import Tensor, nn

import fairlayer as fl
from fairlayer.data import StratifiedBatchSampler
from fairlayer.integrations.sklearn import FairRidge
from fairlayer.penalties import Penalty

TOLERANCE, BATCH = 0.05, 2_000
EPOCHS, RATE, DECAY, WIDTH = 30, 1e-2, 0.3, 64
PENALTIES = (("hinge", 1.0), ("hinge", 2.0), ("squared", 10.0))

Predict = Callable[[Part], Tensor]
Loss = Callable[[nn.Module, Part], Tensor]


class Score(NamedTuple):
    """Over test batches of 2,000: mean squared error, mean and largest gap of the groups' mean predictions."""

    mse: float
    gap: float
    worst_gap: float


class Residual(nn.Module):
    """A linear model, started at a ridge solution, plus a network with two hidden layers, started at zero."""

    def __init__(self, ridge: Ridge) -> None:
        super().__init__()
        features = len(ridge.coef_)
        self.linear = nn.Linear(features, 1)
        last = nn.Linear(WIDTH, 1)
        self.correction = nn.Sequential(nn.Linear(features, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(), last)
        with torch.no_grad():
            self.linear.weight.copy_(torch.as_tensor(ridge.coef_)[None, :])
            self.linear.bias.fill_(float(ridge.intercept_))
            last.weight.zero_()
            last.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return (self.linear(x) + self.correction(x)).squeeze(-1)


def floor(setting: Setting, data: DataSet) -> Predict:
    """The labels themselves, moved as little as the constraint and the bounds ask: nothing can come nearer to them."""
    return _projected(setting, lambda part: part.y)


def best_predictor(setting: Setting, data: DataSet) -> Predict:
    """What the labels are before noise is added to them, projected: as near as a function of the features can come."""
    return _projected(setting, lambda part: part.expected)


def ridge(setting: Setting, data: DataSet) -> Predict:
    return _clipped(setting, _linear(_ridge(data)))


def ridge_and_projection(setting: Setting, data: DataSet) -> Predict:
    return _projected(setting, _linear(_ridge(data)))


def fair_ridge(setting: Setting, data: DataSet) -> Predict:
    """Parity of the training predictions inside the convex program; the bounds are put on afterwards, by clipping."""
    model = FairRidge([fl.DemographicParity("group", TOLERANCE)])
    model.fit(data.train.x.numpy(), data.train.y.numpy(), sensitive_features=data.train.group.numpy())
    return _clipped(setting, _linear(model))


def network(setting: Setting, data: DataSet) -> tuple[Predict, Predict]:
    """One network trained without constraint: clipped to the bounds, and projected."""
    net = _train(Residual(_ridge(data)), data, lambda net, part: (net(part.x) - part.y).square().mean(), setting)
    return _clipped(setting, lambda part: net(part.x)), _projected(setting, lambda part: net(part.x))


def fair_model(setting: Setting, data: DataSet) -> Predict:
    """The same network, trained through the layer."""
    parity = [fl.DemographicParity("group", TOLERANCE)]
    model = fl.FairModel(Residual(_ridge(data)), parity, bounds=setting.bounds)

    def predict(model: nn.Module, part: Part) -> Tensor:
        emitted: Tensor = model(part.x, sensitive_features={"group": part.group})
        return emitted

    _train(model, data, lambda model, part: (predict(model, part) - part.y).square().mean(), setting)
    return lambda part: predict(model, part)


def penalised(setting: Setting, data: DataSet) -> Predict:
    """The same network with the gap of its clipped predictions in the loss; norm and strength by validation.

    Chosen is the least error among those whose validation gap is within the tolerance, else the smallest gap.
    """
    tried = []
    for norm, strength in PENALTIES:
        predict = _penalised(setting, data, norm, strength)
        score = evaluate(predict, data.validation)
        tried.append((score.gap > TOLERANCE, score.gap if score.gap > TOLERANCE else score.mse, len(tried), predict))
    return min(tried)[-1]


def _penalised(setting: Setting, data: DataSet, norm: str, strength: float) -> Predict:
    penalty = Penalty(fl.DemographicParity("group", TOLERANCE), norm=norm)

    def loss(net: nn.Module, part: Part) -> Tensor:
        predicted = net(part.x).clamp(*setting.bounds)
        gap = penalty(predicted, sensitive_features={"group": part.group})
        return (predicted - part.y).square().mean() + strength * gap

    net = _train(Residual(_ridge(data)), data, loss, setting)
    return _clipped(setting, lambda part: net(part.x))


def evaluate(predict: Predict, part: Part) -> Score:
    """Score predictions on batches of 2,000 that all hold the groups in the same shares."""
    errors, gaps = [], []
    with torch.no_grad():
        for batch in _batches(part, BATCH, seed=0):
            predicted = predict(batch)
            means = [predicted[batch.group == g].double().mean() for g in (0, 1)]
            errors.append(float((predicted - batch.y).double().square().mean()))
            gaps.append(float((means[0] - means[1]).abs()))
    return Score(float(np.mean(errors)), float(np.mean(gaps)), max(gaps))


def _train(model: nn.Module, data: DataSet, loss: Loss, setting: Setting) -> nn.Module:
    """AdamW with one rise and fall of the rate; the weights of the epoch with the least validation loss are kept."""
    steps = EPOCHS * (len(data.train.y) // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    sampler = StratifiedBatchSampler(data.train.group.numpy(), BATCH, seed=setting.number)
    best, kept = float("inf"), deepcopy(model.state_dict())
    for _ in range(EPOCHS):
        model.train()
        for rows in sampler:
            optimiser.zero_grad()
            loss(model, data.train.take(rows)).backward()
            optimiser.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            found = float(np.mean([float(loss(model, batch)) for batch in _batches(data.validation, BATCH, seed=1)]))
        if found < best:
            best, kept = found, deepcopy(model.state_dict())
    model.load_state_dict(kept)
    return model.eval()


def _batches(part: Part, size: int, *, seed: int) -> Iterable[Part]:
    return (part.take(rows) for rows in StratifiedBatchSampler(part.group.numpy(), size, seed=seed))


def _ridge(data: DataSet) -> Ridge:
    return Ridge(1.0).fit(data.train.x.double().numpy(), data.train.y.double().numpy())


def _linear(model: Ridge | FairRidge) -> Predict:
    return lambda part: torch.as_tensor(model.predict(part.x.double().numpy()))


def _clipped(setting: Setting, scores: Predict) -> Predict:
    return lambda part: scores(part).clamp(*setting.bounds)


def _projected(setting: Setting, scores: Predict) -> Predict:
    parity = [fl.DemographicParity("group", TOLERANCE)]
    return lambda part: (
        fl.project(scores(part), parity, sensitive_features={"group": part.group}, bounds=setting.bounds).value
    )


NAMES = (
    "floor: labels projected",
    "labels without their noise, projected",
    "FairModel: network trained through the layer",
    "network + projection",
    "ridge + projection",
    "network + penalty, clipped",
    "FairRidge, clipped",
    "network, clipped",
    "ridge, clipped",
)


def all_methods(setting: Setting, data: DataSet) -> Sequence[Predict]:
    """Return what each method learnt, in the order of NAMES."""
    clipped, projected = network(setting, data)
    return (
        floor(setting, data),
        best_predictor(setting, data),
        fair_model(setting, data),
        projected,
        ridge_and_projection(setting, data),
        penalised(setting, data),
        fair_ridge(setting, data),
        clipped,
        ridge(setting, data),
    )
