"""Named data sets: the right columns, the places looked at, and what is said when there is nothing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fairlayer.data import READERS, Encoder, read_data_set, split_rows
from fairlayer.data.errors import MissingDataError
from fairlayer.data.sources import find_or_fetch

ROWS = pd.DataFrame({"a": [1, 2]})


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("FAIRLAYER_DATA", raising=False)
    monkeypatch.setenv("FAIRLAYER_CACHE", str(tmp_path / "cache"))
    return tmp_path


def never() -> pd.DataFrame:
    raise AssertionError("the public original was asked for")


def offline() -> pd.DataFrame:
    raise OSError("no network")


def test_a_given_file_or_folder_is_binding(nowhere: Path) -> None:
    ROWS.to_csv(nowhere / "x.csv", index=False)
    for source in (nowhere, nowhere / "x.csv"):
        assert find_or_fetch("x.csv", source, never).equals(ROWS)
    with pytest.raises(MissingDataError, match=r"'y\.csv' was asked for at"):
        find_or_fetch("y.csv", nowhere, never)


def test_the_data_folder_comes_before_the_cache(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (nowhere / "cache").mkdir()
    ROWS.to_csv(nowhere / "cache" / "x.csv", index=False)
    assert find_or_fetch("x.csv", None, never).equals(ROWS)
    (nowhere / "data").mkdir()
    (ROWS * 2).to_csv(nowhere / "data" / "x.csv", index=False)
    monkeypatch.setenv("FAIRLAYER_DATA", str(nowhere / "data"))
    assert find_or_fetch("x.csv", None, never).equals(ROWS * 2)


def test_what_was_fetched_is_kept(nowhere: Path) -> None:
    assert find_or_fetch("x.csv.gz", None, lambda: ROWS).equals(ROWS)
    assert find_or_fetch("x.csv.gz", None, never).equals(ROWS)
    assert [path.name for path in (nowhere / "cache").iterdir()] == ["x.csv.gz"]


def test_when_nothing_is_there_the_error_says_what_to_do(nowhere: Path) -> None:
    with pytest.raises(MissingDataError) as caught:
        find_or_fetch("adult.csv.gz", None, offline)
    for said in ("FAIRLAYER_DATA (not set)", "no network", "--data PATH", "generated data"):
        assert said in str(caught.value)
    assert not (nowhere / "cache").exists()


def test_the_generated_data_need_nothing(nowhere: Path) -> None:
    table = read_data_set("lending")
    assert "GENERATED" in table.description
    assert "repays" not in table.features()
    with pytest.raises(MissingDataError, match="generated"):
        READERS["lending"]("somewhere")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(MissingDataError, match=r"'compas'.*'adult'.*fairlayer train"):
        read_data_set("compas")


EXPECTED = {  # rows, features, share of positives (or mean target), groups of the first sensitive feature
    "adult": (48_842, 12, 0.239, ["Female", "Male"]),
    "german": (1_000, 20, 0.7, ["25 and under", "over 25"]),
    "bank": (45_211, 15, 0.117, ["25-59", "under 25 or over 59"]),
    "communities_crime": (1_994, 100, 0.238, ["racepctblack<=0.06", "racepctblack>0.06"]),
    "acsincome": (10_785, 10, 0.312, ["1", "2"]),
}


@pytest.mark.data
@pytest.mark.parametrize("name", EXPECTED)
def test_real_data_have_the_documented_shape(name: str, data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLAYER_DATA", str(data_folder))
    table = read_data_set(name)
    rows, features, mean, groups = EXPECTED[name]
    assert (len(table.frame), len(table.features())) == (rows, features)
    assert table.labels().mean() == pytest.approx(mean, abs=5e-4)
    found = table.sensitive_features(table.sensitive[:1])[table.sensitive[0]]
    assert sorted(set(found)) == groups
    encoder = Encoder.fit(table.frame, table.features(), categorical=table.categorical)
    assert encoder.encode(table.frame).shape == (rows, encoder.width)


@pytest.mark.data
def test_adult_keeps_its_official_split(data_folder: Path) -> None:
    split = split_rows(read_data_set(str(data_folder / "adult.csv.gz")))
    assert (len(split.train) + len(split.valid), len(split.test)) == (32_561, 16_281)


@pytest.mark.data
def test_columns_that_leak_or_repeat_are_no_features(data_folder: Path) -> None:
    for name, columns in {
        "adult": {"fnlwgt", "education_num", "income", "split"},
        "bank": {"duration"},
    }.items():
        assert not columns & set(READERS[name](data_folder).features())
    crime = READERS["communities_crime"](data_folder)
    assert not {"state", "fold", "LemasSwornFT", "PolicBudgPerPop"} & set(crime.features())
