"""The commands on files as they come, as a new user would try them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fairlayer.cli import main
from fairlayer.data.errors import TargetError
from fairlayer.data.table import usual_positive

QUICK = ("--epochs", "2", "--batch-size", "256", "--hidden", "8")
PARITY = ("--constraint", "demographic_parity(sexe, 0.02)")
TARGET = ("--target", "remboursé", "--positive", "oui")

NO_EXTRAS = """
import sys, importlib.abc
class Without(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {"pandas", "sklearn", "rich", "jsonargparse", "jinja2", "matplotlib", "yaml",
                                  "fastapi", "torchmetrics", "pytorch_lightning", "lightning", "scipy", "cryptography"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Without())
from fairlayer.cli import main
sys.exit(main(sys.argv[1:]))
"""


def messy(n: int = 1200) -> pd.DataFrame:
    random = np.random.default_rng(0)
    sexe, revenu = random.choice(["féminin", "masculin"], n), np.round(random.normal(2500, 600, n), 2)
    paid = (revenu > 2500) + 0.5 * (sexe == "masculin") + random.normal(0, 0.6, n) > 0.8
    days = pd.Timestamp("2015-01-01") + pd.to_timedelta(random.integers(0, 2000, n), unit="D")
    return pd.DataFrame(
        {
            "client_id": np.arange(1000, 1000 + n),
            "sexe": sexe,
            "revenu": revenu,
            "entrée": pd.Series(days).dt.strftime("%d.%m.%Y"),
            "agence": random.integers(1, 9, n),
            "remboursé": np.where(np.arange(n) < 7, "", np.where(paid, "oui", "non")),
            "motif": np.where(paid, "ok", "refus"),
        }
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("messy") / "prêts.csv"
    messy().to_csv(path, sep=";", decimal=",", encoding="latin-1")
    return path


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    given = (*TARGET, *PARITY, "--missing", "drop", "--drop", "motif", "--out", str(folder))
    assert main(["train", str(table), *given, *QUICK]) == 0
    return folder


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 2) -> str:
    assert main(words) == code
    return capsys.readouterr().err


def test_train_says_what_it_found_in_the_file(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = (*TARGET, *PARITY, "--missing", "drop", "--sensitive", "sexe+agence", "--out", str(tmp_path / "run"))
    found = said(capsys, "train", str(table), *given, *QUICK, code=0)
    for part in (
        "read as Windows-1252",
        "separated by semicolons",
        "decimal comma",
        "7 of 1200 rows have no 'remboursé'",
        "'Unnamed: 0' is not a feature",
        "'client_id' is not a feature",
        "'motif' alone tells the target 'remboursé' (AUC 1.000)",
        "'agence': few whole numbers",
        "'entrée': dates",
    ):
        assert part in found
    assert json.loads((tmp_path / "run" / "time.json").read_text())["training_seconds"] > 0
    document = json.loads((tmp_path / "run" / "audit.json").read_text())
    assert [one["by"] for one in document["groupings"]] == [["sexe"], ["sexe+agence"]]  # and not one with the other
    assert len(document["groupings"][1]["groups"]) == 16
    config = (tmp_path / "run" / "config.json").read_text()
    assert '"client_id"' not in config
    assert '"kind": "date"' in config


def test_missing_targets_stop_unless_told(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--missing drop" in said(capsys, "train", str(table), *TARGET, *PARITY, "--out", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_all_faults_in_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    n = 1200
    bad = messy().assign(height=["1"] * (n - 1) + ["tall"], inf=[np.inf] + [1.0] * (n - 1), age=np.arange(n) % 60)
    bad.replace("", np.nan).to_csv(tmp_path / "bad.csv", index=False)
    given = ("--target", "remboursé", "--positive", "Oui", *PARITY, "--constraint", "demographic_parity(age, 0.1)")
    found = said(capsys, "train", str(tmp_path / "bad.csv"), *given, "--out", str(tmp_path / "run"), *QUICK)
    assert "5 faults were found" in found
    for part in ("--na tall", "infinite", "missing in 7 of 1200", "did you mean 'oui'?", "--cut age="):
        assert part in found


def test_near_names(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", str(tmp_path / "run"))
    wrong = (
        "--target",
        "rembourse",
        "--positive",
        "oui",
        "--constraint",
        "demographic_parity(sex, 0.1)",
        "--drop",
        "motiff",
    )
    found = said(capsys, "train", str(table), *wrong, *out)
    assert [each in found for each in ("'remboursé'?", "'sexe'?", "'motif'?")] == [True] * 3
    for words, near in ((("trian",), "'train'?"), (("train", "t.csv", "--taget", "y"), "'--target'?")):
        with pytest.raises(SystemExit):
            main(words)
        assert f"did you mean {near}" in capsys.readouterr().err


def test_what_a_command_lacks_is_told_at_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "lacks TABLE, --target COLUMN, --out FOLDER, --constraint TEXT" in said(capsys, "train")
    assert "lacks --out FILE. See `fairlayer predict --help`." in said(capsys, "predict", str(run), "t.csv")
    with pytest.raises(SystemExit):
        main(["predict", str(run)])
    assert "required: TABLE" in capsys.readouterr().err


def test_a_used_folder_is_left_alone(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    given = (*TARGET, *PARITY, "--missing", "drop", "--out", str(tmp_path / "run"), *QUICK)
    found = said(capsys, "train", str(table), *given)
    assert "thesis.txt" in found
    assert "--force" in found
    assert main(["train", str(table), *given, "--force"]) == 0
    assert (tmp_path / "run" / "thesis.txt").read_text() == "mine"
    assert "is a file" in said(capsys, "train", str(table), *given[:-6], "--out", str(table), *QUICK)
    assert "--force" in said(capsys, "demo", "--out", str(tmp_path / "run"))


def test_predict_writes_who_what_and_why(run: Path, table: Path, tmp_path: Path) -> None:
    new = messy().drop(columns=["remboursé", "motif"])
    new.loc[:2, "sexe"] = None
    new.to_csv(tmp_path / "new.csv", index=False)
    out = tmp_path / "out.csv"
    kept = ("--id", "client_id", "--keep", "agence", "--keep", "revenu")
    assert main(["predict", str(run), str(tmp_path / "new.csv"), "--out", str(out), *kept]) == 0
    found = pd.read_csv(out)
    names = ["client_id", "agence", "revenu", "raw_score", "score", "decision", "group", "moved_by", "covered"]
    assert list(found.columns) == names
    assert found["client_id"].tolist() == new["client_id"].tolist()
    np.testing.assert_allclose(found["moved_by"], found["score"] - found["raw_score"], atol=1e-6)
    assert (found["decision"] == (found["score"] >= 0.5)).all()
    assert found["covered"].tolist() == [False] * 3 + [True] * (len(new) - 3)
    assert found["group"][3] == f"sexe={new['sexe'][3]}"
    assert (found["moved_by"][:3].abs() < 1e-6).all()
    means = found[found["covered"]].groupby("group")["score"].mean()
    assert np.ptp(means.to_numpy()) <= 0.02 + 1e-6


def test_predict_tells_of_values_that_training_did_not_know(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = messy().drop(columns=["remboursé", "motif"])
    out = ("--out", str(tmp_path / "out.csv"))
    new.to_csv(tmp_path / "new.csv", index=False)
    assert main(["predict", str(run), str(tmp_path / "new.csv"), *out]) == 0
    assert "training row" not in capsys.readouterr().err
    new.loc[:4, "revenu"] = None
    new.to_csv(tmp_path / "new.csv", index=False)
    assert main(["predict", str(run), str(tmp_path / "new.csv"), *out]) == 0
    told = f"'revenu': 5 of {len(new)} rows are missing, and no training row was; they count as the mean."
    assert told in capsys.readouterr().err


def test_predict_decides_by_the_rule_where_the_option_stands_alone(run: Path, table: Path, tmp_path: Path) -> None:
    found = []
    for words in (["--decisions"], ["--decisions", "rule"], []):
        assert main(["predict", str(run), str(table), "--out", str(tmp_path / "out.csv"), *words]) == 0
        found.append(pd.read_csv(tmp_path / "out.csv")["decision"].tolist())
    assert found[0] == found[1] != found[2]


def test_predict_refuses_columns_that_are_not_there(
    run: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = said(
        capsys, "predict", str(run), str(table), "--out", str(tmp_path / "o.csv"), "--id", "client", "--keep", "x"
    )
    assert "2 faults" in found
    assert "did you mean 'client_id'?" in found
    assert "does not exist" in said(capsys, "predict", str(run), str(table), "--out", str(tmp_path / "gone" / "o.csv"))


def test_words_for_missing_values_are_remembered(tmp_path: Path) -> None:
    rows = messy().iloc[7:].drop(columns="motif")
    rows["revenu"] = rows["revenu"].astype(str).where(np.arange(len(rows)) % 9 > 0, "?")
    rows.to_csv(tmp_path / "t.csv", index=False)
    given = (*TARGET, *PARITY, "--na", "?", "--out", str(tmp_path / "run"))
    assert main(["train", str(tmp_path / "t.csv"), *given, *QUICK, "--no-trees"]) == 0
    words = [str(tmp_path / "run"), str(tmp_path / "t.csv")]
    assert main(["predict", *words, "--out", str(tmp_path / "o.csv")]) == 0
    assert main(["stream", *words, "--batch-size", "300", "--warm-start", words[1]]) == 0
    assert main(["report", *words, "--html", str(tmp_path / "r.html")]) == 0
    assert main(["check", *words, "--population", words[1]]) == 0


def test_every_command_that_reads_a_table_takes_how_it_is_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "t.csv"
    messy().iloc[7:].to_csv(table, index=False, sep="!")
    amounts = ["audit", "--sensitive", "sexe", "--score", "revenu", "--task", "regression"]
    for command in (["report", str(run)], ["check", str(run)], amounts):
        assert "'client_id!sexe" in said(capsys, *command, str(table))
        main([*command, str(table), "--separator", "!", "--na", "-", "--encoding", "utf-8"])
        assert "fairlayer: " not in capsys.readouterr().err.replace("fairlayer: note: ", "")


def test_outcomes_that_the_run_does_not_know_stop_report_and_check(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = messy().iloc[7:]
    rows["remboursé"] += "."
    rows.to_csv(tmp_path / "t.csv", index=False)
    before = (run / "audit.json").read_bytes()
    for command in ("report", "check"):
        found = said(capsys, command, str(run), str(tmp_path / "t.csv"))
        assert "did you mean 'oui.'? Write the outcomes as the training table did." in found
        assert "--positive" not in found
    assert (run / "audit.json").read_bytes() == before


def test_the_columns_that_there_are_stand_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    messy().to_csv(tmp_path / "t.csv", index=False)
    given = ("--target", "rembourse", "--constraint", "demographic_parity(revenu_group+sex, 0.1)", "--out", "r")
    found = said(capsys, "train", str(tmp_path / "t.csv"), *given)
    assert "3 faults" in found
    assert found.count("It has: 'client_id', 'sexe'") == 1
    assert "groups of 'revenu' are made by a cut, such as --cut revenu=" in found


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("a b y\n1 2 0\n3 4 1\n", "has one column. If blanks stand between its cells, say so (--separator space)"),
        ("39,40,0\n1,2,1\n", "put names above it"),
    ],
)
def test_a_file_without_commas_or_names_is_told_what_to_do(
    written: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text(written)
    words = ("train", str(tmp_path / "t.csv"), "--target", "z", *PARITY, "--out", str(tmp_path / "r"))
    assert told in said(capsys, *words)
    assert "has one column" not in said(capsys, *words, "--separator", "space")


def test_a_cut_does_not_hide_a_column_of_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    messy().assign(revenu_group="all").to_csv(tmp_path / "t.csv", index=False)
    parity = ("--constraint", "demographic_parity(revenu_group, 0.1)", "--missing", "drop")
    told = "the cut of 'revenu' makes the column 'revenu_group', but the table has a column of that name already"
    file, cut = str(tmp_path / "t.csv"), ("--cut", "revenu=2500")
    assert told in said(capsys, "train", file, *TARGET, *parity, *cut, "--out", str(tmp_path / "r"))
    assert told in said(capsys, "audit", file, "--score", "revenu", "--sensitive", "revenu", *cut)


def test_lines_and_names_that_do_not_fit_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text("a,a,y\n1,2,0\n3,4,1,5\n")
    words = ("train", str(tmp_path / "t.csv"), "--target", "z", *PARITY, "--out", str(tmp_path / "r"))
    assert "line 3 has 4 cells, and the lines before it have 3 at most. A header row" in said(capsys, *words)
    (tmp_path / "t.csv").write_text("a, a,y\n1,2,0\n3,4,1\n")
    assert "are called 'a'; the later ones are read as 'a.1', each a column of its own" in said(capsys, *words)


def test_a_warning_is_a_note_and_stands_once(table: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = (*TARGET, "--missing", "drop", "--drop", "motif", "--out", str(tmp_path / "r"), "--no-trees")
    assert main(["train", str(table), *given, *QUICK, "--constraint", "demographic_parity(sexe, 2)"]) == 0
    found = capfd.readouterr().err
    assert "FairlayerWarning" not in found
    assert found.count("fairlayer: note: the limit of DemographicParity('sexe'), 2, cannot bind: ") == 1
    assert "predictions between 0 and 1 never go beyond it" in found


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("predict", "r", "t", "--capacity", "many"), "--capacity takes a whole number, such as 100, but 'many' was"),
        (("predict", "r", "t", "--b-tau", "3.5"), "--b-tau takes a whole number, such as 100, but '3.5' was given."),
        (("train", "t", "--learning-rate", "fast"), "--learning-rate takes a number, such as 0.5, but 'fast' was"),
        (("check", "r", "t", "--seeds", "1", "b"), "--seeds takes a whole number, such as 100, but 'b' was given as"),
    ],
)
def test_a_word_where_a_number_is_wanted(words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [(), ("--help",), ("train", "--help"), ("predict", "-h"), ("trail", "--help"), ("trail", "verify", "--help")],
)
def test_help_needs_no_extra(words: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-c", NO_EXTRAS, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: fairlayer" in done.stdout


def test_anything_else_names_the_extra() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_EXTRAS, "train", "t.csv"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install 'fairlayer[train]'" in done.stderr


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(table: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("train", str(table), *TARGET, *PARITY, "--missing", "drop", "--out", str(run), "--epochs", "9999")
    code = "import sys; from fairlayer.cli import main; sys.exit(main(sys.argv[1:]))"
    going = subprocess.Popen(
        [sys.executable, "-c", code, *words, "--patience", "9999", "--hidden", "4"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list(run.glob("checkpoints/*/*.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.2)
    going.send_signal(signal.SIGINT)
    _, errors = going.communicate(timeout=120)
    assert going.returncode == 130
    assert "Traceback" not in errors
    say = re.search(r"fairlayer train (--resume \S+)", errors)
    assert say is not None
    done = max(torch.load(path, weights_only=True)["epoch"] for path in run.glob("checkpoints/*/*.ckpt")) + 1
    assert main(["train", *say[1].split(), "--epochs", str(done + 1)]) == 0
    assert (run / "metrics.json").is_file()


def test_missing_cells_of_a_target_are_not_named_as_answers() -> None:
    with pytest.raises(TargetError, match="target 'y' holds 'no', 'yes'; say which value"):
        usual_positive(pd.Series(["yes", None, "no"], name="y"))


@pytest.mark.parametrize("values", [(1, 2), (0, 1, 2), ("1", "no"), ("True", "maybe")])
def test_one_of_other_values_is_not_taken_for_the_answer(values: tuple[object, ...]) -> None:
    with pytest.raises(TargetError, match="say which value counts as 1"):
        usual_positive(pd.Series(values, name="y"))
    for usual in ((1, 0), (1.0, None, 0.0), (True, False), (1,)):
        assert usual_positive(pd.Series(usual, name="y")) == str(usual[0]).removesuffix(".0")
