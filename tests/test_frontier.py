"""The benchmark of the frontier, on generated rows: its numbers, its choices, its cache, its table."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("fairret", reason="needs fairret, from the extra bench")
metrics = pytest.importorskip("fairlearn.metrics", reason="needs Fairlearn, from the extra bench")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import frontier  # noqa: E402
from frontier_data import synthetic  # noqa: E402
from frontier_numbers import Measure, Numbers, Point, Question  # noqa: E402
from frontier_table import QUESTIONS, Finished, answer, relative_times, text  # noqa: E402

pytestmark = pytest.mark.rival
QUICK_METHODS = {
    "plain",
    "plain, scores shrunk",
    "plain + layer",
    "plain + amortised shifts",
    "plain + DecisionRule",
    "plain + ThresholdOptimizer",
    "trained through layer",
    "layer dropped at test",
    "through layer + DecisionRule",
    "Penalty on soft decisions",
    "Penalty on soft decisions, sharp scores",
    "Penalty on soft decisions + DecisionRule",
    "fairret norm",
    "trees",
    "trees + layer",
    "trees + DecisionRule",
    "trees + ThresholdOptimizer",
}


@pytest.fixture(autouse=True)
def _same_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave threads and environment as they were."""
    threads = torch.get_num_threads()
    for name in ("OMP", "OPENBLAS", "MKL", "RAYON"):
        monkeypatch.setenv(f"{name}_NUM_THREADS", "1")
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the quick benchmark once; return the folder with its cache, table and picture."""
    folder = tmp_path_factory.mktemp("frontier")
    assert frontier.main(_arguments(folder)) == 0
    return folder


def _arguments(folder: Path) -> list[str]:
    shown = ["--json", str(folder / "table.json"), "--plot", str(folder / "plot.svg")]
    return ["--synthetic", "--quick", "--seeds", "2", "--out", str(folder / "runs"), *shown]


def _records(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return dict(json.loads((folder / "table.json").read_text())["records"])


def test_the_table_has_every_method_and_says_whether_it_needs_the_group(quick: Path) -> None:
    rows = {row["method"]: row for row in _records(quick)["no limit"]}
    assert set(rows) == QUICK_METHODS
    fitted = (" + ", "through layer", "+ layer")
    assert {name for name, row in rows.items() if row["known"]} == {
        name for name in QUICK_METHODS if any(word in name for word in fitted)
    }


def test_the_numbers_of_the_table_are_consistent(quick: Path) -> None:
    for rows in _records(quick).values():
        for row in rows:
            means = row["means"]
            assert 50.0 <= means["accuracy"] <= 100.0
            assert all(0.0 <= means[gap] <= 100.0 for gap in ("score_gap", "decision_gap", "odds_gap"))
            assert 0.5 <= means["auc"] / 100.0 <= 1.0
    unlimited, tight = _records(quick)["no limit"], _records(quick)["decision gap <= 2"]
    best = {row["method"]: row["means"]["accuracy"] for row in unlimited}
    assert all(row["means"]["accuracy"] <= max(best.values()) + 3.0 for row in tight)


def test_every_choice_is_within_its_budget_on_validation_rows(quick: Path) -> None:
    runs = _runs(quick)
    for question in QUESTIONS:
        for row in answer(question, runs):
            for seed, detail in enumerate(row.chosen):
                found = [p for r in runs if r.seed == seed for p in r.points if p.method == row.method]
                gaps = [getattr(p.valid, question.gap) for p in found if p.detail == detail]
                assert min(gaps) <= question.budget - question.spare


def test_relative_times_are_of_trained_networks(quick: Path) -> None:
    times = relative_times(_runs(quick))
    assert times["plain"] == 1.0
    assert "trees" not in times
    assert times["trained through layer"] > 0.0


def test_the_picture_is_written(quick: Path) -> None:
    assert "</svg>" in (quick / "plot.svg").read_text()
    assert (quick / "plot.svg").stat().st_size < 200_000


def test_a_stopped_benchmark_goes_on_where_it_was(quick: Path) -> None:
    paths = sorted((quick / "runs").glob("*.json"))
    lost, kept = paths[0], {path: path.stat().st_mtime_ns for path in paths[1:]}
    before = json.loads(lost.read_text())
    lost.unlink()
    lost.with_suffix(".part").write_text("{")  # what a killed process may leave
    assert frontier.main(_arguments(quick)) == 0
    assert json.loads(lost.read_text())["points"] == before["points"]  # the same seed gives the same run
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def _runs(folder: Path) -> list[Finished]:
    return [frontier._read(path) for path in sorted((folder / "runs").glob("*.json"))]


def test_numbers_agree_with_fairlearn() -> None:
    part = synthetic(3).test
    random = np.random.default_rng(0)
    scores = random.random(len(part))
    yes = (scores > 0.4).astype(int)
    numbers = Measure(part, scores).decisions(yes)
    truth = {"y_true": part.labels, "y_pred": yes, "sensitive_features": part.groups}
    assert numbers.accuracy == pytest.approx(100.0 * (yes == part.labels).mean())
    assert numbers.decision_gap == pytest.approx(100.0 * metrics.demographic_parity_difference(**truth))
    assert numbers.odds_gap == pytest.approx(100.0 * metrics.equalized_odds_difference(**truth))
    means = [scores[part.groups == g].mean() for g in (0, 1)]
    assert numbers.score_gap == pytest.approx(100.0 * abs(means[0] - means[1]))


def test_the_error_of_a_gap_is_its_spread_over_samples() -> None:
    part = synthetic(0, n=4000).test
    random = np.random.default_rng(1)
    drawn = [Measure(part, None).decisions(random.random(len(part)) < 0.3) for _ in range(400)]
    signed = np.array([d.decision_gap for d in drawn])
    error = np.mean([d.decision_gap_error for d in drawn])
    assert np.sqrt((signed**2).mean()) == pytest.approx(error, rel=0.15)


def _point(gap: float, right: float, test_right: float) -> Point:
    valid = Numbers(right, None, None, None, None, gap, 0.5, 0.0, 0.0)
    return Point("method", False, f"{gap}", valid, replace(valid, accuracy=test_right))


def test_the_choice_reads_validation_rows_only() -> None:
    question = Question("", "decision_gap", 2.0)
    points = [_point(3.0, 90.0, 99.0), _point(1.9, 80.0, 10.0), _point(1.0, 79.0, 99.0)]
    assert question.choose(points) is points[1]
    assert replace(question, spare=0.5).choose(points) is points[2]
    assert question.choose(points[:1]) is None


def test_a_method_that_misses_the_budget_with_one_seed_is_left_out() -> None:
    question = Question("gap", "decision_gap", 2.0)
    runs = [Finished(0, None, (_point(1.0, 80.0, 81.0),)), Finished(1, None, (_point(3.0, 80.0, 81.0),))]
    assert answer(question, runs) == []
    rows = answer(question, runs[:1])
    assert rows[0].means["accuracy"] == 81.0
    assert "method " in text({"gap": rows})


@pytest.mark.slow
def test_every_method_runs(tmp_path: Path) -> None:
    every = frontier.jobs(quick=False)
    options = frontier.read_options(["--synthetic", "--seeds", "1", "--out", str(tmp_path)])
    runs = frontier.collect(every, options)
    assert len(runs) == len({job.title for job in every}) == len(every)
    assert all(run.points for run in runs)
