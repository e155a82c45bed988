"""Tables in files: the same answer as in memory, row by row, and a file only when it is complete."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer.scoring import score_table

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
csv = pytest.importorskip("pyarrow.csv")

ROOT = Path(__file__).resolve().parents[2]
N = 5_000
ODDS = [fl.EqualizedOdds("sex", tolerance=0.01), fl.DemographicParity("age", tolerance=0.0)]


def columns(n: int = N, seed: int = 1) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    sex = rng.choice(np.array(["F", "M", None], dtype=object), n, p=[0.4, 0.5, 0.1])
    score = np.clip(rng.normal(0.4, 0.3, n) + 0.1 * (sex == "F"), 0.0, 1.0)
    return {
        "id": np.arange(n),
        "sex": sex,
        "age": rng.integers(0, 3, n),
        "score": score,
        "label": (rng.random(n) < score).astype(int),
    }


def in_memory(given: dict[str, Any]) -> np.ndarray:
    features = {"sex": given["sex"], "age": given["age"]}
    result = fl.project(
        torch.tensor(given["score"]), ODDS, sensitive_features=features, y=given["label"], bounds=(0.0, 1.0)
    )
    return result.value.numpy()


@pytest.fixture
def written(tmp_path: Path) -> dict[str, Any]:
    """Two Parquet files and a CSV with the same rows."""
    given = columns()
    table = pa.table(given)
    pq.write_table(table.slice(0, 2000), tmp_path / "first.parquet", row_group_size=700)
    pq.write_table(table.slice(2000), tmp_path / "second.parquet")
    csv.write_csv(table, tmp_path / "all.csv")
    return given


@pytest.mark.parametrize("names", [("first.parquet", "second.parquet"), ("all.csv",)])
def test_equals_memory_row_by_row(names: tuple[str, ...], written: dict[str, Any], tmp_path: Path) -> None:
    table = score_table(
        [tmp_path / name for name in names],
        ODDS,
        out=tmp_path / "out.parquet",
        y="label",
        keep=["id"],
        rows=600,
        bounds=(0.0, 1.0),
    )
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names == ["id", "score", "value", "shift"]
    np.testing.assert_array_equal(found["id"], written["id"])
    np.testing.assert_allclose(found["value"], in_memory(written), atol=1e-9)
    moved = np.clip(np.asarray(found["score"]) + np.asarray(found["shift"]), 0.0, 1.0)
    np.testing.assert_allclose(moved, found["value"], atol=1e-12)
    assert table.violation <= 1e-9
    assert not list(tmp_path.glob("*.unfinished"))


def test_scores_of_a_model(written: dict[str, Any], tmp_path: Path) -> None:
    def model(batch: Any) -> Any:
        return torch.tensor(np.asarray(batch.column("score"))).float()[:, None]

    table = score_table(tmp_path / "all.csv", ODDS, out=tmp_path / "o.parquet", scores=model, y="label", bounds=(0, 1))
    found = pq.read_table(tmp_path / "o.parquet")
    assert str(found["value"].type) == "float"
    np.testing.assert_allclose(found["value"], in_memory(written), atol=2e-6)
    assert table.violation <= 1e-6


class TestErrors:
    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(fl.errors.DataError, match="no file at"):
            score_table(tmp_path / "none.parquet", ODDS, out=tmp_path / "o.parquet")

    def test_no_column(self, written: dict[str, Any], tmp_path: Path) -> None:
        with pytest.raises(fl.errors.DataError, match="has no column 'logit'; its columns are"):
            score_table(tmp_path / "all.csv", ODDS, out=tmp_path / "o.parquet", scores="logit", y="label")

    def test_no_table(self, tmp_path: Path) -> None:
        (tmp_path / "bad.parquet").write_text("no table")
        with pytest.raises(fl.errors.DataError, match="could not be read as a table"):
            score_table(tmp_path / "bad.parquet", ODDS, out=tmp_path / "o.parquet")

    def test_nothing_is_written_where_it_fails(self, written: dict[str, Any], tmp_path: Path) -> None:
        (tmp_path / "o.parquet").write_text("what was there")
        calls: Iterator[int] = iter(range(10**9))

        def fails_late(batch: Any) -> Any:
            if next(calls) > 5:
                raise ValueError("model gone")
            return np.asarray(batch.column("score"))

        with pytest.raises(ValueError, match="model gone"):
            score_table(tmp_path / "all.csv", ODDS, out=tmp_path / "o.parquet", scores=fails_late, y="label", rows=50)
        assert (tmp_path / "o.parquet").read_text() == "what was there"
        assert not list(tmp_path.glob("*.unfinished"))


@pytest.mark.slow
def test_twenty_million_rows_under_a_gibibyte(tmp_path: Path) -> None:
    """Written, scored and compared in processes of their own, whose memory is measured."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "scaling.py"), "--table", "20000000", "--folder", str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    figures = dict(line.split(": ") for line in done.stdout.splitlines() if ": " in line)
    assert float(figures["largest difference from memory"]) <= 1e-6
    assert float(figures["peak memory of scoring, MiB"]) < 1024
    gc.collect()
