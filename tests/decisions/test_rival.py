"""As accurate as Fairlearn's ThresholdOptimizer at the same gap, on real scores. Run with -s to see the numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fairlearn")
pytest.importorskip("sklearn")

from benchmarks import decisions as benchmark

pytestmark = [pytest.mark.rival, pytest.mark.data, pytest.mark.slow]

CONSTRAINED = {
    "demographic_parity": 0,
    "true_positive_rate_parity": 1,
    "false_positive_rate_parity": 2,
    "equalized_odds": None,
}


@pytest.mark.parametrize("model", ["boosted trees", "MLP"])
@pytest.mark.parametrize("task", list(benchmark.TASKS))
def test_within_a_fifth_of_a_point(task: str, model: str, data_folder: Path) -> None:
    seeds = 2 if task.startswith("Adult") else 6  # the smaller test part needs more of them
    runs = [list(benchmark.outcomes(benchmark.score(task, model, seed, data_folder))) for seed in range(seeds)]
    rows = benchmark.averaged(runs)
    compared = 0
    for theirs in (row for row in rows if row.method == "ThresholdOptimizer"):
        same = [row for row in rows if (row.rule, row.tolerance) == (theirs.rule, theirs.tolerance)]
        exact = next(row for row in same if row.method == "DecisionRule, randomised")
        compared += 1
        print(f"{task}, {model}, {theirs.rule} {theirs.tolerance}: {exact.accuracy:.2f} ({theirs.accuracy:.2f})")
        assert exact.accuracy >= theirs.accuracy - 0.2
        gap = CONSTRAINED[theirs.rule]
        ours_gap, their_gap = (max(o.gaps[1:]) if gap is None else o.gaps[gap] for o in (exact, theirs))
        assert ours_gap <= their_gap + 0.7
        if theirs.rule != "equalized_odds":
            whole = next(row for row in same if row.method == "DecisionRule")
            assert whole.accuracy + error_over_seeds(runs, whole, theirs) >= theirs.accuracy - 0.2
            assert np.isclose(whole.gaps[gap], exact.gaps[gap], atol=1.0)
    assert compared == 8


def error_over_seeds(runs: list[list[benchmark.Outcome]], one: benchmark.Outcome, other: benchmark.Outcome) -> float:
    """Return the standard error of the mean difference in accuracy: without lots, one split can cost a point."""
    differences = [np.subtract(*(_same(run, each).accuracy for each in (one, other))) for run in runs]
    return float(np.std(differences, ddof=1) / np.sqrt(len(runs)))


def _same(run: list[benchmark.Outcome], outcome: benchmark.Outcome) -> benchmark.Outcome:
    """Return the outcome of one split that an averaged one is a part of."""
    asked = outcome.rule, outcome.tolerance, outcome.method
    return next(row for row in run if (row.rule, row.tolerance, row.method) == asked)
