"""Alarms that may be looked at after every request: how often they are false, and how soon they come."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from fairlayer.audit.sequential import SequentialTest, evidence, interval, start, step
from fairlayer.errors import NonFiniteScoresError, ParameterError


def stream(
    state: SequentialTest, rates: tuple[float, float], requests: int, seed: int, share: float = 0.5
) -> SequentialTest:
    """Send single requests until an alarm is raised."""
    rng = np.random.default_rng([seed, requests])
    second = rng.random(requests) >= share
    values = (rng.random(requests) < np.where(second, rates[1], rates[0])).astype(float)
    for value, other in zip(values.tolist(), second.tolist(), strict=True):
        state = step(state, (), (value,)) if other else step(state, (value,), ())
        if state.alarm is not None:
            break
    return state


def false_alarms(streams: int, requests: int, tolerance: float, rates: tuple[float, float]) -> float:
    return float(
        np.mean(
            [
                stream(start(tolerance), rates, requests, seed, share=(0.5, 0.9)[seed % 2]).alarm is not None
                for seed in range(streams)
            ]
        )
    )


def test_few_streams_of_equal_groups_ever_raise_an_alarm() -> None:
    assert false_alarms(100, 600, 0.0, (0.3, 0.3)) <= 0.05


@pytest.mark.slow
def test_equal_groups_raise_an_alarm_in_five_of_a_hundred_streams_at_most() -> None:
    """2,000 streams, each looked at after every request."""
    assert false_alarms(2000, 2000, 0.0, (0.3, 0.3)) <= 0.05


@pytest.mark.slow
def test_a_gap_at_the_tolerance_is_no_alarm() -> None:
    assert false_alarms(1000, 2000, 0.05, (0.35, 0.30)) <= 0.05


@pytest.mark.slow
def test_a_stream_of_ten_thousand_requests_holds_too() -> None:
    assert false_alarms(200, 10_000, 0.0, (0.3, 0.3)) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("gap", [0.1, 0.2])
def test_a_real_gap_is_found_within_twice_the_rows_of_one_look(gap: float) -> None:
    """The rows that a test looked at once needs for an 80 % chance at 5 %, two-sided: the median alarm is within 2x."""
    low, high = 0.3, 0.3 + gap
    once = 2 * (1.96 + 0.84) ** 2 * (low * (1 - low) + high * (1 - high)) / gap**2
    alarms = [stream(start(), (high, low), int(6 * once), seed).alarm or math.inf for seed in range(100)]
    assert np.median(alarms) <= 2 * once
    assert np.mean(np.isfinite(alarms)) >= 0.99


def test_a_large_gap_is_found_soon_in_either_direction() -> None:
    for rates in ((0.8, 0.2), (0.2, 0.8)):
        found = stream(start(0.05), rates, 400, seed=1)
        assert found.alarm is not None
        assert found.alarm < 150
        assert (found.gap > 0) == (rates[0] > rates[1])


def test_the_wealth_is_the_product_of_the_bets() -> None:
    """One pair, counted by hand for the twelve bets and both directions."""
    state = step(start(0.1), [1.0, 0.5], [0.25])
    difference = 0.75 - 0.25
    bets = np.append(0.005 * 1.6 ** np.arange(11), 0.995) / 1.1
    expected = np.mean([1 + bets * (difference - 0.1), 1 + bets * (-difference - 0.1)])
    assert state.wealth == pytest.approx(expected, abs=1e-12)
    assert state.pairs == 1


def test_the_wealth_is_one_on_average_over_all_pairs_of_equal_groups() -> None:
    """Over the four outcomes of a pair of coins the wealth has mean 1: a bet that nobody can win in the long run."""
    p = 0.3
    outcomes = [(a, b, (p if a else 1 - p) * (p if b else 1 - p)) for a in (0, 1) for b in (0, 1)]
    mean = sum(chance * step(start(), [a], [b]).wealth for a, b, chance in outcomes)
    assert mean == pytest.approx(1.0, abs=1e-12)


def test_values_wait_for_a_partner() -> None:
    state = step(step(step(start(), [1.0]), [0.0]), [1.0])
    assert (state.pairs, state.waiting_rows, state.rows) == (0, (3, 0), (3, 0))
    state = step(state, (), [1.0])
    assert (state.pairs, state.waiting_rows, state.waiting_sums) == (1, (0, 0), (0.0, 0.0))
    same = step(start(), [1.0, 0.0, 1.0], [1.0])
    assert np.array(state.log_wealth) == pytest.approx(np.array(same.log_wealth))
    assert state.gap == pytest.approx(2 / 3 - 1)


def test_a_batch_makes_as_many_pairs_as_its_smaller_side() -> None:
    rng = np.random.default_rng(0)
    state = step(start(), rng.random(90), rng.random(30))
    assert state.pairs == 30
    assert state.rows == (90, 30)


def test_a_step_changes_nothing_before_it() -> None:
    state = step(start(), [1.0, 0.0], [0.0, 0.0])
    before = state.to_dict()
    step(state, [1.0] * 50, [0.0] * 50)
    assert state.to_dict() == before


def test_a_state_is_of_one_size_and_survives_json() -> None:
    state = start(0.02)
    rng = np.random.default_rng(0)
    size = len(json.dumps(state.to_dict()))
    for _ in range(200):
        state = step(state, rng.random(3), rng.random(2))
    text = json.dumps(state.to_dict(), allow_nan=False)
    assert len(text) < 12 * size
    read = SequentialTest.from_dict(json.loads(text))
    assert read == state
    assert step(read, [0.3], [0.4]) == step(state, [0.3], [0.4])


def test_a_refused_batch_leaves_the_state_alone() -> None:
    state = step(start(), [0.5], [0.5])
    for bad in ([1.2], [-0.1], [float("nan")]):
        with pytest.raises(NonFiniteScoresError, match="takes values in"):
            step(state, [0.5], bad)
    with pytest.raises(ParameterError, match="tolerance of a sequential test"):
        start(1.0)
    with pytest.raises(ParameterError, match="share of false alarms"):
        start(0.1, alpha=5)
    with pytest.raises(ParameterError, match="one pair or more"):
        evidence([])


def test_many_pairs_share_their_evidence() -> None:
    calm, loud = start(), stream(start(), (0.9, 0.1), 200, seed=0)
    assert evidence([calm, loud]) == pytest.approx((1 + loud.wealth) / 2)


def outside(streams: int, pairs: int, rates: tuple[float, float]) -> float:
    """Return the share of streams whose confidence sequence ever leaves the truth."""
    missed = 0
    for seed in range(streams):
        rng, state = np.random.default_rng([7, seed]), start()
        for _ in range(pairs):
            state = step(state, (float(rng.random() < rates[0]),), (float(rng.random() < rates[1]),))
            low, high = interval(state)
            if not low <= rates[0] - rates[1] <= high:
                missed += 1
                break
    return missed / streams


def test_the_confidence_sequence_holds_the_truth_at_every_time() -> None:
    assert outside(60, 200, (0.5, 0.2)) <= 0.05


@pytest.mark.slow
def test_the_confidence_sequence_holds_the_truth_at_every_time_of_long_streams() -> None:
    assert outside(1000, 1000, (0.5, 0.2)) <= 0.05


def test_the_confidence_sequence_shrinks() -> None:
    rng, widths = np.random.default_rng(0), []
    state = start()
    for _ in range(4):
        state = step(state, rng.random(1000) < 0.5, rng.random(1000) < 0.2)
        low, high = interval(state)
        assert low < 0.3 < high
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.13
