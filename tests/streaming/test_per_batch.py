"""policy="per_batch": the numbers of the fairness_training package, and what they hide."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from tests.streaming.streams import lending, tensor

TOLERANCE, STEP = 0.02, 0.5


class _Second(torch.nn.Module):
    """A backbone that hands over the score in the second column."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 1:2]


def batches(seed: int, n: int, size: int) -> list[torch.Tensor]:
    scores, sex = lending(seed, n)
    x = torch.tensor(np.stack([sex, scores], axis=1), dtype=torch.float32)
    return list(x.split(size))


def our_model(step: float = STEP) -> fl.FairModel:
    return fl.FairModel(
        _Second(), bounds=(0.0, 1.0), policy=fl.PerBatch(step=step), protected_attr_idx=0, tolerance=TOLERANCE
    )


def rival(size: int) -> Any:
    package = pytest.importorskip("fairness_training")
    return package.FairModel(
        input_dim=2,
        protected_attr_idx=0,
        prediction_bounds=(0.0, 1.0),
        fairness_tolerance=TOLERANCE,
        b_tau=10 * size,
        eta_0=STEP,
        custom_network=_Second(),
    )


@pytest.mark.rival
@pytest.mark.parametrize(("size", "count"), [(2, 30), (4, 60), (16, 20), (48, 10)])
def test_same_predictions_and_multipliers_as_the_package(size: int, count: int) -> None:
    theirs, ours = rival(size), our_model()
    moved, weighted, samples = 0.0, 0.0, 0
    for t, x in enumerate(batches(size, size * count, size)):
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            expected = theirs(x, inference=True)
        found = ours(x, inference=True)
        assert float((found - expected).abs().max()) <= 3e-3, t  # SCS at its default accuracy, compounded over steps
        moved = max(moved, float((expected - x[:, 1:2]).abs().max()))
        multiplier = ours.inference_state.multipliers["DemographicParity('x[0]')"]
        assert multiplier == pytest.approx(theirs.lambda_dual, abs=5e-3 * max(1.0, theirs.lambda_max)), t
        samples += len(x)
        weighted = theirs.cumulative_weighted_violation / samples + TOLERANCE
        assert ours.inference_state.per_batch_gap == pytest.approx(weighted, abs=1e-3), t
    assert moved > 0.01  # otherwise there was nothing to compare


def test_penalised_step_is_the_minimiser() -> None:
    """|y - z|^2 + multiplier * n * gap(y), against a fine grid over two groups' shifts (no score is clipped)."""
    rng = np.random.default_rng(0)
    for multiplier in (0.01, 0.1, 0.5, 5.0):
        z, sex = 0.3 + 0.4 * rng.random(12), np.array([0, 1, 1] * 4)
        stream = fl.InferenceState([fl.DemographicParity("g", TOLERANCE)], bounds=(0.0, 1.0), policy="per_batch")
        stream._live.machine.own = {**stream._live.machine.own, "multiplier": multiplier}
        y = stream.emit(tensor(z), {"g": sex}).numpy()

        def cost(y: np.ndarray, z: np.ndarray = z, sex: np.ndarray = sex, m: float = multiplier) -> float:
            return float(((y - z) ** 2).sum()) + m * 12 * abs(y[sex == 0].mean() - y[sex == 1].mean())

        best = min(
            cost(np.clip(z + np.where(sex == 0, a, b), 0, 1))
            for a in np.linspace(-0.3, 0.3, 121)
            for b in np.linspace(-0.3, 0.3, 121)
        )
        assert cost(y) <= best + 1e-9
        assert cost(y) < cost(z) or abs(z[sex == 0].mean() - z[sex == 1].mean()) < 1e-3


def test_single_requests_are_never_moved() -> None:
    model = our_model()
    for x in batches(0, 400, 1):
        assert float(model(x, inference=True)) == float(x[0, 1])
    state = model.inference_state
    assert state.per_batch_gap == 0.0
    assert state.multipliers == {"DemographicParity('x[0]')": 0.0}
    gap = state.pooled_gap()["DemographicParity('x[0]')"]
    assert gap is not None
    assert gap > 0.1


def test_at_four_the_average_is_small_and_the_pooled_gap_is_open() -> None:
    stats = []
    for seed in range(2):
        loader = [(x, torch.zeros(len(x)), None) for x in batches(seed, 4000, 4)]
        stats.append(our_model().get_aggregate_fairness_stats(loader))
    average = np.mean([s["weighted_avg_fairness_gap"] for s in stats])
    pooled = np.mean([s["pooled_aggregate_gap"] for s in stats])
    print(f"per_batch at 4: average per-batch gap {average:.4f}, pooled gap {pooled:.4f}")
    assert average <= 0.03
    assert pooled >= 2 * TOLERANCE
    assert pooled >= 1.5 * average


def test_large_batches_are_projected_and_counted() -> None:
    model = fl.FairModel(
        _Second(), bounds=(0.0, 1.0), policy="per_batch", protected_attr_idx=0, tolerance=TOLERANCE, b_tau=16
    )
    for x in batches(0, 96, 48):
        y = model(x, inference=True)
        group = x[:, 0] == 1
        assert float((y[group].mean() - y[~group].mean()).abs()) <= TOLERANCE + 1e-6
    assert model.inference_state.samples == 96
