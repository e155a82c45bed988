"""The number of a constraint against its documented formula, its limit, its direction, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer.constraints import Batch, Constraint, Rows, Spread, Statement
from fairlayer.constraints.text import parse_constraint, write_constraint
from fairlayer.errors import (
    ConstraintDefinitionError,
    EmptyBatchError,
    MissingLabelsError,
    NonFiniteScoresError,
    ParameterError,
    ShapeError,
)

SEX = {"sex": ["f", "f", "m", "m", "m"]}
SCORES = [0.2, 0.4, 0.5, 0.6, 1.0]  # means .3 and .7


class AtMost(Constraint):
    """No group mean above `most`, which it keeps under a name of its own."""

    needs_labels = False

    def __init__(self, on: str, most: float) -> None:
        self.on, self.name, self.ceiling = (on,), f"AtMost({on})", most

    def statements(self, batch: Batch) -> Sequence[Statement]:
        means = batch.means(self.on)
        none, most = np.full(len(means), -np.inf), np.full(len(means), self.ceiling)
        return [Rows(means, means.select(), none, most, means.groups)]


class PerSample(Constraint):
    """A limit that shrinks with the batch, so that no batch is known without it."""

    on, name, needs_labels = ("sex",), "PerSample", False

    def statements(self, batch: Batch) -> Sequence[Statement]:
        means = batch.means(self.on)
        return [Spread(means, means.select(), means.groups, 1.0 / batch.n)]


def test_a_difference_tells_which_group_is_higher() -> None:
    found = fl.DemographicParity("sex", 0.1).measure(SCORES, sensitive_features=SEX)
    assert (found.value, found.limit, found.excess) == (pytest.approx(0.4), 0.1, pytest.approx(0.3))
    assert float(found) == found.value
    assert not found.holds
    assert not found.at_least
    assert found.worst == ("sex=m", "sex=f")
    assert found.statement == "mean[sex=m] - mean[sex=f]"
    assert found.counts == {"sex=f": 2.0, "sex=m": 3.0}
    assert found.labels is None
    swapped = fl.DemographicParity("sex", 0.1).measure([1 - s for s in SCORES], sensitive_features=SEX)
    assert swapped.worst == ("sex=f", "sex=m")
    assert swapped.value == pytest.approx(0.4)


def test_a_ratio_is_the_lowest_over_the_highest() -> None:
    rule = fl.DisparateImpactRatio("sex", ratio=0.8)
    found = rule.measure(SCORES, sensitive_features=SEX)
    assert (found.value, found.limit, found.at_least) == (pytest.approx(0.3 / 0.7), 0.8, True)
    assert found.excess == pytest.approx(0.8 * 0.7 - 0.3)
    equal = fl.DisparateImpactRatio("sex", ratio=1.0).measure(SCORES, sensitive_features=SEX)
    assert (equal.value, equal.limit) == (pytest.approx(0.3 / 0.7), 1.0)
    nobody = rule.measure([0.0] * 5, sensitive_features=SEX)
    assert nobody.value is None
    assert np.isnan(float(nobody))
    assert nobody.excess == 0.0
    assert nobody.holds
    below = rule.measure([-0.1, -0.1, -0.4, -0.4, -0.4], sensitive_features=SEX)
    assert below.value is None
    assert not below.holds


def test_a_floor_and_a_cap_are_the_means_themselves() -> None:
    floor = fl.MinimumRate("sex", floor=0.5).measure(SCORES, sensitive_features=SEX)
    assert (floor.value, floor.limit, floor.excess) == (pytest.approx(0.3), 0.5, pytest.approx(0.2))
    assert floor.at_least
    assert floor.worst == ("sex=f",)
    labels = [1, 0, 1, 0, 1]  # losses .8, .4 | .5, .6, 0
    cap = fl.BoundedGroupLoss("sex", cap=0.5).measure(SCORES, sensitive_features=SEX, y=labels)
    assert (cap.value, cap.limit, cap.excess) == (pytest.approx(0.6), 0.5, pytest.approx(0.1))
    assert not cap.at_least
    assert cap.labels == "given"
    own = fl.BoundedGroupLoss("sex", 0.2, loss=lambda y: (0.3 * y, 1.5 - y))
    found = own.measure(SCORES, sensitive_features=SEX, y=labels)
    losses = 0.3 * np.array(labels) + (1.5 - np.array(labels)) * np.array(SCORES)
    assert found.value == pytest.approx(max(losses[:2].mean(), losses[2:].mean()))
    assert found.limit == 0.2


def test_affine_rows_are_measured_as_they_were_written() -> None:
    gap = fl.Affine([[-2.0, 2.0]], upper=0.3, on="sex").measure(SCORES, sensitive_features=SEX)
    assert (gap.value, gap.limit, gap.excess) == (pytest.approx(0.8), 0.3, pytest.approx(0.5))
    total = fl.Affine([[1.0] * 5], lower=3.0).measure(SCORES)
    assert (total.value, total.limit, total.at_least) == (pytest.approx(2.7), 3.0, True)
    two = fl.Affine(np.eye(2), lower=[0.35, 0.0], upper=[0.5, 0.6], on="sex").measure(SCORES, sensitive_features=SEX)
    assert (two.value, two.limit, two.worst) == (pytest.approx(0.7), 0.6, ("row 1",))  # .1 beyond; row 0 only .05
    equal = fl.Affine([[1.0, -1.0]], lower=-0.1, upper=-0.1, on="sex").measure(SCORES, sensitive_features=SEX)
    assert (equal.value, equal.limit) == (pytest.approx(0.3), 0.0)
    assert fl.Affine(np.eye(2), lower=[0.1, 0.0], upper=1.0, on="sex").limit is None


def test_the_worst_class_is_the_number() -> None:
    table = np.stack([SCORES, [0.5] * 5, [0.1, 0.1, 0.7, 0.7, 0.7]], axis=1)
    every = fl.DemographicParity("sex", 0.1)
    assert every.measure(table, sensitive_features=SEX).column == 2
    assert every.measure(table, sensitive_features=SEX).value == pytest.approx(0.6)
    some = fl.DemographicParity("sex", 0.1, classes=[1, 0])
    assert some.classes == (0, 1)
    assert some.measure(table, sensitive_features=SEX).value == pytest.approx(0.4)
    assert [some.applies_to(j) for j in range(3)] == [True, True, False]
    assert every.applies_to(7)
    assert fl.DemographicParity("sex", 0.1, classes=1).measure(table, sensitive_features=SEX).value == 0.0
    with pytest.raises(ShapeError, match=r"classes \(3,\).*have 3 columns"):
        fl.DemographicParity("sex", 0.1, classes=3).measure(table, sensitive_features=SEX)


@pytest.mark.parametrize("classes", [-1, [], [0, 0], 0.5, True, "0", [0, None]])
def test_classes_that_are_none_are_refused(classes: Any) -> None:
    with pytest.raises(ConstraintDefinitionError, match=r"given classes=.*counted from 0"):
        fl.EqualizedOdds("sex", 0.1, classes=classes)


def test_classes_are_said_and_read_as_text() -> None:
    rule = parse_constraint("demographic_parity(race, 0.02, classes=2+0)")
    assert rule.classes == (0, 2)
    assert repr(rule) == "DemographicParity('race', tolerance=0.02, classes=(0, 2))"
    assert repr(parse_constraint(write_constraint(rule))) == repr(rule)
    assert parse_constraint("minimum_rate(race, 0.02, classes=1)").classes == (1,)
    with pytest.raises(ConstraintDefinitionError, match="a class, a whole number, was expected"):
        parse_constraint("demographic_parity(race, 0.02, classes=first)")


@pytest.mark.parametrize(
    "rule",
    [
        fl.DemographicParity("sex", 0.1),
        fl.EqualizedOdds("sex", 0.1),
        fl.MeanResidualParity("sex", 0.1),
        fl.MeanResidualParity("sex", 0.1, between_groups=True),
        fl.ErrorRateParity("sex", 0.1),
        fl.BoundedGroupLoss("sex", 0.1),
        fl.BoundedGroupLoss("sex", 0.1, loss=lambda y: (y, 1.0 - y)),
        fl.MinimumRate("sex", 0.9),
        fl.DisparateImpactRatio("sex", 0.9),
        fl.GroupCalibration("sex", 0.1, bins=2),
        fl.CovarianceBound("age", 0.01),
        fl.ConditionalParity("sex", given="region", tolerance=0.1),
        fl.Affine([[1.0, -1.0]], upper=0.1, on="sex"),
    ],
    ids=lambda rule: rule.name,
)
@pytest.mark.parametrize("soft", [False, True])
def test_weights_are_repeated_rows(rule: fl.Constraint, soft: bool) -> None:
    rng = np.random.default_rng(3)
    n, weights = 40, rng.integers(0, 4, 40)
    scores, labels, half = rng.random(n), rng.integers(0, 2, n), rng.random(n)
    sex: Any = np.stack([half, 1 - half], axis=1) if soft else np.arange(n) % 2
    columns = {"sex": sex, "age": rng.normal(size=n), "region": rng.integers(0, 3, n)}
    again = np.repeat(np.arange(n), weights)
    weighed = rule.measure(scores, sensitive_features=columns, y=labels, sample_weight=torch.tensor(weights))
    repeated = rule.measure(
        scores[again], sensitive_features={k: v[again] for k, v in columns.items()}, y=labels[again]
    )
    assert weighed.value == pytest.approx(repeated.value, abs=1e-12)
    assert weighed.excess == pytest.approx(repeated.excess, abs=1e-12)
    assert weighed.limit == repeated.limit


def test_rows_about_samples_weigh_them_too() -> None:
    rule, repeated = fl.Affine([[1.0, 2.0]], upper=1.0), fl.Affine([[1.0, 2.0, 2.0]], upper=1.0)
    assert rule.measure([0.5, 0.25], sample_weight=[1, 2]).value == repeated.measure([0.5, 0.25, 0.25]).value == 1.5


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"sample_weight": [1, 1, -2, 1, 1]}, ParameterError, r"1 of 5 are negative, the first -2 in row 2"),
        ({"sample_weight": [0] * 5}, ParameterError, r"0 for all 5 samples"),
        ({"sample_weight": [1, 1]}, ShapeError, r"shape \(5,\), but has shape \(2,\)"),
        ({"sample_weight": [1, 1, np.nan, 1, 1]}, NonFiniteScoresError, r"1 of 5 sample weights"),
        ({"predictions": []}, EmptyBatchError, r"no predictions"),
        ({"predictions": [0.1, np.inf]}, NonFiniteScoresError, r"1 of 2 entries of predictions"),
        ({"predictions": ["a"]}, ShapeError, r"predictions must be numbers"),
        ({"predictions": [0.1]}, ShapeError, r"1 predictions, but the sensitive features have 5"),
    ],
)
def test_what_cannot_be_measured_is_refused(given: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments = {"predictions": SCORES, "sensitive_features": SEX, **given}
    with pytest.raises(error, match=text):
        fl.DemographicParity("sex", 0.1).measure(arguments.pop("predictions"), **arguments)


def test_labels_are_given_or_estimates() -> None:
    rule = fl.EqualOpportunity("sex", 0.1)
    estimates = [0.5, 0.5, 0.2, 0.4, 1.0]
    found = rule.measure(SCORES, sensitive_features=SEX, label_probabilities=estimates)
    high = (0.2 * 0.5 + 0.4 * 0.6 + 1.0) / 1.6
    assert (found.value, found.labels) == (pytest.approx(high - 0.3), "estimates")
    with pytest.raises(MissingLabelsError, match="no y was given"):
        rule.measure(SCORES, sensitive_features=SEX)


def test_one_group_alone_compares_nothing() -> None:
    found = fl.DemographicParity("sex", 0.1).measure([0.1, 0.9], sensitive_features={"sex": ["f", "f"]})
    assert (found.value, found.excess, found.limit, found.worst) == (None, None, 0.1, ())
    assert found.holds


def test_the_limit_of_a_class_of_ones_own() -> None:
    rule = AtMost("sex", most=0.4)
    assert rule.limit == 0.4
    assert repr(rule) == "AtMost('sex', ceiling=0.4)"
    rule.ceiling = 0.6
    assert rule.limit == 0.6
    assert rule.measure(SCORES, sensitive_features=SEX).value == pytest.approx(0.7)
    assert PerSample().limit is None  # it differs from batch to batch
    assert PerSample().measure(SCORES, sensitive_features=SEX).limit == 0.2


def test_the_limit_follows_a_tensor() -> None:
    tolerance = torch.tensor(0.25, requires_grad=True)
    rule = fl.DemographicParity("sex", tolerance)
    assert rule.limit == 0.25
    assert repr(rule) == "DemographicParity('sex', tolerance=0.25)"
    assert repr(fl.DemographicParity("sex", torch.tensor(0.02))) == "DemographicParity('sex', tolerance=0.02)"


def _slope(labels: Any) -> Any:
    return 0.0 * labels, 1.0 + 0.0 * labels


def test_constraints_of_one_repr_are_equal_in_effect() -> None:
    rows = np.ones((1, 40))
    rules = [
        *(fl.DemographicParity("sex", t) for t in (0.0, 0.1, 0.1 + 1e-12)),
        *(fl.MeanResidualParity("sex", 0.1, between_groups=b) for b in (False, True)),
        *(fl.GroupCalibration("sex", 0.1, bins=b) for b in (10, 5, [0.0, 0.5, 1.0])),
        *(fl.Affine(rows * k, upper=1.0) for k in (1.0, 2.0)),
        fl.Affine(rows, upper=2.0),
        fl.Affine(rows, lower=1.0),
        *(fl.ConditionalParity("sex", given=g, tolerance=0.1) for g in ("a", ("a", "b"))),
        *(fl.MinimumRate(on, 0.1) for on in ("sex", ("sex", "race"))),
        *(fl.BoundedGroupLoss("sex", 0.1, loss=each) for each in (None, _slope, lambda y: (y, y), lambda y: (y, y))),
        *(fl.DemographicParity("sex", 0.1, classes=c) for c in (0, 1)),
        *(fl.Convex(lambda y, batch, r: [], parameters={"r": r}) for r in (1.0, 2.0)),
    ]
    assert len({repr(rule) for rule in rules}) == len(rules)
    assert repr(fl.MinimumRate("sex", floor=0.2)) == "MinimumRate('sex', floor=0.2)"
    assert repr(fl.Affine([[1, -1]], upper=0.3, on="sex")) == "Affine([[1, -1]], upper=0.3, on='sex')"
    assert f"loss={__name__}._slope" in repr(fl.BoundedGroupLoss("sex", 0.1, loss=_slope))
