"""`fairlayer audit`, run as an auditor would: exit codes, files, messy tables, real data."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairlayer.cli import main

CODES = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3, "NOT EVALUATED": 4}


def table(path: Path, n: int = 2000) -> Path:
    rng = np.random.default_rng(1)
    sex = rng.choice(["Female", "Male"], n)
    repaid = rng.random(n) < 0.5
    score = np.clip(0.4 + 0.2 * repaid + 0.1 * (sex == "Male") + rng.normal(0, 0.15, n), 0, 1)
    frame = pd.DataFrame({"sex": sex, "race": rng.choice(["A", "B"], n), "score": score.round(4), "repaid": repaid + 0})
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    return table(tmp_path / "scored.csv")


def audited(scored: Path, *more: str) -> int:
    return main(["audit", str(scored), "--target", "repaid", "--score", "score", "--sensitive", "sex", *more])


@pytest.mark.parametrize(
    ("condition", "outcome"),
    [
        ("demographic_parity_difference > 0.5", "PASS"),
        ("demographic_parity_difference > 0.1", "FAIL"),
        ("equal_opportunity_ratio < 0.84", "INCONCLUSIVE"),
        ("calibration_error_difference > 0.1", "NOT EVALUATED"),
    ],
)
def test_one_outcome_in_console_json_page_and_exit_code(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], condition: str, outcome: str
) -> None:
    page, document = tmp_path / "r.html", tmp_path / "a.json"
    code = audited(scored, "--fail-on", condition, "--html", str(page), "--json", str(document))
    assert code == CODES[outcome]
    shown = capsys.readouterr().out
    assert shown.startswith(f"{outcome}: ")
    told = json.loads(document.read_text(encoding="utf-8"))
    assert (told["outcome"], told["exit_code"], told["verdicts"][0]["outcome"]) == (outcome, code, outcome)
    text = page.read_text(encoding="utf-8")
    assert re.search(rf'<span class="outcome [a-z-]+">{outcome}</span>', text)
    assert told["provenance"]["data_sha256"] in text
    assert max(map(len, [line for line in shown.splitlines() if not line.startswith(("Page", "Document"))])) <= 80


def test_a_few_people_and_an_amount_are_spoken_of_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"sex": ["F"] * 4 + ["M"], "score": [0.9, 0.8, 0.2, 0.1, 0.7], "y": [1, 1, 0, 0, 1]}
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    given = ("audit", str(tmp_path / "t.csv"), "--target", "y", "--score", "score", "--sensitive", "sex")
    assert main([*given]) == 4
    shown = capsys.readouterr().out
    assert "sex M: 1 person, positive" in re.sub(r"[ \u00a0]+", " ", shown)
    assert "Say when it fails: --fail-on 'demographic_parity_difference > 0.1'." in shown
    assert "right order" not in shown  # five people can be in order by chance
    assert main([*given, "--task", "regression"]) == 4
    assert "Say when it fails: --fail-on 'mean_score_parity_difference > NUMBER'." in capsys.readouterr().out


def test_every_file_is_written_and_the_page_names_the_hash_of_the_document(scored: Path, tmp_path: Path) -> None:
    import hashlib

    about = tmp_path / "about.yaml"
    about.write_text("title: Loans\nroles: {sex: sensitive}\n", encoding="utf-8")
    names = {"--html": "r.html", "--json": "a.json", "--markdown": "a.md", "--card": "c.md"}
    files = [word for option, name in names.items() for word in (option, str(tmp_path / name))]
    audited(scored, *files, "--about", str(about), "--fail-on", "demographic_parity_difference > 0.1")
    digest = hashlib.sha256((tmp_path / "a.json").read_bytes()).hexdigest()
    assert digest in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert (tmp_path / "a.md").read_text(encoding="utf-8").startswith("# Loans")
    assert (tmp_path / "c.md").read_text(encoding="utf-8").startswith("---")


def test_the_formats_and_the_public_version(scored: Path, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    both = ("--sensitive", "race", "--html", str(page))
    audited(scored, *both, "--format", "ll144", "--sex", "sex", "--race", "race", "--kind", "scoring")
    assert "Scoring rate" in page.read_text(encoding="utf-8")
    audited(scored, "--html", str(page), "--format", "lending", "--reference", "sex=Male")
    assert "AIR" in page.read_text(encoding="utf-8")
    audited(scored, *both, "--public", "10")
    assert "version for the public" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--score", "scor", "--sensitive", "sex"), "no such column"),
        (("--score", "score"), "--sensitive COLUMN"),
        (("--sensitive", "sex"), "--score"),
        (("--score", "score", "--sensitive", "sex", "--fail-on", "gap > 1"), "cannot read the condition"),
        (("--score", "score", "--sensitive", "sex", "--fail-on", "acuracy_drop > 1"), "also accuracy_drop > 0.01"),
        (("--score", "score", "--sensitive", "sex", "--format", "ll144"), "--sex"),
        (("--score", "score", "--sensitive", "sex", "--format", "lending"), "--reference"),
        (("--score", "race", "--sensitive", "sex"), "read as numbers"),
        (("--score", "score", "--sensitive", "sex", "--about", "nothing.yaml"), "no file"),
        (("--score", "score", "--sensitive", "score"), "distinct values"),
    ],
)
def test_errors_end_with_2_and_one_message(
    scored: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert main(["audit", str(scored), *arguments]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.startswith("fairlayer: ")
    assert "Traceback" not in shown


def small_table(path: Path, **columns: Any) -> Path:
    """Write 200 rows whose decisions at 0.5 do not differ much between two groups."""
    score = np.tile([0.2, 0.4, 0.6, 0.8], 50)
    given = {"sex": np.repeat(["F", "M"], 100), "score": score, "y": np.tile([0, 1], 100), **columns}
    pd.DataFrame(given).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("score", [np.linspace(1, 99, 200), np.linspace(-3, 3, 200), [f"{k / 2}%" for k in range(200)]])
def test_scores_that_are_no_probabilities_need_a_threshold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], score: Any
) -> None:
    """With the threshold of probabilities, scores in percent would give everybody a yes, and every limit would hold."""
    path = small_table(tmp_path / "t.csv", score=score)
    words = ["audit", str(path), "--score", "score", "--sensitive", "sex"]
    assert main([*words, "--fail-on", "demographic_parity_difference > 0.1"]) == 2
    said = capsys.readouterr().err
    assert "not probabilities" in said
    assert "--threshold NUMBER" in said
    assert main([*words, "--threshold", "0.5"]) == 4  # nothing asked, but read
    assert main([*words, "--task", "regression"]) == 4


def test_one_decision_for_everybody_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small_table(tmp_path / "t.csv")
    words = ["audit", str(path), "--score", "score", "--sensitive", "sex", "--threshold", "0.9"]
    assert main([*words, "--fail-on", "demographic_parity_difference > 0.1", "--html", str(tmp_path / "r.html")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Everybody has the same decision, a negative one (the threshold 0.9 lies beyond all scores)" in said
    assert "Everybody has the same decision" in (tmp_path / "r.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("y", "more", "code"),
    [
        (np.zeros(200, int), (), 4),
        (np.ones(200, int), (), 4),
        (["0"] * 100 + [""] * 100, (), 4),
        (np.tile([1, 2], 100), (), 2),  # which of the two is the good one cannot be known
        (np.tile([1, 2], 100), ("--positive", "1"), 4),
        (["False"] * 200, (), 4),
        (["no"] * 200, (), 2),
        (["no"] * 200, ("--positive", "yes"), 2),
    ],
)
def test_which_outcome_counts_as_1_is_read_off_0_and_1_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], y: Any, more: tuple[str, ...], code: int
) -> None:
    path = small_table(tmp_path / "t.csv", y=y)
    assert main(["audit", str(path), "--score", "score", "--target", "y", "--sensitive", "sex", *more]) == code
    assert code != 2 or "--positive" in capsys.readouterr().err


def test_the_formats_of_groups_have_no_public_version(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--html", "r.html", "--format", "ll144", "--sex", "sex", "--race", "race", "--sensitive", "race")
    assert audited(scored, *words, "--public", "10") == 2
    assert "without --public" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pipe that is closed by its reader")
def test_who_stops_reading_the_console_loses_no_file_and_sees_no_error(tmp_path: Path) -> None:
    path, page = small_table(tmp_path / "t.csv"), tmp_path / "r.html"
    words = ["audit", str(path), "--score", "score", "--sensitive", "sex", "--html", str(page)]
    program = f"import sys; from fairlayer.cli import main; sys.exit(main({words!r}))"
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
    assert page.is_file()


def test_a_messy_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.DataFrame(
        {
            "geschlecht": ["weiblich", "männlich", "unknown", "", "divers"] * 40,
            "Alter": [19, 34, 61, None, 45] * 40,
            "logit": [-2.0, 1.5, 0.2, 3.0, float("nan")] * 40,
            "zurückgezahlt": ["ja", "nein", "", "ja", "nein"] * 40,
        }
    )
    path = tmp_path / "tabelle.csv"
    frame.to_csv(path, index=False)
    words = [
        "audit",
        str(path),
        "--score",
        "logit",
        "--threshold",
        "0",
        "--target",
        "zurückgezahlt",
        "--positive",
        "ja",
    ]
    code = main(
        [
            *words,
            "--sensitive",
            "geschlecht",
            "--sensitive",
            "age",
            "--cut",
            "Alter=25,59",
            "--html",
            str(tmp_path / "r.html"),
        ]
    )
    assert code == 2  # 'age' is no column; the cut made Alter_group
    assert "'age'" in capsys.readouterr().err
    code = main(
        [*words, "--sensitive", "geschlecht+Alter", "--cut", "Alter=25,59", "--json", str(tmp_path / "a.json"),
         "--html", str(tmp_path / "r.html")]
    )  # fmt: skip
    assert code == 4
    document = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert document["rows"]["left_out"] == [{"why": "the score is missing", "rows": 40}]
    assert document["rows"]["labelled"] == 120
    assert any("outside [0, 1]" in warning for warning in document["warnings"])
    [grouping] = [one for one in document["groupings"] if one["by"] == ["geschlecht", "Alter_group"]]
    assert {one["name"]: one["rows"] for one in grouping["groups"]}["unknown"] == 80


def test_a_file_is_read_as_the_options_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same as of the other commands: words for missing values, the separator, the encoding."""
    n = 240
    frame = pd.DataFrame({"sex": ["F", "M", "k. A.", "?"] * (n // 4), "ort": "Köln", "score": np.arange(n) / n})
    path = tmp_path / "scored.csv"
    path.write_bytes(frame.to_csv(index=False, sep="|").encode("cp1252"))
    words = ["audit", str(path), "--score", "score", "--sensitive", "sex", "--json", str(tmp_path / "a.json")]

    def groups(*more: str) -> dict[str, int]:
        assert main([*words, *more]) == 4
        [grouping] = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["groupings"]
        return {one["name"].removeprefix("sex="): one["rows"] for one in grouping["groups"]}

    quarter = n // 4
    known = ("--separator", "|", "--encoding", "cp1252")
    assert groups(*known, "--na", "k. A.", "--na", "?") == {"F": quarter, "M": quarter, "unknown": 2 * quarter}
    assert groups(*known, "--na", "?")["k. A."] == quarter
    assert "Windows-1252" not in capsys.readouterr().err
    assert groups()["k. A."] == quarter  # both are found out, and what was found out about the letters is said
    assert "Windows-1252" in capsys.readouterr().err
    assert main([*words, "--encoding", "utf-8"]) == 2


def test_of_a_regression_the_page_says_who_is_worse_off_whatever_was_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    n = 400
    frame = pd.DataFrame({"sex": ["F", "M"] * (n // 2), "pay": np.arange(n) / n})
    frame["guess"] = frame.pay + 0.3 * (frame.sex == "M")
    frame.to_csv(tmp_path / "pay.csv", index=False)
    words = ["audit", str(tmp_path / "pay.csv"), "--task", "regression", "--target", "pay", "--score", "guess"]
    for more, code in (((), 4), (("--fail-on", "demographic_parity_difference > 0.1"), 4)):
        assert main([*words, "--sensitive", "sex", *more]) == code
        shown = " ".join(capsys.readouterr().out.split())
        assert "sex F (0.497) is worse off than sex M (0.800) in the mean score." in shown
    assert "needs decisions; what was given is: scores, labels. Of scores alone, mean_score says" in shown
    assert "AuditTable" not in shown


def scores_of(frame: pd.DataFrame, target: pd.Series) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features = StandardScaler().fit_transform(pd.get_dummies(frame).fillna(0).astype(float))
    half = np.arange(len(frame)) % 2 == 0
    return np.asarray(LogisticRegression(max_iter=300).fit(features[half], target[half]).predict_proba(features)[:, 1])


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "outcome", "sensitive", "more"),
    [
        ("adult", "income=>50K", ["sex", "race+sex"], ()),
        ("german", "credit_risk=1", ["age"], ("--cut", "age=25")),
        ("bank", "y=yes", ["age"], ("--cut", "age=24,59")),
        ("acsincome_ne", "income_over_50k=1", ["SEX", "RAC1P"], ()),
    ],
)
def test_on_real_data(
    data_folder: Path, tmp_path: Path, *, name: str, outcome: str, sensitive: list[str], more: Any
) -> None:
    target, _, positive = outcome.partition("=")
    frame = pd.read_csv(data_folder / f"{name}.csv.gz", keep_default_na=False, na_values=[""])
    label = frame[target].astype(str) == positive
    columns = [c for c in frame.columns if c not in (target, "split", "duration") and frame[c].nunique() < 60]
    frame["score"] = scores_of(frame[columns], label)
    frame.to_csv(tmp_path / "scored.csv", index=False)
    words = [word for one in sensitive for word in ("--sensitive", one)]
    code = main(
        ["audit", str(tmp_path / "scored.csv"), "--target", target, "--positive", positive, "--score", "score", *words,
         *more, "--fail-on", "demographic_parity_difference > 0.02", "--json", str(tmp_path / "a.json"),
         "--html", str(tmp_path / "r.html")]
    )  # fmt: skip
    document = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert code == document["exit_code"]
    for verdict in document["verdicts"]:
        assert verdict["low"] <= verdict["estimate"] <= verdict["high"]
        assert verdict["low"] <= verdict["measured"] <= verdict["high"]
    first = document["groupings"][0]
    decided = frame.score >= 0.5
    if not more:
        for group in first["groups"]:
            rows = frame[sensitive[0]].astype(str) == group["name"].partition("=")[2]
            assert group["numbers"]["selection_rate"]["value"] == pytest.approx(decided[rows].mean(), abs=1e-9)


@pytest.mark.data
def test_a_regression_on_real_data(data_folder: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(data_folder / "communities_crime.csv.gz")
    score = frame.ViolentCrimesPerPop.rolling(5, min_periods=1).mean()
    pd.concat([frame, score.rename("score")], axis=1).to_csv(tmp_path / "scored.csv", index=False)
    code = main(
        ["audit", str(tmp_path / "scored.csv"), "--task", "regression", "--target", "ViolentCrimesPerPop",
         "--score", "score", "--sensitive", "racepctblack", "--cut", "racepctblack=0.06",
         "--fail-on", "mean_residual_difference > 0.5",
         "--html", str(tmp_path / "r.html")]
    )  # fmt: skip
    assert code == 0
