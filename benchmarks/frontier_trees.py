"""Boosted trees on the same rows, with this package's layer and decision rule on top, and ThresholdOptimizer."""

from __future__ import annotations

from typing import Any

from frontier_data import Splits
from frontier_fairlearn import optimised
from frontier_jobs import Job, Outcome
from frontier_readings import Scored, blind, equal_odds, layered, ruled
from frontier_training import Protocol
from sklearn.ensemble import HistGradientBoostingClassifier


def make_trees(seed: int) -> Any:
    """Return scikit-learn's boosted trees at their defaults."""
    return HistGradientBoostingClassifier(random_state=seed)


def trees_job() -> Job:
    """Fit once; every rule reads the same scores."""
    readings = (
        blind("trees"),
        layered("trees + layer"),
        ruled("trees + DecisionRule"),
        ruled("trees + DecisionRule", equal_odds, randomised=True),
        optimised("trees + ThresholdOptimizer", "demographic_parity"),
        optimised("trees + ThresholdOptimizer", "equalized_odds"),
    )

    def run(splits: Splits, seed: int, protocol: Protocol) -> Outcome:
        trees = make_trees(seed).fit(splits.train.x.numpy(), splits.train.labels)
        scores = (trees.predict_proba(part.x.numpy())[:, 1] for part in (splits.valid, splits.test))
        scored = Scored(splits, *scores)
        return Outcome([point for reading in readings for point in reading(scored)])

    return Job("trees", "", run)
