"""The methods of this package: layer, penalties, Lagrangian, adversary, fixed shifts, decision rules."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from frontier_data import SENSITIVE, Splits
from frontier_fairlearn import optimised
from frontier_jobs import Job, Outcome, network_job, read_all
from frontier_readings import Reading, amortised, blind, equal_odds, layered, parity, ruled, sharpened, shrunk
from frontier_training import Loss, Protocol, Step, cross_entropy, make_network, train
from torch import Tensor, nn

import fairlayer as fl
from fairlayer.adversarial import Adversary, linear
from fairlayer.penalties import HSIC, MMD, AugmentedLagrangian, Penalty

DECISION_PENALTIES = ((0.3, 1.5), (0.3, 3.0), (0.3, 5.0), (0.5, 2.0), (0.5, 4.0), (0.5, 8.0))
ODDS_PENALTIES = ((0.15, 5.0), (0.3, 1.0), (0.3, 3.0))  # temperature of soft decisions in logits, weight
FALSE_POSITIVE_WEIGHTS = (10.0, 30.0)  # at the last temperature
MARGIN = 1e-3  # the layer's inner box, so that the cross entropy keeps its gradient
WARM_UP = 0.2  # share of the training in which the weight of a penalty rises to its full size
ADVERSARY_READS = "7"  # the last hidden layer, after its ReLU

Term = Callable[[Step], Tensor]


def our_jobs() -> list[Job]:
    """Return every training of this package's methods."""
    return [
        plain_job(),
        *(layer_job(tolerance) for tolerance in (0.0, 0.02, 0.05)),
        *penalty_jobs(),
        *(lagrangian_job(tolerance) for tolerance in (0.0, 0.02, 0.04)),
        *(adversary_job(strength) for strength in (1.0, 2.0, 3.0)),
    ]


def plain_job() -> Job:
    """Plain training; the layer, fixed shifts and decision rules are put on its scores afterwards."""
    readings = (
        blind("plain"),
        shrunk("plain, scores shrunk"),
        layered("plain + layer"),
        amortised("plain + amortised shifts"),
        ruled("plain + DecisionRule"),
        ruled("plain + DecisionRule", equal_odds, randomised=True),
        optimised("plain + ThresholdOptimizer", "demographic_parity"),
        optimised("plain + ThresholdOptimizer", "equalized_odds"),
    )
    return network_job("plain", "", lambda splits: cross_entropy, readings)


def layer_job(tolerance: float) -> Job:
    """Train through the layer; at inference keep it, drop it, or decide by a rule."""

    def make_loss(splits: Splits) -> Loss:
        layer = fl.FairProjection([parity(tolerance)], bounds=(0.0, 1.0), margin=MARGIN)

        def loss(step: Step) -> Tensor:
            scores = layer(torch.sigmoid(step.logits), sensitive_features=step.batch.features)
            return nn.functional.binary_cross_entropy(scores, step.batch.y)

        return loss

    kept, dropped, rule = "trained through layer", "layer dropped at test", "through layer + DecisionRule"
    readings = (layered(kept), blind(dropped), ruled(rule))
    return network_job(kept, f"tolerance {tolerance:g}", make_loss, readings)


def penalty_jobs() -> list[Job]:
    """Cross entropy plus a weighted penalty, which rises to its full weight at the beginning."""
    decide, odds = "Penalty on soft decisions", "Penalty on soft odds"
    false_positives = fl.PredictiveEquality(SENSITIVE, 0.0)
    on_decisions = (blind(decide), sharpened(f"{decide}, sharp scores"), ruled(f"{decide} + DecisionRule"))
    on_odds = (blind(odds), ruled(f"{odds} + DecisionRule", equal_odds, randomised=True))
    return [
        *(penalised("Penalty on scores", f"weight {w:g}", w, on_scores) for w in (0.2, 0.35, 0.5, 1.0)),
        *(
            penalised(decide, f"temperature {t:g}, weight {w:g}", w, partial(soft, parity(), t), on_decisions)
            for t, w in DECISION_PENALTIES
        ),
        *(
            penalised(odds, f"temperature {t:g}, weight {w:g}", w, partial(soft, equal_odds(), t), on_odds)
            for t, w in ODDS_PENALTIES
        ),
        *(  # positives of one group are so few in a batch that their noise drowns the rest
            penalised(odds, f"false positives only, weight {w:g}", w, partial(soft, false_positives, 0.3), on_odds)
            for w in FALSE_POSITIVE_WEIGHTS
        ),
        *(
            penalised(kind.__name__, f"weight {w:g}", w, partial(dependence, kind))
            for kind in (HSIC, MMD)
            for w in (10.0, 30.0, 100.0)
        ),
    ]


def on_scores() -> Term:
    """The gap between mean scores."""
    penalty = Penalty(parity(), "abs")
    return lambda step: penalty(torch.sigmoid(step.logits), sensitive_features=step.batch.features)


def soft(constraint: fl.Constraint, temperature: float) -> Term:
    """The squared gap between soft decisions sigmoid(logit / temperature)."""
    penalty = Penalty(constraint, "squared", threshold=0.0, temperature=temperature)
    return lambda step: penalty(step.logits, sensitive_features=step.batch.features, y=step.batch.y)


def dependence(kind: type[HSIC] | type[MMD]) -> Term:
    """The dependence between score and group."""
    penalty = kind(SENSITIVE)
    return lambda step: penalty(torch.sigmoid(step.logits), sensitive_features=step.batch.features)


def penalised(
    name: str, setting: str, weight: float, make_term: Callable[[], Term], readings: tuple[Reading, ...] = ()
) -> Job:
    """Return the job of one penalty at one weight."""

    def make_loss(splits: Splits) -> Loss:
        term = make_term()

        def loss(step: Step) -> Tensor:
            return cross_entropy(step) + weight * min(1.0, step.progress / WARM_UP) * term(step)

        return loss

    return network_job(name, setting, make_loss, readings or (blind(name),))


def lagrangian_job(tolerance: float) -> Job:
    """Multipliers that learn the weight of the constraint on soft decisions."""
    name = "AugmentedLagrangian on soft decisions"

    def make_loss(splits: Splits) -> Loss:
        lagrangian = AugmentedLagrangian(parity(tolerance), augmentation=1.0, integral=0.03)

        def loss(step: Step) -> Tensor:
            soft = torch.sigmoid(step.logits / 0.3)
            term: Tensor = lagrangian(soft, sensitive_features=step.batch.features)
            lagrangian.update()
            return cross_entropy(step) + term

        return loss

    return network_job(name, f"tolerance {tolerance:g}", make_loss, (blind(name),))


def adversary_job(strength: float) -> Job:
    """A head reads the group off the last hidden layer, through the gradient reversal."""
    name = "Adversary"

    def run(splits: Splits, seed: int, protocol: Protocol) -> Outcome:
        torch.manual_seed(seed)
        part = splits.train
        network = make_network(part.x.shape[1], protocol)
        with Adversary(
            network,
            on=SENSITIVE,
            sensitive_features=part.features,
            example=part.x[:8],
            at=ADVERSARY_READS,
            schedule=linear(0.1 * strength, strength),
        ) as adversary:

            def loss(step: Step) -> Tensor:
                adversary.advance(step.progress)
                return cross_entropy(step) + adversary.loss(step.batch.features)

            _, seconds = train(part, loss, seed, protocol, network=network, helpers=(adversary,))
        return Outcome(list(read_all(splits, network, (blind(name),))), seconds)

    return Job(name, f"strength {strength:g}", run)
