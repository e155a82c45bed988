"""Four outcomes, the same everywhere, judged on the interval."""

from __future__ import annotations

import json

import pytest

from fairlayer.audit import AuditTable, Interval, Limit, MetricError, Outcome, gravest, judge, verdict
from fairlayer.audit.outcome import EXIT_CODES
from fairlayer.errors import ParameterError

pytest.importorskip("scipy")

PASS, FAIL, INCONCLUSIVE, NOT_EVALUATED = Outcome


def counted(*groups: tuple[int, int]) -> AuditTable:
    """Return a table of decisions: (positive ones, rows) of each group."""
    decisions = [d for hits, rows in groups for d in [1] * hits + [0] * (rows - hits)]
    names = [f"g{i}" for i, (_, rows) in enumerate(groups) for _ in range(rows)]
    return AuditTable.of(decisions=decisions, sensitive_features={"group": names})


def test_the_codes_are_in_this_order() -> None:
    assert [str(outcome) for outcome in Outcome] == ["PASS", "FAIL", "INCONCLUSIVE", "NOT EVALUATED"]
    assert [EXIT_CODES[outcome] for outcome in Outcome] == [0, 1, 3, 4]


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(0.0, 0.1, PASS), (0.0, 0.1001, INCONCLUSIVE), (0.1, 0.2, INCONCLUSIVE), (0.1001, 0.2, FAIL)],
)
def test_a_difference_is_judged_on_both_limits(low: float, high: float, outcome: Outcome) -> None:
    for plug_in in (low, high):  # what is measured decides nothing
        assert verdict(Interval(plug_in, plug_in, low, high), Limit("selection_rate", 0.1)) is outcome


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(0.8, 1.0, PASS), (0.79, 1.0, INCONCLUSIVE), (0.5, 0.8, INCONCLUSIVE), (0.5, 0.79, FAIL)],
)
def test_a_ratio_is_judged_on_both_limits(low: float, high: float, outcome: Outcome) -> None:
    assert verdict(Interval(0.8, 0.8, low, high), Limit("selection_rate", 0.8, "ratio")) is outcome


def test_the_four_outcomes_of_tables() -> None:
    limit = Limit("demographic_parity", 0.1)
    many = judge(counted((3000, 10_000), (3100, 10_000)), limit, "group")
    assert (many.outcome, many.exit_code) == (PASS, 0)
    assert (
        many.reason == "The whole interval keeps the limit (rows: group=g0 10000, group=g1 10000). Worse off: group=g0."
    )
    apart = judge(counted((3000, 10_000), (6000, 10_000)), limit, "group")
    assert (apart.outcome, apart.exit_code) == (FAIL, 1)
    few = judge(counted((30, 100), (50, 100)), limit, "group")
    assert (few.outcome, few.exit_code) == (INCONCLUSIVE, 3)
    assert few.interval.measured == pytest.approx(0.2)  # the plug-in is over the limit, and does not decide
    assert few.rows_needed == pytest.approx(2 * 0.4 * 0.6 * 32.4**2, abs=1)
    assert "about 504 rows in each would be enough" in few.reason
    near = judge(counted((3000, 10_000), (3950, 10_000)), limit, "group")
    assert near.outcome is INCONCLUSIVE
    assert near.rows_needed is None  # more of them than would be enough for equal groups: it is too near to the limit
    assert near.reason == (
        "The limit lies inside the interval, so that these rows cannot tell (rows: group=g0 10000, group=g1 10000)."
    )
    tiny = judge(counted((3, 10), (50, 100)), limit, "group")
    assert (tiny.outcome, tiny.exit_code) == (NOT_EVALUATED, 4)
    assert "Fewer than two groups have enough rows" in tiny.reason


def test_a_small_group_in_certain_danger_fails_the_limit() -> None:
    found = judge(counted((900, 1000), (890, 1000), (0, 20)), Limit("selection_rate", 0.1), "group")
    assert found.outcome is FAIL
    assert found.beyond == ("group=g2",)
    assert found.interval.high < 0.1
    assert found.reason.startswith("group=g2 has too few rows for the headline")
    unclear = judge(counted((900, 1000), (890, 1000), (1, 2)), Limit("selection_rate", 0.1), "group")
    assert unclear.outcome is PASS


def test_what_cannot_be_answered_is_an_outcome_and_not_left_out() -> None:
    found = judge(counted((30, 100), (50, 100)), Limit("equalized_odds", 0.1), "group")
    assert found.outcome is NOT_EVALUATED
    assert "needs labels of 0 and 1" in found.reason
    table = AuditTable.of(scores=[0.2, 0.8] * 50, y=[0, 1] * 50, sensitive_features={"g": [0] * 50 + [1] * 50})
    found = judge(table, Limit("calibration_error", 0.5), "g")
    assert found.outcome is NOT_EVALUATED
    assert "No interval that covers is known" in found.reason


def test_the_gravest_counts() -> None:
    assert gravest([PASS, INCONCLUSIVE, NOT_EVALUATED, FAIL]) is FAIL
    assert gravest([PASS, INCONCLUSIVE, NOT_EVALUATED]) is NOT_EVALUATED
    assert gravest([PASS, INCONCLUSIVE]) is INCONCLUSIVE
    assert gravest([PASS, PASS]) is PASS
    assert gravest([]) is NOT_EVALUATED


def test_json_and_text_say_the_same() -> None:
    found = judge(counted((30, 100), (50, 100)), Limit("demographic_parity", 0.1), "group")
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["outcome"] == "INCONCLUSIVE"
    assert plain["exit_code"] == 3
    assert plain["limit"] == "demographic_parity difference <= 0.1"
    assert str(found).startswith("INCONCLUSIVE: demographic_parity difference <= 0.1 by group: ")
    nothing = judge(counted((3, 10), (5, 10)), Limit("demographic_parity", 0.1), "group").to_dict()
    assert json.loads(json.dumps(nothing, allow_nan=False))["low"] is None


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("demographic_parity_difference > 0.1", Limit("demographic_parity", 0.1)),
        ("equalized_odds_difference>=.05", Limit("equalized_odds", 0.05)),
        (" true_positive_rate_ratio < 0.8 ", Limit("true_positive_rate", 0.8, "ratio")),
        ("auc_difference > 1e-2", Limit("auc", 0.01)),
    ],
)
def test_conditions_of_failure_are_read(text: str, limit: Limit) -> None:
    assert Limit.fails_on(text) == limit


@pytest.mark.parametrize(
    "text", ["demographic_parity_difference < 0.1", "selection_rate_ratio > 0.8", "auc > 0.1", "auc_difference > e", ""]
)
def test_conditions_that_say_something_else_are_errors(text: str) -> None:
    with pytest.raises(ParameterError, match=r"cannot read"):
        Limit.fails_on(text)


def test_limits_that_cannot_be_are_errors() -> None:
    with pytest.raises(MetricError, match="there is no metric 'parity'"):
        Limit("parity", 0.1)
    with pytest.raises(ParameterError, match="a ratio lies in"):
        Limit("selection_rate", 1.5, "ratio")
    with pytest.raises(ParameterError, match="0 or more"):
        Limit("selection_rate", float("nan"))
    with pytest.raises(ParameterError, match="not on 'gap'"):
        Limit("selection_rate", 0.1, "gap")  # type: ignore[arg-type]
