"""An audit as a whole: outcomes, sentences, the document and its schema; numbers against other libraries."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairlayer.audit import Audit, Columns, Wanted, audit, audit_frame
from fairlayer.errors import DataError, FairlayerError, ParameterError
from fairlayer.report.markdown import render_markdown


def people(n: int = 4000, *, gap: float = 0.25, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    sex = rng.choice(["F", "M"], n)
    race = rng.choice(["A", "B", "C"], n, p=[0.6, 0.395, 0.005])
    repaid = rng.random(n) < np.where(sex == "F", 0.4, 0.5)
    before = np.clip(0.35 + 0.25 * repaid + np.where(sex == "M", gap, 0.0) + 0.15 * rng.normal(size=n), 0, 1)
    after = np.clip(before - np.where(sex == "M", gap, 0.0), 0, 1)
    return pd.DataFrame({"sex": sex, "race": race, "repaid": repaid.astype(int), "before": before, "after": after})


def examined(frame: pd.DataFrame, **options: Any) -> Audit:
    columns = Columns(["sex", "race+sex"], score="after", score_before="before", target="repaid")
    return audit_frame(frame, columns, **options)


def test_the_document_keeps_its_schema_and_is_json() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((files("fairlayer.audit") / "schema.json").read_text(encoding="utf-8"))
    wanted = Wanted(impact="scoring", sex="sex", race="race", proxies=True)
    found = examined(people(600), limits=["equalized_odds_difference > 0.1"], wanted=wanted)
    for document in (
        found.to_dict(),
        audit(decisions=[1, 0] * 20, sensitive_features={"g": ["a", "b"] * 20}).to_dict(),
    ):
        jsonschema.validate(document, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**found.to_dict(), "outcome": "OK"}, schema)
    assert json.loads(found.to_json()) == found.to_dict()


@pytest.mark.parametrize(
    ("limit", "rows", "outcome", "code"),
    [
        ("demographic_parity_difference > 0.6", 4000, "PASS", 0),
        ("demographic_parity_difference > 0.1", 4000, "FAIL", 1),
        ("demographic_parity_difference > 0.45", 100, "INCONCLUSIVE", 3),
        ("calibration_error_difference > 0.1", 4000, "NOT EVALUATED", 4),
    ],
)
def test_four_outcomes(limit: str, rows: int, outcome: str, code: int) -> None:
    frame = people(rows)
    found = audit_frame(frame, Columns(["sex"], score="before", target="repaid"), limits=[limit])
    document = found.to_dict()
    assert (document["outcome"], document["exit_code"]) == (outcome, code)
    assert [one["outcome"] for one in document["verdicts"]] == [outcome]
    assert [one["outcome"] for one in document["headline"]["asked"]] == [outcome]


def test_without_a_limit_nothing_is_judged() -> None:
    found = examined(people(400))
    assert (str(found.outcome), found.exit_code) == ("NOT EVALUATED", 4)
    assert "No limit was asked" in found.to_dict()["headline"]["outcome"]


def test_a_limit_reads_the_interval_and_never_what_was_measured() -> None:
    # measured 0.08, above the limit of 0.05; with 200 people each, chance can make that
    found = audit(
        decisions=[1] * 60 + [0] * 140 + [1] * 76 + [0] * 124,
        sensitive_features={"sex": ["F"] * 200 + ["M"] * 200},
        limits=["demographic_parity_difference > 0.05"],
    )
    verdict = found.to_dict()["verdicts"][0]
    assert verdict["measured"] == pytest.approx(0.08)
    assert verdict["outcome"] == "INCONCLUSIVE"
    assert verdict["low"] <= 0.05 < verdict["high"]


def test_numbers_equal_those_of_fairlearn_and_scikit_learn() -> None:
    fairlearn, sklearn = pytest.importorskip("fairlearn.metrics"), pytest.importorskip("sklearn.metrics")
    frame = people()
    document = examined(frame).to_dict()
    [by_sex] = [one for one in document["groupings"] if one["by"] == ["sex"]]
    decided = frame.after >= 0.5
    for group in by_sex["groups"]:
        rows = frame.sex == group["name"].removeprefix("sex=")
        numbers = {name: held["value"] for name, held in group["numbers"].items()}
        assert group["rows"] == rows.sum()
        assert numbers["selection_rate"] == pytest.approx(decided[rows].mean(), abs=1e-9)
        assert numbers["auc"] == pytest.approx(sklearn.roc_auc_score(frame.repaid[rows], frame.after[rows]), abs=1e-9)
        assert numbers["log_loss"] == pytest.approx(sklearn.log_loss(frame.repaid[rows], frame.after[rows]), abs=1e-9)
    differences = {one["name"]: one["difference"]["measured"] for one in by_sex["disparities"]}
    given = {"y_true": frame.repaid, "y_pred": decided, "sensitive_features": frame.sex}
    assert differences["demographic_parity"] == pytest.approx(
        fairlearn.demographic_parity_difference(**given), abs=1e-9
    )
    assert differences["equalized_odds"] == pytest.approx(fairlearn.equalized_odds_difference(**given), abs=1e-9)


def test_small_and_unknown_groups_are_shown_and_stay_out_of_the_headline() -> None:
    frame = people(2000)
    frame.loc[:4, "race"] = "rare"
    frame.loc[5:9, "race"] = None
    frame.loc[:4, "after"] = 1.0
    found = audit_frame(frame, Columns(["race"], score="after"), limits=["demographic_parity_difference > 0.3"])
    [grouping] = found.to_dict()["groupings"]
    standing = {group["name"]: group["standing"] for group in grouping["groups"]}
    assert standing["race=rare"] == "small"
    assert standing["unknown"] == "unknown"
    [parity] = [one for one in grouping["disparities"] if one["name"] == "demographic_parity"]
    assert "race=rare" in parity["left_out"]
    assert parity["difference"]["measured"] < 0.1 < parity["with_small"]["measured"]


def test_who_was_moved_and_what_it_cost_is_told() -> None:
    frame = people()
    head = examined(frame).to_dict()["headline"]
    moved = " ".join(head["moved"])
    shift = 100 * (frame.before - frame.after)[frame.sex == "M"].mean()
    assert f"sex=M: each score was lowered by {shift:.1f} points" in moved
    assert any(sentence.startswith("Before: sex=F") for sentence in head["worse_off"])
    assert head["cost"][0].startswith("The accuracy went from")


def test_a_reversal_beyond_chance_is_a_headline() -> None:
    sex = ["F"] * 400 + ["M"] * 400
    old = [1] * 80 + [0] * 320 + [1] * 200 + [0] * 200
    new = [1] * 240 + [0] * 160 + [1] * 140 + [0] * 260
    found = audit(decisions=new, decisions_before=old, sensitive_features={"sex": sex})
    [headline] = found.to_dict()["headline"]["reversals"]
    assert headline.startswith("REVERSED: sex=F was worse off than sex=M")
    # a step to the other side of equality by two people is none
    slight = audit(
        decisions=[1] * 201 + [0] * 199 + [1] * 199 + [0] * 201, decisions_before=old, sensitive_features={"sex": sex}
    )
    assert slight.to_dict()["headline"]["reversals"] == []


def test_a_distance_that_nobody_asked_about_and_that_grew_is_a_headline() -> None:
    sex = ["F"] * 1000 + ["M"] * 1000
    y = [1] * 600 + [0] * 400 + [1] * 200 + [0] * 800
    before = [1] * 480 + [0] * 520 + [1] * 160 + [0] * 840  # 80 of 100 with label 1 in both groups
    after = [1] * 240 + [0] * 760 + [1] * 180 + [0] * 820  # 40 and 90 of 100
    given = {"y": y, "decisions_before": before, "sensitive_features": {"sex": sex}}
    found = audit(decisions=after, limits=["demographic_parity_difference > 0.1"], **given).to_dict()
    grew = found["headline"]["grew"]
    assert any(
        said.startswith(
            "In the share of the people with label 1 who have a positive decision, the groups were 0.0 points apart, "
            "and are 50.0 now ("
        )
        and said.endswith("Worst off is sex=F: 40.0 of 100, before 80.0 of 100.")
        for said in grew
    )
    assert not any("share of people with a positive decision" in said for said in grew), "it fell, and was asked about"
    text = render_markdown(found)
    assert "Which other distances grew" in text
    # two people more are chance, and without predictions from before nothing can have grown
    slight = audit(decisions=[0, 0, *before[2:]], **given).to_dict()
    assert slight["headline"]["grew"] == []
    assert "Which other distances grew" not in render_markdown(slight)
    assert audit(decisions=after, y=y, sensitive_features={"sex": sex}).to_dict()["headline"]["grew"] == []


def test_a_distance_between_other_groups_than_before_has_not_grown() -> None:
    sex = ["F"] * 400 + ["M"] * 400 + ["X"] * 400
    same = [1] * 150 + [0] * 200 + [1] * 50
    y = ([1] * 200 + [0] * 200) * 2 + [1] * 100 + [0] * 300
    given = {"y": y, "sensitive_features": {"sex": sex}, "decisions_before": same * 2 + [0] * 400}  # none of X
    grew = audit(decisions=same * 2 + [0] * 90 + [1] * 110 + [0] * 200, **given).to_dict()["headline"]["grew"]
    assert grew, "that of accuracy has"
    assert not any("nan" in said or "positive decisions whose label" in said for said in grew)


def test_given_decisions_are_compared_with_those_that_the_scores_before_would_have_made() -> None:
    found = audit(
        scores_before=[0.4, 0.6, 0.4, 0.6] * 20,
        scores=[0.4, 0.6, 0.4, 0.6] * 20,
        decisions=[1, 1, 0, 0] * 20,
        sensitive_features={"sex": ["F", "F", "M", "M"] * 20},
    )
    movement = found.groupings[0].movement
    assert movement is not None
    assert [(group.flips_up, group.flips_down) for group in movement.groups] == [(20, 0), (0, 20)]


def test_rows_without_a_score_are_left_out_and_counted() -> None:
    frame = people(300)
    frame.loc[:6, "after"] = np.nan
    frame.loc[7:9, "repaid"] = np.nan
    document = audit_frame(frame, Columns(["sex"], score="after", target="repaid")).to_dict()
    assert document["rows"]["counted"] == 293
    assert document["rows"]["labelled"] == 290
    assert document["rows"]["left_out"] == [{"why": "the score is missing", "rows": 7}]


def test_leaks_are_warned_of() -> None:
    frame = people(400)
    frame["after"] = frame.repaid * 0.8 + 0.1
    assert "right order" in examined(frame).to_dict()["warnings"][0]


def test_strata_show_a_reversal() -> None:
    frame = pd.DataFrame(
        {
            "sex": ["M"] * 80 + ["F"] * 20 + ["M"] * 20 + ["F"] * 80,
            "job": ["easy"] * 100 + ["hard"] * 100,
            "hired": [1] * 56 + [0] * 24 + [1] * 15 + [0] * 5 + [1] * 4 + [0] * 16 + [1] * 20 + [0] * 60,
        }
    )
    columns = Columns(["sex"], decision="hired", strata=["job"])
    document = audit_frame(frame, columns, reference=["sex=M"], min_group_size=10).to_dict()
    [stratified] = document["strata"]
    assert (round(stratified["pooled"], 3), round(stratified["stratified"], 3)) == (-0.25, 0.05)
    assert document["headline"]["reversals"][0].startswith("REVERSED WITHIN STRATA")


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        (Columns(["sex"]), {}, "--score"),
        (Columns(["age"], score="after"), {}, "no such column"),
        (Columns(["sex"], score="race"), {}, "read as numbers"),
        (Columns(["sex"], score="after", target="race"), {}, "--positive"),
        (Columns(["sex"], score="after"), {"reference": ["sex=X"]}, "sex=F, sex=M"),
        (Columns(["sex"], score="after"), {"limits": ["parity > 0.1"]}, "NAME_difference > 0.1"),
        (Columns(["sex"], score="after"), {"wanted": Wanted(lending=True)}, "--reference"),
        (Columns(["sex"], score="after"), {"wanted": Wanted(impact="selection", sex="sex")}, "--race"),
    ],
)
def test_errors_say_what_to_do(columns: Columns, options: dict[str, Any], said: str) -> None:
    with pytest.raises(FairlayerError, match=said.replace("(", r"\(")):
        audit_frame(people(100), columns, **options)


def test_supplied_words_are_read_and_roles_are_checked(tmp_path: Any) -> None:
    from fairlayer.audit import read_supplied

    path = tmp_path / "about.yaml"
    path.write_text("purpose: loans\nroles: {sex: sensitive, income: feature}\nassumptions: [rows are independent]\n")
    found = read_supplied(path, ["sex", "income"])
    assert (found.text("purpose"), found.roles["sex"], found.list("assumptions")) == (
        "loans",
        "sensitive",
        ["rows are independent"],
    )
    with pytest.raises(ParameterError, match="no such column"):
        read_supplied(path, ["sex"])
    path.write_text("purpos: loans\n")
    with pytest.raises(ParameterError, match="purpos"):
        read_supplied(path)
    path.write_text("- a list\n")
    with pytest.raises(DataError, match="mapping"):
        read_supplied(path)


def test_costs_and_improvements_are_limits_with_intervals() -> None:
    stats = pytest.importorskip("scipy.stats")
    frame = people()
    limits = [
        "accuracy_drop > 0.5",
        "brier_score_rise > 0.0001",
        "demographic_parity_improvement < 0.9",
        "demographic_parity_improvement < 0.05",
    ]
    found = audit_frame(frame, Columns(["sex"], score="after", score_before="before", target="repaid"), limits=limits)
    drop, rise, much, some = found.statements
    assert [str(one.outcome) for one in (drop, much, some)] == ["PASS", "FAIL", "PASS"]
    right = [(frame[name] >= 0.5).astype(int) == frame.repaid for name in ("before", "after")]
    assert drop.interval.measured == pytest.approx(right[0].mean() - right[1].mean(), abs=1e-12)
    each = (frame.after - frame.repaid) ** 2 - (frame.before - frame.repaid) ** 2
    low, high = stats.t.interval(0.95, len(each) - 1, each.mean(), each.std(ddof=1) / len(each) ** 0.5)
    assert (rise.interval.low, rise.interval.high) == pytest.approx((low, high), rel=5e-3)
    assert some.interval.low <= some.interval.measured <= some.interval.high


def test_a_change_without_a_before_is_not_evaluated() -> None:
    found = audit_frame(people(200), Columns(["sex"], score="after", target="repaid"), limits=["accuracy_drop > 0.01"])
    assert str(found.outcome) == "NOT EVALUATED"
    with pytest.raises(ParameterError, match=r"accuracy_drop > 0\.01"):
        audit_frame(people(200), Columns(["sex"], score="after"), limits=["accuracy_drop < 0.01"])


def test_a_regression_has_no_decisions_that_could_flip() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"g": ["a", "b"] * 60, "y": rng.normal(size=120), "s": rng.random(120), "b": rng.random(120)})
    columns = Columns(["g"], score="s", score_before="b", target="y")
    document = audit_frame(frame, columns, task="regression").to_dict()
    assert "decision" not in " ".join(document["headline"]["moved"])
    assert [one["metric"] for one in document["cost"]] == ["mean_absolute_error", "root_mean_squared_error"]
