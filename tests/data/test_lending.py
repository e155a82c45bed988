"""The generated population has the gaps that it states."""

from __future__ import annotations

import numpy as np
import pytest

from fairlayer.data import LendingPopulation
from fairlayer.data.errors import ColumnError
from fairlayer.data.lending import ATTRIBUTES, normal_logistic_mean

SIZE = 1_000_000


@pytest.fixture(scope="module")
def columns() -> dict[str, np.ndarray]:
    return LendingPopulation().sample(SIZE, seed=7)


@pytest.mark.parametrize("of", ["label", "repays"])
@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_true_rates_match_a_large_sample(columns: dict[str, np.ndarray], attribute: str, of: str) -> None:
    for group, rate in LendingPopulation().true_rates(attribute, of=of).items():
        drawn = columns[of][columns[attribute] == group]
        deviation = np.sqrt(rate * (1 - rate) / len(drawn))
        assert abs(drawn.mean() - rate) < 4 * deviation, (group, drawn.mean(), rate)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_group_shares_match_a_large_sample(columns: dict[str, np.ndarray], attribute: str) -> None:
    stated: dict[str, float] = {}
    for group, share in LendingPopulation().groups():
        stated[group[attribute]] = stated.get(group[attribute], 0.0) + share
    for name, share in stated.items():
        assert (columns[attribute] == name).mean() == pytest.approx(share, abs=4 * 0.5 / np.sqrt(SIZE))


def test_quadrature_matches_a_fine_sum() -> None:
    x = np.linspace(-12, 12, 400_001)
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    for mean, deviation in ((-1.3, 0.4), (0.2, 1.7), (2.0, 2.5)):
        fine = np.trapezoid(density / (1 + np.exp(-(mean + deviation * x))), x)
        assert normal_logistic_mean(mean, deviation) == pytest.approx(fine, abs=1e-8)


def test_without_shifts_and_bias_there_is_no_gap() -> None:
    population = LendingPopulation(income_shift=0, region_shift=0, history_shift=0, label_bias=0)
    assert all(population.true_gap(name) < 1e-12 for name in ATTRIBUTES)


def test_label_bias_is_of_the_record_alone() -> None:
    population = LendingPopulation(label_bias=0.3)
    truth, record = (population.true_rates("sex", of=of)["female"] for of in ("repays", "label"))
    assert record == pytest.approx(0.7 * truth)
    assert population.true_gap("sex", of="repays") == LendingPopulation(label_bias=0).true_gap("sex")


def test_the_same_seed_gives_the_same_people() -> None:
    first, second, other = (LendingPopulation().sample(50, seed=seed) for seed in (3, 3, 4))
    assert all((first[name].astype(str) == second[name].astype(str)).all() for name in first)
    assert (first["amount"] != other["amount"]).any()


def test_the_description_states_parameters_gaps_and_that_it_is_generated() -> None:
    text = LendingPopulation().describe()
    assert "GENERATED" in text
    assert "label_bias 0.15" in text
    assert f"{LendingPopulation().true_gap('sex'):.4f}" in text


@pytest.mark.parametrize("wrong", [{"female_share": 1.2}, {"age_shares": (0.5, 0.5, 0.5)}, {"label_bias": -0.1}])
def test_impossible_parameters_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ColumnError, match=next(iter(wrong))):
        LendingPopulation(**wrong)  # type: ignore[arg-type]
