"""The version for the public: what it hides cannot be solved for."""

from __future__ import annotations

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
