"""What the audit says of columns and scores that look as if the answer had leaked into them."""

from __future__ import annotations

import numpy as np
import pytest

from fairlayer.audit import AuditTable
from fairlayer.audit.leakage import column_warnings, score_warnings


@pytest.mark.parametrize(("rows", "said"), [(49, 0), (50, 2)])
def test_a_column_is_spoken_of_from_fifty_rows_on(rows: int, said: int) -> None:
    """In a few rows anything tells the outcome, and anything is different in each of them."""
    y = np.arange(rows) % 2
    found = column_warnings({"copy": y, "number": np.arange(rows)}, y)
    assert len(found) == said
    if said:
        assert "alone tells the outcome (AUC 1.000)" in found[0]
        assert "looks like an identifier" in found[1]


def test_a_sensitive_input_is_named_in_any_number_of_rows() -> None:
    found = column_warnings({"sex": ["F", "M"], "age": [30, 40]}, sensitive=["sex"], sources=["age"])
    assert ["'sex', which is a sensitive feature" in found[0], "'age', from which the groups" in found[1]] == [True] * 2


@pytest.mark.parametrize(("values", "said"), [("noise", ""), ("export", "has no name"), ("words", "tells the outcome")])
def test_what_a_column_looks_like(values: str, said: str) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    columns = {
        "noise": {"x": rng.normal(size=400)},
        "export": {"Unnamed: 0": np.arange(400)},
        "words": {"paid": np.where(y == 1, "settled", "open")},
    }
    found = column_warnings(columns[values], y)
    assert len(found) == bool(said)
    assert all(said in one for one in found)


def test_scores_that_know_the_outcome_or_decide_alike_are_spoken_of() -> None:
    y = np.arange(200) % 2
    groups = {"sex": np.where(np.arange(200) < 100, "F", "M")}
    perfect = AuditTable.of(scores=0.2 + 0.1 * y, y=y, sensitive_features=groups)
    first, second = score_warnings(perfect)
    assert "right order (AUC 1.000)" in first
    assert "Everybody has the same decision, a negative one" in second
