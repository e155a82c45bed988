"""Which of several numbers is shown, and what is needed to meet a statement."""

from __future__ import annotations

import numpy as np
import pytest

import fairlayer as fl
from fairlayer.constraints import Batch
from fairlayer.constraints.measure import headline, tolerance_needed
from fairlayer.constraints.readings import StatementReading, miss
from fairlayer.errors import ShapeError
from fairlayer.groups import read_sensitive_features

SEX = {"sex": [0, 0, 1, 1]}


def test_a_ratio_of_nothing_is_ranked_by_its_excess() -> None:
    assert miss(StatementReading(None, 0.8, 0.3, True, ())) == 0.3
    assert miss(StatementReading(None, 0.8, None, True, ())) == -np.inf
    assert miss(StatementReading(0.5, 0.8, 0.1, True, ())) == pytest.approx(0.3)
    assert miss(StatementReading(0.5, 0.2, 0.3, False, ())) == pytest.approx(0.3)


def test_of_several_floors_the_lowest_number_is_shown() -> None:
    floors = [
        fl.MinimumRate("sex", floor).measure([0.2, 0.2, 0.8, 0.8], sensitive_features=SEX) for floor in (0.1, 0.3)
    ]
    higher = fl.MinimumRate("sex", 0.1).measure([0.6, 0.6, 0.8, 0.8], sensitive_features=SEX)
    assert headline([*floors, higher]) == pytest.approx(0.2)


@pytest.mark.parametrize("tolerance", [0.0, 0.1, 0.9])
def test_the_tolerance_that_is_needed_is_the_gap_whatever_was_asked(tolerance: float) -> None:
    batch = Batch(read_sensitive_features(SEX), 4)
    statements = fl.DemographicParity("sex", tolerance).statements(batch)
    assert tolerance_needed(statements, np.array([0.1, 0.3, 0.6, 0.8])) == pytest.approx(0.5)


def test_labels_have_one_column_or_as_many_as_the_predictions() -> None:
    rule = fl.EqualOpportunity("sex", 0.1)
    scores, labels = np.full((4, 3), 0.5), np.ones((4, 3))
    assert rule.measure(scores, sensitive_features=SEX, y=labels).value == 0.0
    assert rule.measure(scores, sensitive_features=SEX, y=labels[:, :1]).value == 0.0
    with pytest.raises(ShapeError, match="in 3 columns, but y has shape"):
        rule.measure(scores, sensitive_features=SEX, y=labels[:, :2])
