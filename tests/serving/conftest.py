"""A quickly trained run, and rows for it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fairlayer.cli import main
from fairlayer.data import LendingPopulation

QUICK = ("--epochs", "2", "--batch-size", "256", "--hidden", "8", "--no-trees", "--geometry", "euclidean")


def lending(n: int, seed: int) -> pd.DataFrame:
    return pd.DataFrame(LendingPopulation().sample(n, seed=seed)).drop(columns="repays")


def train(folder: Path, *constraints: str) -> Path:
    lending(2000, seed=1).to_csv(folder / "loans.csv", index=False)
    given = [word for text in constraints for word in ("--constraint", text)]
    out = folder / "run"
    arguments = [
        "train",
        str(folder / "loans.csv"),
        "--target",
        "label",
        *given,
        "--out",
        str(out),
        "--no-trees",
        *QUICK,
    ]
    assert main(arguments) == 0
    return out


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("parity"), "demographic_parity(sex, 0.02)")


@pytest.fixture(scope="session")
def labelled_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("odds"), "equal_opportunity(sex, 0.05)")


@pytest.fixture(scope="session")
def rows() -> pd.DataFrame:
    return lending(400, seed=2)
