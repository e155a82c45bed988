"""The quickest method for a batch is the one that solves it: slower ones would give the same results, unseen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl


def _refused(*_: Any, **__: Any) -> Any:
    raise AssertionError("a slower method was asked")


@pytest.mark.parametrize("geometry", ["euclidean", "entropic"])
def test_one_range_over_many_groups_is_solved_by_its_level(geometry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for slower in ("_try", "solve_newton", "solve_interior", "solve_by_stand_in"):
        monkeypatch.setattr(f"fairlayer.solve.solving.{slower}", _refused)
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 300, 12_000)
    z = torch.tensor(np.clip(rng.beta(2.0, 2.0, 12_000) + 0.2 * (rng.random(300) - 0.5)[groups], 0.01, 0.99))
    rule = fl.DemographicParity("g", 0.02)
    found = fl.project(z, rule, sensitive_features={"g": groups}, bounds=(0.0, 1.0), geometry=geometry)  # type: ignore[arg-type]
    assert found.certificate.holds
    assert found.status == "projected"


def test_far_rows_of_classes_are_solved_along_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    for slower in ("solve_interior", "_slowly"):
        monkeypatch.setattr(f"fairlayer.solve.solving.{slower}", _refused)
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 4, 2_000)
    logits = torch.tensor(30.0 * rng.normal(size=(2_000, 3)) + 20.0 * rng.normal(size=(4, 3))[groups])
    how: dict[str, Any] = {"bounds": "simplex", "geometry": "entropic", "from_logits": True}
    found = fl.project(logits, fl.DemographicParity("g", 0.02), sensitive_features={"g": groups}, **how)
    assert found.certificate.holds
