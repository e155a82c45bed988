"""Coverage of intervals and sets, counted row by row."""

from __future__ import annotations

import numpy as np
import pytest

from fairlayer.audit import coverage
from fairlayer.errors import EmptyBatchError, LabelValueError, NonFiniteScoresError, ParameterError, ShapeError

stats = pytest.importorskip("scipy.stats")


def test_marginal_coverage_hides_a_group_that_is_short() -> None:
    """A tenth of the rows has twice the noise: intervals of +-1.645 hold 90 % of the others and 59 % of these."""
    rng = np.random.default_rng(0)
    group = np.where(np.arange(5000) % 10 == 0, "rare", "common")
    y = rng.normal(size=5000) * np.where(group == "rare", 2.0, 1.0)
    low, high = np.full(5000, -1.645), np.full(5000, 1.645)
    found = coverage(y, nominal=0.85, intervals=(low, high), sensitive_features={"group": group})
    inside = np.abs(y) <= 1.645
    assert found.everybody.share == pytest.approx(inside.mean())
    assert not found.everybody.short
    assert found.short == ("group=rare",)
    for covered in found.groups:
        mine = inside[group == covered.name.removeprefix("group=")]
        assert covered.share == pytest.approx(mine.mean())
        expected = stats.binomtest(int(mine.sum()), len(mine)).proportion_ci(method="wilson")
        assert (covered.low, covered.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
        assert covered.size == pytest.approx(3.29)
    assert found.difference.measured == pytest.approx(found.groups[0].share - found.groups[1].share)


def test_sets_hold_their_label() -> None:
    sets = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 1], [0, 0, 0]])
    found = coverage([0, 0, 2, 1], nominal=0.9, sets=sets, sensitive_features={"sex": ["F", "F", "M", None]})
    assert found.everybody.share == 0.5
    assert [(group.name, group.share, group.size) for group in found.groups] == [
        ("sex=F", 0.5, 1.5),
        ("sex=M", 1.0, 3.0),
        ("unknown", 0.0, 0.0),
    ]
    assert {group.standing for group in found.groups} == {"small", "unknown"}
    assert not found.difference.known


def test_the_ends_belong_to_the_interval() -> None:
    found = coverage([1.0, 2.0], nominal=0.5, intervals=([1, 1], [2, 2]), sensitive_features={"sex": ["F", "F"]})
    assert found.everybody.share == 1.0


def test_what_cannot_be_covered_is_an_error() -> None:
    sex = {"sex": ["F", "M"]}
    with pytest.raises(ParameterError, match="give one of the two"):
        coverage([1.0, 2.0], nominal=0.9, sensitive_features=sex)
    with pytest.raises(ParameterError, match=r"such as 0\.9, not 90"):
        coverage([1.0, 2.0], nominal=90, intervals=([0, 0], [1, 1]), sensitive_features=sex)
    with pytest.raises(NonFiniteScoresError, match="in 1 of 2 rows, the first of them row 1"):
        coverage([1.0, 2.0], nominal=0.9, intervals=([0, 3], [1, 1]), sensitive_features=sex)
    with pytest.raises(NonFiniteScoresError, match="y must be known"):
        coverage([1.0, np.nan], nominal=0.9, intervals=([0, 0], [1, 1]), sensitive_features=sex)
    with pytest.raises(LabelValueError, match="0 to 1, but holds 0 to 2"):
        coverage([0, 2], nominal=0.9, sets=np.ones((2, 2)), sensitive_features=sex)
    with pytest.raises(ShapeError, match="one row per label, 2"):
        coverage([0, 1], nominal=0.9, sets=np.ones((3, 2)), sensitive_features=sex)
    with pytest.raises(EmptyBatchError):
        coverage([], nominal=0.9, sets=np.ones((0, 2)), sensitive_features={"sex": []})
