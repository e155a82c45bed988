"""Fairlearn on the same rows: ThresholdOptimizer on given scores, ExponentiatedGradient on a given classifier."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from fairlearn.postprocessing import ThresholdOptimizer
from fairlearn.reductions import DemographicParity, EqualizedOdds, ExponentiatedGradient
from frontier_data import Array, Part, Splits
from frontier_jobs import Job, Outcome
from frontier_numbers import Measure, Numbers, Point
from frontier_readings import Reading, Scored
from frontier_training import Protocol
from sklearn.base import BaseEstimator, ClassifierMixin

PARITY, ODDS = "demographic parity", "equalized odds"
MOMENTS = {PARITY: DemographicParity, ODDS: EqualizedOdds}
TOLERANCES: dict[str, tuple[float | None, ...]] = {
    "demographic_parity": (None, 0.01, 0.02, 0.03, 0.04, 0.05, 0.08),
    "equalized_odds": (None,),  # ThresholdOptimizer offers no relaxed form of it
}


class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted classifier whose only input is the score itself."""

    classes_ = np.array([0, 1])

    def fit(self, X: Array, y: Array) -> Given:
        return self

    def predict_proba(self, X: Array) -> Array:
        return np.column_stack([1.0 - X[:, 0], X[:, 0]])

    def predict(self, X: Array) -> Array:
        return (X[:, 0] >= 0.5).astype(np.int64)


def optimised(method: str, constraint: str) -> Reading:
    """Fairlearn's ThresholdOptimizer, fitted on validation scores; it draws, from a fixed seed."""

    def read(scored: Scored) -> Iterator[Point]:
        (valid, scores), _ = scored.pairs
        measures = [Measure(part, values) for part, values in scored.pairs]
        for tolerance in TOLERANCES[constraint]:
            rule = ThresholdOptimizer(
                estimator=Given(),
                constraints=constraint,
                prefit=True,
                predict_method="predict_proba",
                tol=tolerance,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                rule.fit(scores[:, None], valid.labels, sensitive_features=valid.groups)
            decided = [
                rule.predict(s[:, None], sensitive_features=part.groups, random_state=0) for part, s in scored.pairs
            ]
            sides = [measure.decisions(yes) for measure, yes in zip(measures, decided, strict=True)]
            yield Point(method, True, f"{constraint}, tol {tolerance}", *sides)

    return read


def reduction_job(
    name: str, make_model: Callable[[int], Any], moment: str, slack: float, most_seeds: int | None
) -> Job:
    """ExponentiatedGradient, which draws a classifier for each row, from a fixed seed; the group is hidden at test."""

    def run(splits: Splits, seed: int, protocol: Protocol) -> Outcome:
        train = splits.train
        reduction = ExponentiatedGradient(make_model(seed), MOMENTS[moment](difference_bound=slack), eps=slack)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reduction.fit(train.x.numpy(), train.labels, sensitive_features=train.groups)
        sides = [_reduced(reduction, part) for part in (splits.valid, splits.test)]
        return Outcome([Point(name, False, f"{moment}, eps {slack:g}", *sides)])

    return Job(name, f"{moment}, eps {slack:g}", run, most_seeds)


def _reduced(reduction: Any, part: Part) -> Numbers:
    return Measure(part, None).decisions(reduction.predict(part.x.numpy(), random_state=0))
