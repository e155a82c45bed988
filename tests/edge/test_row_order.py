"""Columns with an index: the same rows in another order are refused, all else is read row by row."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import fairlayer as fl
from fairlayer.errors import RowOrderError

PARITY = [fl.DemographicParity("sex", tolerance=0.1)]
OPPORTUNITY = [fl.EqualOpportunity("sex", tolerance=0.1)]
ROWS = np.arange(8)
SCORES = np.linspace(0.05, 0.95, 8)
SEX = pd.Series(["F"] * 4 + ["M"] * 4, index=ROWS, name="sex")
REVERSED = pd.Series(SCORES, index=ROWS[::-1])
LABELS = pd.Series([0, 1] * 4, index=ROWS[::-1])


def _rule() -> fl.DecisionRule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small cells
        return fl.DecisionRule.fit(SCORES, PARITY, sensitive_features=SEX)


def _model(**given: Any) -> torch.Tensor:
    return fl.FairModel(torch.nn.Identity(), OPPORTUNITY)(torch.tensor(SCORES), **given)


CALLS: dict[str, Callable[[], Any]] = {
    "project, series": lambda: fl.project(REVERSED, PARITY, sensitive_features=SEX),
    "project, mapping": lambda: fl.project(REVERSED, PARITY, sensitive_features={"sex": SEX}),
    "project, frame": lambda: fl.project(REVERSED, PARITY, sensitive_features=SEX.to_frame()),
    "project, labels": lambda: fl.project(SCORES, OPPORTUNITY, sensitive_features=SEX, y=LABELS),
    "project, weights": lambda: fl.project(SCORES, PARITY, sensitive_features=SEX, sample_weight=REVERSED),
    "project, estimates": lambda: fl.project(SCORES, OPPORTUNITY, sensitive_features=SEX, label_probabilities=REVERSED),
    "FairModel, labels": lambda: _model(sensitive_features=SEX, y=LABELS),
    "decide": lambda: fl.decide(REVERSED, PARITY, sensitive_features=SEX),
    "DecisionRule.fit": lambda: fl.DecisionRule.fit(REVERSED, PARITY, sensitive_features=SEX),
    "DecisionRule.apply": lambda: _rule().apply(REVERSED, sensitive_features=SEX),
    "DecisionRule.probabilities": lambda: _rule().probabilities(REVERSED, sensitive_features=SEX),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_the_same_rows_in_another_order_are_refused(call: Callable[[], Any]) -> None:
    with pytest.raises(RowOrderError, match=r"in different orders .*\.loc"):
        call()


def test_rows_are_read_by_position_where_indexes_say_nothing() -> None:
    plain = fl.project(SCORES, PARITY, sensitive_features={"sex": SEX.to_numpy()}).value
    for index in (ROWS + 100, ["a"] * 8, pd.RangeIndex(8)):
        renamed = fl.project(SCORES, PARITY, sensitive_features=SEX.set_axis(index)).value
        assert torch.equal(renamed, plain)
        both = fl.project(pd.Series(SCORES, index=ROWS + 50), PARITY, sensitive_features=SEX.set_axis(index)).value
        assert torch.equal(both, plain)


def test_the_same_order_is_the_same_whatever_the_entries() -> None:
    order = ROWS[::-1]
    result = fl.project(pd.Series(SCORES, index=order), PARITY, sensitive_features=SEX.set_axis(order)).value
    assert torch.equal(result, fl.project(SCORES, PARITY, sensitive_features={"sex": list(SEX)}).value)
