"""The table of columns, through the command line: what files hold, read as groups or refused by name."""

from __future__ import annotations

import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from fairlayer.cli import main

N = 200
WORDS: list[Any] = (["F"] * 4 + ["M"] * 5 + [None]) * 20  # 80 F, 100 M, 20 unknown
CODES = [{"F": 0, "M": 1}.get(word) for word in WORDS]
RANDOM = np.random.default_rng(0)
SCORE, LABEL = RANDOM.random(N).round(4), RANDOM.integers(0, 2, N)


def spelt(first: Any, second: Any, unknown: Any = "") -> list[Any]:
    return [{"F": first, "M": second}.get(word, unknown) for word in WORDS]


def write(folder: Path, column: Any) -> Path:
    """A list goes into a CSV as it is spelt, an array of pyarrow into Parquet."""
    if isinstance(column, list):
        path = folder / "table.csv"
        rows = [f"{s},{y},{g}" for s, y, g in zip(SCORE, LABEL, column, strict=True)]
        path.write_text("\n".join(["score,y,g", *rows]), encoding="utf-8")
    else:
        path = folder / "table.parquet"
        parquet.write_table(pa.table({"score": SCORE, "y": LABEL, "g": column}), path)
    return path


def audited(folder: Path, column: Any) -> int:
    asked = ["--target", "y", "--score", "score", "--sensitive", "g", "--json", str(folder / "audit.json")]
    return main(["audit", str(write(folder, column)), *asked])


READ: dict[str, tuple[Any, str, str]] = {
    "text": (spelt("F", "M"), "F", "M"),
    "text in quotes": (spelt('"F"', '"M"', '""'), "F", "M"),
    "text with spaces": (spelt(" F", " M", " "), "F", "M"),
    "text and ?": (spelt("F", "M", "?"), "F", "M"),
    "codes": (spelt(0, 1), "0", "1"),
    "codes with points": (spelt("0.0", "1.0"), "0", "1"),
    "codes with signs": (spelt(-1, 1), "-1", "1"),
    "truth values": (spelt("False", "True"), "False", "True"),
    "yes and no": (spelt("no", "yes"), "no", "yes"),
    "dates": (spelt("2020-01-01", "2021-01-01"), "2020-01-01", "2021-01-01"),
    "Parquet, text": (pa.array(WORDS), "F", "M"),
    "Parquet, large text": (pa.array(WORDS, pa.large_string()), "F", "M"),
    "Parquet, dictionary": (pa.array(WORDS).dictionary_encode(), "F", "M"),
    "Parquet, int8": (pa.array(CODES, pa.int8()), "0", "1"),
    "Parquet, floats": (pa.array(CODES, pa.float32()), "0", "1"),
    "Parquet, truth values": (pa.array([None if code is None else bool(code) for code in CODES]), "False", "True"),
    "Parquet, decimals": (pa.array([None if c is None else decimal.Decimal(c) for c in CODES]), "0", "1"),
    "Parquet, dates": (pa.array(spelt(datetime.date(2020, 1, 1), datetime.date(2021, 1, 1), None)),
                       "2020-01-01", "2021-01-01"),
}  # fmt: skip
REFUSED: dict[str, tuple[Any, str]] = {
    "the word NaN": (spelt("F", "M", "NaN"), "the text 'NaN'"),
    "the word None": (spelt("F", "M", "None"), "the text 'None'"),
    "the word <NA>": (spelt("F", "M", "<NA>"), "the text '<NA>'"),
    "two spellings": (
        ["f" if word == "F" and row % 2 else word for row, word in enumerate(spelt("F", "M"))],
        "'F', 'f'",
    ),
    "enormous codes, some missing": (spelt(2**60, 2**60 + 1), "do not tell whole numbers of that size apart"),
    "enormous codes with points": (spelt(f"{2**53}.0", f"{2**53 + 1}.0"), "do not tell whole numbers"),
    "infinity": (spelt(0, 1, "inf"), "infinite"),
    "a number for each row": (list(range(N)), "200 distinct values"),
    "Parquet, enormous codes": (pa.array(spelt(2**63, 2**63 + 1, None), pa.uint64()), "do not tell whole numbers"),
    "Parquet, bytes": (pa.array([word and word.encode() for word in WORDS]), "type bytes"),
    "Parquet, lists": (pa.array([[word] for word in WORDS]), "type ndarray"),
    "Parquet, structs": (pa.array([{"a": word} for word in WORDS]), "type dict"),
    "Parquet, empty text": (pa.array(spelt("F", "M", "")), "the text ''"),
}


@pytest.mark.parametrize("name", READ)
def test_every_column_is_read_as_groups(name: str, tmp_path: Path) -> None:
    column, first, second = READ[name]
    assert audited(tmp_path, column) == 4  # nothing was asked
    [grouping] = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))["groupings"]
    found = {group["name"]: group["rows"] for group in grouping["groups"]}
    assert found == {f"g={first}": 80, f"g={second}": 100, "unknown": 20}


@pytest.mark.parametrize("name", REFUSED)
def test_what_names_no_groups_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    column, said = REFUSED[name]
    assert audited(tmp_path, column) == 2
    told = capsys.readouterr().err
    assert "ColumnError: sensitive column 'g'" in told
    assert said in told


@pytest.mark.parametrize("spelling", [("False", "True"), ("false", "true"), ("no", "yes"), ("-1", "1"), ("0.0", "1.0")])
def test_a_column_is_feature_and_group_at_once(spelling: tuple[str, str], tmp_path: Path) -> None:
    """In training, where truth values were taken for numbers that hide a word."""
    path, out = write(tmp_path, spelt(*spelling)), tmp_path / "run"
    quick = ["--epochs", "1", "--hidden", "4", "--no-trees", "--geometry", "euclidean", "--out", str(out)]
    constraint = ["--constraint", "demographic_parity(g, 0.05)"]
    assert main(["train", str(path), "--target", "y", *constraint, *quick]) == 0
