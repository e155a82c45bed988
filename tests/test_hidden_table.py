"""What the benchmark of hidden groups says of ours beside rivals: at no larger a gap, paired, constants left out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fairret", reason="needs fairret, from the extra bench")
pytest.importorskip("fairlearn", reason="needs Fairlearn, from the extra bench")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import hidden


def row(method: str, right: int, gap: float, *, constant: bool = False) -> dict[str, Any]:
    """A method that answers the first `right` of 1,000 rows rightly, with the same answers at both budgets."""
    each = (np.arange(1000) < right).astype(float).tolist()
    return {"method": method, "each": each, "estimate": gap, "constant": constant}


def said(*rows: dict[str, Any], budget: float = 0.02) -> str:
    both = [{**each, "budget": other} for each in rows for other in hidden.BUDGETS]
    return hidden._beside_rivals([{"rows": both}], budget, False, 100.0)


def test_the_best_of_both_sides_within_the_budget_are_compared() -> None:
    told = said(
        row("mine", 700, 0.01),
        row("mine, wide", 900, 0.04),
        row("(group known) plain, rule", 990, 0.0),
        row("rival: theirs", 720, 0.015),
    )
    assert "mine (estimated gap 1.0) better than theirs (1.5) by -2 +- 0.44: THE OTHER WINS" in told
    assert "no worse" in said(row("mine", 720, 0.01), row("rival: theirs", 720, 0.015))


def test_a_constant_is_no_answer() -> None:
    rows = (row("mine", 900, 0.0, constant=True), row("rival: theirs", 700, 0.01))
    assert said(*rows).endswith("no answer but constants within it of ours")
    assert said(row("mine", 700, 0.01), row("rival: theirs", 900, 0.05)).endswith("within it of the rivals")
