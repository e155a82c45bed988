"""From a table made ready to the routes of a network, of boosted trees and of both, and to the folder of the best."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fairlayer._typing import FloatArray
from fairlayer.data import TensorTable
from fairlayer.decisions.inputs import ACCURACY, read_utility
from fairlayer.errors import FairlayerError
from fairlayer.routes.candidates import Candidate
from fairlayer.routes.compare import compare_routes
from fairlayer.routes.criterion import Criterion, default_criterion
from fairlayer.routes.route import Route, Routes
from fairlayer.routes.rules import fit_rule
from fairlayer.training.config import FitOptions
from fairlayer.training.kept import KeptRoute, ScoredBy
from fairlayer.training.observed import Observed
from fairlayer.training.run import Run, around, save_run, write_json
from fairlayer.training.session import Parts, Trained, train
from fairlayer.training.trees import NetworkAndTrees, Trees, fit_trees, share_of_network

__all__ = ["BOTH", "TREES", "TrainedRoutes", "save_routes", "train_routes"]

PLAIN, THROUGH, TREES, BOTH = "plain", "trained through", "trees", "both"
_SCORED_BY: dict[str, ScoredBy] = {TREES: "trees", BOTH: "both"}


@dataclass(frozen=True)
class TrainedRoutes:
    """The networks and trees of a table, and the comparison of what can be done with them.

    Args:
        parts: the table made ready.
        trained: the networks.
        trees: the boosted trees; None where none were asked for.
        routes: the comparison.
        rules: a decision rule for each candidate that has one, by name.
        utility: `utility[label][decision]`, by which rules were fitted and batches are decided.
        share: the weight of the plain network in its mean with the trees.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, prepare
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> found = train_routes(parts, FitOptions(epochs=1), trees=False)
        >>> found.trees is None, found.routes.best in found.routes.routes
        (True, True)
    """

    parts: Parts
    trained: Trained
    trees: Trees | None
    routes: Routes
    rules: dict[str, Any]
    utility: tuple[tuple[float, ...], ...] = ACCURACY
    share: float = 0.5

    def kept(self, route: Route) -> KeptRoute:
        """Return what a run folder keeps of a route."""
        rule = self.rules.get(route.candidate)
        same = [route, *(each for each in self.routes.routes if each.candidate == route.candidate)]
        calibrator = next((each.calibrator for each in same if each.calibrator is not None), None)
        scored_by = _SCORED_BY.get(route.candidate, "network")
        return KeptRoute(route.name, scored_by, route.step, rule, calibrator, self.utility, self.share)

    def run(self, name: str | None = None) -> Run:
        """Return the run of a route, in memory; of the best one where none is named."""
        route = self.routes.best if name is None else self.routes.named(name)
        if route.candidate == THROUGH:
            return Run(self.trained.model, self.trained.recipe, self.trained.plain, self.kept(route))
        backbone: nn.Module = self.trained.plain
        if route.candidate in _SCORED_BY:
            assert self.trees is not None
            backbone = self.trees if route.candidate == TREES else NetworkAndTrees(backbone, self.trees, self.share)
        layered = around(self.trained.model, backbone).eval()
        return Run(layered, self.trained.recipe, self.trained.plain, self.kept(route))


def train_routes(
    parts: Parts,
    options: FitOptions | None = None,
    *,
    trees: bool = True,
    decisions: bool = False,
    criterion: Criterion | None = None,
    utility: Any = ACCURACY,
    **training: Any,
) -> TrainedRoutes:
    """Train networks and boosted trees on the training rows, and compare every route on validation and test rows.

    The mean of the plain network and the trees is a candidate of its own.

    Args:
        parts: what `prepare` makes of a table.
        options: the options of the networks' training.
        trees: whether boosted trees take part, alone and with the network; they need scikit-learn.
        decisions: whether the default criterion chooses a route for its decisions, not for its scores.
        criterion: how a route is chosen; None for the default.
        utility: the utility of the decision rules, see `decide`.
        **training: further arguments of `fairlayer.training.train`.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, prepare
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> found = train_routes(parts, FitOptions(epochs=1), trees=False)
        >>> [route.name for route in found.routes.routes][:2]
        ['plain', 'plain, projected']
    """
    options, config = options or FitOptions(), parts.recipe.config
    trained = train(parts, options, **training)
    candidates = [*_networks(trained, parts)]
    forest, share = None, 0.5
    if trees:
        start = time.perf_counter()
        forest = fit_trees(parts.train, task=config.task, seed=options.seed)
        scores = forest.scores(parts.valid.x), forest.scores(parts.test.x)
        seconds = time.perf_counter() - start
        candidates.append(Candidate(TREES, *scores, seconds=seconds))
        share = share_of_network(candidates[0].valid, scores[0], parts.valid.y.numpy(), config.task)
        both = _scores(NetworkAndTrees(trained.plain, forest, share), parts)
        candidates.append(Candidate(BOTH, *both, seconds=trained.fits.unconstrained.seconds + seconds, models=2))
    constraints, valid = config.parsed(), _observed(parts.valid)
    routes = compare_routes(
        candidates,
        constraints,
        valid=valid,
        test=_observed(parts.test),
        task=config.task,
        geometry=config.rule.name,
        bounds=config.bounds,
        margin=0.0 if config.rule.bounded or config.bounds is None else config.margin,
        on_infeasible=config.on_infeasible,
        criterion=criterion or default_criterion(config.task, decisions=decisions),
        utility=utility,
    )
    rules = {route.candidate: route.rule for route in routes.routes if route.rule is not None}
    if config.task == "classification":
        try:
            through = next(candidate for candidate in candidates if candidate.name == THROUGH)
            rules[THROUGH] = fit_rule(through.valid, constraints, valid, utility=utility).rule
        except FairlayerError:  # then its run has no rule, and says so when it is asked for decisions
            rules.pop(THROUGH, None)
    return TrainedRoutes(parts, trained, forest, routes, rules, _table(utility), share)


def save_routes(folder: str | Path, found: TrainedRoutes, name: str | None = None) -> Path:
    """Write the run folder of a route, the best one where none is named, with routes.json beside it.

    Args:
        found: the trained routes.
        name: the name of the route to keep; None for the best.

    Raises:
        MissingExtraError: the route keeps boosted trees, and skops is not installed; nothing was written.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, prepare
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> folder = save_routes("run-best", train_routes(parts, FitOptions(epochs=1), trees=False))
        >>> (folder / "routes.json").exists()
        True
    """
    route = found.routes.best if name is None else found.routes.named(name)
    folder = save_run(folder, found.trained, found.kept(route), found.trees)
    write_json(folder / "routes.json", {**found.routes.to_dict(), "kept": route.name})
    return folder


def _table(utility: Any) -> tuple[tuple[float, ...], ...]:
    """Return a utility as plain numbers, which a run folder can keep."""
    return tuple(tuple(row) for row in read_utility(utility).tolist())


def _networks(trained: Trained, parts: Parts) -> list[Candidate]:
    alone, through = trained.fits.unconstrained.seconds, trained.fits.constrained.seconds
    backbone = trained.model.backbone
    assert backbone is not None
    plain = _scores(trained.plain, parts)
    return [
        Candidate(PLAIN, *plain, seconds=alone),
        Candidate(
            THROUGH,
            *_scores(backbone, parts),
            steps=("projected",),
            titles={"projected": THROUGH},
            seconds=alone + through,
        ),
    ]


@torch.no_grad()
def _scores(network: nn.Module, parts: Parts) -> tuple[FloatArray, FloatArray]:
    network.eval()
    valid, test = (np.asarray(network(each.x).numpy(), dtype=np.float64) for each in (parts.valid, parts.test))
    return valid, test


def _observed(sample: TensorTable) -> Observed:
    return Observed(sample.sensitive, sample.y.numpy())
