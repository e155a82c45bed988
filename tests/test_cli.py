"""The command line, run as a user would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fairlayer.cli import main
from fairlayer.cli.arguments import build_parser
from fairlayer.cli.reading import read_table
from fairlayer.data import LendingPopulation

PARITY = "demographic_parity(sex, 0.02)"
QUICK = ("--epochs", "2", "--batch-size", "256", "--hidden", "8")


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return pd.DataFrame(LendingPopulation().sample(1500, seed=1)).drop(columns="repays")


@pytest.fixture(scope="module")
def table(rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "loans.csv.gz"
    rows.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    arguments = ("--target", "label", "--sensitive", "region", "--constraint", PARITY, "--out", str(folder))
    assert main(["train", str(table), *arguments, *QUICK]) == 0
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail with one message and no traceback."""
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("fairlayer: ")
    assert "Traceback" not in shown.err
    return shown.err


def test_help_names_commands_options_and_constraints() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fairlayer", "train", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for said in ("--constraint", "--split-column", "--drop-sensitive", "equalized_odds", "example:"):
        assert said in done.stdout


def test_train_prints_a_table_that_fits_a_terminal(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ("--target", "label", "--constraint", PARITY, "--constraint", "equalized_odds(sex+region, 0.2)")
    assert main(["train", str(table), *wanted, "--out", str(tmp_path / "run"), *QUICK]) == 0
    shown = capsys.readouterr().out
    printed = [line for line in shown.splitlines() if not line.startswith("Run folder:")]  # a path may be long
    assert max(map(len, printed)) <= 80
    for said in (
        "unconstrained",
        "accuracy",
        "F1",
        "AUC",
        "score gap (at most 0.02)",
        "decision gap",
        "multiplier",
    ):
        assert said in shown
    for said in ("sex=female", "On these test rows, the constraints", "Largest violation", "label estimates"):
        assert said in shown


def test_train_writes_a_run_that_loads_safely(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["violation"] <= 1e-6
    assert {group["name"] for group in metrics["groups"]} >= {"sex=female", "region=rural"}
    torch.load(run / "checkpoint.pt", weights_only=True)


def test_predict_keeps_the_bound_on_the_whole_file(run: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    rows.drop(columns="label").to_csv(tmp_path / "new.csv", index=False)
    assert main(["predict", str(run), str(tmp_path / "new.csv"), "--out", str(tmp_path / "scores.csv")]) == 0
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert list(scores.columns) == ["raw_score", "score", "decision", "group", "moved_by", "covered"]
    assert len(scores) == len(rows)
    means = scores["score"].groupby(rows["sex"]).mean()
    assert abs(means["female"] - means["male"]) <= 0.02 + 1e-6
    assert scores["score"].between(0, 1).all()
    assert np.allclose(scores["raw_score"] + scores["moved_by"], scores["score"], atol=1e-6)
    assert (scores["group"] == "sex=" + rows["sex"]).all()
    assert scores["covered"].all()
    assert (scores["decision"] == (scores["score"] >= 0.5)).all()


def changed(rows: pd.DataFrame, path: Path, **columns: object) -> str:
    rows.assign(**columns).to_csv(path, index=False)
    return str(path)


def test_predict_refuses_what_it_does_not_know(
    run: Path, rows: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, out = tmp_path / "new.csv", ("--out", str(tmp_path / "scores.csv"))
    other = changed(rows, new, sex=np.where(rows.index == 5, "other", rows["sex"]))
    assert "'other'" in refused(capsys, "predict", str(run), other, *out)
    assert "'sex'" in refused(capsys, "predict", str(run), changed(rows.drop(columns="sex"), new), *out)
    assert "b_tau=256" in refused(capsys, "predict", str(run), changed(rows.head(100), new), *out)
    text = changed(rows, new, amount="much")
    assert "'much'" in refused(capsys, "predict", str(run), text, *out)
    assert "no rows" in refused(capsys, "predict", str(run), changed(rows.head(0), new), *out)
    assert "checkpoint" in refused(capsys, "predict", str(tmp_path), changed(rows, new), *out)
    assert not (tmp_path / "scores.csv").exists()


def test_predict_accepts_a_smaller_file_when_told(run: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    new = changed(rows.head(100), tmp_path / "new.csv")
    out = str(tmp_path / "scores.csv")
    assert main(["predict", str(run), new, "--out", out, "--b-tau", "50"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--target", "lable"), "target column 'lable'"),
        (("--target", "occupation"), "--positive"),
        (("--target", "label", "--positive", "yes"), "'yes'"),
        (("--target", "occupation", "--task", "regression"), "not numbers"),
        (("--target", "label", "--sensitive", "gender"), "'gender'"),
        (("--target", "label", "--constraint", "parity(sex)"), "'parity'"),
        (("--target", "label", "--constraint", "demographic_parity(my sex, 0.1)"), "quotes around a name with blanks"),
        (("--target", "label", "--constraint", "demografic_parity(sex, 0.1)"), "did you mean 'demographic_parity'?"),
        (("--target", "label", "--constraint", "demographic_parity(amount, 0.1)"), "--cut amount="),
        (("--target", "label", "--cut", "amount=x"), "age=25,59"),
        (("--target", "label", "--drop", "gone"), "'gone'"),
        (("--target", "label", "--split-column", "part"), "'part'"),
        (("--target", "label", "--hidden", "a"), "64,32"),
        (("--target", "label", "--choose", "best"), "MEASURE at score_gap"),
        (("--target", "label", "--choose", "beauty at no_gap"), "'beauty'"),
        (("--target", "label", "--utility", "1,2"), "four numbers"),
        (("--target", "amount", "--task", "regression", "--geometry", "entropic"), "regression"),
        (("--target", "amount", "--task", "regression", "--bounds", "1"), "LOW,HIGH"),
        (("--target", "amount", "--task", "regression", "--decisions"), "--decisions was given, but a regression"),
        (("--target", "amount", "--task", "regression", "--utility", "1,0,0,2", "--positive", "1"), "--utility, --pos"),
        (("--target", "amount", "--task", "regression", "--bounds", "9,1"), "lower <= upper"),
        (("--target", "label", "--constraint", "minimum_rate(sex, 1.5)"), "MinimumRate"),
    ],
)
def test_train_refuses_with_one_message(
    arguments: tuple[str, ...], said: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (*QUICK, "--constraint", PARITY, "--out", str(tmp_path / "run"), *arguments)
    assert said in refused(capsys, "train", str(table), *given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"label": 1}, "both classes"),
        ({"sex": "female"}, "fewer than two"),
        ({"split": "dev"}, "'dev'"),
        ({"label": None}, "missing in"),
    ],
)
def test_train_refuses_unusable_tables(
    columns: dict[str, object],
    said: str,
    rows: pd.DataFrame,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = changed(rows, tmp_path / "t.csv", **columns)
    given = ("--target", "label", "--constraint", PARITY, "--out", str(tmp_path / "run"), *QUICK)
    extra = ("--positive", "1") if columns.get("label") is None else ()
    assert said in refused(capsys, "train", path, *given, *extra)


def test_train_uses_a_split_column_cuts_and_regression(
    rows: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = np.where(rows.index % 3 == 0, "test", "train")
    path = changed(rows, tmp_path / "t.csv", split=parts)
    constraint = "demographic_parity(debt_ratio_group, 500)"
    given = (
        "--target",
        "amount",
        "--task",
        "regression",
        "--cut",
        "debt_ratio=0.3",
        "--constraint",
        constraint,
    )
    assert main(["train", path, *given, "--out", str(tmp_path / "run"), "--drop-sensitive", *QUICK]) == 0
    assert "debt_ratio>0.3" in capsys.readouterr().out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert "debt_ratio" not in config["encoder"]
    assert "split" not in config["encoder"]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["rows"]["test"] == 500
    assert main(["predict", str(tmp_path / "run"), path, "--out", str(tmp_path / "s.csv")]) == 0


def test_a_number_that_is_cut_stands_for_its_groups(rows: pd.DataFrame, tmp_path: Path) -> None:
    path = changed(rows, tmp_path / "t.csv")
    given = ["--target", "label", "--positive", "1", "--cut", "debt_ratio=0.3"]
    told = ["--sensitive", "debt_ratio", "--sensitive", "sex+debt_ratio"]
    parsed = build_parser().parse_args(["train", path, *given, *told])
    table = read_table(parsed["train"])
    assert table.sensitive == ("debt_ratio_group", "sex+debt_ratio_group")
    names = table.sensitive_features(table.sensitive)
    high = rows.debt_ratio > 0.3
    assert list(names["debt_ratio_group"] == "debt_ratio>0.3") == list(high)
    crossed = rows.sex.astype(str) + " & " + np.where(high, "debt_ratio>0.3", "debt_ratio<=0.3")
    assert list(names["sex+debt_ratio_group"]) == list(crossed)


def test_a_constraint_on_a_number_that_was_cut_is_told_the_name_of_its_groups(
    rows: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = changed(rows, tmp_path / "t.csv")
    given = ("--target", "label", "--cut", "amount=3000", "--constraint", "demographic_parity(amount, 0.1)")
    given += ("--positive", "1", "--out", str(tmp_path / "run"))
    assert "Name 'amount_group', the groups that were cut from it" in refused(capsys, "train", path, *given)


def test_demo_needs_no_network_and_says_that_the_data_are_generated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAIRLAYER_DATA", raising=False)
    monkeypatch.setenv("FAIRLAYER_CACHE", str(tmp_path / "cache"))
    assert main(["demo", "--out", str(tmp_path / "demo"), "--epochs", "4"]) == 0
    said = capsys.readouterr().out
    assert "GENERATED data" in said
    assert "6000 rows, one at a time" in said
    metrics = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    pooled, windows = (
        [float(part) for part in next(line for line in said.splitlines() if name in line).split("│")[2:5]]
        for name in ("  pooled (not bounded)", "  any 1,000 (at most 0.02 + noise)")
    )
    unconstrained = metrics["constraints"][0]["scores"]["unconstrained"]["value"]
    assert pooled[0] == pytest.approx(unconstrained, abs=1e-4)  # what comes in is the unconstrained model's
    assert unconstrained > 0.05
    assert windows[2] <= 0.02 + 3 * 0.02  # three standard errors of a gap between means of 1,000 rows
    assert windows[2] < 0.6 * windows[0]
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert "GENERATED data" in page
    assert '<h2 id="stream">' in page
    assert "Pooled gaps against limits, shifts and phases over the stream" in page
    assert "Loss, gaps and multipliers by epoch" in page
    assert metrics["violation"] <= 1e-6
    assert metrics["batches"] == 23


def test_demo_names_what_to_do_when_the_data_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline() -> pd.DataFrame:
        raise OSError("no network")

    monkeypatch.setenv("FAIRLAYER_DATA", str(tmp_path))
    monkeypatch.setenv("FAIRLAYER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("fairlayer.data.public.fetch_adult", offline)
    said = refused(capsys, "demo", "--data", "adult", "--out", str(tmp_path / "demo"))
    assert "set FAIRLAYER_DATA to a folder that holds 'adult.csv.gz'" in said
    assert "Known:" in refused(capsys, "demo", "--data", "compas", "--out", str(tmp_path / "demo"))


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [
        "german",
        "communities_crime",  # a regression
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("adult", "bank", "acsincome")),
    ],
)
def test_demo_reads_real_data(
    name: str,
    data_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAIRLAYER_DATA", str(data_folder))
    assert main(["demo", "--data", name, "--out", str(tmp_path / "demo"), "--epochs", "2"]) == 0
    metrics = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert metrics["violation"] <= 1e-6


def test_an_unusable_path_is_one_message(
    run: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "predict", str(run), str(table), "--out", str(tmp_path / "gone" / "s.csv"))
    assert "gone" in said
