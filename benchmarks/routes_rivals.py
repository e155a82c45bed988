"""What other libraries make of the same rows: Fairlearn's post-processing and reductions, two penalties and a layer."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fairlayer._typing import FloatArray
from fairlayer.data import StratifiedBatchSampler, TensorTable
from fairlayer.model import FairModel
from fairlayer.routes import Candidate, Route, TrainedRoutes, compare_routes
from fairlayer.routes.numbers import RouteNumbers, numbers_of
from fairlayer.training import FitOptions, Observed, fit_trees
from fairlayer.training.session import Parts

Both = tuple[Any, Any]  # of validation and of test rows


def rival_routes(
    parts: Parts, found: TrainedRoutes, feature: str, limits: tuple[float, ...], options: FitOptions, *, quick: bool
) -> Iterator[tuple[float, Route]]:
    """Yield each rival's route with its limit; what is trained, at the first limit only, and without the slow ones."""
    if parts.recipe.config.task == "regression":
        return
    scored = {name: raw_scores(found.run(name).layered, parts) for name in ("plain", "trees", "both")}
    for limit in limits:
        for name, scores in scored.items():
            start = time.perf_counter()
            decided = _thresholds(parts, scores, feature, limit)
            title = f"{name}, ThresholdOptimizer"
            yield limit, _decided(title, parts, feature, limit, scores, decided, time.perf_counter() - start)
    if quick:
        return
    start = time.perf_counter()
    decided, scores = _reductions(parts, feature, limits[0], options.seed)
    title = "trees, ExponentiatedGradient"
    yield limits[0], _decided(title, parts, feature, limits[0], scores, decided, time.perf_counter() - start)
    for name, train in {"fairret, projected": _fairret, "fairness_training": _layer_of_others}.items():
        start = time.perf_counter()
        scores = train(parts, feature, limits[0], options)
        yield limits[0], _scored(name, parts, feature, limits[0], scores, time.perf_counter() - start)


@torch.no_grad()
def raw_scores(model: FairModel, parts: Parts) -> tuple[FloatArray, FloatArray]:
    """Return the scores before the layer, of validation and of test rows."""
    valid, test = (model.raw_scores(part.x).double().numpy() for part in (parts.valid, parts.test))
    return valid, test


def _scored(  # noqa: PLR0917 - a method, and on which rows
    name: str, parts: Parts, feature: str, limit: float, scores: Both, seconds: float
) -> Route:
    """A route of scores, which are projected as ours are; those that keep the limit stay as they are."""
    valid, test = (Observed(part.sensitive, part.y.numpy()) for part in (parts.valid, parts.test))
    candidate = Candidate(name, *scores, steps=("projected",), titles={"projected": name}, seconds=seconds)
    stated = f"demographic_parity({feature}, {limit})"
    [route] = compare_routes([candidate], stated, valid=valid, test=test, bounds=(0.0, 1.0)).routes
    return route


def _decided(  # noqa: PLR0917 - a method, and on which rows
    name: str, parts: Parts, feature: str, limit: float, scores: Both, decided: Both, seconds: float
) -> Route:
    """A route with decisions of its own."""
    route = _scored(name, parts, feature, limit, scores, seconds)
    valid, test = (
        _numbers(part, z, yes, feature, limit)
        for part, z, yes in zip((parts.valid, parts.test), scores, decided, strict=True)
    )
    return replace(route, valid=valid, test=test, expected=None, decisions=decided[1], scores=scores[1])


def _numbers(part: TensorTable, scores: FloatArray, decided: Any, feature: str, limit: float) -> RouteNumbers:
    from fairlayer.edge import as_constraints

    before = (scores >= 0.5).astype(np.int64)
    stated = as_constraints(f"demographic_parity({feature}, {limit})")
    rows = Observed(part.sensitive, part.y.numpy())
    return numbers_of(scores, decided, before, rows, stated, task="classification")


def _thresholds(parts: Parts, scores: Both, feature: str, limit: float) -> Both:
    from fairlearn.postprocessing import ThresholdOptimizer
    from frontier_fairlearn import Given

    rule = ThresholdOptimizer(
        estimator=Given(), constraints="demographic_parity", prefit=True, predict_method="predict_proba", tol=limit
    )
    rule.fit(scores[0][:, None], parts.valid.y.numpy(), sensitive_features=parts.valid.sensitive[feature])
    valid, test = (
        np.asarray(rule.predict(z[:, None], sensitive_features=part.sensitive[feature], random_state=0)).astype(int)
        for part, z in zip((parts.valid, parts.test), scores, strict=True)
    )
    return valid, test


def _reductions(parts: Parts, feature: str, limit: float, seed: int) -> tuple[Both, Both]:
    from fairlearn.reductions import DemographicParity, ExponentiatedGradient

    forest = fit_trees(parts.train, seed=seed, fits=1).estimators[0]
    method = ExponentiatedGradient(
        forest.set_params(max_iter=60, early_stopping=False), DemographicParity(difference_bound=limit), max_iter=8
    )
    method.fit(parts.train.x.numpy(), parts.train.y.numpy(), sensitive_features=parts.train.sensitive[feature])
    rows = [part.x.numpy() for part in (parts.valid, parts.test)]
    scores = tuple(np.asarray(method._pmf_predict(x)[:, 1]) for x in rows)
    decided = tuple(np.asarray(method.predict(x, random_state=0)).astype(np.int64) for x in rows)
    return decided, scores  # type: ignore[return-value]


def _fairret(parts: Parts, feature: str, limit: float, options: FitOptions) -> Both:
    """The same network with fairret's norm of the positive rates, at a fixed weight of 1."""
    import fairret.statistic

    from fairlayer.penalties import fairret_penalty

    torch.manual_seed(options.seed)
    network = parts.recipe.config.network()
    penalty = fairret_penalty(fairret.statistic.PositiveRate(), feature)

    def loss(batch: TensorTable) -> Tensor:
        emitted = network(batch.x)
        term: Tensor = penalty(emitted, sensitive_features=batch.sensitive)
        return nn.functional.binary_cross_entropy(emitted, batch.y) + term

    _trained(network, loss, parts, feature, options)
    with torch.no_grad():
        return tuple(network(part.x).double().numpy() for part in (parts.valid, parts.test))  # type: ignore[return-value]


def _layer_of_others(parts: Parts, feature: str, limit: float, options: FitOptions) -> Both:
    """The same network inside fairness_training's layer, which reads the group in the first column."""
    from fairness_training import FairModel as Other

    torch.manual_seed(options.seed)
    network = parts.recipe.config.network()
    other = Other.wrap(
        nn.Sequential(network, nn.Unflatten(0, (-1, 1))),
        protected_attr_idx=0,
        input_dim=parts.train.x.shape[1] + 1,
        fairness_tolerance=limit,
        prediction_bounds=(0.0, 1.0),
        exclude_protected_from_backbone=True,
    )
    names = sorted(set(parts.train.sensitive[feature].tolist()))

    def with_group(batch: TensorTable) -> Tensor:
        codes = torch.tensor([names.index(name) for name in batch.sensitive[feature].tolist()])
        return torch.cat([codes[:, None].float(), batch.x], dim=1)

    def loss(batch: TensorTable) -> Tensor:
        emitted = other(with_group(batch)).squeeze(1).float().clamp(1e-6, 1 - 1e-6)
        return nn.functional.binary_cross_entropy(emitted, batch.y)

    _trained(network, loss, parts, feature, options)
    other.eval()
    with torch.no_grad():
        found = [other(with_group(part)).squeeze(1).double().numpy() for part in (parts.valid, parts.test)]
    return tuple(np.clip(each, 1e-6, 1 - 1e-6) for each in found)  # type: ignore[return-value]


def _trained(
    network: nn.Module, loss: Callable[[TensorTable], Tensor], parts: Parts, feature: str, options: FitOptions
) -> None:
    """The epochs of `fit` with another loss; the weights of the best epoch on validation rows are left."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.learning_rate)
    batches = StratifiedBatchSampler(parts.train.sensitive[feature], batch_size=options.batch_size, seed=options.seed)
    best, weights = float("inf"), network.state_dict()
    for epoch in range(options.epochs):
        batches.set_epoch(epoch)
        for rows in batches:
            value = loss(parts.train.take(rows))
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
        with torch.no_grad():
            now = float(loss(parts.valid))
        if now < best:
            best, weights = now, copy.deepcopy(network.state_dict())
    network.load_state_dict(weights)
