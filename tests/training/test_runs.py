"""Runs from the command line: repeated from their configuration, resumed after a kill, over several seeds."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from fairlayer.cli import main
from fairlayer.data import LendingPopulation
from fairlayer.training import load_run

ROOT = Path(__file__).resolve().parents[2]
PARITY = "demographic_parity(sex, 0.02)"
QUICK = ("--epochs", "3", "--batch-size", "256", "--hidden", "8")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "loans.csv"
    pd.DataFrame(LendingPopulation().sample(1200, seed=1)).drop(columns="repays").to_csv(path, index=False)
    return path


def command(table: Path, out: Path, *more: str) -> list[str]:
    return [
        "train",
        str(table),
        "--target",
        "label",
        "--constraint",
        PARITY,
        "--out",
        str(out),
        "--no-trees",
        *QUICK,
        *more,
    ]


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(command(table, folder, "--logger", "csv", "--sensitive", "region")) == 0
    return folder


def numbers(run: Path) -> list[Any]:
    return [json.loads((run / name).read_text()) for name in ("metrics.json", "history.json")]


def test_the_configuration_says_everything(run: Path, table: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["table"] == str(table)
    assert (config["constraint"], config["seed"], config["epochs"]) == ([PARITY], 0, 3)
    assert config["record"]["versions"]["torch"] == torch.__version__
    assert {"python", "numpy", "fairlayer", "lightning"} <= set(config["record"]["versions"])
    sha = subprocess.run(["sha256sum", str(table)], capture_output=True, text=True, check=True).stdout.split()[0]
    assert config["record"]["data_sha256"] == sha


def test_a_run_repeats_from_its_configuration(run: Path, tmp_path: Path) -> None:
    assert main(["train", "--config", str(run / "config.yaml"), "--out", str(tmp_path / "again")]) == 0
    assert numbers(tmp_path / "again") == numbers(run)
    first, second = load_run(run).model.state_dict(), load_run(tmp_path / "again").model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first if isinstance(first[name], torch.Tensor))


def test_options_override_the_configuration(run: Path, tmp_path: Path) -> None:
    other = ("--epochs", "1", "--constraint", "equalized_odds(sex, 0.1)", "--seed", "3")
    assert main(["train", "--config", str(run / "config.yaml"), "--out", str(tmp_path / "o"), *other]) == 0
    config = yaml.safe_load((tmp_path / "o" / "config.yaml").read_text())
    assert (config["epochs"], config["constraint"], config["seed"]) == (1, ["equalized_odds(sex, 0.1)"], 3)
    assert config["sensitive"] == ["region"]
    assert numbers(tmp_path / "o") != numbers(run)


def test_another_table_is_refused_unless_it_is_meant(
    run: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.csv"
    pd.read_csv(table).head(1000).to_csv(other, index=False)
    given = ["train", str(other), "--config", str(run / "config.yaml"), "--out", str(tmp_path / "r")]
    given = [*given[:1], *given[2:], given[1]]  # the table after the configuration that it overrides
    assert main(given) == 2
    assert "ChangedDataError" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
    assert main([*given[:-1], "--accept-changed-data", given[-1]]) == 0


def test_other_versions_are_said(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["record"]["versions"]["torch"] = "1.0"
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", "--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "r"), "--epochs", "1"]) == 0
    assert f"torch 1.0, but {torch.__version__} is in use here" in capsys.readouterr().err


def test_a_misspelt_key_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text((run / "config.yaml").read_text() + "epoch: 3\n")
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "r")])
    assert "epoch" in capsys.readouterr().err


def test_the_history_is_kept_as_numbers_and_as_a_picture(run: Path) -> None:
    with (run / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == ["unconstrained"] * 3 + ["constrained"] * 3
    assert {"train_loss", "valid_loss", "gap DemographicParity('sex')", "multiplier DemographicParity('sex')"} <= set(
        rows[0]
    )
    picture = (run / "history.svg").read_text()
    assert picture.startswith("<svg")
    assert "limit" in picture


def test_loggers_of_lightning_get_every_epoch(run: Path) -> None:
    [path] = (run / "logs" / "constrained").rglob("metrics.csv")
    logged = pd.read_csv(path)
    for key in ("val/loss", "val/score_gap", "val/multiplier/demographic_parity_sex", "train/loss"):
        assert logged[key].notna().sum() == 3


def test_an_unknown_logger_is_named(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(table, tmp_path / "r", "--logger", "printer")) == 2
    assert "Known: csv, tensorboard" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_several_seeds_give_a_folder_each_and_a_table(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["train", "--config", str(run / "config.yaml"), "--out", str(tmp_path / "seeds"), "--seeds", "0", "4"]
    assert main(given) == 0
    assert "2 seeds: 0, 4" in capsys.readouterr().out
    assert numbers(tmp_path / "seeds" / "seed_0") == numbers(run)
    accuracies = [
        json.loads((tmp_path / "seeds" / f"seed_{seed}" / "metrics.json").read_text())["quality"]["accuracy"]
        for seed in (0, 4)
    ]
    together = json.loads((tmp_path / "seeds" / "aggregate.json").read_text())
    for which in ("unconstrained", "constrained"):
        values = [each[which] for each in accuracies]
        summary = together["numbers"]["accuracy"][which]
        assert summary["values"] == values
        assert summary["mean"] == pytest.approx(np.mean(values))
        assert summary["deviation"] == pytest.approx(np.std(values, ddof=1))


def test_several_seeds_are_resumed_from_where_they_were_cut_short(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "seeds"
    given = ["train", "--config", str(run / "config.yaml"), "--out", str(folder), "--seeds", "4", "0"]
    with monkeypatch.context() as patch:
        patch.setattr("fairlayer.cli.commands.keep_best", lambda *_: sys.exit(9))  # while the first is written
        with pytest.raises(SystemExit, match="9"):
            main(given)
    assert not (folder / "aggregate.json").exists()
    assert main(["train", "--resume", str(folder)]) == 0
    assert numbers(folder / "seed_0") == numbers(run)
    assert set(json.loads((folder / "aggregate.json").read_text())["numbers"]["accuracy"]) >= {"constrained"}


def test_there_must_be_something_to_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert "no config.yaml" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_numbers(table: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    long = ("--epochs", "40", "--patience", "6")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    program = "import sys; from fairlayer.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *command(table, killed, *long)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    checkpoint = killed / "checkpoints" / "constrained" / "last.ckpt"
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was over before it could be killed"
    assert not (killed / "metrics.json").exists()
    assert main(["train", "--resume", str(killed)]) == 0
    assert main(command(table, whole, *long)) == 0
    assert numbers(killed) == numbers(whole)
    assert main(["train", "--resume", str(killed)]) == 0  # a run that is over stays as it is
    assert numbers(killed) == numbers(whole)


@pytest.mark.parametrize("words", [["predict", "RUN", "TABLE", "--out", "OUT"], ["stream", "RUN", "TABLE"]])
def test_applying_a_run_does_not_load_lightning(run: Path, table: Path, tmp_path: Path, words: list[str]) -> None:
    given = {"RUN": str(run), "TABLE": str(table), "OUT": str(tmp_path / "scores.csv")}
    program = (
        "import sys; from fairlayer.cli import main; code = main(sys.argv[1:]);"
        "sys.exit(code or any(name.split('.')[0] in ('lightning', 'pytorch_lightning') for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *(given.get(word, word) for word in words)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
