"""Loggers of `fairlayer train`: what a service was told is read back from where it keeps it offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("lightning")

from fairlayer.cli.loggers import Loggers
from fairlayer.data import LendingPopulation
from fairlayer.errors import DataError, MissingExtraError

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "import sys; from fairlayer.cli import main; sys.exit(main())"
OFFLINE = {"WANDB_MODE": "offline", "COMET_START_ONLINE": "0", "MLFLOW_TRACKING_URI": ""}
ODD = "age (years)"  # not every service takes brackets
PLAIN = ("train/loss", "val/loss", "val/demographic_parity_difference", "val/score_gap", "val/score_gap/sex")
LAYERED = ("val/multiplier/demographic_parity_sex", "val/violation")


def of_tensorboard(logs: Path) -> dict[str, str]:
    return {path.parent.parent.name: path.read_bytes().decode(errors="ignore") for path in logs.rglob("*tfevents*")}


def of_wandb(logs: Path) -> dict[str, str]:
    texts = [path.read_bytes().decode(errors="ignore") for path in logs.glob("wandb/offline-run-*/*.wandb")]
    return {_named_in(text): text for text in texts}


def _named_in(text: str) -> str:
    return next(name for name in ("unconstrained", "constrained") if f"run {name}" in text)


def of_mlflow(logs: Path) -> dict[str, str]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{logs}/mlflow.db")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    for run in runs:
        assert len(client.get_metric_history(run.info.run_id, "val/score_gap")) == 2
        assert run.info.status == "FINISHED"
    return {_named_in(run.info.run_name): json.dumps(run.data.metrics) for run in runs}


def of_comet(logs: Path) -> dict[str, str]:
    texts = [zipfile.ZipFile(path).read("messages.json").decode() for path in logs.glob("*.zip")]
    return {_named_in(text): text for text in texts}


@pytest.mark.parametrize(
    ("name", "library", "read", "odd"),
    [
        ("tensorboard", "tensorboard", of_tensorboard, ODD),
        ("wandb", "wandb", of_wandb, ODD),
        pytest.param("mlflow", "mlflow", of_mlflow, "age years", marks=pytest.mark.slow),  # Lightning drops brackets
        pytest.param("comet", "comet_ml", of_comet, ODD, marks=pytest.mark.slow),
    ],
)
def test_each_model_has_a_run_of_its_own_with_the_documented_keys(
    name: str, library: str, read: Callable[[Path], dict[str, str]], odd: str, tmp_path: Path
) -> None:
    """In a process of its own, for services keep threads, and have things to do at exit."""
    pytest.importorskip(library)
    frame = pd.DataFrame(LendingPopulation().sample(600, seed=1)).drop(columns="repays")
    frame.rename(columns={"age_band": ODD}).to_csv(tmp_path / "loans.csv", index=False)
    given = [
        "train",
        "loans.csv",
        "--target",
        "label",
        "--constraint",
        "demographic_parity(sex, 0.02)",
        "--hidden",
        "8",
    ]
    given += ["--sensitive", ODD, "--epochs", "2", "--out", "run", "--logger", name]
    environment = {**os.environ, **OFFLINE, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *given],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = read(tmp_path / "run" / "logs")
    assert set(told) == {"unconstrained", "constrained"}
    for which, text in told.items():
        assert [key for key in (*PLAIN, f"val/score_gap/{odd}") if key not in text] == []
        assert [key in text for key in LAYERED] == [which == "constrained"] * len(LAYERED)


class WandbLogger:
    """A service that goes on with a run that it finds open, as Weights & Biases and Comet do."""

    open_runs: list[str] = []  # noqa: RUF012

    def __init__(self, save_dir: str, name: str) -> None:
        if not self.open_runs:
            self.open_runs.append(name)
        self.run = self.open_runs[0]
        self.experiment = SimpleNamespace(finish=self.open_runs.clear)


def test_the_run_of_one_model_is_ended_before_the_next_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger", WandbLogger)
    loggers = Loggers(["wandb"], tmp_path / "logs")
    runs = [loggers(which)[0].run for which in ("unconstrained", "constrained")]
    assert [run.split()[-1] for run in runs] == ["unconstrained", "constrained"]
    loggers.end()
    assert WandbLogger.open_runs == []


def failing(error: Exception) -> Callable[..., Any]:
    class Failing:
        def __init__(self, save_dir: str) -> None:
            raise error

    return Failing


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (ModuleNotFoundError("Requirement 'wandb>=0.12.10' not met"), MissingExtraError, "not installed: .*wandb"),
        (ValueError("no API key"), DataError, "could not be started .*no API key"),
    ],
)
def test_a_logger_that_cannot_start_is_a_named_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, kind: type[Exception], said: str
) -> None:
    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger", failing(error))
    with pytest.raises(kind, match=said):
        Loggers(["wandb"], tmp_path)("constrained")
