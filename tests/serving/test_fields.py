"""What a column of a record may hold, and what the document says of it, are one statement."""

from __future__ import annotations

from typing import Any

import pytest

from fairlayer.groups.categories import DISGUISED
from fairlayer.serving.fields import Field

REACH = (-float(2**53 - 1), float(2**53 - 1))
GROUP = Field("sex", "category", ("F", "M"), "F", named=True, reach=REACH)
FEATURE = Field("work", "category", ("clerk", "cook"), "clerk")


@pytest.mark.parametrize("word", sorted(DISGUISED))
def test_a_text_that_stands_for_a_missing_value_names_no_group(word: str) -> None:
    assert "stands for no group: write null" in str(GROUP.problem(word))
    assert FEATURE.problem(word) is None
    [text, *_] = GROUP.schema()["anyOf"]
    assert word in text["not"]["enum"]


@pytest.mark.parametrize(("value", "fits"), [(7, True), (2**53 - 1, True), (2**53, False), (-3e38, False)])
def test_a_number_that_names_a_group_can_be_told_from_the_next(value: Any, fits: bool) -> None:
    assert (GROUP.problem(value) is None) == fits
    number = next(kind for kind in GROUP.schema()["anyOf"] if kind["type"] == "number")
    assert (number["minimum"] <= value <= number["maximum"]) == fits
    assert FEATURE.problem(value) is None


def test_any_other_name_is_taken() -> None:
    for word in ("F", "someone else", "null", "none"):
        assert GROUP.problem(word) is None
