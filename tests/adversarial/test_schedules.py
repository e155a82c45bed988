"""Schedules against their formulas, and the errors of progress and strength."""

from __future__ import annotations

import math
import pickle

import pytest

from fairlayer.adversarial import ScheduleError, constant, dann, linear
from fairlayer.adversarial.schedules import strength_at


@pytest.mark.parametrize("p", [0.0, 0.01, 0.25, 0.5, 0.9, 1.0])
def test_values(p: float) -> None:
    assert linear(0.1, 1.0)(p) == pytest.approx(0.1 + 0.9 * p)
    assert dann()(p) == pytest.approx(2 / (1 + math.exp(-10 * p)) - 1, abs=1e-15)
    assert dann(3.0, gamma=5.0)(p) == pytest.approx(3 * (2 / (1 + math.exp(-5 * p)) - 1), abs=1e-15)
    assert constant(0.3)(p) == 0.3


def test_a_custom_schedule_and_pickling() -> None:
    assert strength_at(lambda p: p**2, 0.5) == 0.25
    assert pickle.loads(pickle.dumps(dann(2.0)))(0.5) == dann(2.0)(0.5)


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan")])
def test_progress_outside(progress: float) -> None:
    with pytest.raises(ScheduleError, match=r"must lie in \[0, 1\].*steps done / steps in all"):
        strength_at(linear(), progress)


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_strength_refused(strength: float) -> None:
    with pytest.raises(ScheduleError, match=r"finite and\s+>= 0"):
        strength_at(constant(strength), 0.5)
