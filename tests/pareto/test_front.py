"""Dominance, hypervolume and the rules of choice, against brute force."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import PathCollection

import fairlayer as fl
from fairlayer.pareto import Front, FrontPoint, MeasureError, UnreachableError, gap_measures, hypervolume
from fairlayer.pareto.volume import non_dominated

WAYS = {"val_auc": "maximise", "val_gap": "minimise"}


def points(*rows: tuple[float, float, float]) -> list[FrontPoint]:
    return [
        FrontPoint(v, (0, 1), {"val_auc": a, "val_gap": g, "test_auc": a - 0.1}, {"val_auc": 0.01}) for v, a, g in rows
    ]


FRONT = Front(points((0.0, 0.80, 0.0), (0.05, 0.86, 0.04), (0.1, 0.85, 0.09), (0.2, 0.87, 0.1), (1.0, 0.88, 0.2)), WAYS)

grids = st.integers(1, 4).flatmap(
    lambda d: st.lists(st.lists(st.integers(0, 4), min_size=d, max_size=d), min_size=1, max_size=8)
)


def by_inclusion_and_exclusion(losses: np.ndarray, corner: np.ndarray) -> float:
    """The union of boxes [row, corner]: add single ones, take off pairs, add triples, ..."""
    boxes = [row for row in losses if (row < corner).all()]
    total = 0.0
    for size in range(1, len(boxes) + 1):
        for chosen in combinations(boxes, size):
            total -= (-1) ** size * float(np.prod(corner - np.max(chosen, axis=0)))
    return total


@given(rows=grids)
def test_hypervolume_is_the_volume_of_a_union_of_boxes(rows: list[list[int]]) -> None:
    losses = np.array(rows, dtype=float)
    corner = np.full(losses.shape[1], 3.5)
    assert hypervolume(losses, corner) == pytest.approx(by_inclusion_and_exclusion(losses, corner), abs=1e-9)


@pytest.mark.parametrize("d", [2, 3, 5])
def test_hypervolume_of_many_points_by_sampling(d: int) -> None:
    """A share p of 200,000 draws has a standard error of at most 0.0012."""
    rng = np.random.default_rng(d)
    losses = rng.dirichlet(np.ones(d), size=25)
    draws = rng.random((200_000, d))
    hit = np.zeros(len(draws), dtype=bool)
    for row in losses:
        hit |= (draws >= row).all(axis=1)
    assert hypervolume(losses, np.ones(d)) == pytest.approx(hit.mean(), abs=0.005)


@given(rows=grids)
def test_dominance_by_its_definition(rows: list[list[int]]) -> None:
    def beats(a: list[int], b: list[int]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))

    assert non_dominated(np.array(rows)).tolist() == [not any(beats(a, b) for a in rows) for b in rows]


def test_directions_are_minded() -> None:
    assert [point.value for point in FRONT.non_dominated()] == [0.0, 0.05, 0.2, 1.0]
    turned = Front(FRONT.points, {"val_auc": "minimise", "val_gap": "maximise"})
    assert [point.value for point in turned.non_dominated()] == [0.0, 0.1, 0.2, 1.0]
    volume = FRONT.hypervolume({"val_auc": 0.5, "val_gap": 0.3})
    rows = np.array([[-p.mean["val_auc"], p.mean["val_gap"]] for p in FRONT.points])
    assert volume == pytest.approx(by_inclusion_and_exclusion(rows, np.array([-0.5, 0.3])))
    assert FRONT.hypervolume({"val_auc": 0.9, "val_gap": 0.3}) == 0.0
    with pytest.raises(MeasureError, match="the reference must name"):
        FRONT.hypervolume({"val_auc": 0.5})


def test_three_objectives() -> None:
    both = [FrontPoint(v, (0,), {"auc": a, "sex": s, "race": r}, {}) for v, a, s, r in [(1, 0.8, 0, 1), (2, 0.8, 1, 0)]]
    front = Front(both, {"auc": "maximise", "sex": "minimise", "race": "minimise"})
    assert len(front.non_dominated()) == 2
    assert front.hypervolume({"auc": 0.0, "sex": 2.0, "race": 2.0}) == pytest.approx(0.8 * (2 + 2 - 1))


# --- rules


def test_the_most_accurate_within_a_gap() -> None:
    assert FRONT.most_accurate(gap_at_most=0.09).value == 0.05
    assert FRONT.most_accurate(gap_at_most=0.1).value == 0.2
    assert FRONT.most_accurate(gap_at_most=0.0).value == 0.0
    strict = Front(points((0.1, 0.85, 0.09), (0.2, 0.87, 0.1)), WAYS)
    with pytest.raises(
        UnreachableError,
        match=r"val_gap <= 0\.05 was asked, but the best of 2 swept values, 0\.1, has val_auc 0\.85, val_gap 0\.09 "
        r"\(mean of 2 seeds\)",
    ):
        strict.most_accurate(gap_at_most=0.05)


def test_the_fairest_that_is_accurate_enough() -> None:
    assert FRONT.fairest(accuracy_at_least=0.81).value == 0.05
    assert FRONT.fairest(accuracy_at_least=0.865).value == 0.2
    with pytest.raises(UnreachableError, match=r"val_auc >= 0\.9 .* 1\.0, has val_auc 0\.88, val_gap 0\.2"):
        FRONT.fairest(accuracy_at_least=0.9)
    errors = Front(
        [
            FrontPoint(p.value, p.seeds, {"mse": 1 - p.mean["val_auc"], "gap": p.mean["val_gap"]}, {})
            for p in FRONT.points
        ],
        {"mse": "minimise", "gap": "minimise"},
    )
    assert errors.fairest(error_at_most=0.145).value == 0.05
    with pytest.raises(UnreachableError, match=r"mse <= 0\.1 was asked"):
        errors.fairest(error_at_most=0.1)
    with pytest.raises(MeasureError, match="accuracy_at_least speaks of a measure to maximise"):
        errors.fairest(accuracy_at_least=0.9)
    with pytest.raises(MeasureError, match="needs one of"):
        FRONT.fairest()


def test_ties_go_to_the_better_other_measure() -> None:
    tied = Front(points((1, 0.8, 0.05), (2, 0.8, 0.01), (3, 0.7, 0.01)), WAYS)
    assert tied.most_accurate(gap_at_most=0.1).value == 2
    assert tied.fairest(accuracy_at_least=0.1).value == 2


def test_the_knee_is_farthest_from_the_chord() -> None:
    front = FRONT.non_dominated()
    x = np.array([p.mean["val_gap"] for p in front])
    y = np.array([p.mean["val_auc"] for p in front])
    x, y = (x - x.min()) / np.ptp(x), (y - y.min()) / np.ptp(y)
    (x0, y0), (x1, y1) = (x[0], y[0]), (x[-1], y[-1])  # the extremes
    distance = np.abs((y1 - y0) * x - (x1 - x0) * y + x1 * y0 - y1 * x0)
    assert FRONT.knee() is front[int(distance.argmax())]
    single = Front(points((0.5, 0.8, 0.1)), WAYS)
    assert single.knee().value == 0.5


def test_the_preferred_point_maximises_the_weighted_sum() -> None:
    for worth in (0.0, 0.1, 0.5, 5.0):
        # of equal sums, as at 0.1, the point better in the first measure
        best = max(FRONT.points, key=lambda p: (p.mean["val_auc"] - worth * p.mean["val_gap"], p.mean["val_auc"]))
        assert FRONT.preferred({"val_auc": 1.0, "val_gap": worth}) is best
    dominated, better = (FrontPoint(v, (0,), {"auc": 0.9, "gap": g}, {}) for v, g in ((0, 0.10), (1, 0.05)))
    ways = {"auc": "maximise", "gap": "minimise"}
    assert Front([dominated, better], ways).preferred({"auc": 1.0, "gap": 0.0}) is better
    with pytest.raises(MeasureError, match="weights must name"):
        FRONT.preferred({"val_auc": 1.0})
    with pytest.raises(MeasureError, match="weights must be >= 0"):
        FRONT.preferred({"val_auc": 1.0, "val_gap": -1.0})


def test_nothing_is_chosen_by_test_data() -> None:
    tested = Front(FRONT.points, {"test_auc": "maximise", "val_gap": "minimise"})
    assert tested.non_dominated()
    choices: list[Any] = [
        lambda: tested.most_accurate(gap_at_most=1.0),
        lambda: tested.fairest(accuracy_at_least=0.0),
        tested.knee,
        lambda: tested.preferred({"test_auc": 1.0, "val_gap": 1.0}),
    ]
    for choose in choices:
        with pytest.raises(MeasureError, match=r"\['test_auc'\]: what is chosen by test data"):
            choose()
    assert FRONT.knee().mean["test_auc"] == pytest.approx(0.76)


def test_a_front_needs_known_measures_and_directions() -> None:
    with pytest.raises(MeasureError, match="two or more"):
        Front(FRONT.points, {"val_auc": "maximise"})
    with pytest.raises(MeasureError, match="two or more measures, each"):
        Front(FRONT.points, {"val_auc": "up", "val_gap": "minimise"})
    with pytest.raises(MeasureError, match=r"but the points measure \['test_auc', 'val_auc', 'val_gap'\]"):
        Front(FRONT.points, {"val_auc": "maximise", "gap": "minimise"})
    with pytest.raises(MeasureError):
        Front([], WAYS)


def test_the_picture_shows_every_point_and_the_choices() -> None:
    figure = FRONT.plot(chosen={"knee": FRONT.knee(), "gap <= 0.1": FRONT.most_accurate(gap_at_most=0.1)})
    [axes] = figure.axes
    drawn = {tuple(np.round(text.xy, 6)) for text in axes.texts}
    assert drawn == {(p.mean["val_gap"], p.mean["val_auc"]) for p in FRONT.points}
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert set(words) == {"dominated", "not dominated (2 seeds)", "knee", "gap <= 0.1"}
    assert len([each for each in axes.collections if isinstance(each, PathCollection)]) == 2
    assert axes.get_xlabel() == "val_gap (lower is better)"


def test_a_front_is_chosen_by_a_ratio() -> None:
    points = [
        FrontPoint(t, (0,), {"auc": a, "ratio": r}, {}) for t, a, r in [(0, 0.8, 1.0), (1, 0.86, 0.8), (2, 0.9, 0.5)]
    ]
    front = Front(points, {"auc": "maximise", "ratio": "maximise"})
    assert front.most_accurate(ratio_at_least=0.8).value == 1
    assert front.fairest(accuracy_at_least=0.85).value == 1
    with pytest.raises(UnreachableError, match=r"ratio >= 1\.1"):
        front.most_accurate(ratio_at_least=1.1)
    for wrong in ({}, {"gap_at_most": 0.1}, {"gap_at_most": 0.1, "ratio_at_least": 0.8}):
        with pytest.raises(MeasureError):
            front.most_accurate(**wrong)


def estimated(*rows: tuple[float, float, float, float, float]) -> Front:
    names = ("val_auc", "val_gap", "val_gap_estimate", "val_gap_high")
    return Front([FrontPoint(value, (0,), dict(zip(names, row, strict=True)), {}) for value, *row in rows], WAYS)


def test_a_budget_is_held_against_the_estimate_and_not_against_the_noise() -> None:
    front = estimated((0, 0.7, 0.01, 0.0, 0.03), (1, 0.8, 0.07, 0.01, 0.09), (2, 0.9, 0.08, 0.04, 0.2))
    assert front.most_accurate(gap_at_most=0.02).value == 1
    assert front.most_accurate(gap_at_most=0.02, by="measured").value == 0
    assert front.most_accurate(gap_at_most=0.1, by="high").value == 1
    with pytest.raises(UnreachableError, match=r"val_gap_high <= 0\.02 was asked.*0 of|val_gap_high 0\.03"):
        front.most_accurate(gap_at_most=0.02, by="high")
    with pytest.raises(MeasureError, match=r"asks for the measure val_gap_high.*gap_measures"):
        FRONT.most_accurate(gap_at_most=0.1, by="high")
    with pytest.raises(MeasureError, match='by is "measured"'):
        front.most_accurate(gap_at_most=0.1, by="low")


def test_gaps_of_a_sweep_on_cells_of_a_dozen_rows() -> None:
    """Eight cells of 12 rows and no gap at all: measured 0.37 on average, estimated 0.09."""
    random = np.random.default_rng(0)
    cells = np.repeat(np.arange(8), 12)
    found = [
        gap_measures("gap", fl.DemographicParity("cell", 0.0), random.random(96) < 0.3, sensitive_features=cells)
        for _ in range(40)
    ]
    assert np.mean([each["gap"] for each in found]) > 0.25
    assert np.mean([each["gap_estimate"] for each in found]) < 0.12
    assert all(each["gap_estimate"] <= each["gap"] <= each["gap_high"] for each in found)
    with pytest.raises(MeasureError, match="bounds no range of group means"):
        gap_measures("gap", fl.DisparateImpactRatio("cell", 0.8), random.random(96), sensitive_features=cells)


def test_a_front_of_ratios_against_by_hand() -> None:
    """Accuracy and the four-fifths ratio of two groups' rates, counted by hand for each point."""
    rates = {"a": (0.30, 0.60), "b": (0.40, 0.50), "c": (0.44, 0.50), "d": (0.45, 0.45)}
    accuracy = {"a": 0.9, "b": 0.88, "c": 0.85, "d": 0.8}
    ways = {"val_accuracy": "maximise", "val_ratio": "maximise"}
    sex = np.repeat(["f", "m"], 100)
    constraint = fl.DisparateImpactRatio("sex", 0.8)
    made = []
    for name, (f, m) in rates.items():
        decided = np.repeat(
            [1.0, 0.0, 1.0, 0.0], [round(100 * f), round(100 - 100 * f), round(100 * m), round(100 - 100 * m)]
        )
        ratio = constraint.measure(decided, sensitive_features={"sex": sex}).value
        assert ratio == pytest.approx(f / m)
        made.append(FrontPoint(name, (0,), {"val_accuracy": accuracy[name], "val_ratio": ratio}, {}))
    front = Front(made, ways)
    assert front.most_accurate(ratio_at_least=0.8).value == "b"
    assert front.most_accurate(ratio_at_least=0.85).value == "c"
    assert front.fairest(accuracy_at_least=0.85).value == "c"
    assert [point.value for point in front.non_dominated()] == ["a", "b", "c", "d"]
