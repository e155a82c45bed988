"""The audit of a training: what was asked, what the certificates say, and the page."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairlayer.data import Table
from fairlayer.errors import DataError
from fairlayer.report import render_page
from fairlayer.training import Trained, audit_run, audit_trained, load_run, save_run
from fairlayer.training.session import Parts


def test_the_constraints_are_answered_by_certificates_and_limits_by_intervals(parts: Parts, trained: Trained) -> None:
    found = audit_trained(parts, trained, limits=["demographic_parity_difference > 0.9", "seconds > 100"], seconds=12.0)
    document = found.to_dict()
    outcomes = {one["limit"]: one["outcome"] for one in document["verdicts"]}
    assert outcomes["DemographicParity('sex') at most 0.02 in every batch"] == "PASS"
    assert outcomes["seconds <= 100"] == "PASS"
    assert outcomes["demographic_parity difference <= 0.9"] == "PASS"
    [first, *_] = document["headline"]["asked"]
    assert first["question"].startswith(
        "In every batch, do the mean scores of the groups of sex differ by at most 0.02"
    )
    assert audit_trained(parts, trained, limits=["seconds > 10"], seconds=12.0).exit_code == 1
    assert audit_trained(parts, trained, limits=["seconds > 10"]).exit_code == 4


def test_before_is_the_unconstrained_model_and_now_the_constrained_one(parts: Parts, trained: Trained) -> None:
    document = audit_trained(parts, trained).to_dict()
    quality = trained.comparison.quality
    costs = {one["metric"]: one for one in document["cost"]}
    for name in ("accuracy", "auc"):
        assert costs[name]["before"] == pytest.approx(quality[name].unconstrained, abs=1e-9)
        assert costs[name]["now"] == pytest.approx(quality[name].constrained, abs=1e-9)
    rows = {group.name: group.count for group in trained.comparison.groups}
    [by_sex] = [one for one in document["groupings"] if one["by"] == ["sex"]]
    assert {group["name"]: group["rows"] for group in by_sex["groups"]} == {
        name: count for name, count in rows.items() if name.startswith("sex=") and "&" not in name
    }


def test_the_page_says_what_holds_and_what_does_not(parts: Parts, trained: Trained) -> None:
    text = re.sub(r"\s+", " ", render_page(audit_trained(parts, trained)))
    for said in (
        "Decisions were not limited: positive ones differ by",
        "The layer bounds mean predictions of each batch, within its tolerance",
        "decisions (not bounded)",
        "scores, all batches pooled (bounded per batch)",
        "half the squared move per prediction that one more unit of tolerance would save",
        "GENERATED data",
        "The model reads &#39;sex&#39;",
        "<svg",
    ):
        assert said in text
    assert "<script" not in text
    assert not re.search(r"\b(fair|unbiased)\b", text, flags=re.IGNORECASE)
    assert render_page(audit_trained(parts, trained)) == render_page(audit_trained(parts, trained))


def test_a_run_folder_is_audited_on_new_rows(lending: Table, trained: Trained, tmp_path: Path) -> None:
    run = load_run(save_run(tmp_path / "run", trained))
    frame = lending.frame.iloc[:800]
    found = audit_run(run, frame, data="new.csv", limits=["accuracy_drop > 0.9"])
    assert found.exit_code == 0
    assert found.table.rows == 800
    x = run.recipe.sample(frame).x
    decided = run.plain(x).detach().numpy() >= 0.5
    [cost, *_] = found.to_dict()["cost"]
    assert cost["before"] == pytest.approx(np.mean(decided == (frame.label == 1)), abs=1e-9)
    with pytest.raises(DataError, match="label"):
        audit_run(run, frame.drop(columns="label"), data="new.csv")


def test_features_that_leak_are_warned_of(lending: Table) -> None:
    from fairlayer.training import prepare

    frame = lending.frame.assign(later=lending.frame.label * 2.0, row=range(len(lending.frame)))
    table = Table("t", pd.DataFrame(frame), "label", "1", ("sex",), not_features=("repays",))
    told = " ".join(prepare(table, ["demographic_parity(sex, 0.1)"], hidden=(4,)).warnings)
    assert "'later' alone tells the outcome" in told
    assert "'row' is different in every row" in told


def test_a_group_of_few_rows_is_told_although_the_test_rows_may_have_none_of_it(lending: Table) -> None:
    from fairlayer.training import prepare

    frame = lending.frame.assign(sex=lending.frame.sex.where(lending.frame.index > 2, "other"))
    table = Table("t", pd.DataFrame(frame), "label", "1", ("sex",), not_features=("repays",))
    [told] = [each for each in prepare(table, ["demographic_parity(sex, 0.1)"]).warnings if "The group" in each]
    assert told.startswith("The group sex=other has 3 rows (")
    counts = [int(number) for number in re.findall(r"(\d+) (?:training|validation|test)", told)]
    assert len(counts) == 3
    assert sum(counts) == 3
    told_of_two = prepare(table, ["demographic_parity(sex, 0.1)", "equal_opportunity(sex, 0.1)"]).warnings
    assert sum("The group" in each for each in told_of_two) == 1  # once, however many limits compare it
    plain = replace(table, frame=lending.frame)
    assert not any("The group" in each for each in prepare(plain, ["demographic_parity(sex, 0.1)"]).warnings)
