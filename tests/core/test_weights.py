"""Whole weights are repeated rows, on small random problems: in projections, numbers, decisions and metrics.

Weights run from 0 to 4; a row of weight 0 is no row, wherever it stands.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer.errors import FairlayerError
from tests.core import truth
from tests.core.cases import DOMAINS, ENTROPIC_SIMPLEX, Case, Domain, random_case
from tests.core.problems import Problem

pytestmark = pytest.mark.filterwarnings("ignore::fairlayer.errors.FairlayerWarning")


def up_to_four(random: np.random.Generator, problem: Problem) -> np.ndarray:
    weights = random.integers(0, 5, problem.n).astype(float)
    weights[random.integers(problem.n)] = 2.0
    return weights


def exactly(random: np.random.Generator, problem: Problem) -> np.ndarray:
    return random.integers(0, 5, problem.n).astype(float)


def pair(case: Case) -> tuple[Case, Case, np.ndarray] | None:
    """The case, the same with repeated rows, and which row each of these was; None where a category is gone."""
    weights = truth.counted(case.views[0]).astype(int)
    which = np.repeat(np.arange(case.n), weights)
    again = case.edited(weights=None).take(which)
    named = any(rule.kind == "AffineGroups" for rule in case.rules)
    before, after = case.views[0].features, again.views[0].features
    gone = any(set(before[name]) != set(after[name]) for name in "abc")
    return None if named and gone else (case, again, which)


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
def test_projections_of_several_rules(domain: Domain) -> None:
    compared = 0
    for seed in range(8):
        found = pair(random_case(seed, domain, most=60, weigh=up_to_four))
        if found is not None:
            check(*found)
            compared += 1
    assert compared >= 4


@pytest.mark.slow  # 24 s: it is a hard one
def test_rows_of_weight_zero_beside_dense_rows() -> None:
    """Rows without weight once kept this one from its solution, which it has without them."""
    found = pair(random_case(148, ENTROPIC_SIMPLEX, most=60, weigh=exactly))
    assert found is not None
    check(*found)


def check(case: Case, again: Case, which: np.ndarray) -> None:
    one, other = case.project(dtype=torch.float64), again.project(dtype=torch.float64)
    value = one.value.numpy()
    np.testing.assert_allclose(value[which], other.value.numpy(), atol=1e-10 * case.size, rtol=0, err_msg=case.name)
    assert one.certificate.holds, case.name
    assert one.certificate.distance == pytest.approx(other.certificate.distance, rel=1e-8, abs=1e-7 * case.size)
    weights = truth.counted(case.views[0])
    for c, (view, many) in enumerate(zip(case.views, again.views, strict=True)):
        column = value[:, c] if case.domain.simplex else value
        for rule, same in zip(view.constraints(), many.constraints(), strict=True):
            first = rule.measure(column, sample_weight=weights, **beside(view))
            second = same.measure(column[which], **beside(many))
            assert (first.excess is None) is (second.excess is None), case.name
            if first.excess is not None:
                assert first.excess == pytest.approx(second.excess, abs=1e-10 * case.size), case.name


def beside(view: Problem) -> dict[str, Any]:
    return {
        "sensitive_features": view.features,
        "y": view.labels,
        "label_probabilities": view.estimates,
        "raw_scores": view.scores,
    }


# ---- decisions and metrics


@dataclass(frozen=True)
class Rows:
    """People, with weights, or repeated."""

    scores: np.ndarray
    labels: np.ndarray
    features: dict[str, np.ndarray]
    weights: np.ndarray | None

    @staticmethod
    def random(seed: int) -> Rows:
        random = np.random.default_rng(seed)
        n = int(random.integers(4, 61))
        features = {
            "sex": random.integers(0, 2, n),
            "race": random.integers(-1, 3, n),
            "site": random.integers(0, 2, n),
        }
        scores = np.round(random.random(n), int(random.choice([1, 3, 9])))
        weights = random.integers(0, 5, n).astype(float)
        weights[0] = 1.0
        return Rows(scores, (random.random(n) < scores).astype(float), features, weights)

    def repeated(self) -> tuple[Rows, np.ndarray]:
        assert self.weights is not None
        which = np.repeat(np.arange(len(self.scores)), self.weights.astype(int))
        features = {name: column[which] for name, column in self.features.items()}
        return Rows(self.scores[which], self.labels[which], features, None), which

    def given(self) -> dict[str, Any]:
        return {"sensitive_features": self.features, "y": self.labels, "sample_weight": self.weights}


RULES: list[list[fl.Constraint]] = [
    [fl.DemographicParity("sex", 0.05)],
    [fl.DemographicParity(("sex", "site"), 0.2)],
    [fl.EqualOpportunity("race", 0.1)],
    [fl.ConditionalParity("sex", given="site", tolerance=0.1)],
    [fl.EqualizedOdds("sex", 0.1)],
    [fl.ErrorRateParity("sex", 0.1)],
    [fl.MinimumRate("sex", 0.3)],
    [fl.DisparateImpactRatio("sex", ratio=0.7)],
    [fl.BoundedGroupLoss("sex", cap=0.7)],
    [fl.DemographicParity("sex", 0.05), fl.PredictiveEquality("site", 0.2)],
]
each_rule = pytest.mark.parametrize("rules", RULES, ids=lambda rules: "+".join(rule.name for rule in rules))


@each_rule
def test_decisions(rules: list[fl.Constraint]) -> None:
    """The best lottery does not know rows from copies; a whole row moves a rate by its weight at most."""
    decided = 0
    for seed in range(12):
        rows = Rows.random(seed)
        again, which = rows.repeated()
        try:
            one = fl.decide(rows.scores, rules, **rows.given())
        except FairlayerError as error:
            with pytest.raises(type(error)):
                fl.decide(again.scores, rules, **again.given())
            continue
        decided += 1
        other = fl.decide(again.scores, rules, **again.given())
        assert one.utility_bound == pytest.approx(other.utility_bound, abs=1e-9), seed
        assert one.counts == pytest.approx({name: other.counts.get(name, 0.0) for name in one.counts}), seed
        decisions = one.decisions.numpy().astype(float)
        for rule in rules:
            found = one.measured[rule.name]
            for direct in (
                rule.measure(decisions, **rows.given()),
                rule.measure(decisions[which], **again.given()),
            ):
                assert direct.value == pytest.approx(found.value, abs=1e-12), seed
            if found.excess is not None:
                heaviest = sum(4.0 / count for count in one.counts.values() if count)
                assert found.excess <= one.rounding[rule.name] + 1e-9, seed
                assert rule.needs_labels or one.rounding[rule.name] <= heaviest, seed
    assert decided >= 6


@each_rule
def test_metrics(rules: list[fl.Constraint]) -> None:
    torchmetrics = pytest.importorskip("fairlayer.integrations.torchmetrics")
    for seed in range(12):
        rows = Rows.random(seed)
        found = []
        for given in (rows, rows.repeated()[0]):
            metric = torchmetrics.ConstraintExcess(rules[0])
            features = {name: given.features[name] for name in rules[0].features}
            weights = None if given.weights is None else torch.tensor(given.weights)
            metric.update(torch.tensor(given.scores), torch.tensor(given.labels), features, weights)
            with warnings.catch_warnings(action="ignore"):
                found.append(float(metric.compute()))
        assert found[0] == pytest.approx(found[1], abs=1e-10, nan_ok=True), seed


@each_rule
def test_many_at_once(rules: list[fl.Constraint]) -> None:
    for seed in range(6):
        rows = Rows.random(seed)
        again, which = rows.repeated()
        values = [
            fl.project_many(
                each.scores[None],
                rules,
                sensitive_features={name: column[None] for name, column in each.features.items()},
                y=each.labels[None],
                sample_weight=None if each.weights is None else each.weights[None],
                bounds=(0.0, 1.0),
                on_infeasible="relax",
            ).value[0].numpy()
            for each in (rows, again)
        ]  # fmt: skip
        np.testing.assert_allclose(values[0][which], values[1], atol=1e-9, rtol=0, err_msg=str(seed))


def test_streams_refuse_weights_by_name() -> None:
    rule = fl.DemographicParity("sex", 0.1)
    scores, groups, weights = torch.tensor([0.2, 0.8]), {"sex": [0, 1]}, [1.0, 2.0]
    stream: Any = fl.InferenceState([rule], bounds=(0.0, 1.0))
    with pytest.raises(FairlayerError, match="sample_weight"):
        stream.emit(scores, groups, sample_weight=weights)
    model = fl.FairModel(torch.nn.Flatten(0), [rule], bounds=(0.0, 1.0)).eval()
    with pytest.raises(FairlayerError, match="a stream counts each request once"):
        model(scores[:, None], sensitive_features=groups, sample_weight=weights, inference=True)
    assert stream.counts() == {}


def test_negative_weights_are_refused_and_so_are_none_at_all() -> None:
    rule, scores, groups = fl.DemographicParity("sex", 0.1), [0.2, 0.8, 0.4], {"sex": [0, 1, 1]}
    for weights, words in (([1.0, -1.0, 1.0], "sample_weight"), ([0.0, 0.0, 0.0], "nothing to measure or move")):
        given: Any = {"sensitive_features": groups, "sample_weight": weights}
        for use in (
            lambda: fl.project(scores, rule, **given),  # noqa: B023
            lambda: fl.decide(scores, rule, **given),  # noqa: B023
            lambda: rule.measure(scores, **given),  # noqa: B023
        ):
            with pytest.raises(FairlayerError, match=words):
                use()
