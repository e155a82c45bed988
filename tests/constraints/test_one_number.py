"""One number: every use of a constraint shows what its documented formula says, on one batch.

Each case states its formula a second time, from plain arrays. `AtMost`, `Apart` and `Within` are constraints as users
write them, with an argument of their own name: one that says nothing about it, one that names it, a frozen dataclass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer.constraints import Batch, Constraint, Rows, Spread, Statement
from fairlayer.constraints.measure import headline
from fairlayer.decisions import decide
from fairlayer.distillation import remaining_gap
from fairlayer.groups import read_sensitive_features
from fairlayer.penalties import Excess
from fairlayer.projection.reference.certificate import _statement_violation
from fairlayer.report import words
from fairlayer.scoring import project_chunks
from fairlayer.streaming import InferenceState
from fairlayer.training import Observed, measure

N = 90
RANDOM = np.random.default_rng(7)
SEX, REGION = np.arange(N) % 2, np.arange(N) // 2 % 3
AGE, LABELS = RANDOM.normal(40.0, 9.0, N), RANDOM.integers(0, 2, N).astype(float)
SCORES = np.clip(0.15 + 0.5 * RANDOM.random(N) + 0.2 * SEX - 0.05 * REGION, 0.0, 1.0)
COLUMNS = {"sex": SEX, "region": REGION, "age": AGE}
TOTAL = RANDOM.random((1, N)) / N

Values = np.ndarray


class AtMost(Constraint):
    """No group mean is above `most`."""

    needs_labels = False

    def __init__(self, on: str, *, most: float) -> None:
        self.on, self.name, self.most = (on,), f"AtMost({on!r})", most

    def statements(self, batch: Batch) -> Sequence[Statement]:
        means = batch.means(self.on)
        most, none = np.full(len(means), self.most), np.full(len(means), -np.inf)
        return [Rows(means, means.select(), none, most, means.groups)]


class Apart(Constraint):
    """Any two group means differ by at most `most`."""

    needs_labels = False
    limit_argument = "most"

    def __init__(self, on: str, most: float) -> None:
        self.on, self.name, self.most = (on,), f"Apart({on!r})", most

    def statements(self, batch: Batch) -> Sequence[Statement]:
        means = batch.means(self.on)
        return [Spread(means, means.select(), means.groups, self.most)]


@dataclass(frozen=True, repr=False)
class Within(Constraint):
    """No group mean is below `least`."""

    feature: str
    least: float
    needs_labels = False
    limit_argument = "least"

    @property
    def on(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.feature,)

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"Within({self.feature!r})"

    def statements(self, batch: Batch) -> Sequence[Statement]:
        means = batch.means(self.on)
        least, none = np.full(len(means), self.least), np.full(len(means), np.inf)
        return [Rows(means, means.select(), least, none, means.groups)]


def by(column: Values, values: Values, inside: Values | bool = True) -> Values:
    return np.array([values[(column == k) & inside].mean() for k in np.unique(column)])


def spread(means: Values) -> float:
    return float(means.max() - means.min())


def largest(numbers: Sequence[float]) -> float:
    return float(max(numbers))


def banded(values: Values) -> Values:
    """Mean residuals by sex and half of the score; every cell holds someone."""
    return np.array([by(SEX, LABELS - values, (values >= 0.5) == upper) for upper in (False, True)])


@dataclass(frozen=True)
class Case:
    """A constraint, the number that it bounds, and its limit."""

    rule: Constraint
    number: Callable[[Values], float]
    limit: float
    at_least: bool = False
    excess: Callable[[Values], float] | None = None  # where it is not the number beyond the limit
    pooled: bool = True  # whether pooled group means can tell it
    dense: bool = False  # whether it weighs each row by itself

    def excess_of(self, values: Values) -> float:
        if self.excess is not None:
            return self.excess(values)
        return self.limit - self.number(values) if self.at_least else self.number(values) - self.limit


def errors(values: Values) -> Values:
    return by(SEX, np.abs(LABELS - values))


def custom(labels: Values) -> tuple[Values, Values]:
    return 0.3 * labels, 1.5 - labels


CASES = [
    Case(fl.DemographicParity("sex", 0.1), lambda v: spread(by(SEX, v)), 0.1),
    Case(fl.DemographicParity(("sex", "region"), 0.15), lambda v: spread(by(10 * SEX + REGION, v)), 0.15),
    Case(fl.EqualOpportunity("sex", 0.12), lambda v: spread(by(SEX, v, LABELS == 1)), 0.12),
    Case(fl.PredictiveEquality("sex", 0.12), lambda v: spread(by(SEX, v, LABELS == 0)), 0.12),
    Case(
        fl.EqualizedOdds("sex", 0.12),
        lambda v: largest([spread(by(SEX, v, label == LABELS)) for label in (0, 1)]),
        0.12,
    ),
    Case(
        fl.ConditionalParity("sex", given="region", tolerance=0.1),
        lambda v: largest([spread(by(SEX, v, r == REGION)) for r in range(3)]),
        0.1,
    ),
    Case(fl.MeanResidualParity("sex", 0.08), lambda v: largest(np.abs(by(SEX, LABELS - v))), 0.08),
    Case(fl.MeanResidualParity("sex", 0.08, between_groups=True), lambda v: spread(by(SEX, LABELS - v)), 0.08),
    Case(
        fl.DisparateImpactRatio("sex", ratio=0.8),
        lambda v: float(by(SEX, v).min() / by(SEX, v).max()),
        0.8,
        at_least=True,
        excess=lambda v: float(0.8 * by(SEX, v).max() - by(SEX, v).min()),
    ),
    Case(fl.ErrorRateParity("sex", 0.1), lambda v: spread(errors(v)), 0.1),
    Case(fl.BoundedGroupLoss("sex", cap=0.6), lambda v: largest(errors(v)), 0.6),
    Case(
        fl.BoundedGroupLoss("sex", cap=0.7, loss=custom),
        lambda v: largest(by(SEX, 0.3 * LABELS + (1.5 - LABELS) * v)),
        0.7,
        dense=True,
    ),
    Case(fl.MinimumRate("sex", floor=0.3), lambda v: float(by(SEX, v).min()), 0.3, at_least=True),
    Case(
        fl.GroupCalibration("sex", 0.2, bins=2),
        lambda v: float(np.abs(banded(v)).max()),
        0.2,
        pooled=False,
        dense=True,  # a projection's bins are those of the raw scores
    ),
    Case(
        fl.CovarianceBound("age", 0.05),
        lambda v: abs(float(np.mean((AGE - AGE.mean()) * v))),
        0.05,
        pooled=False,
        dense=True,
    ),
    Case(fl.Affine([[-2.0, 2.0]], upper=0.3, on="sex"), lambda v: 2 * float(by(SEX, v)[1] - by(SEX, v)[0]), 0.3),
    Case(
        fl.Affine(TOTAL, lower=0.2),
        lambda v: float(TOTAL[0] @ v),
        0.2,
        at_least=True,
        pooled=False,
        dense=True,
    ),
    Case(AtMost("sex", most=0.55), lambda v: largest(by(SEX, v)), 0.55),
    Case(Apart("sex", 0.1), lambda v: spread(by(SEX, v)), 0.1),
    Case(Within("region", 0.48), lambda v: float(by(REGION, v).min()), 0.48, at_least=True),
]
every = pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case.rule)[:60])
pooled = pytest.mark.parametrize("case", [c for c in CASES if c.pooled], ids=lambda case: repr(case.rule)[:60])
unweighed = pytest.mark.parametrize("case", [c for c in CASES if not c.dense], ids=lambda case: repr(case.rule)[:60])


def close(expected: float) -> Any:
    return pytest.approx(expected, abs=1e-9)


def columns(case: Case) -> dict[str, Values]:
    return {name: COLUMNS[name] for name in case.rule.features}


@every
def test_measure(case: Case) -> None:
    for scores in (SCORES, SCORES[:, None], torch.tensor(SCORES), torch.tensor(SCORES, requires_grad=True)):
        found = case.rule.measure(scores, sensitive_features=columns(case), y=LABELS)
        assert (found.value, found.limit, found.at_least) == (close(case.number(SCORES)), case.limit, case.at_least)
        assert found.excess == close(case.excess_of(SCORES))
    assert case.rule.limit in (None if case.rule.on == () else case.limit, case.limit)


@every
def test_tables(case: Case) -> None:
    found = measure(case.rule, Observed(columns(case) or COLUMNS, LABELS, SCORES), SCORES)
    assert (found.value, found.limit, found.at_least) == (close(case.number(SCORES)), case.limit, case.at_least)
    assert found.kept is (case.excess_of(SCORES) <= 1e-6)
    assert words.gap_text(found) == f"{case.number(SCORES):.3f}"
    assert words.limit_text(found) == f"at {'least' if case.at_least else 'most'} {case.limit:g}"


@every
def test_distillation(case: Case) -> None:
    batch = {"x": torch.tensor(SCORES)[:, None], "y": torch.tensor(LABELS), "sensitive_features": COLUMNS}
    [found] = remaining_gap(torch.nn.Identity(), [batch], [case.rule])
    assert found.scores == close(case.number(SCORES))
    assert found.violation == close(max(0.0, case.excess_of(SCORES)))
    assert found.measured.limit == case.limit
    if found.decisions is not None:
        assert found.decisions == close(case.number((SCORES >= 0.5).astype(float)))


@every
def test_penalties(case: Case) -> None:
    found = Excess(case.rule)(torch.tensor(SCORES), sensitive_features=columns(case), y=torch.tensor(LABELS))
    assert float(found.max()) == close(case.excess_of(SCORES))


@every
def test_metrics(case: Case) -> None:
    torchmetrics = pytest.importorskip("fairlayer.integrations.torchmetrics")
    metric = torchmetrics.ConstraintExcess(case.rule)
    for part in (slice(0, 40), slice(40, N)):
        groups = {name: column[part] for name, column in columns(case).items()}
        if case.rule.features or part.start == 0:
            metric.update(torch.tensor(SCORES[part]), torch.tensor(LABELS[part]), groups)
    if case.rule.features:  # rows about samples fix the batch
        assert float(metric.compute()) == close(case.excess_of(SCORES))
        assert metric.measured().value == close(case.number(SCORES))


@every
def test_the_reference_solver(case: Case) -> None:
    if case.dense or isinstance(case.rule, fl.Affine):
        return  # it judges such a row in units of the row's size
    batch = Batch(read_sensitive_features(columns(case)), N, LABELS, raw_scores=lambda: SCORES)
    found = max(_statement_violation(s, SCORES, float(s.tolerance)) for s in case.rule.statements(batch))
    assert found == close(case.excess_of(SCORES))


@unweighed
def test_streams(case: Case) -> None:
    stream = InferenceState([case.rule], bounds=(0.0, 1.0))
    features = columns(case)
    emitted = [
        stream.emit(
            torch.tensor(SCORES[part]),
            {name: column[part] for name, column in features.items()},
            y=torch.tensor(LABELS[part]) if case.rule.needs_labels else None,
        ).numpy()
        for part in (slice(0, 30), slice(30, N))
    ]
    expected = case.number(np.concatenate(emitted))
    assert stream.pooled_gap() == {case.rule.name: close(expected)}
    found = stream.measured()[case.rule.name]
    assert found is not None
    assert (found.limit, found.at_least) == (case.limit, case.at_least)


@every
def test_projections(case: Case) -> None:
    """What is returned meets the number's limit; a batch that meets it already is returned as it is."""
    given: Any = {"sensitive_features": columns(case), "y": LABELS, "bounds": (0.0, 1.0)}
    result = fl.project(SCORES, [case.rule], **given)
    value = result.value.numpy()
    assert (result.status == "unchanged") is (case.excess_of(SCORES) <= 0)
    assert result.certificate.holds
    if case.pooled or not isinstance(case.rule, fl.GroupCalibration):  # its bins are those of the raw scores
        assert case.excess_of(value) <= 1e-9
        assert case.excess_of(SCORES) <= 0 or case.excess_of(value) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("case", [c for c in CASES if c.rule.limit_argument], ids=lambda case: repr(case.rule)[:60])
def test_paths(case: Case) -> None:
    given: Any = {"sensitive_features": columns(case), "y": LABELS, "bounds": (0.0, 1.0)}
    path = fl.fairness_path(SCORES, [case.rule], [case.limit], **given)
    value = fl.project(SCORES, [case.rule], **given).value.numpy()
    raw_bins = isinstance(case.rule, fl.GroupCalibration)
    assert raw_bins or path.gaps[0, 0] == close(case.number(value))
    assert raw_bins or path.decision_gaps[0, 0] == close(case.number((value >= 0.5).astype(float)))


@pooled
def test_decisions(case: Case) -> None:
    result = decide(SCORES, [case.rule], sensitive_features=columns(case), y=LABELS)
    decisions = result.decisions.numpy().astype(float)
    assert result.gaps == {case.rule.name: close(case.number(decisions))}
    assert result.measured[case.rule.name].limit == case.limit
    assert result.measured[case.rule.name].excess == close(case.excess_of(decisions))


@unweighed
def test_chunks(case: Case) -> None:
    def chunks() -> Any:
        for part in (slice(0, 50), slice(50, N)):
            yield SCORES[part], {name: column[part] for name, column in columns(case).items()}, LABELS[part]

    table = project_chunks(chunks, [case.rule], bounds=(0.0, 1.0))
    values = np.concatenate(list(table.values()))
    assert table.measured[case.rule.name].value == close(case.number(values))
    assert table.measured[case.rule.name].limit == case.limit
    assert table.measured[case.rule.name].excess <= 1e-8


@pytest.mark.parametrize("case", [c for c in CASES if c.rule.features], ids=lambda case: repr(case.rule)[:60])
def test_models_fitted_by_a_solver(case: Case) -> None:
    sklearn = pytest.importorskip("fairlayer.integrations.sklearn")
    if isinstance(case.rule, fl.GroupCalibration):
        return  # refused: its bins would depend on the coefficients
    x = np.column_stack([SCORES, AGE, SEX])
    model = sklearn.FairRidge([case.rule]).fit(x, LABELS, sensitive_features=columns(case))
    assert model.gaps_[case.rule.name] == close(case.number(model.predict(x)))


def test_the_headline_of_several() -> None:
    found = [
        rule.measure(SCORES, sensitive_features=COLUMNS) for rule in (CASES[0].rule, CASES[1].rule, CASES[12].rule)
    ]
    assert headline(found) == close(max(CASES[0].number(SCORES), CASES[1].number(SCORES)))  # a floor is no gap
    assert headline(found[2:]) == close(CASES[12].number(SCORES))
    assert headline([]) is None
