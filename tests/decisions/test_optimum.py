"""The expected utility is the best there is: against a linear-programming solver, brute force, and known answers."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st

import fairlayer as fl
from fairlayer.decisions import NeedsRandomisationError, decide
from fairlayer.decisions.plan import make_plan
from fairlayer.decisions.search import Search, excess_of
from fairlayer.errors import FairlayerWarning, InfeasibleConstraintsError
from fairlayer.solve import RowSlabs, SpreadSlabs
from tests.core.problems import Problem, Rule
from tests.core.truth import violation
from tests.decisions.truth import DecisionProblem, asked, best_lottery, whole_answers

SEEDS = st.integers(0, 10**6)


def check_lottery(seed: int, most: int = 60) -> None:
    question = asked(seed, most=most)
    best = best_lottery(question)
    if best is None:
        with pytest.raises(fl.errors.InfeasibleConstraintsError):
            decide(**question.arguments(), randomised=True)
        return
    result = decide(**question.arguments(), randomised=True)
    assert result.utility_bound == pytest.approx(best, abs=1e-8)
    p = result.probabilities.numpy()
    assert np.mean(1 - question.p) + question.gain @ p == pytest.approx(best, abs=1e-8)
    assert max((violation(question.problem, rule, p) for rule in question.problem.rules), default=0.0) <= 1e-8
    assert question.capacity is None or p.sum() <= question.capacity + 1e-6


@settings(max_examples=100)
@given(SEEDS)
def test_the_best_lottery_is_that_of_a_general_solver(seed: int) -> None:
    check_lottery(seed)


@pytest.mark.slow
def test_the_best_lottery_is_that_of_a_general_solver_many_times() -> None:
    for seed in range(300):
        check_lottery(seed, most=400)


def small(seed: int, cells: int, kind: str, tolerance: float) -> DecisionProblem:
    """Two or three groups of up to seven, distinct scores, one rule."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(cells, 7 * cells))
    group = np.append(np.arange(cells), rng.integers(0, cells, n - cells))
    scores = rng.permutation(n) / n + 0.5 / n
    labels = (rng.random(n) < scores).astype(float) if rng.random() < 0.5 else None
    estimates = None if labels is not None else scores
    problem = Problem(f"small {seed}", scores, {"a": group}, (Rule(kind, ("a",), tolerance),), labels, estimates)
    return DecisionProblem(problem, int(rng.integers(1, n + 1)) if rng.random() < 0.3 else None)


@settings(max_examples=60)
@given(SEEDS, st.integers(1, 3), st.sampled_from([0.0, 0.1, 0.3]))
def test_counts_are_as_good_as_every_other(seed: int, cells: int, tolerance: float) -> None:
    question = small(seed, cells, "DemographicParity", tolerance)
    result = decide(**question.arguments())
    exact = max(accuracy for accuracy, _ in whole_answers(question))
    roomy = max(accuracy for accuracy, _ in whole_answers(question, one_each=True))
    assert exact <= result.utility_bound + 1e-9
    assert exact - 1e-9 <= result.expected_utility <= roomy + 1e-9
    if question.problem.labels is None:  # then the curves are concave, and rounding loses at most one sample a cell
        assert result.expected_utility >= result.utility_bound - cells / question.problem.n - 1e-9


@settings(max_examples=60)
@given(SEEDS, st.sampled_from(["EqualOpportunity", "EqualizedOdds", "MinimumRate", "DisparateImpactRatio"]))
def test_no_counts_within_several_limits_do_better(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    question = small(seed, 2, "DemographicParity", 0.2)
    bound = {"MinimumRate": 0.3, "DisparateImpactRatio": 0.8}.get(kind, 0.2)
    labels = (rng.random(question.problem.n) < 0.5).astype(float)
    rules = (*question.problem.rules, Rule(kind, ("a",), bound))
    question = replace(question, problem=replace(question.problem, rules=rules, labels=labels, estimates=None))
    answers = [accuracy for accuracy, _ in whole_answers(question)]
    if answers:
        assert decide(**question.arguments()).expected_utility >= max(answers) - 1e-9


def test_rounding_gives_nothing_away() -> None:
    # the best lottery is half nobody, half everybody; of whole counts, one of two is the worst
    result = decide([0.7, 0.1], [fl.MinimumRate("a", 0.4)], sensitive_features={"a": [0, 0]}, y=[0, 1])
    assert result.decisions.tolist() == [1, 1]
    assert result.expected_utility == result.utility_bound == 0.5


@settings(max_examples=60)
@given(SEEDS, st.sampled_from(["EqualOpportunity", "EqualizedOdds", "ErrorRateParity"]), st.sampled_from([0.0, 0.1]))
@example(133580, "ErrorRateParity", 0.0)
def test_the_search_over_two_small_cells_is_exhaustive(seed: int, kind: str, tolerance: float) -> None:
    question = small(seed, 2, kind, tolerance)
    arguments = {"utility": ((1, 0), (0, 1)), "randomised": True, **question.arguments()}
    try:
        problem = make_plan(np.asarray(arguments.pop("scores")), arguments.pop("constraints"), **arguments).problem
    except InfeasibleConstraintsError:  # a capacity, and a constraint that selecting few cannot meet
        reject()
    answers = [accuracy for accuracy, _ in whole_answers(question, one_each=True)]
    try:
        counts = Search(problem, problem.rounding).run([np.zeros(len(problem.curves), dtype=np.int64)])
    except NeedsRandomisationError:
        assert not answers
        return
    gain = sum(curve.at(counts[g : g + 1])[1][0] for g, curve in enumerate(problem.curves))
    assert problem.base + gain == pytest.approx(max(answers), abs=1e-9)


@pytest.mark.parametrize("capacity", range(5))
def test_as_many_are_selected_as_there_are_places(capacity: int) -> None:
    assert decide([0.9, 0.8, 0.7, 0.6], [], capacity=capacity).decisions.tolist() == [1] * capacity + [0] * (
        4 - capacity
    )


@pytest.mark.parametrize("seed", [25, 31, 37, 45, 53])
def test_of_whole_counts_around_the_best_lottery_none_is_better_within_the_places(seed: int) -> None:
    """Cells too large for trying all counts; each seed has counts that would overrun the places or give gain away."""
    rng = np.random.default_rng(seed)
    groups, n = int(rng.integers(2, 4)), int(rng.integers(300, 420))
    group, scores = rng.integers(0, groups, n), rng.random(n) ** rng.choice([0.5, 1, 2])
    capacity, tolerance = int(rng.integers(1, n)), float(rng.choice([0, 0.01, 0.1]))
    parity = fl.DemographicParity("g", tolerance)
    found = decide(scores, parity, sensitive_features={"g": group}, capacity=capacity)
    assert found.decisions.sum() <= capacity
    ordered = [np.sort(scores[group == g])[::-1] for g in range(groups)]
    gains = [np.append(0.0, np.cumsum(2 * each - 1)) / n for each in ordered]
    counts = [int(found.selected[f"g={g}"]) for g in range(groups)]
    gap = found.gaps["DemographicParity('g')"]
    assert gap is not None
    for step in product((-1, 0, 1), repeat=groups):
        others = [k + d for k, d in zip(counts, step, strict=True)]
        if sum(others) > capacity or any(not 0 <= k <= len(each) for k, each in zip(others, ordered, strict=True)):
            continue
        if np.ptp([k / len(each) for k, each in zip(others, ordered, strict=True)]) <= max(gap, tolerance) + 1e-12:
            better = sum(gain[k] for gain, k in zip(gains, others, strict=True))
            assert found.expected_utility >= np.mean(1 - scores) + better - 1e-9


def test_an_allowance_widens_each_limit_of_a_block_by_itself() -> None:
    pair, allowance = np.eye(2), [np.array([0.1, 0.05])]
    spread = [SpreadSlabs(pair, None, 1.0, 0.2)]
    values = np.array([[0.5, 0.1], [0.1, 0.5], [0.5, 0.16]])
    assert excess_of(spread, allowance, values) == pytest.approx([0.05, 0.05, 0.0])
    rows = [RowSlabs(pair, np.array([0.4, 0.4]), np.array([0.6, 0.6]))]
    outside = np.array([[0.31, 0.5], [0.29, 0.5], [0.5, 0.66], [0.5, 0.34]])
    assert excess_of(rows, allowance, outside) == pytest.approx([0.0, 0.01, 0.01, 0.01])


def test_without_constraints_it_selects_above_one_half() -> None:
    result = decide([0.2, 0.51, 0.49, 0.9], [])
    assert result.decisions.tolist() == [0, 1, 0, 1]
    assert result.expected_utility == pytest.approx((0.8 + 0.51 + 0.51 + 0.9) / 4)
    assert result.status == "unchanged"


def test_a_utility_matrix_moves_the_threshold() -> None:
    # grant at 1 lost per default and 0.25 earned per repayment: worth it above 0.8
    scores = np.linspace(0.06, 0.96, 19)
    result = decide(scores, [], utility=[[0.0, -1.0], [0.0, 0.25]])
    assert result.decisions.tolist() == [int(s > 0.8) for s in scores]
    chosen = scores[scores > 0.8]
    assert result.expected_utility == pytest.approx((0.25 * chosen - (1 - chosen)).sum() / 19)


def test_prices_are_derivatives() -> None:
    rng = np.random.default_rng(0)
    scores, group = rng.random(400), rng.integers(0, 3, 400)
    scores[group == 0] **= 2
    for make in (
        lambda t: [fl.DemographicParity("g", t)],
        lambda t: [fl.MinimumRate("g", 0.6 - t)],
        lambda t: [fl.EqualOpportunity("g", t), fl.DemographicParity("g", 0.02)],
        lambda t: [fl.EqualizedOdds("g", t)],  # one price for rates given either label
        lambda t: [fl.Affine([[-3.0, 3.0, 0.0]], upper=t, on="g")],  # the price of its own limit, which counts thrice
    ):
        bounds = [decide(scores, make(0.05 + h), sensitive_features={"g": group}).utility_bound for h in (-1e-6, 1e-6)]
        result = decide(scores, make(0.05), sensitive_features={"g": group})
        assert (bounds[1] - bounds[0]) / 2e-6 == pytest.approx(next(iter(result.multipliers.values())), abs=1e-4)
        assert result.status == "constrained"


def test_the_price_of_a_place() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    result = decide(scores, [], capacity=2)
    more = decide(scores, [], capacity=3)
    assert result.capacity_price == pytest.approx(4 * (more.utility_bound - result.utility_bound))
    assert decide(scores, [], capacity=4).capacity_price == 0.0


def test_labels_replace_the_scores_as_truth() -> None:
    scores = np.array([0.9, 0.8, 0.3, 0.2])
    assert decide(scores, []).decisions.tolist() == [1, 1, 0, 0]
    assert decide(scores, [], y=[0, 1, 1, 0]).decisions.tolist() == [1, 1, 1, 0]
    assert decide(scores, [], label_probabilities=[0.1, 0.2, 0.3, 0.4]).decisions.tolist() == [0, 0, 0, 0]


def test_any_increasing_transform_of_the_scores_decides_alike() -> None:
    question = asked(3, many=False)
    given_ = question.arguments() | {"y": (np.arange(question.problem.n) % 3 == 0).astype(float)}
    scores = given_.pop("scores")
    plain = decide(scores, **given_)
    moved = decide(5.0 * scores - 7.0, **given_)
    assert moved.decisions.tolist() == plain.decisions.tolist()


def test_the_search_over_two_large_cells_comes_near_the_best() -> None:
    rng = np.random.default_rng(0)
    n = 2400
    group, scores = rng.integers(0, 2, n), rng.random(n)
    y = (rng.random(n) < np.where(group == 0, scores, 0.3 + 0.4 * scores)).astype(float)  # the second is scored worse
    result = decide(scores, [fl.EqualizedOdds("g", 0.03)], sensitive_features={"g": group}, y=y)
    (tp, fp), (tq, fq) = (roc(scores[group == g], y[group == g]) for g in (0, 1))
    room = [0.03 + 1 / a[-1] + 1 / b[-1] + 1e-9 for a, b in ((tp, tq), (fp, fq))]
    near = np.abs(tp[:, None] / tp[-1] - tq / tq[-1]) <= room[0]
    near &= np.abs(fp[:, None] / fp[-1] - fq / fq[-1]) <= room[1]
    right = (tp - fp)[:, None] + (tq - fq) + (1 - y).sum()
    best = right[near].max() / n
    assert best - 0.002 <= result.expected_utility <= best + 1e-9
    assert result.expected_utility < result.utility_bound


def roc(scores: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives among the best 0, ..., n."""
    order = np.argsort(-scores)
    return np.append(0, np.cumsum(y[order])), np.append(0, np.cumsum(1 - y[order]))


@pytest.mark.parametrize("seed", range(3))
def test_equalized_odds_at_0_without_lots_is_near_the_best_of_all_pairs_of_thresholds(seed: int) -> None:
    n, rng = 3000, np.random.default_rng(seed)
    sex, z = rng.integers(0, 2, n), rng.normal(size=n)
    z = z + 0.3 + 0.4 * sex
    y = (rng.uniform(size=n) < 1 / (1 + np.exp(0.5 - 1.5 * z))).astype(float)
    scores = 1 / (1 + np.exp(0.5 - 1.5 * z - 0.6 * sex))
    odds = fl.EqualizedOdds("sex", tolerance=0.0)
    found = decide(scores, odds, sensitive_features={"sex": sex}, y=y)

    def curve(group: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ordered = y[sex == group][np.argsort(-scores[sex == group])]
        tp, fp = np.append(0, np.cumsum(ordered)), np.append(0, np.cumsum(1 - ordered))
        return tp / tp[-1], fp / fp[-1], tp + fp[-1] - fp

    a, b = curve(0), curve(1)
    gap = np.maximum(*(np.abs(one[:, None] - other) for one, other in zip(a[:2], b[:2], strict=True)))
    allowed = found.rounding["EqualizedOdds('sex')"]
    best = ((a[2][:, None] + b[2])[gap <= allowed] / n).max()
    assert found.gaps["EqualizedOdds('sex')"] <= allowed + 1e-12  # type: ignore[operator]
    assert best - 0.002 <= found.expected_utility <= best + 1e-9


def crossing(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores that order one group better than the other, so that their curves meet at nobody and at everybody only."""
    rng = np.random.default_rng(seed)
    sex, y = rng.integers(0, 2, n), (rng.random(n) < 0.3).astype(float)
    z = rng.normal(size=n) + y * np.where(sex == 1, 2.2, 1.4)
    return 1 / (1 + np.exp(1.6 - z)), sex, y


@pytest.mark.parametrize("n", [4000, 20_000])
def test_equalized_odds_at_0_without_lots_stops_short_where_meeting_it_costs_much_and_says_so(n: int) -> None:
    scores, sex, y = crossing(n, 0)
    arguments = {"sensitive_features": {"sex": sex}, "y": y}
    short = decide(scores, fl.EqualizedOdds("sex", tolerance=0.005), **arguments)
    with pytest.warns(FairlayerWarning, match=r"EqualizedOdds\('sex'\) at 0 is met within 0.005 .* have a utility of"):
        found = decide(scores, fl.EqualizedOdds("sex", tolerance=0.0), **arguments)
    name = "EqualizedOdds('sex')"
    assert found.expected_utility >= short.expected_utility - 1e-3
    assert 0.005 < found.rounding[name] == pytest.approx(0.005 + short.rounding[name])
    assert found.gaps[name] <= found.rounding[name] + 1e-12  # type: ignore[operator]


def test_thresholds_that_meet_a_limit_of_0_at_no_price_are_kept_without_a_word(
    recwarn: pytest.WarningsRecorder,
) -> None:
    rng = np.random.default_rng(1)
    sex, scores = np.tile([0, 1], 2000), np.repeat(rng.random(2000), 2)
    y = np.repeat(rng.random(2000) < scores[::2], 2).astype(float)  # the same people twice: equal curves
    found = decide(scores, fl.EqualizedOdds("sex", tolerance=0.0), sensitive_features={"sex": sex}, y=y)
    assert found.gaps["EqualizedOdds('sex')"] == 0.0
    assert found.rounding["EqualizedOdds('sex')"] < 0.005
    assert not recwarn.list


@pytest.mark.parametrize(("n", "seed"), [(1200, 0), (1200, 5), (600, 4)])
def test_for_a_thousandth_of_what_decisions_are_worth_no_limit_is_stopped_short_of(
    n: int, seed: int, recwarn: pytest.WarningsRecorder
) -> None:
    """Here a little more could be gained by stopping short (1,200), or more than lots would gain (600)."""
    rng = np.random.default_rng(seed)
    sex, scores = rng.integers(0, 2, n), np.round(rng.random(n), 6)
    y = (rng.random(n) < scores).astype(float)
    given_ = {"sensitive_features": {"sex": sex}, "y": y}
    found = decide(scores, fl.EqualOpportunity("sex", tolerance=0.0), **given_)
    wide = decide(scores, fl.EqualOpportunity("sex", tolerance=0.005), **given_)
    name = "EqualOpportunity('sex')"
    assert found.rounding[name] == wide.rounding[name]  # one sample per cell, and no more
    assert found.expected_utility <= wide.expected_utility
    assert not recwarn.list


@pytest.mark.parametrize("seed", range(3))
def test_a_larger_tolerance_for_equalized_odds_is_never_worse(seed: int) -> None:
    scores, sex, y = crossing(1500, seed)
    found = [
        decide(scores, fl.EqualizedOdds("sex", tolerance=each), sensitive_features={"sex": sex}, y=y).expected_utility
        for each in (0.005, 0.01, 0.02, 0.04, 0.08)
    ]
    assert (np.diff(found) >= -1e-3).all(), found
