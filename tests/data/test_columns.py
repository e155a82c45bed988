"""Category names, numbers, cuts, sensitive columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fairlayer.data import Cut, parse_cut
from fairlayer.data.columns import as_numbers, as_text, sensitive_columns
from fairlayer.data.errors import ColumnError, MissingColumnError


@pytest.mark.parametrize(
    "column",
    [pd.Series([1, 2]), pd.Series([1.0, 2.0]), pd.Series(["1", "2"]), pd.Series([1, 2], dtype="Int64")],
    ids=["int", "float", "text", "nullable"],
)
def test_codes_have_one_name_however_they_are_stored(column: pd.Series) -> None:
    assert as_text(column).tolist() == ["1", "2"]


def test_missing_values_are_none_in_text_and_nan_in_numbers() -> None:
    assert as_text(pd.Series([1.0, None])).tolist() == ["1", None]
    assert as_text(pd.Series(["a", None])).tolist() == ["a", None]
    assert np.isnan(as_numbers(pd.Series([1.0, None]))[1])


def test_text_and_infinity_are_no_numbers() -> None:
    with pytest.raises(ColumnError, match=r"'age'.*1 of 2 values are not: 'old'"):
        as_numbers(pd.Series([1, "old"], name="age"))
    with pytest.raises(ColumnError, match="infinite"):
        as_numbers(pd.Series([1.0, np.inf], name="age"))


def test_a_cut_includes_its_upper_edge() -> None:
    cut = parse_cut("age=25,59")
    assert cut.column == "age_group"
    assert cut.groups(np.array([25.0, 25.5, 59.0, 60.0, np.nan])).tolist() == [
        "age<=25", "25<age<=59", "25<age<=59", "age>59", None,
    ]  # fmt: skip


def test_a_cut_survives_its_dict() -> None:
    cut = Cut("g", "age", (1.0, 2.0), ("a", "b", "a"))
    assert Cut.from_dict(cut.to_dict()) == cut


@pytest.mark.parametrize("text", ["age", "age=", "=5", "age=x", "age=5,3", "age=5,5"])
def test_a_senseless_cut_is_refused(text: str) -> None:
    with pytest.raises(ColumnError):
        parse_cut(text)


def test_sensitive_columns_are_names_numbers_or_cuts() -> None:
    frame = pd.DataFrame({"sex": [1, 2], "age": [20, 70]})
    found = sensitive_columns(frame, ["sex", "age", "age_group"], cuts=[parse_cut("age=30")], continuous=["age"])
    assert found["sex"].tolist() == ["1", "2"]
    assert found["age"].tolist() == [20.0, 70.0]
    assert found["age_group"].tolist() == ["age<=30", "age>30"]


def test_an_amount_is_not_taken_for_groups() -> None:
    frame = pd.DataFrame({"income": np.arange(100)})
    with pytest.raises(ColumnError, match=r"100 distinct values.*--cut income="):
        sensitive_columns(frame, ["income"])


def test_a_missing_column_says_what_there_is() -> None:
    with pytest.raises(MissingColumnError, match=r"sensitive column 'sex'.*It has: 'age'"):
        sensitive_columns(pd.DataFrame({"age": [1]}), ["sex"])
