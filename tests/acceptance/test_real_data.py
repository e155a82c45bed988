"""Models trained on real data meet their constraints on every test batch, at a stated quality.

Run with -s to see the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fairlayer.constraints import DemographicParity
from fairlayer.data import Table
from fairlayer.data.readers import read_acsincome, read_adult, read_bank, read_communities_crime
from fairlayer.projection import project
from fairlayer.training import (
    Comparison,
    FitOptions,
    Observed,
    Trained,
    emit_in_batches,
    measure,
    prepare,
    train,
)
from fairlayer.training.session import Parts

pytestmark = pytest.mark.data

ATOL = 1e-6  # promised for float32
BATCH = 1024


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small networks gain nothing from more threads, and lose much where the cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained_on(
    table: Table, *constraints: str, options: FitOptions | None = None, seed: int = 0
) -> tuple[Parts, Trained]:
    model = {"margin": 0.0} if table.positive is None else {}
    parts = prepare(table, constraints, seed=seed, **model)
    return parts, train(parts, options or FitOptions(batch_size=BATCH), batch_size=BATCH)


def show(name: str, comparison: Comparison) -> None:
    for what, beside in comparison.quality.items():
        print(f"{name}: {what} {beside.unconstrained or 0:.4f} -> {beside.constrained or 0:.4f}")
    for result in comparison.constraints:
        before, after = result.scores.unconstrained.value, result.scores.constrained.value
        print(f"{name}: {result.name} {before:.4f} -> {after:.4f}, worst batch {result.worst_batch:.7f}")
    print(f"{name}: violation {comparison.violation:.1e} in {comparison.batches} batches")


def worst_gap_by_hand(parts: Parts, trained: Trained, name: str) -> float:
    """Largest difference of group means over the test batches, in plain numpy."""
    emission = emit_in_batches(trained.model, parts.test, BATCH)
    worst = 0.0
    for batch in emission.batches:
        scores = emission.scores[batch.rows].astype(np.float64)
        groups = parts.test.sensitive[name][batch.rows]
        means = [scores[groups == group].mean() for group in set(groups)]
        worst = max(worst, max(means) - min(means))
    assert len(emission.scores) == len(parts.test)
    assert min(batch.size for batch in emission.batches) >= BATCH
    return float(worst)


def auc_of_projected_unconstrained(parts: Parts, trained: Trained, name: str, tolerance: float) -> float:
    """The strong baseline: the best unconstrained model, its test scores projected afterwards."""
    metrics = pytest.importorskip("sklearn.metrics")
    raw = trained.plain(parts.test.x).detach()
    parity = DemographicParity(name, tolerance)
    result = project(raw, [parity], sensitive_features=parts.test.sensitive, bounds=(0.0, 1.0))
    return float(metrics.roc_auc_score(parts.test.y.numpy(), result.value.numpy()))


@pytest.mark.parametrize(
    ("read", "name", "unconstrained", "constrained"),
    [
        pytest.param(read_adult, "sex", 0.90, 0.88, marks=pytest.mark.slow),
        (read_acsincome, "SEX", 0.83, 0.815),
        (read_bank, "age_group", 0.77, 0.75),
    ],
    ids=["adult", "acsincome", "bank"],
)
def test_demographic_parity_holds_on_every_test_batch(
    read: object, name: str, unconstrained: float, constrained: float, data_folder: Path
) -> None:
    parts, trained = trained_on(read(data_folder), f"demographic_parity({name}, 0.02)")  # type: ignore[operator]
    comparison = trained.comparison
    show(name, comparison)
    auc = comparison.quality["auc"]
    baseline = auc_of_projected_unconstrained(parts, trained, name, 0.02)
    print(f"{name}: unconstrained model projected afterwards: AUC {baseline:.4f}")
    assert worst_gap_by_hand(parts, trained, name) <= 0.02 + ATOL
    assert comparison.violation <= ATOL
    assert (comparison.constraints[0].scores.unconstrained.value or 0) > 0.1  # there was something to do
    assert (auc.unconstrained or 0) >= unconstrained
    assert (auc.constrained or 0) >= constrained
    assert (auc.constrained or 0) >= baseline - 0.01


CRIME = "racepctblack_group"
SEEDS = range(5)


def crime_options(seed: int) -> FitOptions:
    """Few rows: small steps and strong weight decay."""
    return FitOptions(epochs=200, batch_size=256, learning_rate=5e-4, weight_decay=3.0, patience=20, seed=seed)


def ridge_projected(parts: Parts, tolerance: float) -> float:
    """R2 of the strong baseline: a ridge regression, its test predictions projected afterwards."""
    linear = pytest.importorskip("sklearn.linear_model")
    metrics = pytest.importorskip("sklearn.metrics")
    ridge = linear.RidgeCV(np.logspace(0, 4, 20)).fit(parts.train.x.numpy(), parts.train.y.numpy())
    raw = parts.test.y.new_tensor(ridge.predict(parts.test.x.numpy()))
    parity = DemographicParity(CRIME, tolerance)
    result = project(raw, [parity], sensitive_features=parts.test.sensitive, bounds=(0.0, 1.0))
    return float(metrics.r2_score(parts.test.y.numpy(), result.value.numpy()))


def test_mean_residuals_on_communities_and_crime(data_folder: Path) -> None:
    """Mean residual per group within 0.05, measured with labels that the model never saw."""
    table = read_communities_crime(data_folder)
    _, trained = trained_on(table, f"mean_residual_parity({CRIME}, 0.05)", options=crime_options(0))
    show("crime", trained.comparison)
    result = trained.comparison.constraints[0].scores.constrained
    assert result.value is not None
    assert result.value <= 0.05
    assert trained.comparison.violation <= ATOL
    assert (trained.comparison.quality["r2"].constrained or 0) >= 0.55


@pytest.mark.parametrize("seeds", [SEEDS[:1], pytest.param(SEEDS, marks=pytest.mark.slow)], ids=["one", "five"])
def test_parity_and_residuals_together_on_communities_and_crime(seeds: range, data_folder: Path) -> None:
    """Both constraints hold on each of five splits; the gap is 0.05 and the mean R2 is at least 0.55.

    That is near what a gap so small leaves. The labels' own gap is G = 0.22 between groups of shares p = 0.49
    and 1 - p, so predictions with a gap of at most e leave p (1 - p) (G - e)^2 of the labels' variance 0.054
    unexplained between the groups alone: 0.13 of R2 at e = 0.05. The residual limit has to be wide for the
    same reason: at least (G - e) / 2 = 0.085, and more in a batch whose labels happen to differ more.
    """
    table = read_communities_crime(data_folder)
    texts = (f"demographic_parity({CRIME}, 0.05)", f"mean_residual_parity({CRIME}, 0.13)")
    found, baselines = [], []
    for seed in seeds:
        parts, trained = trained_on(table, *texts, options=crime_options(seed), seed=seed)
        show(f"crime, split {seed}", trained.comparison)
        emission = emit_in_batches(trained.model, parts.test, BATCH)
        observed = Observed(parts.test.sensitive)
        gap = measure(DemographicParity(CRIME, 0.05), observed, emission.scores).value
        assert gap is not None
        assert gap <= 0.05 + ATOL
        assert trained.comparison.violation <= ATOL
        found.append(trained.comparison.quality["r2"].constrained or 0.0)
        baselines.append(ridge_projected(parts, 0.05))
    print(f"crime: R2 {np.round(found, 4)}, mean {np.mean(found):.4f}")
    print(f"crime: ridge projected afterwards {np.round(baselines, 4)}, mean {np.mean(baselines):.4f}")
    if seeds == SEEDS:  # a mean of one split says little
        assert np.mean(found) >= 0.55
        assert np.mean(found) >= np.mean(baselines)
