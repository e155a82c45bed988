"""The version for the public: what it hides cannot be solved for."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest

from fairlayer.audit import audit, public_document
from fairlayer.errors import ParameterError


def document(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    n = 400
    race = rng.choice(["A", "B", "C", "D"], n, p=[0.6, 0.3, 0.08, 0.02])
    sex = rng.choice(["F", "M", "X"], n, p=[0.6, 0.385, 0.015]).astype(object)
    sex[rng.random(n) < 0.01] = None
    features = {"race": race, "sex": sex}
    return audit(decisions=rng.integers(0, 2, n), sensitive_features=features).to_dict()


@pytest.mark.parametrize("seed", range(8))
def test_no_small_group_can_be_solved_for(seed: int) -> None:
    full, smallest = document(seed), 10
    public = public_document(full, smallest=smallest)
    # every cell of race x sex, the unknown ones among them, is an unknown number; each published count is an equation
    races, sexes = ["A", "B", "C", "D"], ["F", "M", "X", "unknown"]
    cells = list(product(races, sexes))

    def row(by: list[str], name: str) -> list[float]:
        if name == "unknown":
            return [float("sex" in by and sex == "unknown") for _, sex in cells]
        wanted = dict(part.split("=") for part in name.split(" & "))
        return [float(all({"race": r, "sex": s}[key] == value for key, value in wanted.items())) for r, s in cells]

    seen = {
        name: group["rows"]
        for one in full["groupings"]
        if one["by"] == ["race", "sex"]
        for group in one["groups"]
        for name in [group["name"]]
    }
    # combinations that nobody has are known to be empty, since a reader may know the world
    empty = [k for k, (r, s) in enumerate(cells) if s != "unknown" and f"race={r} & sex={s}" not in seen]
    known = [[1.0] * len(cells)] + [np.eye(len(cells))[k].tolist() for k in empty]
    known += [row(one["by"], group["name"]) for one in public["groupings"] for group in one["groups"]]
    matrix = np.array(known).T
    for one in full["groupings"]:
        for group in one["groups"]:
            if 0 < group["rows"] < smallest:
                target = np.array(row(one["by"], group["name"]))
                rest = target - matrix @ np.linalg.lstsq(matrix, target, rcond=None)[0]
                assert np.abs(rest).max() > 1e-6, group["name"]


def test_no_small_group_and_no_movement_is_in_it() -> None:
    full = document(0)
    public = public_document(full, smallest=10)
    shown = [group for one in public["groupings"] for group in one["groups"]]
    assert shown
    assert min(group["rows"] for group in shown) >= 10
    assert all(one["movement"] is None and one["decisions"] is None for one in public["groupings"])
    small = [g["name"] for one in full["groupings"] for g in one["groups"] if g["rows"] < 10 and g["name"] != "unknown"]
    assert small
    assert not any(f'"{name}"' in str(public).replace("'", '"') for name in small)
    with pytest.raises(ParameterError, match="already"):
        public_document(public)


def test_small_groups_that_are_few_together_are_not_what_is_left_of_everybody() -> None:
    """5 and 2 people: each is hidden by the other, but all people less the rest are these seven."""
    sex = ["F"] * 290 + ["M"] * 303 + ["X"] * 5 + ["Y"] * 2
    full = audit(decisions=[1, 0] * 300, sensitive_features={"sex": sex}).to_dict()
    [grouping] = public_document(full, smallest=7)["groupings"]
    assert [group["name"] for group in grouping["groups"]] == ["sex=F", "sex=M"]
    [grouping] = public_document(full, smallest=8)["groupings"]
    assert [group["name"] for group in grouping["groups"]] == ["sex=M"]


def test_few_people_are_not_what_is_left_of_a_published_group() -> None:
    """By sex and race: of the 200 women, 196 are published as of race A, which leaves 3 and 1."""
    sex = ["F"] * 200 + ["M"] * 200
    race = ["A"] * 196 + ["B"] * 3 + ["C"] + ["A"] * 90 + ["B"] * 60 + ["C"] * 50
    features = {"sex": sex, "race": race}
    full = audit(decisions=[1, 0] * 200, sensitive_features=features, by=["sex", "sex+race"]).to_dict()
    shown = {g["name"] for one in public_document(full, smallest=10)["groupings"] for g in one["groups"]}
    assert {"sex=F", "sex=M"} <= shown
    assert "sex=F & race=A" not in shown


def test_a_gap_does_not_give_away_the_rate_of_a_group_that_is_left_out() -> None:
    """60 people are left out, of whom 7 are a small group: 31 of 53 is a fraction that says how many the others are."""
    sex = ["F"] * 280 + ["D"] * 260 + ["M"] * 53 + ["X"] * 7
    decisions = [1, 0] * 270 + [1] * 31 + [0] * 22 + [1] * 2 + [0] * 5
    found = audit(
        decisions=decisions,
        sensitive_features={"sex": sex, "race": ["A", "B"] * 300},
        by=["sex", "race"],
        limits=["demographic_parity_difference > 0.1"],
    )
    public = public_document(found.to_dict(), smallest=10)
    by_sex, by_race = public["verdicts"]
    assert by_sex["outcome"] == str(found.statements[0].outcome)
    assert [by_sex[name] for name in ("low", "estimate", "measured", "high")] == [None] * 4
    assert "points" not in by_sex["answer"] + public["headline"]["asked"][0]["answer"]
    assert by_race["measured"] is not None
    gap = 31 / 53 - 0.5
    assert not any(
        abs(float(number) - gap) < 1e-9 for number in re.findall(r"0\.\d+", str({**public, "provenance": None}))
    )


def test_a_small_cell_of_two_by_two_is_not_what_both_margins_and_the_far_cell_give() -> None:
    """5 of F and A: all people less women, less those of A, leave the far cell less these five."""
    cells = {("F", "A"): 5, ("F", "B"): 95, ("M", "A"): 100, ("M", "B"): 100}
    sex = [s for (s, _), n in cells.items() for _ in range(n)]
    race = [r for (_, r), n in cells.items() for _ in range(n)]
    by = ["sex", "race", "sex+race"]
    full = audit(decisions=[1, 0] * 150, sensitive_features={"sex": sex, "race": race}, by=by).to_dict()
    shown = {one["by"][-1] + str(len(one["by"])): one["groups"] for one in public_document(full)["groupings"]}
    assert [len(shown["sex1"]), len(shown["race1"]), len(shown["race2"])] == [2, 2, 0]


def test_candidates_of_a_sweep_are_left_out_where_groups_are() -> None:
    candidate = [{"name": "a", "measures": {"gap": 0.0849}}]
    whole = audit(decisions=[1, 0] * 60, sensitive_features={"sex": ["F"] * 60 + ["M"] * 60}).to_dict()
    lacking = audit(decisions=[1, 0] * 60, sensitive_features={"sex": ["F"] * 60 + ["M"] * 55 + ["X"] * 5}).to_dict()
    assert public_document({**whole, "alternatives": candidate})["alternatives"] == candidate
    assert public_document({**lacking, "alternatives": candidate})["alternatives"] == []


@pytest.mark.parametrize(("unknown", "told"), [(0, True), (3, False), (12, True), (55, False)])
def test_numbers_on_errors_need_enough_people_with_and_without_an_outcome(unknown: int, told: bool) -> None:
    """Where 3 of 60 have no outcome, rows and labelled rows tell of these three; where 55 have none, of five."""
    y = np.tile([0.0, 1.0], 60)
    y[60 : 60 + unknown] = np.nan
    full = audit(decisions=[1, 0, 0, 1] * 30, y=y, sensitive_features={"sex": ["F"] * 60 + ["M"] * 60}).to_dict()
    [grouping] = public_document(full, smallest=10)["groupings"]
    assert len(grouping["groups"]) == 2
    assert ("accuracy" in grouping["groups"][0]["numbers"]) == told
