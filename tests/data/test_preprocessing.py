"""Weights, resampling, flips and decorrelation, on generated rows and on Adult."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlayer.data import (
    Encoder,
    balanced_resampling,
    counterfactual_flip,
    inverse_frequency_weights,
    read_data_set,
    remove_correlation,
    reweighing_weights,
    tensor_table,
)
from fairlayer.data.errors import ColumnError, MissingColumnError

ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1)), min_size=1, max_size=60)


@pytest.fixture(scope="module")
def adult(data_folder: Path) -> Any:
    table = read_data_set("adult", data_folder)
    encoder = Encoder.fit(table.frame, table.features(), categorical=table.categorical)
    return table, encoder, tensor_table(table, encoder, ["sex", "race"])


# --- reweighing


@given(ROWS)
def test_weights_are_the_formula_and_make_groups_and_labels_independent(rows: list[tuple[str, int]]) -> None:
    groups, y = [g for g, _ in rows], [label for _, label in rows]
    weights = reweighing_weights(groups, y)
    n, cells = len(rows), Counter(rows)
    by_hand = [groups.count(g) / n * y.count(label) / n / (cells[g, label] / n) for g, label in rows]
    assert weights.tolist() == pytest.approx(by_hand)
    if len(cells) == len(set(groups)) * len(set(y)):
        assert weights.sum() == pytest.approx(n)
        for group in set(groups):
            here = np.array(groups) == group
            assert np.average(np.array(y)[here], weights=weights[here]) == pytest.approx(np.mean(y))


def test_weights_take_columns_of_any_kind() -> None:
    sex, race, y = [0, 0, 1, 1, 0, 1], ["u", "v", "u", "v", "u", "u"], [0, 1, 1, 0, 1, 0]
    joint = reweighing_weights([f"{s}{r}" for s, r in zip(sex, race, strict=True)], y)
    for given_groups in (
        {"sex": torch.tensor(sex), "race": np.array(race)},
        pd.DataFrame({"sex": sex, "race": race}),
        {"sex": pd.Series(sex), "race": race},
    ):
        assert reweighing_weights(given_groups, torch.tensor(y)).tolist() == joint.tolist()


def test_weights_refuse_what_are_no_groups() -> None:
    with pytest.raises(ColumnError, match="lengths are"):
        reweighing_weights([0, 1], [1])
    with pytest.raises(ColumnError, match="lengths are"):
        reweighing_weights([], [])
    with pytest.raises(ColumnError, match=r"shape \(2, 1\)"):
        reweighing_weights(torch.zeros(2, 1), [0, 1])
    with pytest.raises(ColumnError, match="Cut amounts"):
        reweighing_weights(np.random.default_rng(0).random(500), np.arange(500) % 2)


@pytest.mark.data
def test_weights_of_adult(adult: Any) -> None:
    _, _, sample = adult
    weights = reweighing_weights({"sex": sample.sensitive["sex"]}, sample.y)
    rates = [
        np.average(sample.y[sample.sensitive["sex"] == sex], weights=weights[sample.sensitive["sex"] == sex])
        for sex in ("Female", "Male")
    ]
    assert rates == pytest.approx([float(sample.y.mean())] * 2, abs=1e-6)


# --- resampling


def cells(result: Any) -> Counter[Any]:
    return Counter(zip(*result.sensitive_features.values(), result.y.tolist(), strict=True))


@pytest.mark.parametrize("method", ["random_over", "random_under", "smote"])
def test_every_cell_gets_as_many_rows(method: str) -> None:
    rng = np.random.default_rng(0)
    sex, race = rng.choice(["F", "M"], 300, p=[0.3, 0.7]), rng.choice(["u", "v"], 300)
    y = (rng.random(300) < np.where(sex == "F", 0.2, 0.5)).astype(int)
    x = np.column_stack([rng.normal(size=(300, 2)) + 5.0 * y[:, None], np.arange(300)])
    before = Counter(zip(sex, race, y, strict=True))
    for kind in (np.asarray, torch.tensor, lambda v: pd.DataFrame(v, columns=["a", "b", "c"])):
        result = balanced_resampling(kind(x), y, sensitive_features={"sex": sex, "race": race}, method=method)
        assert type(result.x) is type(kind(x))
        size = (min if method == "random_under" else max)(before.values())
        assert set(cells(result).values()) == {size}
        assert set(cells(result)) == set(before)
        values = np.asarray(result.x)
        assert abs(values[result.y == 1, 0].mean() - values[result.y == 0, 0].mean()) > 4  # labels go with their rows
        if method != "smote":  # nothing but rows that were there
            rows = values[:, 2].astype(int)
            assert (x[rows] == values).all()
            assert (y[rows] == result.y).all()
            assert (sex[rows] == result.sensitive_features["sex"]).all()
            assert len(set(rows)) == (300 if method == "random_over" else len(rows))
    again = balanced_resampling(x, y, sensitive_features={"sex": sex, "race": race}, method=method)
    assert (np.asarray(again.x) == values).all()
    other = balanced_resampling(x, y, sensitive_features={"sex": sex, "race": race}, method=method, seed=1)
    assert not np.array_equal(np.asarray(other.x), values)


def test_one_cell_is_balanced_already() -> None:
    x = torch.rand(3, 2)
    result = balanced_resampling(x, [1, 1, 1], sensitive_features={"sex": ["F"] * 3})
    assert result.x is x
    assert result.y.tolist() == [1, 1, 1]


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_new_rows_of_whole_numbers_lie_between_them(kind: Any) -> None:
    y, sex = [0] * 20 + [1] * 12, {"sex": [0, 1] * 16}
    x = kind([[3 * row] for row in range(32)])
    new = np.asarray(balanced_resampling(x, y, sensitive_features=sex, method="smote").x)[32:]
    assert len(new) == 8
    assert (new != np.round(new)).any()


def test_resampling_errors() -> None:
    x, y, sex = np.zeros((8, 1)), [0, 1] * 4, {"sex": [0] * 6 + [1] * 2}
    with pytest.raises(ColumnError, match="The methods are 'random_over'"):
        balanced_resampling(x, y, sensitive_features=sex, method="adasyn")
    with pytest.raises(ColumnError, match=r"Combinations of groups and label have \[3, 3, 1, 1\] rows"):
        balanced_resampling(x, y, sensitive_features=sex, method="smote")
    with pytest.raises(ColumnError, match="7 rows of features"):
        balanced_resampling(x[:7], y, sensitive_features=sex)
    words = pd.DataFrame({"job": ["clerk"] * 8})
    with pytest.raises(ColumnError, match="features must be numbers"):
        balanced_resampling(words, y, sensitive_features=sex, method="smote")
    assert len(balanced_resampling(words, y, sensitive_features=sex).x) == 12


@pytest.mark.data
def test_resampling_adult(adult: Any) -> None:
    _, _, sample = adult
    part = sample.take(slice(0, 3000))
    for method in ("random_over", "random_under", "smote"):
        result = balanced_resampling(part.x, part.y, sensitive_features={"sex": part.sensitive["sex"]}, method=method)
        assert len(set(cells(result).values())) == 1
        assert len(cells(result)) == 4
        assert len(result.x) == len(result.y)
        assert result.x.dtype == part.x.dtype


# --- flips


@given(st.lists(st.sampled_from([-0.5, 2.0, 7.0]), min_size=1, max_size=20), st.integers(1, 3))
def test_each_row_occurs_once_with_every_value(values: list[float], width: int) -> None:
    x = np.random.default_rng(0).random((len(values), width + 1))
    x[:, 1] = values
    if len(set(values)) < 2:
        with pytest.raises(ColumnError, match="1 distinct values"):
            counterfactual_flip(x, 1)
        return
    result = counterfactual_flip(x, 1)
    assert (result.x[: len(x)] == x).all()
    others = [j for j in range(width + 1) if j != 1]
    assert (result.x[:, others] == x[result.rows][:, others]).all()
    seen = Counter(zip(result.rows.tolist(), result.x[:, 1].tolist(), strict=True))
    assert seen == Counter((row, value) for row in range(len(x)) for value in set(values))


def test_a_one_hot_block_is_permuted() -> None:
    x = torch.tensor([[0.3, 1, 0, 0], [0.4, 0, 0, 1], [0.5, 0, 0, 0]])
    given_x = x.clone()
    result = counterfactual_flip(x, [1, 2, 3])
    assert torch.equal(x, given_x)  # the input is not written to
    assert result.rows.tolist() == [0, 1, 2, 0, 1, 0, 1]  # the row of unknown value has no copy
    assert result.x[:, 0].tolist() == x[:, 0][result.rows].tolist()
    assert [row[1:].argmax().item() for row in result.x[[0, 3, 5]]] == [0, 1, 2]
    assert {row[1:].argmax().item() for row in result.x[[1, 4, 6]]} == {0, 1, 2}
    assert (result.x[:, 1:].sum(dim=1) == torch.tensor([1, 1, 0, 1, 1, 1, 1])).all()


def test_a_frame_keeps_its_columns_and_their_types() -> None:
    frame = pd.DataFrame({"sex": ["F", "M", None], "age": [20, 30, 40], "job": pd.Categorical(["a", "b", "a"])})
    result = counterfactual_flip(frame, "sex")
    assert result.x["sex"].tolist()[:2] + result.x["sex"].tolist()[3:] == ["F", "M", "M", "F"]
    assert result.x["sex"].isna().tolist() == [False, False, True, False, False]
    assert result.x.dtypes.tolist() == frame.dtypes.tolist()
    assert result.x["age"].tolist() == [20, 30, 40, 20, 30]
    coded = counterfactual_flip(pd.DataFrame({"sex": [0, 1]}), "sex").x
    assert coded["sex"].tolist() == [0, 1, 1, 0]
    assert coded["sex"].dtype == np.int64
    categorical = counterfactual_flip(pd.DataFrame({"sex": pd.Categorical(["F", "M"])}), "sex").x
    assert categorical["sex"].tolist() == ["F", "M", "M", "F"]
    for kind in ("string", "object"):
        nullable = pd.DataFrame({"sex": pd.Series(["F", "M", pd.NA], dtype=kind)})
        assert counterfactual_flip(nullable, "sex").rows.tolist() == [0, 1, 2, 0, 1]
    assert counterfactual_flip(pd.DataFrame({"old": [True, False]}), "old").x["old"].tolist() == [
        True,
        False,
        False,
        True,
    ]


def test_flip_errors() -> None:
    x = torch.rand(40, 3)
    with pytest.raises(ColumnError, match="40 distinct values"):
        counterfactual_flip(x, 0)
    with pytest.raises(ColumnError, match=r"shape \(40, 3\)"):
        counterfactual_flip(x, 3)
    with pytest.raises(ColumnError, match="one-hot block"):
        counterfactual_flip(x, [0, 1])
    with pytest.raises(ColumnError, match="one-hot block"):
        counterfactual_flip(x, [])
    with pytest.raises(
        ColumnError, match=r"column 'sex' was asked for, but the features are Tensor of shape \(40, 3\)"
    ):
        counterfactual_flip(x, "sex")
    with pytest.raises(ColumnError, match="the features are list"):
        counterfactual_flip(x.tolist(), 0)
    with pytest.raises(MissingColumnError, match="'sex'"):
        counterfactual_flip(pd.DataFrame({"age": [1]}), "sex")


@pytest.mark.data
def test_flipping_adult(adult: Any) -> None:
    table, encoder, sample = adult
    flipped = counterfactual_flip(table.frame, "sex")
    assert len(flipped.x) == 2 * len(table.frame)
    assert Counter(flipped.x["sex"]) == {"Female": len(table.frame), "Male": len(table.frame)}
    start = 0
    for column in encoder.columns:
        if column.name == "sex":
            break
        start += column.width
    encoded = counterfactual_flip(sample.x, [start, start + 1])
    assert torch.equal(encoded.x, torch.from_numpy(encoder.encode(flipped.x)))
    assert torch.equal(sample.y[encoded.rows], torch.cat([sample.y, sample.y]))


# --- decorrelation


def test_no_correlation_is_left() -> None:
    rng = np.random.default_rng(0)
    s = rng.integers(0, 2, 200).astype(float)
    x = np.column_stack([s, rng.normal(size=(200, 2)) + s[:, None], rng.random(200)])
    other = x[:50] + 1.0
    for kind in (np.asarray, torch.tensor, lambda v: pd.DataFrame(v, columns=["s", "a", "b", "t"])):
        columns = ["s", "t"] if hasattr(kind(x), "columns") else [0, 3]
        train, test = remove_correlation(kind(x), kind(other), columns=columns)
        assert type(train) is type(kind(x))
        z = np.asarray(train)
        assert z.shape == (200, 2)
        assert np.abs(np.corrcoef(np.column_stack([z, x[:, [0, 3]]]).T)[:2, 2:]).max() < 1e-10
        # the second table is treated by what the first has taught
        centred = x[:, [0, 3]] - x[:, [0, 3]].mean(axis=0)
        weights = np.linalg.lstsq(centred, x[:, 1:3], rcond=None)[0]
        expected = other[:, 1:3] - (other[:, [0, 3]] - x[:, [0, 3]].mean(axis=0)) @ weights
        assert np.asarray(test) == pytest.approx(expected)
    (nothing,) = remove_correlation(x, columns=[0, 3], strength=0.0)
    assert nothing == pytest.approx(x[:, 1:3])


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_whole_numbers_lose_their_correlation_too(kind: Any) -> None:
    rng = np.random.default_rng(0)
    s = rng.integers(0, 2, 400)
    (z,) = remove_correlation(kind(np.column_stack([rng.integers(0, 3, 400) + s, s])), columns=[1])
    assert abs(np.corrcoef(np.asarray(z)[:, 0], s)[0, 1]) < 1e-6


def test_a_single_column_may_stand_for_itself() -> None:
    x = np.random.default_rng(0).random((20, 3))
    assert np.array_equal(*(remove_correlation(x, columns=columns)[0] for columns in (1, [1])))
    frame = pd.DataFrame(x, columns=["age", "sex", "pay"])
    assert remove_correlation(frame, columns="sex")[0].columns.tolist() == ["age", "pay"]


def test_decorrelation_errors() -> None:
    x = np.random.default_rng(0).random((5, 2))
    with pytest.raises(ColumnError, match=r"strength=2"):
        remove_correlation(x, columns=[0], strength=2.0)
    with pytest.raises(ColumnError, match=r"shape \(5, 2\)"):
        remove_correlation(x, columns=[2])
    with pytest.raises(MissingColumnError, match="'sex'"):
        remove_correlation(pd.DataFrame(x, columns=["a", "b"]), columns=["sex"])
    for columns in ([], [0, 1]):
        with pytest.raises(ColumnError, match="some but not all"):
            remove_correlation(x, columns=columns)


@pytest.mark.data
def test_decorrelating_adult(adult: Any) -> None:
    _, encoder, sample = adult
    start = sum(c.width for c in encoder.columns[: [c.name for c in encoder.columns].index("sex")])
    (z,) = remove_correlation(sample.x, columns=[start])
    male = torch.from_numpy((sample.sensitive["sex"] == "Male").astype(np.float32))
    covariance = ((male - male.mean())[:, None] * z).mean(dim=0)
    assert covariance.abs().max() < 1e-4


@pytest.mark.parametrize("method", ["smote", "smote_enn", "smote_tomek"])
def test_codes_stay_codes_and_names_names(method: str) -> None:
    pytest.importorskip("imblearn")
    random = np.random.default_rng(0)
    n = 200
    y, sex = (random.random(n) < 0.3).astype(int), random.choice(["F", "M"], n)
    frame = pd.DataFrame({"amount": random.normal(size=n), "job": random.choice(["clerk", "nurse"], n), "code": y + 3})
    rows = balanced_resampling(
        frame, y, sensitive_features={"sex": sex}, method=method, categorical=["job", "code"], seed=1
    )
    assert set(rows.x["job"]) == {"clerk", "nurse"}
    assert set(rows.x["code"]) <= {3, 4}
    assert (rows.x["code"] == rows.y + 3).all()  # the label's own code came along
    counts = pd.Series(list(zip(rows.sensitive_features["sex"], rows.y, strict=True))).value_counts()
    before = pd.Series(list(zip(sex, y, strict=True))).value_counts()
    assert counts.max() - counts.min() < before.max() - before.min()
    if method == "smote":
        assert counts.nunique() == 1
    table = torch.tensor(np.column_stack([frame["amount"], frame["code"]]), dtype=torch.float32)
    again = balanced_resampling(table, y, sensitive_features={"sex": sex}, method=method, categorical=[1])
    assert again.x.dtype == torch.float32
    assert set(again.x[:, 1].tolist()) <= {3.0, 4.0}


@pytest.mark.parametrize(("method", "rival"), [("smote_enn", "SMOTEENN"), ("smote_tomek", "SMOTETomek")])
def test_hybrids_are_those_of_imbalanced_learn(method: str, rival: str) -> None:
    combine = pytest.importorskip("imblearn.combine")
    random = np.random.default_rng(0)
    sex, y = random.choice([0, 1], 240, p=[0.3, 0.7]), (random.random(240) < 0.3).astype(int)
    x = random.normal(size=(240, 2)) + np.column_stack([sex, 2 * y])
    rows = balanced_resampling(x, y, sensitive_features={"sex": sex}, method=method, seed=3)
    expected, cell = getattr(combine, rival)(random_state=3).fit_resample(x, 2 * sex + y)
    assert np.asarray(rows.x) == pytest.approx(expected)
    assert (2 * rows.sensitive_features["sex"] + rows.y == cell).all()


def test_a_hybrid_looks_at_categories_too() -> None:
    pytest.importorskip("imblearn")
    random = np.random.default_rng(0)
    sex, y = random.choice(["F", "M"], 200, p=[0.3, 0.7]), (random.random(200) < 0.3).astype(int)
    told = [f"{each} {label}" for each, label in zip(sex, y, strict=True)]
    frame = pd.DataFrame({"amount": random.normal(size=200) / 100, "told": told})
    given_rows = {"sensitive_features": {"sex": sex}, "categorical": ["told"]}
    rows = balanced_resampling(frame, y, method="smote_enn", **given_rows)
    assert set(cells(rows).values()) == {Counter(told).most_common(1)[0][1]}  # nobody is beside another combination
    assert rows.x["amount"].dtype == np.float64
    other = balanced_resampling(frame, y, method="smote_enn", seed=1, **given_rows)
    assert not np.array_equal(other.x["amount"], rows.x["amount"])
    frame["amount"] = "much"
    with pytest.raises(ColumnError, match="must be numbers"):
        balanced_resampling(frame, y, method="smote", **given_rows)


def test_unknown_columns_and_methods_of_resampling_are_named() -> None:
    x, y, sex = np.zeros((4, 2)), [0, 1, 0, 1], {"sex": ["F", "M"] * 2}
    with pytest.raises(ColumnError, match=r"no columns \[5\]"):
        balanced_resampling(x, y, sensitive_features=sex, method="smote", categorical=[5])
    with pytest.raises(ColumnError, match="did you mean 'smote_enn'"):
        balanced_resampling(x, y, sensitive_features=sex, method="smote_en")


def test_inverse_frequencies_make_groups_count_the_same() -> None:
    random = np.random.default_rng(0)
    sex, y = random.choice(["F", "M", "X"], 300, p=[0.6, 0.3, 0.1]), (random.random(300) < 0.2).astype(int)
    weights = inverse_frequency_weights(sex)
    assert weights == pytest.approx([300 / (3 * (sex == each).sum()) for each in sex])
    assert weights.sum() == pytest.approx(300)
    assert pd.Series(weights).groupby(sex).sum().to_numpy() == pytest.approx([100.0] * 3)
    both = pd.DataFrame({"w": inverse_frequency_weights({"sex": sex}, y), "sex": sex, "y": y})
    assert both.groupby(["sex", "y"])["w"].sum().to_numpy() == pytest.approx([50.0] * 6)
