"""The methods of `hidden.py`: each yields scores of validation and test rows for a few settings."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import fairlayer as fl
from fairlayer._typing import FloatArray
from fairlayer.adversarial import Adversary, linear
from fairlayer.data import StratifiedBatchSampler, TensorTable
from fairlayer.decisions.inputs import ACCURACY
from fairlayer.routes.rules import fit_rule
from fairlayer.training import FitOptions, Observed, fit_trees
from fairlayer.training.session import Parts

WARM_UP = 0.2  # share of the training in which the weight of a term rises to its full size
Term = Callable[[Tensor, TensorTable, float], Tensor]


@dataclass(frozen=True)
class Scored:
    """A method's predictions (n,) of both parts under one setting; `decided` where they are decisions already."""

    method: str
    valid: FloatArray
    test: FloatArray
    decided: bool = False


def every_method(parts: Parts, feature: str, options: FitOptions) -> Iterator[Scored]:
    """Yield every method under every setting; the last two are other libraries'."""
    regression = parts.recipe.config.task == "regression"
    plain = trained(parts, feature, options)
    yield scored("plain", plain, parts)
    for tolerance in (0.0, 0.02):
        yield scored("trained through, layer dropped", _through(parts, feature, tolerance, options, plain), parts)
    for weight in (2.0, 8.0, 30.0, 100.0):
        yield scored("Penalty on scores", _penalised(parts, feature, weight, options), parts)
    if not regression:
        for weight in (0.5, 2.0, 8.0, 30.0):
            soft = _penalised(parts, feature, weight, options, threshold=0.5, temperature=0.1)
            yield scored("Penalty on soft decisions", soft, parts)
    for strength in (0.3, 1.0, 3.0):
        yield scored("Adversary", _adversary(parts, feature, strength, options), parts)
    for tolerance in (0.0, 0.02):
        yield _projected_on_estimates(parts, feature, tolerance, plain)
    if not regression:
        for tolerance in (0.0, 0.02, 0.05):
            yield _known(parts, feature, tolerance, plain)
    for weight in (0.05, 0.2, 0.5, 1.0):
        yield scored("rival: fairret norm", _fairret(parts, feature, weight, options), parts)
    if not regression:
        yield _reductions(parts, feature, 0.01, options.seed)


def trained(
    parts: Parts, feature: str, options: FitOptions, term: Term | None = None, network: nn.Module | None = None
) -> nn.Module:
    """Train the network on the task's loss and a term of (scores, batch, progress)."""
    torch.manual_seed(options.seed)
    config = parts.recipe.config
    network = config.network() if network is None else network
    loss = nn.functional.binary_cross_entropy if config.loss == "cross_entropy" else nn.functional.mse_loss
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.learning_rate)
    sampler = StratifiedBatchSampler(parts.train.sensitive[feature], batch_size=options.batch_size, seed=options.seed)
    for epoch in range(options.epochs):
        sampler.set_epoch(epoch)
        for rows in sampler:
            batch = parts.train.take(rows)
            emitted = network(batch.x)
            value = loss(emitted, batch.y)
            if term is not None:
                value = value + term(emitted, batch, epoch / options.epochs)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
    return network.eval()


@torch.no_grad()
def scored(method: str, network: nn.Module, parts: Parts) -> Scored:
    """The scores of both parts."""
    return Scored(method, *(network(part.x).double().numpy() for part in (parts.valid, parts.test)))


def _through(parts: Parts, feature: str, tolerance: float, options: FitOptions, plain: nn.Module) -> nn.Module:
    """The network trained through the layer, from the plain one; the layer is dropped at inference."""
    config = parts.recipe.config
    layer = fl.FairProjection(
        [fl.DemographicParity(feature, tolerance)], bounds=config.bounds, geometry=config.rule.name
    )
    loss = nn.functional.binary_cross_entropy if config.loss == "cross_entropy" else nn.functional.mse_loss

    def term(emitted: Tensor, batch: TensorTable, progress: float) -> Tensor:
        held = layer(emitted, sensitive_features=batch.sensitive)
        return loss(held, batch.y) - loss(emitted, batch.y)  # in place of the loss without the layer

    return trained(parts, feature, options, term, copy.deepcopy(plain).train())


def _penalised(parts: Parts, feature: str, weight: float, options: FitOptions, **soft: Any) -> nn.Module:
    """The squared gap, its size from running means."""
    penalty = fl.Penalty(fl.DemographicParity(feature, 0.0), "squared", **soft)
    scale = parts.recipe.config.scale

    def term(emitted: Tensor, batch: TensorTable, progress: float) -> Tensor:
        return weight * min(1.0, progress / WARM_UP) * penalty(emitted / scale, sensitive_features=batch.sensitive)

    return trained(parts, feature, options, _scaled(term, scale))


def _scaled(term: Term, scale: float) -> Term:
    """A term in units of the target's own variance, as the squared error is."""
    return lambda emitted, batch, progress: scale**2 * term(emitted, batch, progress)


def _adversary(parts: Parts, feature: str, strength: float, options: FitOptions) -> nn.Module:
    """A head reads the group off the predictions, through the gradient reversal."""
    torch.manual_seed(options.seed)
    network = parts.recipe.config.network()
    features = {feature: parts.train.sensitive[feature]}
    with Adversary(
        network,
        on=feature,
        sensitive_features=features,
        example=parts.train.x[:8],
        schedule=linear(0.1 * strength, strength),
    ) as adversary:
        heads = torch.optim.AdamW(adversary.parameters(), lr=1e-2)

        def term(emitted: Tensor, batch: TensorTable, progress: float) -> Tensor:
            heads.step()  # by the gradient of the batch before
            heads.zero_grad()
            adversary.advance(progress)
            return adversary.loss({feature: batch.sensitive[feature]})

        return trained(parts, feature, options, _scaled(term, parts.recipe.config.scale), network)


def _projected_on_estimates(parts: Parts, feature: str, tolerance: float, plain: nn.Module) -> Scored:
    """The plain scores of each part, projected with P(group | x) of a logistic regression in place of the group."""
    from sklearn.linear_model import LogisticRegression

    config = parts.recipe.config
    proxy = LogisticRegression(max_iter=500).fit(parts.train.x.numpy(), parts.train.sensitive[feature].astype(str))

    @torch.no_grad()
    def moved(part: TensorTable) -> FloatArray:
        found = fl.project(
            plain(part.x).double(),
            fl.DemographicParity(feature, tolerance),
            sensitive_features={feature: torch.from_numpy(proxy.predict_proba(part.x.numpy()))},
            bounds=config.bounds,
            geometry=config.rule.name,
        )
        return np.asarray(found.value.numpy())

    return Scored("plain, projected on group estimates", moved(parts.valid), moved(parts.test))


@torch.no_grad()
def _known(parts: Parts, feature: str, tolerance: float, plain: nn.Module) -> Scored:
    """Thresholds per group on the plain scores: what the same network can do where the group is known."""
    valid, test = (plain(part.x).double().numpy() for part in (parts.valid, parts.test))
    rows = Observed(parts.valid.sensitive, parts.valid.y.numpy())
    fitted = fit_rule(valid, (fl.DemographicParity(feature, tolerance),), rows, utility=ACCURACY)
    decided = fitted.rule.apply(test, sensitive_features={feature: parts.test.sensitive[feature]}, seed=0)
    return Scored("(group known) plain, rule", fitted.crossed.astype(float), decided.double().numpy(), decided=True)


def _fairret(parts: Parts, feature: str, weight: float, options: FitOptions) -> nn.Module:
    import fairret.statistic

    from fairlayer.penalties import fairret_penalty

    penalty = fairret_penalty(fairret.statistic.PositiveRate(), feature)

    def term(emitted: Tensor, batch: TensorTable, progress: float) -> Tensor:
        return weight * min(1.0, progress / WARM_UP) * penalty(emitted, sensitive_features=batch.sensitive)

    return trained(parts, feature, options, term)


def _reductions(parts: Parts, feature: str, slack: float, seed: int) -> Scored:
    from fairlearn.reductions import DemographicParity, ExponentiatedGradient

    forest = fit_trees(parts.train, seed=seed, fits=1).estimators[0].set_params(max_iter=40, early_stopping=False)
    method = ExponentiatedGradient(forest, DemographicParity(difference_bound=slack), eps=slack, max_iter=8)
    method.fit(parts.train.x.numpy(), parts.train.y.numpy(), sensitive_features=parts.train.sensitive[feature])
    decided = (np.asarray(method.predict(p.x.numpy(), random_state=0), float) for p in (parts.valid, parts.test))
    return Scored("rival: ExponentiatedGradient on trees", *decided, decided=True)
