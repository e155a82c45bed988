"""Feature columns to a matrix."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from fairlayer.data import Encoder
from fairlayer.data.errors import ColumnError, MissingColumnError

TRAIN = pd.DataFrame(
    {
        "age": [20.0, 40.0, None, 60.0],
        "job": ["nurse", "clerk", None, "clerk"],
        "code": [1, 2, 1, 2],
        "constant": [5, 5, 5, 5],
    }
)


def fitted() -> Encoder:
    return Encoder.fit(TRAIN, list(TRAIN.columns), categorical=["code"])


def test_numbers_are_standardised_with_a_missing_indicator() -> None:
    matrix = fitted().encode(TRAIN)
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix[:, 0], np.array([-1, 0, 0, 1]) * np.sqrt(1.5), rtol=1e-6)
    assert matrix[:, 1].tolist() == [0, 0, 1, 0]


def test_levels_are_one_hot_and_missing_is_a_level() -> None:
    matrix = fitted().encode(TRAIN)[:, 2:5]  # clerk, nurse, missing
    assert matrix.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0]]


def test_codes_are_levels_and_a_constant_stays_finite() -> None:
    matrix = fitted().encode(TRAIN)
    assert matrix[:, 5:7].tolist() == [[1, 0], [0, 1], [1, 0], [0, 1]]
    assert matrix[:, 7].tolist() == [0, 0, 0, 0]
    assert matrix.shape[1] == fitted().width == 8


def test_what_was_unseen_in_training_is_all_zeros() -> None:
    rows = pd.DataFrame({"age": [40.0], "job": ["pilot"], "code": [9], "constant": [5]})
    assert fitted().encode(rows).tolist() == [[0.0] * 8]


def test_what_was_unseen_in_training_is_told_by_name_and_count() -> None:
    train = pd.DataFrame(
        {"job": ["clerk", "nurse", None], "age": [1.0, 2.0, 3.0], "day": ["1.2.2020", "3.2.2020", "4.2.2020"]}
    )
    encoder = Encoder.fit(train, ["job", "age", "day"])
    assert encoder.unfamiliar(train) == ()
    new = pd.DataFrame(
        {"job": ["pilot", None, "pilot"], "age": [1.0, None, None], "day": ["1.2.2020", None, "4.2.2020"]}
    )
    assert encoder.unfamiliar(new) == (
        "'job': 2 of 3 rows hold what no training row had, such as 'pilot'; they count as none of the known values.",
        "'age': 2 of 3 rows are missing, and no training row was; they count as the mean.",
        "'day': 1 of 3 rows are missing, and no training row was; they count as the mean.",
    )
    indicated = Encoder.fit(pd.DataFrame({"age": [1.0, None], "job": ["clerk", "nurse"]}), ["age", "job"])
    assert indicated.unfamiliar(pd.DataFrame({"age": [None], "job": [None]})) == (
        "'job': 1 of 1 rows hold what no training row had, such as '(missing)'; they count as none "
        "of the known values.",
    )


def test_a_level_is_the_same_whether_the_file_made_it_int_or_float() -> None:
    rows = TRAIN.assign(code=[1.0, 2.0, None, 2.0])
    assert fitted().encode(rows)[:2, 5:7].tolist() == [[1, 0], [0, 1]]


def test_it_survives_json_and_a_safe_checkpoint(tmp_path) -> None:  # type: ignore[no-untyped-def]
    encoder = fitted()
    assert Encoder.from_dict(json.loads(json.dumps(encoder.to_dict()))) == encoder
    torch.save(encoder.to_dict(), tmp_path / "encoder.pt")
    assert Encoder.from_dict(torch.load(tmp_path / "encoder.pt", weights_only=True)) == encoder


def test_a_column_that_is_gone_is_named() -> None:
    with pytest.raises(MissingColumnError, match="feature column 'job'"):
        fitted().encode(TRAIN.drop(columns="job"))


def test_text_where_numbers_were_is_named() -> None:
    with pytest.raises(ColumnError, match=r"'age'.*'old'"):
        fitted().encode(TRAIN.assign(age=["old", 1, 2, 3]))


def test_numbers_with_odd_entries_are_not_taken_for_categories() -> None:
    frame = pd.DataFrame({"income": ["10", "20", "n/a", "30"]})
    with pytest.raises(ColumnError, match="'n/a'"):
        Encoder.fit(frame, ["income"])
    assert Encoder.fit(frame, ["income"], categorical=["income"]).width == 4


def test_identifiers_are_refused() -> None:
    with pytest.raises(ColumnError, match="--drop name"):
        Encoder.fit(pd.DataFrame({"name": [f"n{i}" for i in range(60)]}), ["name"])


def test_no_feature_at_all_is_refused() -> None:
    with pytest.raises(ColumnError, match="no feature column"):
        Encoder.fit(TRAIN, [])
