"""The public originals get the columns that the readers expect (the network itself is not tried)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from fairlayer.data import READERS

datasets = pytest.importorskip("fairlearn.datasets")


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAIRLAYER_DATA", raising=False)
    monkeypatch.setenv("FAIRLAYER_CACHE", str(tmp_path))


def record(frame: pd.DataFrame, target: str) -> Callable[..., SimpleNamespace]:
    bunch = SimpleNamespace(frame=frame, data=frame.drop(columns=target), target=frame[target])
    return lambda **_: bunch


def test_adult(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame(
        {"age": [30, 40], "fnlwgt": [1, 2], "education-num": [9, 10], "race": ["White", "Black"]}
        | {"sex": ["Male", "Female"], "hours-per-week": [40, 20], "class": [">50K", "<=50K"]}
    )
    monkeypatch.setattr(datasets, "fetch_adult", record(frame, "class"))
    for _ in range(2):  # fetched, then from the cache
        table = READERS["adult"]()
        assert table.features() == ("age", "race", "sex", "hours_per_week")
        assert table.labels().tolist() == [1.0, 0.0]
        assert table.split is None


def test_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"age": [20, 40], "duration": [1, 2], "job": ["a", "b"], "Class": ["2", "1"]})
    monkeypatch.setattr(datasets, "fetch_bank_marketing", record(frame, "Class"))
    table = READERS["bank"]()
    assert (table.features(), table.labels().tolist()) == (("age", "job"), [1.0, 0.0])


def test_german(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"age": [20, 40], "class": ["good", "bad"]})
    monkeypatch.setattr(pytest.importorskip("sklearn.datasets"), "fetch_openml", record(frame, "class"))
    assert READERS["german"]().labels().tolist() == [1.0, 0.0]


def test_acsincome(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = ("COW", "MAR", "OCCP", "POBP", "RELP", "SEX", "RAC1P")
    frame = pd.DataFrame({name: [1, 2] for name in codes} | {"AGEP": [30, 40], "PINCP": [50_000, 50_001]})
    monkeypatch.setattr(datasets, "fetch_acs_income", record(frame, "PINCP"))
    assert READERS["acsincome"]().labels().tolist() == [0.0, 1.0]


def test_communities_crime(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame(
        {"state": [1, 2, 3], "racepctblack": [0.06, 0.07, 0.0], "police": [None, None, 1.0]}
        | {"ViolentCrimesPerPop": [0.1, 0.2, 0.3]}
    )
    monkeypatch.setattr(pytest.importorskip("sklearn.datasets"), "fetch_openml", record(frame, "ViolentCrimesPerPop"))
    table = READERS["communities_crime"]()
    assert table.features() == ("racepctblack",)
    groups = table.sensitive_features(table.sensitive)["racepctblack_group"]
    assert groups.tolist() == ["racepctblack<=0.06", "racepctblack>0.06", "racepctblack<=0.06"]
