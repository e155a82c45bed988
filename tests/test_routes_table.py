"""What the benchmark of routes says of a recommendation: at an equal gap, by the error of what is compared."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import routes_table

ROWS = 1000


def row(name: str, right: int, gap: float, *, first: int = 0) -> dict[str, Any]:
    """A route that decides `right` rows rightly, from row `first` on."""
    marks = np.zeros(ROWS, dtype=int)
    marks[first : first + right] = 1
    return {"name": name, "limit": 0.02, "rival": False, "decision_gap": gap, "right": "".join(map(str, marks))}


def run(*routes: dict[str, Any]) -> dict[str, Any]:
    """A run that recommends the route called "mine"."""
    return {"limits": [0.02], "routes": list(routes), "recommended": {"decisions": "mine"}, "set": "s", "seed": 0}


def test_a_more_accurate_route_of_a_larger_gap_does_not_count() -> None:
    assert routes_table._best_decisions(run(row("mine", 700, 0.019), row("other", 800, 0.021)))
    assert not routes_table._best_decisions(run(row("mine", 700, 0.019), row("other", 800, 0.02)))


def test_a_recommendation_whose_gap_came_out_larger_is_held_to_routes_of_no_larger_gap() -> None:
    assert routes_table._best_decisions(run(row("mine", 700, 0.05), row("other", 800, 0.06)))
    assert not routes_table._best_decisions(run(row("mine", 700, 0.05), row("other", 800, 0.05)))


@pytest.mark.parametrize(("ahead", "near", "paired"), [(0, True, True), (12, True, False), (20, False, False)])
def test_near_is_one_standard_error_of_the_best_accuracy_and_the_paired_one_is_smaller(
    ahead: int, near: bool, paired: bool
) -> None:
    # at .7 of 1,000 rows the accuracy has an error of 14.5 rows; 12 rows of difference have one of 3.4 rows
    found = run(row("mine", 700, 0.01), row("other", 700 + ahead, 0.01))
    assert routes_table._best_decisions(found) is near
    assert routes_table._best_decisions(found, paired=True) is paired


def test_who_knows_the_best_of_many_equal_routes_is_often_beaten_by_chance() -> None:
    random = np.random.default_rng(0)
    equal = [
        row(f"route {k}", 0, 0.01) | {"right": "".join(map(str, 1 * (random.random(ROWS) < 0.7)))} for k in range(6)
    ]
    many = run(row("mine", 700, 0.01), *equal)
    assert 0.3 < routes_table._knowing(many, paired=True) < 0.95
    assert routes_table._knowing(run(row("mine", 700, 0.01), row("other", 400, 0.01)), paired=True) == 1.0
