"""What holds for every decision: order within a cell, the capacity, the gap, the lots."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fairlayer as fl
from fairlayer.decisions import Decisions, decide
from fairlayer.decisions.lottery import FIXED, draw_decisions, whole_counts
from tests.core.truth import violation
from tests.decisions.truth import DecisionProblem, asked, inequalities

SEEDS = st.integers(0, 10**6)


def decided(question: DecisionProblem, **more: object) -> Decisions | None:
    """The decisions, None where there can be none."""
    try:
        return decide(**question.arguments(), **more)
    except fl.errors.InfeasibleConstraintsError:
        return None


def check(question: DecisionProblem, result: Decisions) -> None:
    """Order within each cell, the capacity, and the limits widened by one sample per cell."""
    d = result.decisions.numpy()
    for members in question.cells():
        scores, granted = question.problem.scores[members], d[members] == 1
        if granted.any() and not granted.all():
            assert scores[granted].min() >= scores[~granted].max()
    rows, limits = inequalities(question, one_each=True)  # the capacity is the last row, and is not widened
    assert (rows @ d <= limits + 1e-9).all()


@settings(max_examples=100)
@given(SEEDS)
def test_order_capacity_and_gap_hold_whatever_the_scores(seed: int) -> None:
    question = asked(seed, labelled=False)  # with ties
    result = decided(question)
    if result is not None:
        check(question, result)


@settings(max_examples=60)
@given(SEEDS)
def test_with_constraints_on_labels_they_hold_for_distinct_scores(seed: int) -> None:
    question = asked(seed, distinct=True)
    result = decided(question)
    if result is not None:
        check(question, result)


@pytest.mark.slow
@pytest.mark.parametrize("labelled", [False, True])
def test_order_capacity_and_gap_hold_many_times(labelled: bool) -> None:
    for seed in range(200):
        question = asked(seed, labelled=labelled, distinct=labelled, most=400)
        result = decided(question)
        if result is not None:
            check(question, result)


@settings(max_examples=100)
@given(SEEDS, st.booleans(), st.integers(0, 99))
def test_the_capacity_is_never_exceeded(seed: int, randomised: bool, draw: int) -> None:
    question = asked(seed)
    result = decided(question, randomised=randomised, seed=draw)
    if result is not None and question.capacity is not None:
        assert int(result.decisions.sum()) <= question.capacity


@settings(max_examples=100)
@given(SEEDS, st.integers(2, 6), st.sampled_from([0.0, 0.01, 0.1]), st.booleans(), st.booleans())
def test_the_gap_of_rates_is_within_one_of_the_smallest_group(
    seed: int, groups: int, tolerance: float, labelled: bool, limited: bool
) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.choice([30, 900]))
    group = np.append(np.arange(groups), rng.choice(groups, n - groups, p=rng.dirichlet(np.full(groups, 3.0))))
    scores = rng.random(n) ** rng.choice([0.5, 1.0, 2.0])
    result = decide(
        scores,
        [fl.DemographicParity("a", tolerance)],
        sensitive_features={"a": group},
        y=(rng.random(n) < scores).astype(int) if labelled else None,
        capacity=int(rng.integers(0, n)) if limited else None,
    )
    rates = result.rates.values()
    assert max(rates) - min(rates) <= tolerance + 1.0 / min(result.counts.values()) + 1e-9


def test_one_group_is_not_rounded_up_while_another_is_rounded_down() -> None:
    rng = np.random.default_rng(33)
    group = np.repeat(np.arange(3), rng.integers(200, 400, 3))
    scores = rng.random(len(group)) ** 0.5
    rates = decide(scores, [fl.DemographicParity("a", 0.01)], sensitive_features={"a": group}).rates.values()
    assert max(rates) - min(rates) <= 0.01 + 1.0 / np.bincount(group).min()


@settings(max_examples=60)
@given(SEEDS)
def test_the_gaps_and_their_rounding_are_as_stated(seed: int) -> None:
    question = asked(seed)
    result = decided(question)
    if result is None:
        return
    d = result.decisions.numpy().astype(float)
    rules = zip(question.problem.rules, question.problem.constraints(), result.gaps.values(), strict=True)
    for rule, constraint, gap in rules:
        broken = violation(question.problem, rule, d)
        tolerance = getattr(constraint, "tolerance", getattr(constraint, "cap", None))
        if gap is not None and tolerance is not None:
            assert gap - tolerance == pytest.approx(broken, abs=1e-9)


@settings(max_examples=60)
@given(SEEDS, st.integers(0, 9))
def test_each_cell_gets_its_share_of_yeses_within_one(seed: int, draw: int) -> None:
    question = asked(seed)
    result = decided(question, randomised=True, seed=draw)
    if result is None:
        return
    p, d = result.probabilities.numpy(), result.decisions.numpy()
    for members in question.cells():
        assert abs(d[members].sum() - p[members].sum()) < 1.0
        assert (np.diff(p[members]) <= 1e-12).all()  # higher scores are at least as likely to be granted
    assert ((p > 0) | (d == 0)).all()
    assert ((p < 1) | (d == 1)).all()


def test_every_sample_is_drawn_with_its_own_probability() -> None:
    rng = np.random.default_rng(0)
    p, cell, scores = rng.random(40), rng.integers(0, 4, 40), rng.random(40)
    offsets = (np.arange(20_000) + 0.5) / 20_000
    drawn = np.mean([draw_decisions(p, cell, scores, offset) for offset in offsets], axis=0)
    assert np.abs(drawn - p).max() < 2e-4


@given(st.lists(st.floats(0, 20), min_size=1, max_size=12))
def test_whole_counts_are_near_and_never_too_many(counts: list[float]) -> None:
    whole = whole_counts(np.array(counts))
    assert (whole >= 0).all()
    assert (np.abs(whole - counts) < 1.0 + 1e-6).all()
    assert whole.sum() <= np.ceil(sum(counts) - 1e-6)


def test_whole_counts_stay_as_they_are() -> None:
    assert whole_counts(np.array([3.0, 0.0, 7.0 - 1e-12])).tolist() == [3, 0, 7]


def test_ties_are_taken_evenly_in_their_order() -> None:
    p = np.full(8, 0.25)
    drawn = draw_decisions(p, np.zeros(8, dtype=np.int64), np.zeros(8), FIXED)
    assert drawn.tolist() == [0, 1, 0, 0, 0, 1, 0, 0]


@settings(max_examples=20)
@given(SEEDS)
def test_the_order_of_samples_and_the_names_of_groups_do_not_matter(seed: int) -> None:
    question = asked(seed, distinct=True, labelled=False)
    result = decided(question)
    if result is None:
        return
    order = np.random.default_rng(seed).permutation(question.problem.n)
    moved = decided(DecisionProblem(question.problem.take(order), question.capacity))
    assert moved is not None
    assert moved.utility_bound == pytest.approx(result.utility_bound, abs=1e-9)
    assert moved.expected_utility == pytest.approx(result.expected_utility, abs=1.0 * len(result.counts) / len(order))


def test_parity_of_scores_is_not_parity_of_decisions() -> None:
    rng = np.random.default_rng(1)
    group = np.repeat([0, 1], 500)
    scores = np.where(group == 0, 0.4 + 0.02 * rng.random(1000), rng.random(1000) * 0.82)
    parity = fl.DemographicParity("g", 0.02)
    at_half = (scores > 0.5).astype(float)
    assert abs(scores[group == 0].mean() - scores[group == 1].mean()) < 0.02
    assert at_half[group == 1].mean() - at_half[group == 0].mean() > 0.3
    result = decide(scores, [parity], sensitive_features={"g": group})
    assert result.gaps[parity.name] <= 0.02 + result.rounding[parity.name]
    assert result.rounding[parity.name] == pytest.approx(2 / 500)


@pytest.mark.parametrize("seed", range(20))
def test_each_cell_and_each_band_of_scores_gets_its_share_within_one(seed: int) -> None:
    random = np.random.default_rng(seed)
    p, cell, scores = random.random(200), random.integers(0, 4, 200), random.permutation(200) / 200.0
    d = draw_decisions(p, cell, scores, random.random())
    for k in range(4):
        order = np.flatnonzero(cell == k)[np.argsort(-scores[cell == k])]
        for first in range(0, len(order), 7):
            for last in range(first + 1, len(order) + 1, 5):
                band = order[first:last]
                assert abs(d[band].sum() - p[band].sum()) < 1.0


def test_equal_probabilities_go_to_the_higher_scores_first() -> None:
    """With the offset of no lots, the first of two halves is the higher score, wherever it stands in the batch."""
    assert draw_decisions(np.array([0.5, 0.5]), np.zeros(2, int), np.array([0.2, 0.9]), FIXED).tolist() == [0, 1]
    assert draw_decisions(np.array([0.5, 0.5]), np.zeros(2, int), np.array([0.9, 0.2]), FIXED).tolist() == [1, 0]
