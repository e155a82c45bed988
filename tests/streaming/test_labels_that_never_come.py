"""A label-based constraint in a stream that is told no labels bounds nothing, and says so once."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import fairlayer as fl

OPPORTUNITY = fl.EqualOpportunity("sex", tolerance=0.02)
PARITY = fl.DemographicParity("sex", tolerance=0.02)
SEX = ("F", "M")


def _told(constraints: list[fl.Constraint], n: int = 250, **each: Any) -> list[str]:
    stream = fl.InferenceState(constraints, bounds=(0.0, 1.0))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for i in range(n):
            more = {name: [give(i)] for name, give in each.items()}
            stream.emit(torch.tensor([0.3 + 0.3 * (i % 2)]), {"sex": [SEX[i % 2]]}, **more)
    return [str(one.message) for one in found if issubclass(one.category, fl.FairlayerWarning)]


def test_it_says_so_once_and_names_the_way() -> None:
    [text] = _told([OPPORTUNITY, PARITY])
    assert "EqualOpportunity('sex') looks at labels" in text
    assert "nothing is bounded" in text
    assert "observe_labels(ids, y)" in text


@pytest.mark.parametrize("each", [{"ids": lambda i: i}, {"y": lambda i: i % 3 == 0}])
def test_labels_that_are_awaited_or_given_need_no_word(each: dict[str, Any]) -> None:
    assert not _told([OPPORTUNITY], **each)


def test_a_constraint_without_labels_needs_no_word() -> None:
    assert not _told([PARITY])
