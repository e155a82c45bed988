"""Coverage of given intervals and sets, and single people, as parts of a document."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairlayer.audit import Columns, Wanted, audit_frame, consistency
from fairlayer.audit.likeness import distances_of, flips_of
from fairlayer.cli import main
from fairlayer.errors import ParameterError
from fairlayer.report import render_page


def people(n: int = 900, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    sex, age = rng.choice(["F", "M"], n), rng.integers(20, 70, n)
    repaid = (rng.random(n) < 0.5).astype(int)
    p = np.clip(0.3 + 0.4 * repaid + 0.1 * rng.normal(size=n), 0, 1)
    wide = np.where(sex == "M", 1.2, 0.25)  # the intervals of women are too narrow
    frame = pd.DataFrame({"sex": sex, "age": age, "job": rng.choice(["a", "b"], n), "repaid": repaid, "p": p})
    return frame.assign(low=p - wide, high=p + wide, zero=(p < 0.6).astype(int), one=(p > 0.4).astype(int))


def examined(frame: pd.DataFrame, wanted: Wanted, **columns: Any) -> dict[str, Any]:
    found = audit_frame(frame, Columns(["sex"], score="p", target="repaid", **columns), wanted=wanted)
    return found.to_dict()


def test_intervals_are_counted_for_everybody_and_in_every_group() -> None:
    frame = people()
    document = examined(frame, Wanted(interval=["low", "high"], nominal=0.9))
    [part] = document["coverage"]
    inside = (frame.low <= frame.repaid) & (frame.repaid <= frame.high)
    assert part["everybody"]["share"] == pytest.approx(inside.mean())
    shares = {group["name"]: group["share"] for group in part["groups"]}
    for sex in "FM":
        assert shares[f"sex={sex}"] == pytest.approx(inside[frame.sex == sex].mean())
    assert [group["name"] for group in part["groups"] if group["short"]] == ["sex=F"]
    assert any("sex=F is short by more than chance" in sentence for sentence in part["sentences"])
    page = render_page(document)
    assert "Intervals and sets that were given" in page
    assert "short, by more than chance" in page


def test_sets_are_counted_and_rows_without_an_outcome_are_not() -> None:
    frame = people()
    frame["repaid"] = frame.repaid.astype(object)
    frame.loc[:99, "repaid"] = None
    document = examined(frame, Wanted(label_set=["zero", "one"], nominal=0.8), positive="1")
    [part] = document["coverage"]
    assert part["rows"] == 800
    known = frame.iloc[100:]
    held = np.where(known.repaid.astype(int) == 1, known.one, known.zero)
    assert part["everybody"]["share"] == pytest.approx(held.mean())
    assert part["everybody"]["size"] == pytest.approx((known.zero + known.one).mean())


def test_what_cannot_be_covered_is_named() -> None:
    frame = people(60)
    with pytest.raises(ParameterError, match="--target"):
        audit_frame(frame, Columns(["sex"], score="p"), wanted=Wanted(interval=["low", "high"]))
    with pytest.raises(ParameterError, match="LOW,HIGH"):
        examined(frame, Wanted(interval=["low"]))


def test_people_are_compared_with_those_like_them() -> None:
    frame = people(300)
    document = examined(frame, Wanted(alike=["age", "job"]))
    found = document["individual"]["alike"]
    x = distances_of(frame, ["age", "job"])
    np.testing.assert_allclose(x[:, 0], (frame.age - frame.age.mean()) / frame.age.std(ddof=0))
    assert ((x[0, 1:] - x[frame.job.to_numpy() != frame.job[0], 1:]) ** 2).sum(axis=1) == pytest.approx(1.0)
    assert found["consistency"]["scores"] == pytest.approx(consistency(x, frame.p))
    assert found["consistency"]["decisions"] == pytest.approx(consistency(x, frame.p >= 0.5))
    assert "Single people" in render_page(document)
    with pytest.raises(ParameterError, match="5 others"):
        examined(frame.head(4), Wanted(alike=["age"]))


def test_a_missing_number_stands_at_the_mean() -> None:
    frame = pd.DataFrame({"a": [1.0, np.nan, 3.0], "same": [2, 2, 2]})
    np.testing.assert_allclose(distances_of(frame, ["a", "same"])[1], [0.0, 0.0])


def test_only_columns_with_two_values_are_flipped() -> None:
    frame = pd.DataFrame({"sex": ["F", "M"], "town": ["x", "x"]})
    assert list(flips_of(lambda rows: 0.1 * (rows.sex == "M"), frame, ["sex", "town"])) == ["sex"]


def test_the_parts_keep_the_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((files("fairlayer.audit") / "schema.json").read_text(encoding="utf-8"))
    wanted = Wanted(interval=["low", "high"], alike=["age"])
    jsonschema.validate(examined(people(), wanted), schema)
    jsonschema.validate(examined(people(), Wanted(label_set=["zero", "one"])), schema)


def test_the_command_line_asks_for_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "scored.csv"
    people(200).to_csv(table, index=False)
    told = ["audit", str(table), "--target", "repaid", "--score", "p", "--sensitive", "sex", "--json"]
    parts = ["--interval", "low, high", "--nominal", "0.8", "--alike", "age"]
    assert main([*told, str(tmp_path / "a.json"), *parts]) == 4
    document = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert document["coverage"][0]["nominal"] == 0.8
    assert document["individual"]["alike"]["columns"] == ["age"]
    capsys.readouterr()
