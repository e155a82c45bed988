"""The run folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fairlayer.data import Table
from fairlayer.data.errors import MissingColumnError
from fairlayer.errors import CategoryError, DataError, SmallBatchError
from fairlayer.training import Trained, load_run, save_run
from fairlayer.training.run import write_json


@pytest.fixture(scope="module")
def folder(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("run"), trained)


def test_it_holds_files_of_plain_values(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "checkpoint.pt", "config.json", "history.csv", "history.json", "history.svg", "metrics.json",
    }  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    assert config["config"]["constraints"][0] == "demographic_parity(sex, 0.02)"
    assert config["fit"]["epochs"] == 4
    history = json.loads((folder / "history.json").read_text())
    assert len(history["constrained"]["epochs"]) == 4
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["recipe"]["target"] == "label"


def test_a_loaded_run_predicts_the_same(folder: Path, trained: Trained, lending: Table) -> None:
    frame = lending.frame.drop(columns=["label", "repays"])
    sample = trained.recipe.sample(frame)
    expected = trained.model.eval()(sample.x, sensitive_features=sample.sensitive)
    prediction = load_run(folder).predict(frame)
    assert np.array_equal(prediction.emission.scores, expected.detach().numpy())
    assert prediction.emission.violation <= 1e-6


def test_new_rows_must_speak_the_same_language(folder: Path, lending: Table) -> None:
    run = load_run(folder)
    with pytest.raises(CategoryError, match=r"'sex'.*'other'"):
        run.predict(lending.frame.assign(sex="other"))
    with pytest.raises(MissingColumnError, match="'region'"):
        run.predict(lending.frame.drop(columns="region"))
    with pytest.raises(SmallBatchError, match="b_tau=256"):
        run.predict(lending.frame.head(255))


def test_an_unknown_group_is_allowed(folder: Path, lending: Table) -> None:
    frame = lending.frame.assign(sex=lending.frame["sex"].where(lending.frame.index % 9 > 0))
    assert np.isfinite(load_run(folder).predict(frame).emission.scores).all()


@pytest.mark.parametrize("content", [None, b"", b"junk", b"PK\x03\x04"])
def test_a_folder_without_a_checkpoint_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(DataError, match=r"checkpoint\.pt"):
        load_run(tmp_path)


def test_a_checkpoint_of_something_else_is_named(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, tmp_path / "checkpoint.pt")
    with pytest.raises(DataError, match="not a fairlayer checkpoint"):
        load_run(tmp_path)


def test_json_holds_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": float("nan"), "b": [float("inf"), 1.5], "c": (2,)})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": None, "b": [None, 1.5], "c": [2]}
