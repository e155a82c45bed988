"""The methods of other packages: fairret's penalties, and Fairlearn's reductions on trees and a logistic regression."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fairret.loss import KLProjectionLoss, NormLoss
from fairret.statistic import PositiveRate
from frontier_data import Splits
from frontier_fairlearn import ODDS, PARITY, reduction_job
from frontier_jobs import Job, network_job
from frontier_readings import blind
from frontier_training import Loss, Step, cross_entropy
from frontier_trees import make_trees
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

SLACKS = {PARITY: (0.005, 0.01, 0.03), ODDS: (0.02,)}  # of ExponentiatedGradient, between a group and all
MOST_SEEDS = {"trees": 3, "logistic": None}  # one fit on trees takes minutes


def fairret_job(kind: str, weight: float) -> Job:
    """Cross entropy plus a fairret on the positive rate (of the mean scores)."""
    name = f"fairret {kind}"

    def make_loss(splits: Splits) -> Loss:
        penalty = {"KL projection": KLProjectionLoss, "norm": NormLoss}[kind](PositiveRate())

        def loss(step: Step) -> Tensor:
            membership = nn.functional.one_hot(step.batch.group, 2).float()
            value: Tensor = penalty(step.logits[:, None], membership, pred_as_logit=True)
            return cross_entropy(step) + weight * value

        return loss

    return network_job(name, f"weight {weight:g}", make_loss, (blind(name),))


def rival_jobs() -> list[Job]:
    """Return every training of the other packages."""
    return [
        *(fairret_job("KL projection", weight) for weight in (1.0, 3.0, 10.0)),
        *(fairret_job("norm", weight) for weight in (0.05, 0.1, 0.2, 0.3)),
        *(
            reduction_job(f"ExponentiatedGradient, {model}", MODELS[model], moment, slack, MOST_SEEDS[model])
            for model in MODELS
            for moment, slacks in SLACKS.items()
            for slack in slacks
        ),
    ]


def make_logistic(seed: int) -> Any:
    """Return scikit-learn's logistic regression."""
    return LogisticRegression(max_iter=1000, random_state=seed)


MODELS: dict[str, Callable[[int], Any]] = {"trees": make_trees, "logistic": make_logistic}
