"""`fairlayer stream` and `fairlayer serve`, run as a user would."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairlayer.cli import main
from fairlayer.cli.arguments import build_parser
from fairlayer.cli.streaming import policy_options
from fairlayer.data import LendingPopulation
from fairlayer.serving import Scorer, stream_table
from fairlayer.training import load_run


@pytest.fixture
def table(rows: pd.DataFrame, tmp_path: Path) -> Path:
    rows.to_csv(tmp_path / "new.csv", index=False)
    return tmp_path / "new.csv"


@pytest.mark.parametrize("policy", ["tracking", "anytime", "per_batch"])
@pytest.mark.parametrize("size", [1, 16])
def test_it_prints_a_table_that_fits_a_terminal(
    policy: str, size: int, run: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stream", str(run), str(table), "--policy", policy, "--batch-size", str(size)]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    for said in (
        "nothing",
        "offline",
        "stream",
        "pooled (not bounded)" if policy == "per_batch" else "pooled (at most 0.02)",
        "mean squared change",
        "Rows by phase",
        "AUC",
    ):
        assert said in shown
    assert ("one at a time" in shown) == (size == 1)


def test_scores_and_picture_are_written(run: Path, table: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    out, picture = tmp_path / "scores.csv", tmp_path / "stream.png"
    given = ("--policy", "anytime", "--out", str(out), "--plot", str(picture), "--warm-start", str(table))
    assert main(["stream", str(run), str(table), *given, "--memory", "200"]) == 0
    scores = pd.read_csv(out)
    assert list(scores.columns) == ["score", "streamed_score"]
    means = scores["streamed_score"].groupby(rows["sex"]).mean()
    assert abs(means["female"] - means["male"]) <= 0.02 + 1e-6
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_its_numbers_are_those_of_the_scores(run: Path, rows: pd.DataFrame) -> None:
    seen: list[int] = []
    found = stream_table(load_run(run), rows, batch_size=7, on_rows=seen.append)
    [parity] = found.measurable()
    means = pd.Series(found.streamed).groupby(rows["sex"].to_numpy()).mean()
    gap = abs(means["female"] - means["male"])
    assert found.pooled(parity, found.streamed) == pytest.approx(gap, abs=1e-12)
    assert found.state.pooled_gap()[parity.name] == pytest.approx(gap, abs=1e-9)
    assert found.distortion(found.streamed) == pytest.approx(found.state.mean_squared_change(), abs=1e-12)
    assert found.distortion(found.raw) == 0.0
    within = []
    for start in range(0, 400, 7):
        part = pd.Series(found.raw[start : start + 7]).groupby(rows["sex"].to_numpy()[start : start + 7]).mean()
        within.append((len(found.raw[start : start + 7]), part.max() - part.min()))
    expected = np.average([gap for _, gap in within], weights=[size for size, _ in within])
    assert found.per_batch(parity, found.raw) == pytest.approx(expected)
    assert (found.worst_pooled(parity, found.streamed) or 0.0) >= gap - 1e-12
    assert sum(found.phases.values()) == seen[-1] == 400


def test_a_stream_begins_empty_whatever_the_checkpoint_holds(run: Path, rows: pd.DataFrame) -> None:
    loaded = load_run(run)
    loaded.predict(rows)
    assert loaded.model.inference_state.samples == 0  # a file predicted as one batch is no stream
    assert stream_table(loaded, rows.head(20)).state.samples == 20
    assert stream_table(loaded, rows.head(10)).state.samples == 10


def test_labels_are_used_where_the_table_has_them(
    labelled_run: Path, rows: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows.to_csv(tmp_path / "with.csv", index=False)
    rows.drop(columns="label").to_csv(tmp_path / "without.csv", index=False)
    assert main(["stream", str(labelled_run), str(tmp_path / "with.csv")]) == 0
    assert "pooled (not bounded)" in capsys.readouterr().out
    assert main(["stream", str(labelled_run), str(tmp_path / "without.csv")]) == 0
    shown = capsys.readouterr().out
    assert "for want of the column 'label'" in shown
    assert "AUC" not in shown


def test_what_cannot_be_streamed_is_one_message(
    run: Path, table: Path, rows: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        assert main(arguments) == 2
        shown = capsys.readouterr().err
        assert shown.startswith("fairlayer: ")
        return shown

    rows.assign(sex="other").to_csv(tmp_path / "other.csv", index=False)
    assert "'other'" in refused("stream", str(run), str(tmp_path / "other.csv"))
    assert "at least one row" in refused("stream", str(run), str(table), "--batch-size", "0")
    assert "no checkpoint" in refused("stream", str(tmp_path), str(table))
    assert "no file" in refused("stream", str(run), str(tmp_path / "gone.csv"))
    (tmp_path / "text").write_text("no database" * 100)
    assert "not a database" in refused("serve", str(run), "--store", str(tmp_path / "text"))
    assert "no checkpoint" in refused("serve", str(tmp_path), "--store", str(tmp_path / "s.sqlite"))


MINE = """
from dataclasses import dataclass

from fairlayer.streaming import Answer, Policy


@dataclass(frozen=True)
class Shrunk(Policy):
    name = "shrunk"
    share: float = 0.5

    def answer(self, state, stream, cells, raw):
        return Answer(emitted=self.share * raw, start=raw)


GENTLE = Shrunk(0.75)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with policies of one's own, in the folder from which the command is called."""
    name = f"policies_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


@pytest.mark.parametrize(("policy", "share"), [("Shrunk", 0.5), ("GENTLE", 0.75)])
def test_a_policy_of_ones_own_streams(policy: str, share: float, mine: str, run: Path, table: Path) -> None:
    out = table.parent / "scores.csv"
    given = ("--policy", f"{mine}:{policy}", "--batch-size", "7", "--out", str(out))
    assert main(["stream", str(run), str(table), *given]) == 0
    scores = pd.read_csv(out)
    assert np.allclose(scores["streamed_score"], share * scores["score"], atol=1e-6)


def test_a_policy_of_ones_own_serves(mine: str, run: Path) -> None:
    arguments = build_parser().parse_args(["serve", str(run), "--policy", f"{mine}:Shrunk"])
    scorer = Scorer(run, **policy_options(arguments[arguments.command]))
    record = json.loads(pd.DataFrame(LendingPopulation().sample(1, seed=3)).to_json(orient="records"))[0]
    found = scorer.score([record])
    assert found.scores == pytest.approx([0.5 * found.raw_scores[0]])
    scorer.close()


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("no_such_module:Mine", "cannot be imported"),
        ("fairlayer.streaming:Mine", "cannot be imported"),
        ("fairlayer.streaming:InferenceState", "policy must be one of"),
        ("steady", "policy must be one of"),
    ],
)
def test_a_policy_that_is_none_is_refused(
    policy: str, said: str, run: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stream", str(run), str(table), "--policy", policy]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
