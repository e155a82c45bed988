"""The changes that a check makes to the people of a run, and what it says of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairlayer.audit import Outcome
from fairlayer.data.encoder import NumericColumn
from fairlayer.data.readers import read_lending
from fairlayer.routes import check, check_run, train_routes
from fairlayer.routes.check import _gap, _judged, _resampled, _scaled, _shifts, _weightings
from fairlayer.training import FitOptions, Run, prepare


@pytest.fixture(scope="module")
def run() -> Run:
    pytest.importorskip("sklearn")
    parts = prepare(read_lending(n=400), ["demographic_parity(sex, 0.02)"], hidden=(4,), b_tau=32)
    return train_routes(parts, FitOptions(epochs=1), trees=False).run("plain, projected")


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    return read_lending(n=400, seed=5).frame


def test_groups_made_equal_weigh_the_same_and_outcome_1_is_halved(run: Run, people: pd.DataFrame) -> None:
    (equal, shares), (half, fewer) = _weightings(run, people)
    assert equal == "the groups of sex made equal in size"
    assert [shares[people["sex"] == sex].sum() for sex in ("female", "male")] == pytest.approx([0.5, 0.5])
    assert half == "half as many people with outcome 1"
    positive = (people[run.recipe.target].astype(str) == run.recipe.positive).to_numpy()
    assert set(fewer[positive]) == {0.5}
    assert set(fewer[~positive]) == {1.0}


def test_a_shift_meets_people_of_a_higher_feature_more_often(run: Run, people: pd.DataFrame) -> None:
    names = [column.name for column in run.recipe.encoder.columns if isinstance(column, NumericColumn)][:2]
    found = _shifts(run, people)
    assert [name for name, _ in found] == [f"people with a higher {name} are met more often" for name in names]
    for name, (_, weights) in zip(names, found, strict=True):
        known = people[name].notna().to_numpy()
        tilted = np.average(people[name][known], weights=weights[known])
        assert tilted > people[name].mean() + 0.3 * people[name].std()


def test_people_are_drawn_by_their_weights_and_as_many_as_there_were(people: pd.DataFrame) -> None:
    weights = np.zeros(len(people))
    weights[[3, 7]] = 3.0, 1.0
    drawn = _resampled(people, weights, np.random.default_rng(0))
    assert len(drawn) == len(people)
    threes = (drawn == people.iloc[3]).all(axis=1).mean()
    assert threes == pytest.approx(0.75, abs=0.1)
    assert (drawn == people.iloc[7]).all(axis=1).mean() == pytest.approx(1 - threes)


def test_only_the_limits_are_scaled_and_the_networks_stay(run: Run) -> None:
    half = _scaled(run, 0.5)
    assert half.recipe.config.constraints == ("demographic_parity(sex, 0.01)",)
    assert half.layered.backbone is run.layered.backbone
    assert [constraint.limit for constraint in half.layered.constraints] == [0.01]


def audit(gaps: list[float], outcomes: list[Outcome]) -> Any:
    """As much of an audit as a check reads."""
    each = [
        SimpleNamespace(
            asked=True,
            disparities={"demographic_parity": SimpleNamespace(difference=SimpleNamespace(measured=gap))},
        )
        for gap in gaps
    ]
    said = [SimpleNamespace(answer=f"limit {k}", outcome=outcome) for k, outcome in enumerate(outcomes)]
    cost = [SimpleNamespace(metric="accuracy", now=0.7512)]
    return SimpleNamespace(
        groupings=each, statements=said, costs=cost, table=SimpleNamespace(rows=1200), outcome=Outcome.FAIL
    )


def test_a_check_tells_the_largest_gap_and_the_limits_that_are_not_kept() -> None:
    found = audit([0.02, float("nan"), 0.11, 0.05], [Outcome.PASS, Outcome.FAIL, Outcome.PASS])
    assert _gap(found) == 0.11
    assert _judged("shift", "others", found).found == "1,200 people; accuracy 0.751; gap of decisions 0.110. limit 1"
    assert _gap(audit([float("nan")], [])) is None


def test_as_many_people_as_the_smallest_batch_are_enough(
    run: Run, people: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "audit_run", lambda *_, **__: audit([0.02], [Outcome.PASS]))
    smallest = run.layered.b_tau
    many = pd.concat([people] * 3)
    found = check_run(run, people, populations={"here": many[:smallest], "there": many[: smallest - 1]})
    here, there = (one for one in found if one.kind == "population")
    assert here.outcome is Outcome.FAIL  # as the audit says
    assert there.outcome is Outcome.NOT_EVALUATED
    assert f"there are {smallest - 1} people, fewer than" in there.found
