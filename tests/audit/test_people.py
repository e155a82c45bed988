"""Who was moved, counted one person at a time."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from fairlayer.audit import AuditTable, movement, sides
from fairlayer.errors import ParameterError, ShapeError

pytest.importorskip("scipy")

PEOPLE = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.3, 0.49, 0.5, 0.8, 1.0]),
        st.sampled_from([0.0, 0.3, 0.49, 0.5, 0.8, 1.0]),
        st.sampled_from(["F", "M", None]),
    ),
    min_size=1,
    max_size=30,
)


@given(PEOPLE)
def test_everybody_is_counted_once(people: list[tuple[float, float, str | None]]) -> None:
    before, after, sex = zip(*people, strict=True)
    found = movement(before=before, after=after, sensitive_features={"sex": sex})
    assert sum(group.rows for group in found.groups) == len(people)
    for group in found.groups:
        mine = [(b, a) for b, a, s in people if (f"sex={s}" if s else "unknown") == group.name]
        assert group.rows == len(mine)
        assert group.shift == pytest.approx(sum(a - b for b, a in mine) / len(mine))
        assert group.farthest == pytest.approx(max(abs(a - b) for b, a in mine))
        assert group.flips_up == sum(b < 0.5 <= a for b, a in mine)
        assert group.flips_down == sum(a < 0.5 <= b for b, a in mine)
        assert group.raised == sum(a > b for b, a in mine)
        assert group.lowered == sum(a < b for b, a in mine)
        assert group.at_bounds == sum(a in (0.0, 1.0) for _, a in mine)
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_words_are_those_of_people() -> None:
    found = movement(
        before=[0.40] * 50 + [0.60] * 50,
        after=[0.43] * 50 + [0.60] * 50,
        sensitive_features={"sex": ["F"] * 50 + ["M"] * 50},
        words={"sex=F": "woman"},
    )
    assert found.sentences() == (
        "Each woman's score was raised by 3.0 points on average (50 people, by at most 3.0); no decision changed.",
        "sex=M: each score stayed as it was (50 people); no decision changed.",
    )


def test_who_cannot_be_moved_is_said() -> None:
    found = movement(before=[0.97, 0.95], after=[1.0, 0.99], sensitive_features={"sex": ["F", "F"]})
    assert found.groups[0].at_bounds == 1
    assert "1 stand at a bound and cannot be moved further" in found.sentences()[0]
    free = movement(before=[0.97, 0.95], after=[1.0, 0.99], sensitive_features={"sex": ["F", "F"]}, bounds=None)
    assert free.groups[0].at_bounds == 0


def test_small_groups_that_were_moved_far_are_named() -> None:
    sex = ["F"] * 50 + ["X"] * 3 + ["Y"] * 3 + [None] * 3
    before = np.full(59, 0.4)
    after = before + np.r_[np.full(50, 0.2), np.full(3, 0.1), np.full(3, 0.01), np.full(3, 0.3)]
    found = movement(before=before, after=after, sensitive_features={"sex": sex})
    assert [group.name for group in found.small_and_far] == ["sex=X"]


def test_decisions_alone_can_be_compared() -> None:
    found = movement(
        decisions_before=[0, 0, 1, np.nan], decisions_after=[1, 0, 0, 1], sensitive_features={"sex": ["F"] * 4}
    )
    assert (found.groups[0].flips_up, found.groups[0].flips_down) == (1, 1)
    assert found.sentences() == ("sex=F: 1 decision became positive and 1 decision became negative (4 people).",)
    assert found.groups[0].flipped == 0.5


def test_numbers_that_are_no_probabilities_are_told_in_their_own_unit() -> None:
    found = movement(before=[610.0, 650.0], after=[622.0, 662.0], sensitive_features={"sex": ["F", "F"]}, bounds=None)
    assert "raised by 12 on average" in found.sentences()[0]


def test_intersections_are_groups_too() -> None:
    features = {"sex": ["F", "F", "M"], "race": ["A", "B", "A"]}
    names = [group.name for group in movement(before=[0.1] * 3, after=[0.2] * 3, sensitive_features=features).groups]
    assert names == ["sex=F & race=A", "sex=F & race=B", "sex=M & race=A"]
    single = movement(before=[0.1] * 3, after=[0.2] * 3, sensitive_features=features, by="sex")
    assert [group.rows for group in single.groups] == [2, 1]


def test_what_cannot_be_compared_is_an_error() -> None:
    with pytest.raises(ParameterError, match="only one of the two scores was given"):
        movement(before=[0.1], sensitive_features={"sex": ["F"]})
    with pytest.raises(ShapeError, match="scores must have one entry per row, 1"):
        movement(before=[0.1, 0.2], after=[0.1, 0.2], sensitive_features={"sex": ["F"]})
    with pytest.raises(ParameterError, match="race is given as probabilities"):
        movement(before=[0.1], after=[0.1], sensitive_features={"race": np.array([[0.5, 0.5]])})


def table(*rates: float, rows: int = 100, favourable: int = 1) -> AuditTable:
    decisions = [d for rate in rates for d in [1] * round(rate * rows) + [0] * (rows - round(rate * rows))]
    names = [f"g{i}" for i in range(len(rates)) for _ in range(rows)]
    return AuditTable.of(decisions=decisions, sensitive_features={"group": names}, favourable=favourable)


def test_a_reversal_is_a_headline() -> None:
    found = sides(table(0.3, 0.6), table(0.7, 0.45), "selection_rate", "group")
    assert found.reversed
    assert found.certain
    assert found.headline.startswith("REVERSED: group=g0 was worse off than group=g1")
    slight = sides(table(0.3, 0.6), table(0.51, 0.50), "selection_rate", "group")
    assert slight.reversed
    assert not slight.certain
    assert "no more than chance may do" in slight.headline


def test_a_gap_that_only_shrinks_is_no_reversal() -> None:
    found = sides(table(0.3, 0.6), table(0.4, 0.5), "selection_rate", "group")
    assert not found.reversed
    assert (found.worse_before, found.worse_after) == ("group=g0", "group=g0")
    assert found.before.measured == pytest.approx(-0.3)
    assert found.after.measured == pytest.approx(-0.1)
    assert "and still is (" in found.headline
    slight = sides(table(0.50, 0.51), table(0.4, 0.6), "selection_rate", "group")
    assert "(-0.010, no more than chance may do), and is now (-0.200)" in slight.headline
    closed = sides(table(0.3, 0.6), table(0.5, 0.5), "selection_rate", "group")
    assert closed.headline.endswith("no groups differ now.")
    assert sides(table(0.5, 0.5), table(0.4, 0.5), "selection_rate", "group").headline.endswith("differed before.")


def test_of_several_groups_the_two_ends_are_followed() -> None:
    """The ends g0 and g2 keep their order while g1 falls to the bottom: no reversal, and the new worst is named."""
    found = sides(table(0.3, 0.5, 0.6), table(0.45, 0.35, 0.55), "selection_rate", "group")
    assert not found.reversed
    assert found.worse_after == "group=g1"
    assert "now group=g1 is worse off" in found.headline


def test_where_a_decision_is_a_burden_the_other_side_is_worse_off() -> None:
    found = sides(table(0.3, 0.6, favourable=0), table(0.4, 0.5, favourable=0), "selection_rate", "group")
    assert found.worse_before == "group=g1"
