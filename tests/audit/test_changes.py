"""Limits on a change: the number, its weights, and the words for its direction."""

from __future__ import annotations

import numpy as np
import pytest

from fairlayer.audit import audit

COSTS = ("accuracy_drop > 0.9", "log_loss_rise > 9", "brier_score_rise > 0.9")


def drawn(seed: int, n: int = 400) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    before = rng.uniform(0.05, 0.95, n)
    return {
        "scores_before": before,
        "scores": np.clip(before + rng.normal(0, 0.15, n), 0.02, 0.98),
        "y": (rng.random(n) < before).astype(float),
        "sample_weight": rng.integers(0, 5, n).astype(float),
    }


@pytest.mark.parametrize("seed", range(5))
def test_a_cost_is_the_weighted_mean_of_what_each_prediction_lost(seed: int) -> None:
    given = drawn(seed)
    old, new, y, w = (given[name] for name in ("scores_before", "scores", "y", "sample_weight"))
    y[:20] = np.nan  # an outcome that is not known costs nothing
    found = audit(**given, sensitive_features={"g": np.arange(400) % 2}, limits=COSTS)
    known = ~np.isnan(y)

    def losses(s: np.ndarray) -> tuple[np.ndarray, ...]:
        wrong = ((s >= 0.5) != (y == 1)).astype(float)
        return wrong, -np.log(np.where(y == 1, s, 1 - s)), (s - y) ** 2

    for said, first, second in zip(found.statements, losses(old), losses(new), strict=True):
        each = (second - first)[known]
        assert said.interval is not None
        assert said.interval.measured == pytest.approx(np.average(each, weights=w[known]), abs=1e-12)
        assert said.interval.low < said.interval.measured < said.interval.high


def test_the_words_say_into_which_direction_and_both_where_both_are_possible() -> None:
    rng = np.random.default_rng(0)
    sex, y = {"sex": ["F", "M"] * 200}, (rng.random(400) < 0.5).astype(float)
    good, poor = np.where(y == 1, 0.8, 0.2), np.where(y == 1, 0.7, 0.3) + 0.0
    near = good + rng.normal(0, 0.02, 400)

    def answer(before: np.ndarray, now: np.ndarray) -> str:
        [said] = audit(
            scores=now, scores_before=before, y=y, sensitive_features=sex, limits=["brier_score_rise > 0.03"]
        ).statements
        return said.answer

    worse = answer(good, poor + rng.normal(0, 0.02, 400))
    assert worse.startswith("No. The Brier score has become worse by 0.0")
    assert "allowing for chance, by between 0.0" in worse
    better = answer(poor + rng.normal(0, 0.02, 400), good)
    assert better.startswith("Yes. The Brier score has become better by 0.0")
    level = answer(good, near)
    assert level.startswith("Yes. ")
    assert "it may have become better by up to 0.00" in level
    assert "or become worse by up to 0.00" in level
