"""A table in chunks is projected as it would be in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer.scoring import TableProjection, project_chunks
from tests.core.problems import SOLO_KINDS, Problem, random_problem, solo_problem

BY_ROW = {"CovarianceBound", "AffineSamples", "BoundedGroupLossCustom"}  # weigh each row by itself
KINDS = [kind for kind in SOLO_KINDS if kind not in BY_ROW]

Chunks = Callable[[], Iterator[Any]]


def chunks_of(problem: Problem, seed: int, dtype: Any = np.float64) -> Chunks:
    """The problem in chunks of any size, empty ones among them."""
    ends = np.sort(np.random.default_rng(seed).integers(0, problem.n + 1, 4))

    def chunks() -> Iterator[Any]:
        for rows in np.split(np.arange(problem.n), ends):
            labels = None if problem.labels is None else problem.labels[rows]
            yield problem.scores[rows].astype(dtype), {k: v[rows] for k, v in problem.features.items()}, labels

    return chunks


def emitted(table: TableProjection) -> np.ndarray:
    return np.concatenate(list(table.values()))


def check(problem: Problem, seed: int) -> None:
    table = project_chunks(chunks_of(problem, seed), problem.constraints(), bounds=problem.bounds)
    size = max(1.0, problem.size)
    expected = problem.project()
    np.testing.assert_allclose(emitted(table), expected.value.numpy(), atol=1e-9 * size, err_msg=problem.name)
    assert table.accuracy <= 1e-10 * size, problem.name
    assert table.violation <= 1e-9 * size, problem.name
    assert (table.status, table.absent) == (expected.status, expected.absent), problem.name
    assert table.counts == expected.counts, problem.name
    assert table.samples == problem.n


def common_bounds(problem: Problem) -> bool:
    return problem.bounds is None or all(b is None or np.ndim(b) == 0 for b in problem.bounds)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_memory(kind: str) -> None:
    problems = [solo_problem(kind, seed, bounded=seed % 2 == 0) for seed in range(20)]
    for seed, problem in enumerate(problems):
        check(problem, seed)


def test_equals_memory_under_several_constraints() -> None:
    checked = 0
    for seed in range(300):
        problem = random_problem(seed, soft=False, dense=False)
        if problem.estimates is None and common_bounds(problem) and not {r.kind for r in problem.rules} & BY_ROW:
            check(problem, seed)
            checked += 1
    assert checked > 100


def big(n: int, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Scores near both bounds, some beyond, some tied, and one small group."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(["F", "M", "X"], n, p=[0.55, 0.449, 0.001])
    scores = rng.beta(0.7, 0.9, n) + 0.1 * (sex == "F")
    scores[::7] = np.round(scores[::7], 2)
    return scores, {"sex": sex, "age": rng.integers(0, 4, n)}


def in_chunks(scores: np.ndarray, features: dict[str, np.ndarray], rows: int) -> Chunks:
    def chunks() -> Iterator[Any]:
        for start in range(0, len(scores), rows):
            part = slice(start, start + rows)
            yield scores[part], {name: column[part] for name, column in features.items()}

    return chunks


PARITY = [fl.DemographicParity("sex", tolerance=0.01), fl.DemographicParity("age", tolerance=0.0)]


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few bins, so that a small table needs as many sweeps as a large one."""
    monkeypatch.setattr("fairlayer.scoring.sketch._MOST", 64)
    monkeypatch.setattr("fairlayer.scoring.solved._MOST_BINS", 64)


@pytest.mark.parametrize(("dtype", "atol"), [(np.float64, 1e-9), (np.float32, 1e-6)])
def test_a_large_table(dtype: Any, atol: float, coarse: None) -> None:
    scores, features = big(200_000)
    scores = scores.astype(dtype)
    table = project_chunks(in_chunks(scores, features, 30_000), PARITY, bounds=(0.0, 1.0))
    expected = fl.project(torch.tensor(scores), PARITY, sensitive_features=features, bounds=(0.0, 1.0))
    value = emitted(table)
    assert value.dtype == dtype
    np.testing.assert_allclose(value, expected.value.numpy(), atol=atol)
    assert 2 <= table.sweeps <= 6
    assert table.violation <= atol
    for name, price in expected.multipliers.items():
        assert table.multipliers[name] == pytest.approx(float(price), rel=1e-4)
    assert list(table.shift.values()) == pytest.approx(expected.shift.tolist(), abs=1e-6)


def test_many_bins_need_no_second_sweep() -> None:
    scores, features = big(200_000)
    chunks = in_chunks(scores.astype(np.float32), {"age": features["age"]}, 30_000)
    assert project_chunks(chunks, PARITY[1:], bounds=(0.0, 1.0)).sweeps == 1


def test_without_bounds_one_sweep_is_exact() -> None:
    scores, features = big(20_000)
    table = project_chunks(in_chunks(scores, features, 3_000), PARITY)
    expected = fl.project(torch.tensor(scores), PARITY, sensitive_features=features)
    np.testing.assert_allclose(emitted(table), expected.value.numpy(), atol=1e-12)
    assert (table.sweeps, table.accuracy) == (1, 0.0)


def test_looser_accuracy_takes_fewer_sweeps_and_keeps_it(coarse: None) -> None:
    scores, features = big(100_000)
    exact = fl.project(torch.tensor(scores), PARITY, sensitive_features=features, bounds=(0.0, 1.0)).value.numpy()
    table = project_chunks(in_chunks(scores, features, 30_000), PARITY, bounds=(0.0, 1.0), accuracy=0.1)
    off = np.abs(emitted(table) - exact).max()
    assert table.sweeps == 1
    assert 1e-9 < off <= table.accuracy <= 0.1


def test_a_table_that_does_not_fit_the_bounds_in_any_way() -> None:
    """Scores of any size, where the first bins catch nothing."""
    rng = np.random.default_rng(4)
    scores = np.concatenate([rng.normal(size=5000) * 1e4, rng.normal(size=5000) * 1e-4])
    features = {"g": rng.integers(0, 3, 10_000)}
    rules = [fl.DemographicParity("g", tolerance=0.0)]
    for bounds in ((-1.0, 1.0), (0.0, None), (None, 2e4)):
        table = project_chunks(in_chunks(scores, features, 1000), rules, bounds=bounds)
        expected = fl.project(torch.tensor(scores), rules, sensitive_features=features, bounds=bounds).value
        np.testing.assert_allclose(emitted(table), expected.numpy(), atol=1e-5)


class TestErrors:
    def fails(self, kind: type[Exception], text: str, chunks: Any, rules: Any = PARITY[:1], **more: Any) -> None:
        with pytest.raises(kind, match=text):
            emitted(project_chunks(chunks, rules, **more))

    def test_rows_weighed_one_by_one(self) -> None:
        rules = [fl.CovarianceBound("age", tolerance=0.1)]
        chunks = in_chunks(np.zeros(4), {"age": np.arange(4.0)}, 2)
        self.fails(fl.errors.BackendError, r"CovarianceBound\('age'\) weighs each row by itself", chunks, rules)

    def test_soft_groups(self) -> None:
        chunks = in_chunks(np.zeros(4), {"sex": np.full((4, 2), 0.5)}, 2)
        self.fails(fl.errors.BackendError, "soft groups", chunks)

    def test_nan_in_a_later_chunk(self) -> None:
        chunks = in_chunks(np.array([0.1, 0.2, 0.3, np.nan]), {"sex": np.array(list("FMFM"))}, 2)
        self.fails(fl.errors.NonFiniteScoresError, "the scores of chunk 1: 1 of 2 are NaN", chunks)

    def test_labels_missing(self) -> None:
        chunks = in_chunks(np.zeros(4), {"sex": np.array(list("FMFM"))}, 2)
        rules = [fl.EqualOpportunity("sex", tolerance=0.0)]
        self.fails(fl.errors.MissingLabelsError, "no y was given", chunks, rules)

    def test_odd_labels_in_a_later_chunk(self) -> None:
        def chunks() -> Iterator[Any]:
            yield [0.1, 0.4], {"sex": ["F", "M"]}, [0, 1]
            yield [0.1, 0.4], {"sex": ["F", "F"]}, [0.5, 1.5]

        rules = [fl.EqualOpportunity("sex", tolerance=0.0)]
        self.fails(fl.errors.LabelValueError, "needs labels 0 or 1", chunks, rules)

    def test_no_rows(self) -> None:
        self.fails(fl.errors.EmptyBatchError, "no chunk has any rows", list)

    def test_an_iterator_that_is_spent(self) -> None:
        given = iter([([0.1, 0.4], {"sex": ["F", "M"]})] * 3)
        self.fails(fl.errors.FairlayerError, "must not change between sweeps", lambda: given)

    def test_scores_that_change(self) -> None:
        rng = np.random.default_rng(0)

        def chunks() -> Iterator[Any]:
            yield rng.random(rng.integers(5, 500)), {"sex": "F"}

        def grows() -> Iterator[Any]:
            n = int(rng.integers(5, 500))
            yield rng.random(n), {"sex": rng.choice(["F", "M"], n)}

        self.fails(fl.errors.DataError, "must not change between sweeps", grows)

    def test_bounds_by_row(self) -> None:
        chunks = in_chunks(np.zeros(4), {"sex": np.array(list("FMFM"))}, 2)
        self.fails(fl.errors.InvalidBoundsError, "a table in chunks", chunks, bounds=(np.zeros(4), None))

    def test_nothing_feasible(self) -> None:
        chunks = in_chunks(np.zeros(4), {"sex": np.array(list("FMFM"))}, 2)
        rules = [fl.MinimumRate("sex", floor=2.0)]
        self.fails(fl.errors.InfeasibleConstraintsError, "MinimumRate", chunks, rules, bounds=(0.0, 1.0))

    def test_violation_before_it_was_measured(self) -> None:
        table = project_chunks(in_chunks(np.zeros(4), {"sex": np.array(list("FMFM"))}, 2), PARITY[:1])
        with pytest.raises(fl.errors.DataError, match="read it to its end"):
            _ = table.violation
