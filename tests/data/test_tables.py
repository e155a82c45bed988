"""Files, roles of columns, splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairlayer.data import Table, inspect_table, parse_cut, read_frame, split_rows
from fairlayer.data.errors import ColumnError, MissingColumnError, TargetError
from fairlayer.errors import DataError

FRAME = pd.DataFrame(
    {
        "age": range(20),
        "sex": ["f", "m"] * 10,
        "y": ["no", "yes"] * 10,
        "split": ["train"] * 15 + ["test"] * 5,
    }
)


def table(**changes: object) -> Table:
    roles: dict[str, object] = {"target": "y", "positive": "yes", "sensitive": ("sex",)}
    return Table("t", FRAME, **(roles | changes))  # type: ignore[arg-type]


def test_only_an_empty_cell_is_missing(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("account,amount\nNone,1\nNA,2\n,3\n", encoding="utf-8")
    frame = read_frame(tmp_path / "t.csv")
    assert frame["account"].isna().tolist() == [False, False, True]


def test_compressed_files_are_read(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "t.csv.gz", index=False)
    assert len(read_frame(tmp_path / "t.csv.gz")) == 20


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "could not be read"), (b"a,b\n", "no rows"), (b"a\n1\n1,2\n", "could not be read")],
)
def test_unusable_files_are_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"t.csv.*{said}"):
        read_frame(tmp_path / "t.csv")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file at .*gone\.csv"):
        read_frame(tmp_path / "gone.csv")


def test_features_leave_out_target_split_and_what_was_dropped() -> None:
    assert table(split="split").features() == ("age", "sex")
    assert table(split="split", not_features=("age",)).features() == ("sex",)


def test_drop_sensitive_also_drops_what_a_cut_was_made_from() -> None:
    cut = table(split="split", sensitive=("sex", "age_group"), cuts=(parse_cut("age=9"),))
    assert cut.features() == ("age", "sex")
    assert cut.features(drop_sensitive=True) == ()


def test_labels_are_zero_and_one() -> None:
    assert table().labels().tolist() == [0.0, 1.0] * 10
    assert table(target="age", positive=None).labels().tolist() == list(range(20))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"positive": "Yes"}, r"equals 'Yes', but its values are: 'no', 'yes'"),
        ({"target": "sex", "positive": None}, "not numbers"),
    ],
)
def test_wrong_targets_are_named(changes: dict[str, object], said: str) -> None:
    with pytest.raises(TargetError, match=said):
        table(**changes).labels()


def test_one_class_and_missing_labels_are_named() -> None:
    one = Table("t", FRAME.assign(y="yes"), "y", "yes", ())
    with pytest.raises(TargetError, match="in all 20 rows"):
        one.labels()
    gaps = Table("t", FRAME.assign(y=FRAME["y"].where(FRAME.index > 2)), "y", "yes", ())
    with pytest.raises(TargetError, match="missing in 3 of 20 rows"):
        gaps.labels()


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "z"},
        {"sensitive": ("z",)},
        {"not_features": ("z",)},
        {"split": "z"},
        {"categorical": ("z",)},
    ],
)
def test_columns_that_are_not_there_are_named(changes: dict[str, object]) -> None:
    with pytest.raises(MissingColumnError, match="'z'"):
        table(**changes)


def test_a_split_column_is_kept_and_validation_comes_from_training() -> None:
    split = split_rows(table(split="split"))
    assert sorted(split.test) == list(range(15, 20))
    assert sorted([*split.train, *split.valid]) == list(range(15))
    assert "split" in split.origin


def test_a_random_split_repeats_and_covers_all_rows() -> None:
    first, second = (split_rows(table(), seed=4) for _ in range(2))
    assert (first.train == second.train).all()
    assert sorted(np.concatenate([first.train, first.valid, first.test])) == list(range(20))
    assert len(first.test) == 6


def test_unusable_splits_are_named() -> None:
    with pytest.raises(ColumnError, match="'dev'"):
        split_rows(Table("t", FRAME.assign(split="dev"), "y", "yes", (), split="split"))
    with pytest.raises(ColumnError, match="'test': 0"):
        split_rows(Table("t", FRAME.assign(split="train"), "y", "yes", (), split="split"))


def test_one_answer_in_several_spellings_is_refused() -> None:
    frame = pd.DataFrame({"paid": ["Yes", "yes", "no"] * 20, "sex": ["F", "f", "M"] * 20, "x": range(60)})
    table = Table("t", frame, target="paid", positive="yes", sensitive=("sex",))
    with pytest.raises(TargetError, match=r"of which 'Yes', 'yes' would be different answers"):
        table.labels()
    with pytest.raises(ColumnError, match=r"'F', 'f', which would be different groups"):
        table.sensitive_features(["sex"])
    tidy = Table("t", frame.assign(paid=["yes", "no", "unknown"] * 20), target="paid", positive="yes", sensitive=())
    assert any("'no', 'unknown' all count as 0" in note for note in inspect_table(tidy).notes(tidy))
