"""Fixed shifts on samples that they were not fitted to. Run with -s to see the numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fairlayer as fl
from fairlayer.data import LendingPopulation
from fairlayer.data.readers import read_adult
from fairlayer.distillation import AmortisedShifts, remaining_gap
from fairlayer.training import FitOptions, prepare, train

PARITY = fl.DemographicParity("sex", tolerance=0.02)


def standard_error(values: np.ndarray, groups: np.ndarray) -> float:
    """Of the difference of two group means."""
    parts = [values[groups == group] for group in np.unique(groups)]
    return float(np.sqrt(sum(part.var() / len(part) for part in parts)))


def lending(seed: int) -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    """Scores that know income and debt, and the sexes."""
    columns = LendingPopulation().sample(20_000, seed=seed)
    income = np.log(np.nan_to_num(columns["monthly_income"], nan=3_000.0))
    return torch.sigmoid(torch.tensor(1.5 * (income - 8.0) - 2.0 * (columns["debt_ratio"] - 0.33))), {
        "sex": columns["sex"]
    }


def test_the_gap_on_new_samples_is_the_tolerance_up_to_sampling_error() -> None:
    scores, features = lending(seed=1)
    fixed = AmortisedShifts.fit(scores, [PARITY], sensitive_features=features, bounds=(0.0, 1.0))
    others, their = lending(seed=2)
    emitted = fixed(others, fixed.encode(their))
    [before] = remaining_gap(nn.Identity(), [(others, their)], [PARITY])
    [after] = remaining_gap(nn.Identity(), [(emitted, their)], [PARITY])
    error = standard_error(scores.numpy(), features["sex"]) * 2**0.5  # two samples
    print(f"lending: {before.scores:.4f} -> {after.scores:.4f}, standard error {error:.4f}")
    assert before.scores is not None
    assert after.scores is not None
    assert before.scores > 0.06
    assert abs(after.scores - 0.02) <= 4 * error


@pytest.mark.data
@pytest.mark.slow
def test_adult_without_layer_and_with_fixed_shifts(data_folder: Path) -> None:
    parts = prepare(read_adult(data_folder), ["demographic_parity(sex, 0.02)"], geometry="euclidean")
    trained = train(parts, FitOptions(epochs=5, batch_size=1024), batch_size=1024)
    valid, test = (
        [(parts.valid.x, parts.valid.y, parts.valid.sensitive)],
        [(parts.test.x, parts.test.y, parts.test.sensitive)],
    )
    plain, fixed = trained.model.without_layer(), trained.model.amortised(valid)
    [never] = remaining_gap(trained.plain.eval(), test, [PARITY])
    [without] = remaining_gap(plain, test, [PARITY])
    [shifted] = remaining_gap(fixed, test, [PARITY])
    for name, gap in (("no layer at all", never), ("layer dropped", without), ("fixed shifts", shifted)):
        print(f"adult, {name}: scores {gap.scores:.4f}, decisions {gap.decisions:.4f}")
    assert never.scores is not None
    assert without.scores is not None
    assert shifted.scores is not None
    scores = plain(parts.test.x).detach().double().numpy()
    error = standard_error(scores, parts.test.sensitive["sex"])
    assert never.scores > 0.12
    assert shifted.scores <= 0.02 + 4 * error * (1 + len(parts.test) / len(parts.valid)) ** 0.5
