"""Metrics: equal to Fairlearn's whatever the batches and ranks; what was not observed is said, bad input refused."""

from __future__ import annotations

import copy
import math
import pickle
import socket
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fairlayer as fl
from fairlayer.errors import (
    CategoryError,
    ConstraintDefinitionError,
    LabelValueError,
    MissingLabelsError,
    MissingSensitiveFeatureError,
    NonFiniteScoresError,
    ParameterError,
    ShapeError,
)
from fairlayer.training.gaps import measure
from fairlayer.training.observed import Observed
from tests.core import truth
from tests.core.problems import SOLO_KINDS, constraint, solo_problem

torchmetrics = pytest.importorskip("torchmetrics")

from fairlayer.integrations import torchmetrics as metrics  # noqa: E402

ALL = {
    "score_gap": metrics.ScoreGap,
    "parity_difference": metrics.DemographicParityDifference,
    "parity_ratio": metrics.DemographicParityRatio,
    "opportunity_difference": metrics.EqualOpportunityDifference,
    "opportunity_ratio": metrics.EqualOpportunityRatio,
    "predictive_difference": metrics.PredictiveEqualityDifference,
    "predictive_ratio": metrics.PredictiveEqualityRatio,
    "odds_difference": metrics.EqualizedOddsDifference,
    "odds_ratio": metrics.EqualizedOddsRatio,
}
ODDS = [metrics.EqualizedOddsDifference, metrics.EqualizedOddsRatio]


class Case(NamedTuple):
    scores: Tensor
    y: Tensor
    groups: Tensor
    k: int


def random_case(seed: int, *, both_labels: bool = False) -> Case:
    """A few rows of several groups; some absent, some without positives or negatives, some never selected."""
    random = np.random.default_rng(seed)
    n, k = int(random.integers(2, 60)), int(random.integers(2, 6))
    groups = random.integers(0, k, n) if random.random() < 0.7 else random.integers(0, max(2, k - 1), n)
    scores = np.round(random.random(n) ** random.choice([0.3, 1.0, 6.0]), 2)
    y = (random.random(n) < random.choice([0.1, 0.5, 0.9])).astype(int)
    if both_labels:  # append one row of either label to every group
        groups = np.concatenate([groups, np.repeat(np.arange(k), 2)])
        y = np.concatenate([y, np.tile([0, 1], k)])
        scores = np.concatenate([scores, np.round(random.random(2 * k), 2)])
    return Case(torch.tensor(scores), torch.tensor(y), torch.tensor(groups), k)


def values(case: Case, **options: Any) -> dict[str, float]:
    found = {}
    for name, kind in ALL.items():
        metric = kind(case.k, **options)
        metric.update(case.scores, case.y, case.groups)
        found[name] = float(metric.compute())
    return found


def same(one: float, two: float) -> bool:
    return (math.isnan(one) and math.isnan(two)) or abs(one - two) < 1e-12


# Fairlearn gives a group without positives the true positive rate 0, and likewise for negatives. So where every group
# has both labels its functions are the truth as they are; elsewhere its selection rates within one label are.


def compare_with_fairlearn(seed: int) -> None:
    fairlearn = pytest.importorskip("fairlearn.metrics")
    case = random_case(seed, both_labels=True)
    y, decided, sensitive = case.y.numpy(), (case.scores >= 0.5).int().numpy(), case.groups.numpy()
    arguments = {"y_true": y, "y_pred": decided, "sensitive_features": sensitive}
    ours = values(case)
    with np.errstate(invalid="ignore"):
        assert same(ours["parity_difference"], fairlearn.demographic_parity_difference(**arguments))
        assert same(ours["parity_ratio"], fairlearn.demographic_parity_ratio(**arguments))
        assert same(ours["opportunity_difference"], fairlearn.equal_opportunity_difference(**arguments))
        assert same(ours["opportunity_ratio"], fairlearn.equal_opportunity_ratio(**arguments))
        theirs = fairlearn.equalized_odds_ratio(**arguments)
    if not math.isnan(ours["odds_ratio"]):  # 0 / 0 in one label: Fairlearn's answer then depends on which comes first
        assert same(ours["odds_ratio"], theirs)
    for agg in ("worst_case", "mean"):
        metric = metrics.EqualizedOddsDifference(case.k, agg=agg)
        metric.update(decided, y, sensitive)
        assert same(float(metric.compute()), fairlearn.equalized_odds_difference(**arguments, agg=agg))
    ratio = metrics.EqualizedOddsRatio(case.k, agg="mean")
    ratio.update(decided, y, sensitive)
    with np.errstate(invalid="ignore"):
        rates = [ours["opportunity_ratio"], ours["predictive_ratio"]]
        if not any(map(math.isnan, rates)):
            assert same(float(ratio.compute()), fairlearn.equalized_odds_ratio(**arguments, agg="mean"))


def compare_within_labels(seed: int) -> None:
    fairlearn = pytest.importorskip("fairlearn.metrics")
    case = random_case(seed)
    y, decided, sensitive = case.y.numpy(), (case.scores >= 0.5).int().numpy(), case.groups.numpy()
    ours = values(case)

    def theirs(rows: np.ndarray, what: str) -> float:
        if len(np.unique(sensitive[rows])) < 2:
            return math.nan  # nothing is compared; Fairlearn says 0, or 1 for a ratio
        function = getattr(fairlearn, f"demographic_parity_{what}")
        return float(function(y[rows], decided[rows], sensitive_features=sensitive[rows]))

    everyone = np.ones(len(y), dtype=bool)
    for what, worst in (("difference", np.max), ("ratio", np.min)):
        with np.errstate(invalid="ignore"):
            overall, of_positives, of_negatives = (theirs(rows, what) for rows in (everyone, y == 1, y == 0))
        assert same(ours[f"parity_{what}"], overall)
        assert same(ours[f"opportunity_{what}"], of_positives)
        assert same(ours[f"predictive_{what}"], of_negatives)
        assert same(ours[f"odds_{what}"], float(worst([of_positives, of_negatives])))  # NaN if either is
    means = [case.scores[case.groups == g].mean() for g in range(case.k) if bool((case.groups == g).any())]
    assert same(ours["score_gap"], float(max(means) - min(means)) if len(means) > 1 else math.nan)


@pytest.mark.parametrize("compare", [compare_with_fairlearn, compare_within_labels])
def test_equal_to_fairlearn(compare: Any) -> None:
    for seed in range(10):
        compare(seed)


@pytest.mark.slow
@pytest.mark.rival
@pytest.mark.parametrize(("compare", "cases"), [(compare_with_fairlearn, 250), (compare_within_labels, 1000)])
def test_equal_to_fairlearn_in_a_thousand_cases(compare: Any, cases: int) -> None:
    for seed in range(cases):
        compare(seed + 10_000)


# Batches and ranks


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), data=st.data())
def test_any_split_gives_the_same_number(seed: int, data: st.DataObject) -> None:
    case = random_case(seed)
    n = len(case.y)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
    parts = [slice(a, b) for a, b in pairwise([0, *cuts, n])]  # some empty
    for name, expected in values(case).items():
        batches = ALL[name](case.k)
        ranks = []
        for part in parts:
            batch = case.scores[part], case.y[part], case.groups[part]
            batches.update(*batch)
            ranks.append(ALL[name](case.k))
            ranks[-1].update(*batch)
        for other in ranks[1:]:
            ranks[0].merge_state(other)
        assert same(float(batches.compute()), expected)
        assert same(float(ranks[0].compute()), expected)
        assert torch.allclose(ranks[0].table, batches.table, rtol=1e-14, atol=0)


def test_forward_returns_the_batch_and_pools_the_rest() -> None:
    metric = metrics.DemographicParityDifference(2)
    first = metric(torch.tensor([0.9, 0.1]), None, torch.tensor([0, 1]))
    second = metric(torch.tensor([0.9, 0.9]), None, torch.tensor([0, 1]))
    assert (float(first), float(second), float(metric.compute())) == (1.0, 0.0, 0.5)
    metric.reset()
    metric.update(torch.tensor([0.9, 0.9]), None, torch.tensor([0, 1]))
    assert float(metric.compute()) == 0.0


def test_in_a_collection_the_table_is_made_once() -> None:
    collection = torchmetrics.MetricCollection({name: kind(3) for name, kind in ALL.items()})
    case = random_case(7)._replace(k=3)
    groups = case.groups % 3
    for rows in (slice(0, 5), slice(5, None)):
        collection.update(case.scores[rows], case.y[rows], groups[rows])
    assert len(collection.compute_groups) == 1
    expected = values(case._replace(groups=groups))
    assert all(same(float(value), expected[name]) for name, value in collection.compute().items())


def on_one_rank(rank: int, folder: str, port: int) -> None:
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    case, found = random_case(3), {}
    parity = fl.EqualizedOdds("group", tolerance=0.0)
    for name, kind in [*ALL.items(), ("constraint", lambda k: metrics.ConstraintExcess(parity))]:
        for share in ("uneven", "empty"):
            metric = kind(case.k)
            cut = 5 if share == "uneven" else 0
            rows = slice(0, cut) if rank == 0 else slice(cut, None)
            if share == "uneven" or rank == 1:
                metric.update(case.scores[rows], case.y[rows], case.groups[rows])
            found[name, share] = float(metric.compute())
            if name == "score_gap":
                found["rows", share] = sum(row.count for row in metric.by_group())
                found["again", share] = metric.table.sum().item()  # the state of this rank alone is back
    torch.save(found, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(on_one_rank, (str(tmp_path), port), nprocs=2)
    case = random_case(3)
    expected = values(case)
    whole = metrics.ConstraintExcess(fl.EqualizedOdds("group", tolerance=0.0))
    whole.update(case.scores, case.y, case.groups)
    expected["constraint"] = float(whole.compute())
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, value in expected.items():
            assert same(found[name, "uneven"], value)
            assert same(found[name, "empty"], value)
        assert found["rows", "uneven"] == found["rows", "empty"] == len(case.y)


# Groups


def test_absent_groups_are_not_observed() -> None:
    metric = metrics.EqualizedOddsDifference(["A", "B", "C", "D"])
    metric.update(torch.tensor([0.9, 0.1, 0.9, 0.8, 0.2]), torch.tensor([1, 0, 1, 0, 0]), ["A", "A", "C", "C", "D"])
    a, b, c, d = metric.by_group()
    assert metric.not_observed() == ("B",)
    assert (b.name, b.count, b.positives) == ("B", 0, 0)
    assert all(map(math.isnan, (b.mean_score, b.selection_rate, b.true_positive_rate, b.false_positive_rate)))
    assert (a.count, a.true_positive_rate, a.false_positive_rate) == (2, 1.0, 0.0)
    assert (c.count, c.true_positive_rate, c.false_positive_rate) == (2, 1.0, 1.0)
    assert (d.count, d.positives, d.negatives, d.false_positive_rate) == (1, 0, 1, 0.0)
    assert math.isnan(d.true_positive_rate)
    assert float(metric.compute()) == 1.0


def test_fewer_than_two_groups_compare_nothing() -> None:
    for kind in ALL.values():
        metric = kind(3)
        metric.update(torch.tensor([0.9, 0.1]), torch.tensor([1, 0]), torch.tensor([1, 1]))
        assert math.isnan(float(metric.compute()))
        metric.update(torch.zeros(0), torch.zeros(0), torch.zeros(0, dtype=torch.long))
        assert math.isnan(float(metric.compute()))


@pytest.mark.parametrize("kind", ODDS)
@pytest.mark.parametrize("agg", ["worst_case", "mean"])
def test_odds_need_both_labels(kind: Any, agg: str) -> None:
    metric = kind(2, agg=agg)
    metric.update(torch.tensor([0.9, 0.1]), torch.tensor([1, 1]), torch.tensor([0, 1]))
    assert math.isnan(float(metric.compute()))


@pytest.mark.parametrize(
    "groups",
    [
        torch.tensor([0, 0, 1, -1]),
        torch.tensor([0, 0, 1, -1], dtype=torch.int8),
        torch.tensor([[0], [0], [1], [-1]]),
        np.array(["F", "F", "M", None], dtype=object),
        ["F", "F", "M", None],
        {"sex": ["F", "F", "M", None]},
        torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [math.nan, math.nan]]),
    ],
)
def test_forms_of_groups(groups: Any) -> None:
    metric = metrics.ScoreGap(["F", "M"])
    metric.update(torch.tensor([[0.2], [0.4], [0.9], [0.5]]), None, groups)
    assert float(metric.compute()) == pytest.approx(0.6)
    assert [row.count for row in metric.by_group()] == [2, 1]


def test_integer_categories_are_looked_up() -> None:
    metric = metrics.ScoreGap([3, 7])
    metric.update(torch.tensor([0.1, 0.4]), None, torch.tensor([7, 3]))
    assert [row.mean_score for row in metric.by_group()] == pytest.approx([0.4, 0.1])


def test_soft_membership_weighs() -> None:
    soft = torch.softmax(torch.randn(50, 3, dtype=torch.float64), dim=1)
    scores = torch.rand(50)
    metric = metrics.ScoreGap(3)
    metric.update(scores[:20], None, soft[:20])
    metric.update(scores[20:], None, soft[20:])
    means = (soft.T @ scores.double()) / soft.sum(0)
    assert float(metric.compute()) == pytest.approx(float(means.max() - means.min()))


@pytest.mark.parametrize("as_codes", [True, False])
def test_intersections(as_codes: bool) -> None:
    sex, race = torch.tensor([0, 1, 1, 0, -1]), torch.tensor([2, 0, 0, 1, 1])
    groups: Any = torch.stack([sex, race], dim=1)
    if not as_codes:
        groups = {
            "race": [["A", "B", "C"][r] for r in race],
            "sex": [["F", "M"][s] if s >= 0 else None for s in sex],
        }
    metric = metrics.ScoreGap({"sex": ["F", "M"], "race": ["A", "B", "C"]})
    metric.update(torch.tensor([0.1, 0.2, 0.4, 0.5, 0.9]), None, groups)
    rows = {row.name: row for row in metric.by_group()}
    assert set(metric.not_observed()) == {"sex=F & race=A", "sex=M & race=B", "sex=M & race=C"}
    assert rows["sex=M & race=A"].count == 2
    assert float(metric.compute()) == pytest.approx(0.4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_precisions_and_gradients(dtype: torch.dtype) -> None:
    scores = torch.tensor([0.25, 0.75, 0.5], dtype=dtype, requires_grad=True)
    metric = metrics.ScoreGap(2)
    metric.update(scores, None, torch.tensor([0, 0, 1]))
    assert float(metric.compute()) == 0.0
    assert not metric.compute().requires_grad
    assert metric.compute().dtype == torch.float64


def test_many_rows_lose_no_count() -> None:
    metric = metrics.ScoreGap(2)
    scores = torch.full((1_000_000,), 0.1)
    for _ in range(3):
        metric.update(scores, None, torch.arange(1_000_000) % 2)
    assert [row.count for row in metric.by_group()] == [1_500_000, 1_500_000]
    assert metric.by_group()[0].mean_score == pytest.approx(float(scores[0].double()), abs=1e-12)


def test_copies_and_pickles() -> None:
    metric = metrics.EqualizedOddsRatio(["F", "M"], agg="mean")
    metric.update(torch.tensor([0.9, 0.6, 0.1, 0.7]), torch.tensor([1, 0, 1, 0]), ["F", "F", "M", "M"])
    expected = metric.by_group()
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert other.by_group() == expected


# What is refused, and that it changes nothing


def test_refused() -> None:
    metric = metrics.EqualOpportunityDifference(["F", "M"])
    scores, y, groups = torch.tensor([0.9, 0.1]), torch.tensor([1, 1]), torch.tensor([0, 1])
    metric.update(scores, y, groups)
    with pytest.raises(MissingLabelsError, match="target is None"):
        metric.update(scores, None, groups)
    with pytest.raises(LabelValueError, match="target holds 2 other values"):
        metric.update(scores, torch.tensor([2, -1]), groups)
    with pytest.raises(NonFiniteScoresError, match="given 1 predictions that are NaN"):
        metric.update(torch.tensor([0.5, math.nan]), y, groups)
    with pytest.raises(NonFiniteScoresError, match="integers other than 0 and 1"):
        metric.update(torch.tensor([0, 2]), y, groups)
    for codes in (torch.tensor([0, 2]), torch.tensor([-2, 0])):
        with pytest.raises(CategoryError, match=r"compares 2 groups, \['F', 'M'\].*0 to 1.*1 codes do not"):
            metric.update(scores, y, codes)
    with pytest.raises(CategoryError, match="'X'"):
        metric.update(scores, y, ["F", "X"])
    with pytest.raises(ShapeError, match=r"2 predictions, but target has shape \(3,\)"):
        metric.update(scores, torch.ones(3), groups)
    with pytest.raises(ShapeError, match=r"'group'.*has shape \(2, 3\)"):
        metric.update(scores, y, torch.zeros(2, 3, dtype=torch.long))
    with pytest.raises(ShapeError, match=r"groups has shape \(1,\)"):
        metric.update(scores, y, torch.tensor([0]))
    with pytest.raises(ShapeError, match=r"preds\[:, c\]"):
        metric.update(torch.rand(2, 3), y, groups)
    assert float(metric.compute()) == 1.0
    assert [row.count for row in metric.by_group()] == [1, 1]


def test_what_an_accelerator_counted_is_refused_at_the_end() -> None:
    metric = metrics.ScoreGap(2)
    metric.update(torch.tensor([0.9, 0.1]), torch.tensor([1, 1]), torch.tensor([0, 1]))
    metric.unfit = metric.unfit + torch.tensor([0, 0, 5, 0])
    with pytest.raises(CategoryError, match="5 codes do not"):
        metric.compute()


@pytest.mark.gpu
def test_on_cuda_without_waiting() -> None:
    case = random_case(5)
    metric = metrics.EqualizedOddsDifference(case.k).cuda()
    batch = [each.cuda() for each in case[:3]]
    torch.cuda.set_sync_debug_mode("error")
    try:
        metric.update(*batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert same(float(metric.compute()), values(case)["odds_difference"])
    metric.update(batch[0], batch[1], batch[2] + 100)
    with pytest.raises(CategoryError, match="codes do not"):
        metric.compute()


def test_unlabelled_rows_count_in_no_rate_within_a_label() -> None:
    metric = metrics.EqualOpportunityDifference(2)
    metric.update(torch.tensor([0.9, 0.1, 0.9]), torch.tensor([1.0, 1.0, math.nan]), torch.tensor([0, 1, 1]))
    assert float(metric.compute()) == 1.0
    assert [(row.count, row.positives) for row in metric.by_group()] == [(1, 1), (2, 1)]


def test_definitions() -> None:
    for categories in (1, 0, ["F"], ["F", "F"], {}):
        with pytest.raises(ConstraintDefinitionError, match="at least two groups"):
            metrics.ScoreGap(categories)
    with pytest.raises(ConstraintDefinitionError, match="'worst_case' or 'mean'"):
        metrics.EqualizedOddsDifference(2, agg="max")
    for threshold in (math.inf, math.nan):
        with pytest.raises(ConstraintDefinitionError, match="must be finite"):
            metrics.ScoreGap(2, threshold=threshold)


@pytest.mark.parametrize("threshold", [0.0, -1.0])
def test_logits_are_decided_at_zero_or_below(threshold: float) -> None:
    metric = metrics.DemographicParityDifference(2, threshold=threshold)
    metric.update(torch.tensor([-2.0, 0.0, -0.5, 3.0]), None, torch.tensor([0, 0, 1, 1]))
    assert float(metric.compute()) == (0.0 if threshold == 0.0 else 0.5)


def test_a_collection_is_called_with_groups_as_the_third() -> None:
    classification = pytest.importorskip("torchmetrics.classification")
    preds, target, groups = torch.tensor([0.2, 0.9, 0.4]), torch.tensor([0, 1, 1]), torch.tensor([0, 1, 1])
    both = metrics.GroupMetricCollection({"acc": classification.BinaryAccuracy(), "gap": metrics.ScoreGap(2)})
    both.update(preds, target, groups)
    both(preds, target, groups, torch.tensor([1.0, 0.0, 1.0]))
    found = both.compute()
    assert float(found["acc"]) == pytest.approx(2 / 3)
    assert float(found["gap"]) == pytest.approx((0.9 + 0.4 + 0.4) / 3 - 0.2)


# Any constraint


@pytest.mark.parametrize("kind", [kind for kind in SOLO_KINDS if kind != "AffineSamples"])
@pytest.mark.parametrize("seed", range(6))
def test_constraint_excess_is_the_violation_of_the_formula(kind: str, seed: int) -> None:
    problem = solo_problem(kind, seed)
    rule = problem.rules[0]
    if any(np.ndim(column) == 2 for column in problem.features.values()):
        pytest.skip("soft groups")
    metric = metrics.ConstraintExcess(constraint(rule))
    cut = problem.n // 3
    for rows in (slice(0, cut), slice(cut, None)):
        labels = None if problem.labels is None else torch.tensor(problem.labels[rows])
        features = {name: column[rows] for name, column in problem.features.items()}
        if metric.constraint.needs_labels and labels is None:
            pytest.skip("label estimates")
        metric.update(torch.tensor(problem.scores[rows]), labels, features)
    violation = truth.violation(problem, rule, problem.scores)
    found = float(metric.compute())
    if math.isnan(found):  # nothing is compared
        assert violation <= 0.0
    else:
        assert found == pytest.approx(violation, abs=1e-9 * problem.size)


@pytest.mark.parametrize("kind", [fl.DemographicParity, fl.EqualizedOdds, fl.DisparateImpactRatio])
@pytest.mark.parametrize("seed", range(5))
def test_one_definition_with_training_and_the_group_metrics(kind: Any, seed: int) -> None:
    case = random_case(seed)
    stated = kind("g", 0.0 if kind is not fl.DisparateImpactRatio else 0.8)
    decided = (case.scores >= 0.5).double().numpy()
    excess = metrics.ConstraintExcess(stated, threshold=0.5)
    excess.update(case.scores, case.y, case.groups)
    gap = measure(stated, Observed({"g": case.groups.numpy()}, case.y.numpy()), decided)
    found = float(excess.compute())
    if kind is fl.DisparateImpactRatio:  # 0.8 max - min <= 0 says the same as min / max >= 0.8
        assert gap.value is None or (found <= 1e-6) == gap.kept
        return
    assert same(found, math.nan if gap.value is None else gap.value)
    rate = values(case)["parity_difference" if kind is fl.DemographicParity else "odds_difference"]
    assert math.isnan(rate) or same(found, rate)


def test_constraint_excess_of_names_numbers_and_decisions() -> None:
    scores, names = torch.tensor([0.2, 0.6, 0.9]), ["F", "F", "M"]
    decided = metrics.ConstraintExcess(fl.DemographicParity("sex", 0.1), {"sex": ["F", "M"]}, threshold=0.5)
    decided.update(scores, None, {"sex": names})
    assert float(decided.compute()) == pytest.approx(0.5 - 0.1)
    age = np.array([20.5, 30.0, 61.0])
    covariance = metrics.ConstraintExcess(fl.CovarianceBound("age", tolerance=0.1))
    covariance.update(scores, None, age)
    assert float(covariance.compute()) == pytest.approx(abs(np.cov(age, scores, bias=True)[0, 1]) - 0.1)


def test_constraint_excess_with_nothing_to_compare() -> None:
    metric = metrics.ConstraintExcess(fl.DemographicParity("sex", 0.1))
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert math.isnan(float(metric.compute()))
    metric = metrics.ConstraintExcess(fl.DemographicParity("sex", 0.1))
    metric.update(torch.tensor([0.2, 0.4]), None, torch.tensor([1, 1]))
    assert math.isnan(float(metric.compute()))


def test_constraint_excess_refuses() -> None:
    metric = metrics.ConstraintExcess(fl.EqualOpportunity("sex", 0.1))
    scores, y = torch.tensor([0.2, 0.4]), torch.tensor([1, 1])
    with pytest.raises(MissingLabelsError, match="target is None"):
        metric.update(scores, None, torch.tensor([0, 1]))
    with pytest.raises(CategoryError, match=r"holds names.*categories=\{'sex'"):
        metric.update(scores, y, ["F", "M"])
    with pytest.raises(CategoryError, match="soft membership"):
        metric.update(scores, y, torch.full((2, 2), 0.5))
    with pytest.raises(MissingSensitiveFeatureError, match="'sex'"):
        metric.update(scores, y, {"race": [0, 1]})
    with pytest.raises(ShapeError, match=r"2 predictions, but 'target' has shape \(3,\)"):
        metric.update(scores, torch.ones(3), torch.tensor([0, 1]))
    with pytest.raises(NonFiniteScoresError, match="1 predictions are NaN"):
        metric.update(torch.tensor([0.2, math.inf]), y, torch.tensor([0, 1]))
    assert metric.scores == []


def test_a_collection_never_takes_one_metric_for_another() -> None:
    names, codes = ["F", "F", "M", "M"], torch.tensor([0, 0, 1, 1])
    first, second = torch.tensor([0.1, 0.9, 0.1, 0.9]), torch.tensor([0.55, 0.55, 0.1, 0.9])
    both = torchmetrics.MetricCollection(
        {
            "middle": metrics.DemographicParityDifference(["F", "M"]),
            "higher": metrics.DemographicParityDifference(["F", "M"], threshold=0.6),
            "turned": metrics.DemographicParityDifference(["M", "F"]),
            "same": metrics.DemographicParityRatio(["F", "M"]),
        }
    )
    for scores in (first, second):  # after the first batch, the tables of all four are equal
        both.update(scores, None, names)
    assert {name: float(value) for name, value in both.compute().items()} == {
        "middle": 0.25,
        "higher": 0.25,
        "turned": 0.25,
        "same": pytest.approx(2 / 3),
    }
    rates = {name: {row.name: row.selection_rate for row in metric.by_group()} for name, metric in both.items()}
    assert rates["middle"] == rates["turned"] == rates["same"] == {"F": 0.75, "M": 0.5}
    assert rates["higher"] == {"F": 0.25, "M": 0.5}
    assert ["middle", "same"] in [sorted(group) for group in both.compute_groups.values()]  # still shared
    excess = torchmetrics.MetricCollection(
        {name: metrics.ConstraintExcess(fl.DemographicParity(name, tolerance=0.0)) for name in ("sex", "race")}
    )
    for race in (codes, torch.tensor([0, 1, 0, 1])):
        excess.update(second, None, {"sex": codes, "race": race})
    alone = metrics.ConstraintExcess(fl.DemographicParity("race", tolerance=0.0))
    for race in (codes, torch.tensor([0, 1, 0, 1])):
        alone.update(second, None, {"race": race})
    assert excess.compute()["race"] == alone.compute() != excess.compute()["sex"]


@pytest.mark.parametrize("other", [metrics.ScoreGap(["M", "F"]), metrics.ScoreGap(["F", "M"], threshold=0.6)])
def test_states_of_different_metrics_are_not_merged(other: Any) -> None:
    metric = metrics.ScoreGap(["F", "M"])
    for each in (metric, other):
        each.update(torch.tensor([0.1, 0.9]), None, ["F", "M"])
    with pytest.raises(ConstraintDefinitionError, match="categories in the same order"):
        metric.merge_state(other)


def test_metrics_are_plotted() -> None:
    pytest.importorskip("matplotlib")
    excess = metrics.ConstraintExcess(fl.DemographicParity("sex", tolerance=0.1))
    for metric in (metrics.ScoreGap(2), excess):
        metric.update(torch.tensor([0.2, 0.6]), None, torch.tensor([0, 1]))
        _, axes = metric.plot()
        [line] = axes.get_lines()
        assert line.get_ydata()[0] == pytest.approx(float(metric.compute()))


RATES = {name: getattr(metrics, name) for name in metrics.__all__ if name.endswith(("Difference", "Ratio", "ScoreGap"))}


@pytest.mark.parametrize("name", sorted(RATES))
@pytest.mark.parametrize("soft", [False, True])
def test_weights_are_repeated_rows(name: str, soft: bool) -> None:
    random = np.random.default_rng(11)
    n, weights = 120, random.integers(0, 4, 120)
    scores, labels = torch.tensor(random.random(n)), torch.tensor(random.integers(0, 2, n))
    member = torch.tensor(random.dirichlet(np.ones(3), n))
    groups = member if soft else member.argmax(dim=1)
    again = torch.tensor(np.repeat(np.arange(n), weights))
    weighed, repeated = RATES[name](3), RATES[name](3)
    for part in (slice(0, 50), slice(50, n)):
        weighed.update(scores[part], labels[part], groups[part], sample_weight=torch.tensor(weights[part]))
    repeated.update(scores[again], labels[again], groups[again])
    assert float(weighed.compute()) == pytest.approx(float(repeated.compute()), abs=1e-12)
    assert [row.count for row in weighed.by_group()] == pytest.approx([row.count for row in repeated.by_group()])


def test_weights_are_repeated_rows_for_a_constraint() -> None:
    random = np.random.default_rng(12)
    n, weights = 80, random.integers(0, 4, 80)
    scores, labels, sex = random.random(n), random.integers(0, 2, n), random.integers(0, 2, n)
    again = np.repeat(np.arange(n), weights)
    weighed, repeated = (metrics.ConstraintExcess(fl.EqualizedOdds("sex", tolerance=0.05)) for _ in range(2))
    weighed.update(scores, labels, sex, sample_weight=weights)
    repeated.update(scores[again], labels[again], sex[again])
    assert float(weighed.compute()) == pytest.approx(float(repeated.compute()), abs=1e-12)
    assert weighed.measured().value == pytest.approx(float(weighed.compute()) + 0.05, abs=1e-12)


@pytest.mark.parametrize("metric", [metrics.ScoreGap(2), metrics.ConstraintExcess(fl.DemographicParity("sex", 0.1))])
@pytest.mark.parametrize("weights", [[1.0, -1.0], [1.0, float("nan")], [float("inf"), 1.0]])
def test_weights_that_are_none_are_refused(metric: Any, weights: list[float]) -> None:
    with pytest.raises(ParameterError, match=r"sample_weight .* 1 weights are negative, infinite or NaN"):
        metric.update(torch.tensor([0.1, 0.9]), None, torch.tensor([0, 1]), sample_weight=weights)
    with pytest.raises(ShapeError, match=r"sample_weight'? has shape"):
        metric.update(torch.tensor([0.1, 0.9]), None, torch.tensor([0, 1]), sample_weight=[1.0])
