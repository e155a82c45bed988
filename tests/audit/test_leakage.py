"""What the audit says of columns and scores that look as if the answer had leaked into them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fairlayer.audit import AuditTable, Columns, Wanted, audit_frame
from fairlayer.audit.leakage import column_warnings, copy_warnings, score_warnings


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


def people(rows: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    sex = np.where(np.arange(rows) < rows // 2, "F", "M")
    return pd.DataFrame(
        {"id": np.arange(rows), "sex": sex, "p": rng.random(rows).round(2), "town": rng.integers(0, 5, rows)}
    )


def test_people_who_stand_in_a_table_twice_are_spoken_of() -> None:
    """Equal rows alone prove nothing; with an identifier in them they are the same people."""
    frame = pd.concat([people(), people()[:7]], ignore_index=True)
    found = audit_frame(frame, Columns(["sex"], score="p"))
    assert any(said.startswith("7 rows are copies of others, the identifier 'id'") for said in found.warnings)
    assert copy_warnings(people(), ["id"]) == ()
    assert copy_warnings(frame.drop(columns="id"), ["town"]) == ()
    frame.loc[0, "town"] = 9  # an id with two contents is none
    assert copy_warnings(frame, ["id"]) == ()


def test_an_identifier_is_no_proxy() -> None:
    found = audit_frame(people(), Columns(["sex"], score="p"), wanted=Wanted(proxies=True))
    [told] = found.to_dict()["proxies"]
    assert [one["column"] for one in told["columns"]] == ["town"]
