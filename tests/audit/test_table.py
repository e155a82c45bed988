"""The table: what it counts, that it adds up, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from fairlayer.audit import AuditTable, TablesDifferError, metric_names
from fairlayer.errors import (
    EmptyBatchError,
    FairlayerError,
    LabelValueError,
    MissingSensitiveFeatureError,
    NonFiniteScoresError,
    ParameterError,
    ShapeError,
)


def same(a: float, b: float) -> bool:
    return a == pytest.approx(b, abs=1e-9) or (np.isnan(a) and np.isnan(b))


# Odd inputs on purpose: one group, groups of one, all labels alike, weights 0, ties, unknown groups, labels unknown.
ROWS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5, 0.999, 1.0]),
        st.sampled_from([0, 1, None]),
        st.sampled_from(["a", "b", None]),
        st.sampled_from(["x", "y", "z", None]),
        st.sampled_from([0.0, 1.0, 1.0, 2.5]),
    ),
    min_size=1,
    max_size=25,
)


def counted(rows: list[Any], **settings: Any) -> AuditTable:
    scores, y, first, second, weights = zip(*rows, strict=True)
    return AuditTable.of(
        scores=scores,
        y=y,
        sensitive_features={"first": first, "second": second},
        sample_weight=weights,
        task="classification",
        **settings,
    )


@given(ROWS, st.integers(0, 25))
def test_tables_of_chunks_add_up_to_the_table_of_all_rows(rows: list[Any], cut: int) -> None:
    whole = counted(rows)
    parts = [counted(chunk) for chunk in (rows[:cut], rows[cut:]) if chunk]
    pooled = sum(parts)
    assert isinstance(pooled, AuditTable)
    assert pooled.rows == whole.rows == len(rows)
    for by in [(), *whole.groupings()]:
        for name in metric_names(whole):
            before, after = whole.values(name, by), pooled.values(name, by)
            assert set(before) == set(after)
            assert all(same(before[group], after[group]) for group in before), (name, by)


@given(ROWS)
def test_numbers_are_those_of_the_rows(rows: list[Any]) -> None:
    table = counted(rows)
    for first, name in (("a", "first=a"), ("b", "first=b"), (None, "unknown")):
        mine = [row for row in rows if row[2] == first]
        found = table.values("selection_rate", "first")
        assert (name in found) == bool(mine)
        weight = sum(row[4] for row in mine)
        if mine:
            expected = sum(row[4] for row in mine if row[0] >= 0.5) / weight if weight else float("nan")
            assert same(found[name], expected)
    both = [row for row in rows if row[2] == "a" and row[3] == "y"]
    if both:
        group = table.by("first", "second")
        assert group.total("rows")[group.names.index("first=a & second=y")] == len(both)


@given(ROWS)
def test_every_number_of_odd_inputs_has_an_answer(rows: list[Any]) -> None:
    table = counted(rows, min_group_size=0)
    for name in metric_names(table):
        found = table.disparity(name, ["first", "second"])
        if found.difference.known:
            interval = found.difference
            assert interval.low <= interval.estimate <= interval.measured <= interval.high
        json.dumps(found.to_dict(), allow_nan=False)
        assert str(found)


@given(ROWS)
def test_a_table_written_as_json_is_read_again(rows: list[Any]) -> None:
    table = counted(rows).coarse()
    read = AuditTable.from_dict(json.loads(json.dumps(table.to_dict(), allow_nan=False)))
    assert read.to_dict() == table.to_dict()
    for name in metric_names(table):
        before, after = table.values(name, "first"), read.values(name, "first")
        assert all(same(before[group], after[group]) for group in before)


def test_no_row_leaves_through_the_dictionary() -> None:
    table = AuditTable.of(scores=[0.123456789, 0.5], y=[0, 1], sensitive_features={"sex": ["F", "F"]})
    assert "ranks" in table.holds
    assert "ranks" not in AuditTable.from_dict(table.to_dict()).holds


def test_intersections_have_counts_and_names_for_those_that_nobody_has() -> None:
    table = AuditTable.of(
        decisions=[1, 0, 1, 1],
        sensitive_features={"sex": ["F", "F", "M", "M"], "race": ["A", "B", "A", None]},
    )
    group = table.by("sex", "race")
    assert dict(zip(group.names, group.total("rows"), strict=True)) == {
        "sex=F & race=A": 1,
        "sex=F & race=B": 1,
        "sex=M & race=A": 1,
        "unknown": 1,
    }
    assert table.unseen("sex", "race") == ("sex=M & race=B",)
    assert table.groupings() == (("sex",), ("race",), ("sex", "race"))


def test_small_and_unknown_groups_are_shown_and_left_out_of_the_headline() -> None:
    decisions = [1] * 20 + [0] * 20 + [1] * 18 + [0] * 22 + [0] * 5 + [1] * 40
    sex = ["F"] * 40 + ["M"] * 40 + ["X"] * 5 + [None] * 40
    found = AuditTable.of(decisions=decisions, sensitive_features={"sex": sex}).disparity("selection_rate", "sex")
    assert [(group.name, group.rows, group.standing) for group in found.groups] == [
        ("sex=F", 40, "counted"),
        ("sex=M", 40, "counted"),
        ("sex=X", 5, "small"),
        ("unknown", 40, "unknown"),
    ]
    assert found.difference.measured == pytest.approx(0.05)
    assert found.with_small is not None
    assert found.with_small.measured == pytest.approx(0.5)
    assert "left out: sex=X (5 rows)" in str(found)


def test_a_rate_within_a_label_counts_the_rows_with_that_label() -> None:
    """400 women, but only 10 with label 1: their true positive rate stands on 10 rows."""
    y = [1] * 10 + [0] * 390 + [1] * 200 + [0] * 200
    found = AuditTable.of(decisions=[1] * 800, y=y, sensitive_features={"sex": ["F"] * 400 + ["M"] * 400}).disparity(
        "equalized_odds", "sex"
    )
    standing = {(part.metric, g.name): g.standing for part in found.parts for g in part.groups}
    assert standing["true_positive_rate", "sex=F"] == "small"
    assert standing["false_positive_rate", "sex=F"] == "counted"
    assert found.left_out[0].rows == 10


def test_a_small_group_in_certain_danger_is_named() -> None:
    decisions = [1] * 900 + [0] * 100 + [1] * 890 + [0] * 110 + [0] * 20 + [1] * 3
    sex = ["F"] * 1000 + ["M"] * 1000 + ["X"] * 20 + ["Y"] * 3
    found = AuditTable.of(decisions=decisions, sensitive_features={"sex": sex}).disparity("selection_rate", "sex")
    assert found.difference.high < 0.1
    assert found.beyond(0.1) == ("sex=X",)


def test_probabilities_per_group_count_every_row_by_its_share() -> None:
    membership = np.array([[0.9, 0.1], [0.2, 0.8], [1.0, 0.0], [np.nan, np.nan]])
    decisions = np.array([1, 0, 0, 1])
    table = AuditTable.of(decisions=decisions, sensitive_features={"race": membership})
    assert table.estimated == ("race",)
    assert table.rows == pytest.approx(4.0)
    known = membership[:3]
    expected = (known * decisions[:3, None]).sum(axis=0) / known.sum(axis=0)
    found = table.values("selection_rate", "race")
    assert [found["race=0"], found["race=1"]] == pytest.approx(expected.tolist())
    assert found["unknown"] == 1.0


def test_tensors_frames_and_lists_are_the_same() -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    scores, y, sex = [0.2, 0.7, 0.9], [0, None, 1], ["F", "M", "M"]
    made = [
        AuditTable.of(scores=scores, y=y, sensitive_features={"sex": sex}),
        AuditTable.of(
            scores=torch.tensor(scores, dtype=torch.float64)[:, None],
            y=torch.tensor([0.0, float("nan"), 1.0]),
            sensitive_features={"sex": sex},
        ),
        AuditTable.of(
            scores=pandas.Series(scores),
            y=pandas.array([0, None, 1], dtype="Int64"),
            sensitive_features=pandas.DataFrame({"sex": sex}),
        ),
        AuditTable.of(
            scores=polars.Series(scores), y=polars.Series(y), sensitive_features=polars.DataFrame({"sex": sex})
        ),
    ]
    assert all(table.to_dict() == made[0].to_dict() for table in made)


def test_a_regression_has_residuals_and_no_decisions() -> None:
    table = AuditTable.of(scores=[1.0, 2.5, 3.0], y=[1.5, 2.0, 7.0], sensitive_features={"sex": ["F", "M", "M"]})
    assert table.task == "regression"
    assert table.holds == {"scores", "labels", "ranks", "order"}
    assert table.values("mean_residual", "sex") == {"sex=F": 0.5, "sex=M": 1.75}
    assert set(metric_names(table)) == {
        "mean_score",
        "mean_residual",
        "mean_absolute_error",
        "mean_squared_error",
        "root_mean_squared_error",
    }


def test_strata_divide_a_table() -> None:
    table = AuditTable.of(
        decisions=[1, 0, 1, 1],
        sensitive_features={"sex": ["F", "M", "F", "M"]},
        strata={"region": ["north", "north", "south", "south"]},
    )
    assert table.values("selection_rate", "sex") == {"sex=F": 1.0, "sex=M": 0.5}
    assert table.within(region="north").values("selection_rate", "sex") == {"sex=F": 1.0, "sex=M": 0.0}
    assert table.within(region="south").rows == 2
    with pytest.raises(ParameterError, match="'region' has no category 'west', only"):
        table.within(region="west")


def test_a_part_of_a_table_keeps_its_own_area() -> None:
    rng = np.random.default_rng(0)
    scores, y, place = rng.random(300), rng.integers(0, 2, 300), rng.integers(0, 3, 300)
    sex = rng.integers(0, 2, 300)
    table = AuditTable.of(scores=scores, y=y, sensitive_features={"sex": sex}, strata={"place": place})
    there = place == 2
    alone = AuditTable.of(scores=scores[there], y=y[there], sensitive_features={"sex": sex[there]})
    assert table.within(place=2).values("auc", "sex") == pytest.approx(alone.values("auc", "sex"), abs=1e-12)


FEATURES = {"sex": ["F", "M"]}


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, ParameterError, "give scores=, or decisions="),
        (
            {"scores": [0.1]},
            ShapeError,
            r"one entry per row, 2 as the sensitive features have.*\(1,\)",
        ),
        ({"scores": [[0.1, 0.2], [0.1, 0.2]]}, ShapeError, r"shape \(2, 2\)"),
        (
            {"scores": [0.1, float("nan")]},
            NonFiniteScoresError,
            "1 of 2 entries are NaN or infinite, the first in",
        ),
        ({"scores": ["high", "low"]}, LabelValueError, "scores must be numbers"),
        (
            {"decisions": [0.3, 0.7]},
            LabelValueError,
            "decisions are 0 or 1 .* hold 0.3, 0.7. Give scores as scores=",
        ),
        ({"scores": [0.1, 0.2], "y": [-1, 1]}, LabelValueError, "two values, -1, 1, which are not 0 and 1"),
        ({"scores": [0.1, 0.2], "y": [0, 2], "task": "classification"}, LabelValueError, "labels are 0 and 1, but y"),
        ({"scores": [0.1, 0.2], "y": [0, float("inf")]}, NonFiniteScoresError, "y must be finite"),
        ({"scores": [0.1, 0.2], "sample_weight": [1, -1]}, NonFiniteScoresError, "must not be negative"),
        ({"scores": [0.1, 0.2], "favourable": 2}, ParameterError, "good for a person, 0 or 1, not 2"),
        ({"scores": [0.1, 0.2], "min_group_size": -1}, ParameterError, "min_group_size must not be negative"),
        ({"values": {"weight": [1, 2]}}, ParameterError, r"the names \['weight'\] are those of the table's own sums"),
        ({"scores": [0.1, 0.2], "strata": {"sex": [1, 2]}}, ParameterError, "sensitive features and strata at once"),
        ({"scores": [0.1, 0.2], "strata": {"region": [1, 2, 3]}}, ShapeError, "strata must have one entry per row, 2"),
        ({"scores": [0.1, 0.2], "sensitive_features": {}}, ParameterError, "an audit compares groups"),
        ({"scores": [], "sensitive_features": {"sex": []}}, EmptyBatchError, "at least one row"),
    ],
)
def test_what_cannot_be_read_is_said(arguments: dict[str, Any], error: type[FairlayerError], text: str) -> None:
    with pytest.raises(error, match=text):
        AuditTable.of(**{"sensitive_features": FEATURES, **arguments})


def test_tables_of_other_things_are_not_added_up() -> None:
    table = AuditTable.of(scores=[0.1, 0.9], y=[0, 1], sensitive_features=FEATURES)
    others = {
        "different thresholds, 0.5 and 0.4": AuditTable.of(
            scores=[0.1, 0.9], y=[0, 1], sensitive_features=FEATURES, threshold=0.4
        ),
        "different sensitive features": AuditTable.of(scores=[0.1], sensitive_features={"race": [1]}),
        "different sums": AuditTable.of(decisions=[1, 0], sensitive_features=FEATURES),
        "different tasks": AuditTable.of(
            scores=[0.1, 0.9], y=[0.5, 1.5], sensitive_features=FEATURES, task="regression"
        ),
        "favourable": AuditTable.of(scores=[0.1, 0.9], sensitive_features=FEATURES, favourable=0),
    }
    for text, other in others.items():
        with pytest.raises(TablesDifferError, match=text):
            table + other
    with pytest.raises(TypeError):
        table + 3  # type: ignore[operator]
    with pytest.raises(TablesDifferError, match="tables of format 1, but was given format 7"):
        AuditTable.from_dict({"format": 7})


def test_an_unknown_feature_is_named() -> None:
    table = AuditTable.of(scores=[0.1, 0.9], sensitive_features=FEATURES)
    with pytest.raises(MissingSensitiveFeatureError, match="no feature 'race', only 'sex'"):
        table.by("race")
    with pytest.raises(ParameterError, match="groups are compared by a feature"):
        table.disparity("selection_rate", ())


def test_a_table_cannot_be_changed() -> None:
    table = AuditTable.of(scores=[0.1, 0.9], sensitive_features=FEATURES)
    with pytest.raises(ValueError, match="read-only"):
        table.sums["weight"][0] = 7.0
    with pytest.raises(AttributeError):
        table.threshold = 0.1  # type: ignore[misc]


def test_importing_fairlayer_does_not_import_the_audit() -> None:
    import subprocess
    import sys

    program = "import sys, fairlayer; print(any(name.startswith('fairlayer.audit') for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


# Fairlearn as the outside truth


@pytest.mark.parametrize("seed", range(10))
def test_gaps_equal_those_of_fairlearn(seed: int) -> None:
    fairlearn = pytest.importorskip("fairlearn.metrics")
    rng = np.random.default_rng(seed)
    n = 500
    y, decisions = rng.integers(0, 2, n), rng.integers(0, 2, n)
    sex, race, weights = rng.choice(["F", "M"], n), rng.choice(["A", "B", "C"], n), rng.random(n)
    table = AuditTable.of(
        decisions=decisions,
        y=y,
        sensitive_features={"sex": sex, "race": race},
        sample_weight=weights,
        min_group_size=0,
    )
    features = {"sex": sex, "race": race}
    frame = fairlearn.MetricFrame(
        metrics=fairlearn.selection_rate,
        y_true=y,
        y_pred=decisions,
        sensitive_features=features,
        sample_params={"sample_weight": weights},
    )
    found = table.disparity("demographic_parity", ["sex", "race"])
    assert found.difference.measured == pytest.approx(frame.difference(), abs=1e-9)
    assert found.ratio.measured == pytest.approx(frame.ratio(), abs=1e-9)
    to_all = found.worst.to_all()
    assert max(abs(c.difference) for c in to_all) == pytest.approx(frame.difference(method="to_overall"), abs=1e-9)
    assert min(min(c.ratio, 1 / c.ratio) for c in to_all) == pytest.approx(frame.ratio(method="to_overall"), abs=1e-9)
    odds = fairlearn.equalized_odds_difference(y, decisions, sensitive_features=features, sample_weight=weights)
    assert table.disparity("equalized_odds", ["sex", "race"]).difference.measured == pytest.approx(odds, abs=1e-9)
    odds = fairlearn.equalized_odds_ratio(y, decisions, sensitive_features=features, sample_weight=weights)
    assert table.disparity("equalized_odds", ["sex", "race"]).ratio.measured == pytest.approx(odds, abs=1e-9)
    reference = found.worst.to("sex=F & race=A")
    by_group = frame.by_group["F", "A"]
    for compared in reference:
        parts = [part.partition("=")[2] for part in compared.name.split(" & ")]
        assert compared.difference == pytest.approx(frame.by_group[tuple(parts)] - by_group, abs=1e-9)
        assert compared.ratio == pytest.approx(frame.by_group[tuple(parts)] / by_group, abs=1e-9)
        assert compared.interval is not None
        assert compared.interval.low < compared.difference < compared.interval.high
    best = found.worst.to_best()
    assert max(c.difference for c in best) <= 0
    assert min(c.ratio for c in best) == pytest.approx(frame.ratio(), abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_metric_frame_is_that_of_the_rows(seed: int) -> None:
    fairlearn = pytest.importorskip("fairlearn.metrics")
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    n = 400
    y, decisions = rng.integers(0, 2, n), rng.integers(0, 2, n)
    sex, region, weights = rng.choice(["F", "M"], n), rng.choice(["north", "south"], n), rng.random(n)
    table = AuditTable.of(
        decisions=decisions,
        y=y,
        sensitive_features={"sex": sex},
        strata={"region": region},
        sample_weight=weights,
    )
    for control in ((), "region"):
        frame = table.metric_frame("sex", control=control)
        rows = fairlearn.MetricFrame(
            metrics={
                "accuracy": sklearn.accuracy_score,
                "selection_rate": fairlearn.selection_rate,
                "true_positive_rate": fairlearn.true_positive_rate,
                "false_positive_rate": fairlearn.false_positive_rate,
                "positive_predictive_value": sklearn.precision_score,
            },
            y_true=y,
            y_pred=decisions,
            sensitive_features={"sex": sex},
            control_features={"region": region} if control else None,
            sample_params={
                name: {"sample_weight": weights}
                for name in (
                    "accuracy",
                    "selection_rate",
                    "true_positive_rate",
                    "false_positive_rate",
                    "positive_predictive_value",
                )
            },
        )
        ours = frame.by_group.drop(columns="weight")
        assert np.abs(ours.to_numpy(float) - rows.by_group.to_numpy(float)).max() < 1e-9
        gaps = frame.difference()[list(rows.by_group.columns)]
        assert np.abs(np.asarray(gaps, float) - np.asarray(rows.difference(), float)).max() < 1e-9


@pytest.mark.data
def test_adult_equals_fairlearn(data_folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    fairlearn = pytest.importorskip("fairlearn.metrics")
    frame = pandas.read_csv(data_folder / "adult.csv.gz", keep_default_na=False, na_values=[""])
    y = (frame["income"] == ">50K").astype(int)
    decisions = (frame["education_num"] >= 13).astype(int)
    features = frame[["sex", "race"]]
    table = AuditTable.of(
        decisions=decisions, y=y, sensitive_features=features, sample_weight=frame["fnlwgt"].astype(float)
    )
    assert table.rows == 48842
    by_hand = fairlearn.MetricFrame(
        metrics=fairlearn.true_positive_rate,
        y_true=y,
        y_pred=decisions,
        sensitive_features=features,
        sample_params={"sample_weight": frame["fnlwgt"].astype(float)},
    )
    found = table.values("true_positive_rate", ["sex", "race"])
    for (sex, race), expected in by_hand.by_group.items():
        assert found[f"sex={sex} & race={race}"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.data
def test_bank_gap_of_the_labels(data_folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(data_folder / "bank.csv.gz", keep_default_na=False, na_values=[""])
    y, young = (frame["y"] == "yes").astype(int), np.where(frame["age"].between(25, 59), "25-59", "other")
    table = AuditTable.of(decisions=y, y=y, sensitive_features={"age": young})
    rates = pandas.Series(y).groupby(young).mean()
    assert table.values("base_rate", "age") == pytest.approx({f"age={k}": v for k, v in rates.items()}, abs=1e-12)
    assert table.overall("accuracy") == 1.0
