"""Files as they come: separators, encodings, decimal commas, words for missing values, dates."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairlayer.data import Encoder, read_file, read_frame
from fairlayer.data.dates import as_days, date_format
from fairlayer.data.errors import ColumnError
from fairlayer.data.files import ReadFile
from fairlayer.errors import DataError

ROWS = pd.DataFrame(
    {
        "âge": [31, 45, 62],
        "ville": ["Besançon", "Köln; West", "a,b|c"],
        "revenu": [1234.5, 0.25, 99999.0],
        "né le": ["12.05.1990", "01.12.1978", "30.01.1960"],
    }
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_and_encodings_are_found_out(tmp_path: Path, separator: str, encoding: str) -> None:
    ROWS.to_csv(tmp_path / "t.csv", sep=separator, encoding=encoding, index=False)
    pd.testing.assert_frame_equal(read_frame(tmp_path / "t.csv"), ROWS)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_decimal_commas_are_read_and_dates_stay_dates(tmp_path: Path, separator: str) -> None:
    ROWS.assign(gross=["1.234,50", "2", "12.345.678,9"]).to_csv(
        tmp_path / "t.csv", sep=separator, decimal=",", index=False, encoding="latin-1"
    )
    read = read_file(tmp_path / "t.csv")
    pd.testing.assert_frame_equal(read.frame, ROWS.assign(gross=[1234.5, 2.0, 12345678.9]))
    assert "Windows-1252" in read.notes[0]
    assert "decimal comma" in read.notes[-1]


def test_a_plain_file_needs_no_note_and_may_be_any_shape(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('only\n1\n2\n"a, b"\n', encoding="utf-8")
    read = read_file(tmp_path / "t.csv")
    assert read.notes == ()
    assert read.frame["only"].tolist() == ["1", "2", "a, b"]
    (tmp_path / "u.csv").write_text("age, workclass \n39, State-gov\n50, Private\n", encoding="utf-8")
    assert read_frame(tmp_path / "u.csv")["workclass"].tolist() == ["State-gov", "Private"]


def test_what_is_said_goes_before_what_is_found(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("имя;a,b\nИван;1,2\n".encode("cp1251"))
    read = read_file(tmp_path / "t.csv", encoding="cp1251", separator="semicolon")
    assert read.frame["имя"].tolist() == ["Иван"]
    assert list(read_file(tmp_path / "t.csv", encoding="cp1251", separator=",").frame.columns) == ["имя;a", "b"]
    for wrong in ({"encoding": "utf-8"}, {"encoding": "no-such"}, {"separator": "::"}):
        with pytest.raises(DataError, match="could not be read"):
            read_file(tmp_path / "t.csv", **wrong)  # type: ignore[arg-type]


def test_words_for_missing_values(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,?\n?,NA\n3,x\n", encoding="utf-8")
    frame = read_file(tmp_path / "t.csv", missing=["?"]).frame
    assert frame["a"].isna().tolist() == [False, True, False]
    assert frame["b"].tolist()[1:] == ["NA", "x"]


@pytest.mark.parametrize(("suffix", "opened"), [(".gz", gzip.open), (".bz2", bz2.open), (".xz", lzma.open)])
def test_compressed_files(tmp_path: Path, suffix: str, opened: object) -> None:
    with opened(tmp_path / f"t.csv{suffix}", "wb") as file:  # type: ignore[operator]
        file.write("é;b\n1;2\n".encode("latin-1"))
    assert list(read_frame(tmp_path / f"t.csv{suffix}").columns) == ["é", "b"]


def test_archives(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("t.csv", "a,b\n1,2\n")
    assert read_frame(tmp_path / "t.zip")["b"].tolist() == [2]
    with zipfile.ZipFile(tmp_path / "t.zip", "a") as archive:
        archive.writestr("u.csv", "a,b\n1,2\n")
    with pytest.raises(DataError, match="holds 2 files"):
        read_frame(tmp_path / "t.zip")
    (tmp_path / "u.csv.gz").write_bytes(b"not compressed")
    with pytest.raises(DataError, match="could not be read"):
        read_frame(tmp_path / "u.csv.gz")


def test_rows_longer_than_the_header_and_headers_that_are_missing_are_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2,3\n4,5,6\n", encoding="utf-8")
    with pytest.raises(DataError, match="more cells than its header"):
        read_frame(tmp_path / "t.csv")
    (tmp_path / "r.txt").write_text("a b\n1 x 5\n2 y 6\n", encoding="utf-8")  # as R writes a table
    assert read_file(tmp_path / "r.txt", separator="space").frame["a"].tolist() == ["x", "y"]
    (tmp_path / "u.csv").write_text("39,State-gov,77516\n50,Private,83311\n", encoding="utf-8")
    assert "looks like values" in read_file(tmp_path / "u.csv").notes[0]


# ---- dates


@pytest.mark.parametrize(
    ("values", "written"),
    [
        (["2024-01-31", "1999-12-01"], "ISO8601"),
        (["2024-01-31 10:00:00", "2024-01-31T12:30"], "ISO8601"),
        (["31.01.2024", "01.12.1999"], "%d.%m.%Y"),
        (["31/01/2024", "01/12/1999"], "%d/%m/%Y"),
        (["01/31/2024", "12/01/1999"], "%m/%d/%Y"),
        (["01/01/2024", "02/02/1999"], "%d/%m/%Y"),
        (["2024", "2025"], None),
        (["1.5", "2.25"], None),
        (["12-34-56", "99-99-99"], None),
        (["2024-01-31", "soon"], None),
    ],
)
def test_dates_are_known_by_how_all_of_them_are_written(values: list[str], written: str | None) -> None:
    assert date_format(pd.Series([*values, None])) == written


def test_days_and_months_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(ColumnError, match="whether the day or the month comes first"):
        date_format(pd.Series(["01/02/2024", "03/04/2024"], name="since"))


def test_dates_are_numbers_of_days() -> None:
    for column in (
        pd.Series(["1970-01-02", None, "1970-01-11T12:00"], name="t"),
        pd.Series(pd.to_datetime(["1970-01-02", None, "1970-01-11T12:00"], format="ISO8601"), name="t"),
        pd.Series(pd.to_datetime(["1970-01-02", None, "1970-01-11T12:00"], format="ISO8601", utc=True), name="t"),
    ):
        days = as_days(column, str(date_format(column)))
        np.testing.assert_allclose(days, [1.0, np.nan, 10.5])
        encoder = Encoder.fit(pd.DataFrame({"t": column}), ["t"])
        assert Encoder.from_dict(encoder.to_dict()) == encoder
        np.testing.assert_allclose(encoder.encode(pd.DataFrame({"t": column})), [[-1, 0], [0, 1], [1, 0]], atol=1e-6)


def test_a_value_that_is_no_date_later_is_named() -> None:
    encoder = Encoder.fit(pd.DataFrame({"t": ["31.01.2024", "01.02.2024"]}), ["t"])
    with pytest.raises(ColumnError, match=r"'t' was read as dates \(%d\.%m\.%Y\), but 1 of 2.*'soon'"):
        encoder.encode(pd.DataFrame({"t": ["31.01.2024", "soon"]}))


def written(path: Path, text: str) -> ReadFile:
    path.write_text(text, encoding="utf-8")
    return read_file(path)


def test_units_and_thousands_are_numbers_and_said(tmp_path: Path) -> None:
    read = written(
        tmp_path / "t.csv", 'rate,fee,big,code,mixed\n5 %,"$1,250.5","1,000,000",A-1,1 %\n7.5%,$ 80,12,B-2,3\n,,,,\n'
    )
    frame = read.frame
    assert frame["rate"].tolist()[:2] == [5.0, 7.5]
    assert frame["fee"].tolist()[:2] == [1250.5, 80.0]
    assert frame["big"].tolist()[:2] == [1e6, 12.0]
    assert frame.iloc[2].isna().all()
    assert frame["code"].tolist()[:2] == ["A-1", "B-2"]
    assert frame["mixed"].tolist()[:2] == ["1 %", "3"]  # two units in one column are not guessed at
    assert sum("is read as numbers" in note for note in read.notes) == 3
    read = written(tmp_path / "t.csv", "rate;fee\n5,5 %;1.250,5 EUR\n7 %;80 EUR\n")
    assert read.frame.to_numpy().tolist() == [[5.5, 1250.5], [7.0, 80.0]]


def test_a_word_after_every_number_is_a_unit(tmp_path: Path) -> None:
    read = written(
        tmp_path / "t.csv", "age,term,flat,code,both\n45 years,1 month,7a,c 7,45 years\n30 years,2 months,8a,c 8,£ 3\n"
    )
    assert read.frame["age"].tolist() == [45.0, 30.0]
    assert any(note == "'age' is written as '45 years', and is read as numbers." for note in read.notes)
    for name, cell in {"term": "1 month", "flat": "7a", "code": "c 7", "both": "45 years"}.items():
        assert read.frame[name][0] == cell  # other words, no blank, a word before: nothing is guessed


def test_names_that_repeat_are_said(tmp_path: Path) -> None:
    read = written(tmp_path / "t.csv", "a,b,a\n1,2,3\n")
    assert list(read.frame.columns) == ["a", "b", "a.1"]
    assert any("are called 'a'" in note for note in read.notes)


def test_blanks_at_the_end_are_nobodys_answer(tmp_path: Path) -> None:
    frame = written(tmp_path / "t.csv", "sex,flag\nF ,True\nF,\n  ,False\n").frame
    assert frame["sex"].tolist()[:2] == ["F", "F"]
    assert frame["sex"].isna().tolist() == [False, False, True]
    assert frame["flag"].tolist()[::2] == [True, False]
