"""People beside people like them, by brute force over all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from fairlayer.audit import consistency, flip_test, lipschitz_violations
from fairlayer.errors import EmptyBatchError, NonFiniteScoresError, ParameterError, ShapeError

pytest.importorskip("sklearn")
pandas = pytest.importorskip("pandas")


@pytest.mark.parametrize("seed", range(5))
def test_consistency_is_that_of_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(60, 3)), rng.random(60)
    total = 0.0
    for i in range(60):
        others = sorted((j for j in range(60) if j != i), key=lambda j: ((X[i] - X[j]) ** 2).sum())
        total += abs(y[i] - np.mean(y[others[:4]]))
    assert consistency(X, y, neighbours=4) == pytest.approx(1 - total / 60, abs=1e-12)


def test_consistency_with_the_own_row_is_that_of_zemel() -> None:
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(40, 2)), rng.random(40)
    total = 0.0
    for i in range(40):
        near = sorted(range(40), key=lambda j: ((X[i] - X[j]) ** 2).sum())[:5]
        total += abs(y[i] - np.mean(y[near]))
    assert consistency(X, y, neighbours=5, count_own=True) == pytest.approx(1 - total / 40, abs=1e-12)


def test_violations_of_near_pairs() -> None:
    rng = np.random.default_rng(2)
    X, y = rng.random((50, 2)), rng.random(50)
    apart = np.linalg.norm(X[:, None] - X[None], axis=2)
    pairs = {tuple(sorted((i, int(j)))) for i in range(50) for j in np.argsort(apart[i])[1:4]}
    found = lipschitz_violations(X, y, constant=1.5, neighbours=3)
    assert found.pairs == len(pairs)
    assert found.violations == sum(abs(y[i] - y[j]) > 1.5 * apart[i, j] for i, j in pairs)
    assert found.worst == max(pairs, key=lambda p: abs(y[p[0]] - y[p[1]]) - 1.5 * apart[p])
    line = np.array([[0.0], [0.01], [5.0], [5.3]])  # the first pair is the steepest, the second the furthest beyond
    found = lipschitz_violations(line, np.array([0.0, 0.1, 0.0, 0.9]), constant=1.0, neighbours=1)
    assert found.violations == 2
    assert found.worst == (2, 3)
    with pytest.raises(ParameterError, match="neighbours=0"):
        lipschitz_violations(X, y, constant=1.0, neighbours=0)


@pytest.mark.parametrize("at_once", [1, 7, 512])
def test_violations_are_those_of_all_pairs(at_once: int) -> None:
    rng = np.random.default_rng(3)
    X, y = rng.random((50, 2)), rng.random(50)
    pairs = [
        (abs(y[i] - y[j]), float(np.sqrt(((X[i] - X[j]) ** 2).sum())), (i, j))
        for i in range(50)
        for j in range(i + 1, 50)
    ]
    found = lipschitz_violations(X, y, constant=1.5, rows_at_once=at_once)
    assert found.pairs == len(pairs)
    assert found.violations == sum(apart > 1.5 * distance for apart, distance, _ in pairs)
    assert found.largest == pytest.approx(max(apart / distance for apart, distance, _ in pairs))
    assert found.worst == max(pairs, key=lambda pair: pair[0] - 1.5 * pair[1])[2]
    assert found.share == found.violations / len(pairs)


def test_the_same_person_with_another_score_is_a_violation() -> None:
    found = lipschitz_violations([[0.0], [0.0]], [0.2, 0.3], constant=100.0)
    assert (found.violations, found.worst) == (1, (0, 1))
    assert lipschitz_violations([[0.0], [1.0]], [0.2, 0.3], constant=1.0).worst == ()


def test_a_flip_of_the_group_is_asked_of_everybody() -> None:
    people = pandas.DataFrame({"sex": ["F", "M", "F", "M"], "income": [0.45, 0.45, 0.9, 0.55]})

    def predict(frame: pandas.DataFrame) -> pandas.Series:
        return frame["income"] + 0.1 * (frame["sex"] == "M")

    before = people.copy()
    found = flip_test(predict, people, "sex")
    # row 0: .45 -> .55 up; row 1: .55 -> .45 down; row 2: .9 -> 1.0; row 3: .65 -> .55
    assert (found.rows, found.changed, found.up, found.down) == (4, 2, 1, 1)
    assert found.mean_change == pytest.approx(0.1)
    assert found.largest_change == pytest.approx(0.1)
    pandas.testing.assert_frame_equal(people, before)


def test_a_model_without_the_group_passes() -> None:
    people = pandas.DataFrame({"sex": [0, 1], "income": [0.4, 0.6]})
    found = flip_test(lambda frame: frame["income"], people, "sex")
    assert (found.changed, found.largest_change) == (0, 0.0)


def test_several_values_are_all_tried() -> None:
    people = pandas.DataFrame({"race": ["A", "B"], "income": [0.45, 0.55]})
    shift = {"A": 0.0, "B": 0.0, "C": 0.1, "D": -0.1}
    found = flip_test(lambda f: f["income"] + f["race"].map(shift), people, "race", values=["A", "B", "C", "D"])
    assert (found.changed, found.up, found.down) == (2, 1, 1)


def test_what_cannot_be_asked_is_an_error() -> None:
    people = pandas.DataFrame({"sex": ["F", "F"]})
    with pytest.raises(ParameterError, match="no column 'race', only sex"):
        flip_test(lambda frame: [0.1] * len(frame), people, "race")
    with pytest.raises(ParameterError, match=r"two values of 'sex' or more, but was given \['F'\]"):
        flip_test(lambda frame: [0.1] * len(frame), people, "sex")
    with pytest.raises(EmptyBatchError, match="at least one row"):
        flip_test(lambda frame: [], people.iloc[:0], "sex")
    with pytest.raises(ShapeError, match="the model's scores must have one entry per row"):
        flip_test(lambda frame: [0.1], people, "sex", values=["F", "M"])
    with pytest.raises(NonFiniteScoresError, match="must be finite"):
        flip_test(lambda frame: [0.1, np.nan], people, "sex", values=["F", "M"])
    with pytest.raises(ParameterError, match="5 neighbours need more rows"):
        consistency([[0.0]] * 3, [0.1] * 3)
    with pytest.raises(ShapeError, match=r"shape \(n, k\)"):
        consistency([0.0, 1.0], [0.1, 0.2])
    with pytest.raises(NonFiniteScoresError, match="Fill what is missing"):
        consistency([[np.nan], [1.0]], [0.1, 0.2], neighbours=1)
    with pytest.raises(ParameterError, match="0 or more, not -1"):
        lipschitz_violations([[0.0]], [0.1], constant=-1)
