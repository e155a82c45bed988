"""What a look at a table finds, and all its faults in one message."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairlayer.data import Encoder, Table, inspect_table, read_data_set
from fairlayer.data.errors import ColumnError, SeveralFaultsError, TargetError

N = 400


def frame(**more: Any) -> pd.DataFrame:
    random = np.random.default_rng(0)
    paid = random.random(N) < 0.4
    columns = {
        "amount": random.normal(size=N),
        "income": random.integers(1000, 9000, N),
        "sex": random.choice(["f", "m"], N),
        "paid": np.where(paid, "yes", "no"),
    }
    return pd.DataFrame({**columns, **more})


def table(**more: Any) -> Table:
    return Table("t", frame(**more), target="paid", positive="yes", sensitive=("sex",))


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("Unnamed: 0", np.arange(N)),
        ("number", np.arange(N) + 17),
        ("backwards", N - np.arange(N)),
        ("loan_id", np.random.default_rng(1).permutation(10 * N)[:N]),
        ("customer", [f"c{k}" for k in range(N)]),
        ("nothing", [None] * N),
    ],
)
def test_columns_that_number_or_name_the_rows_are_set_aside(name: str, column: Any) -> None:
    found = inspect_table(table(**{name: column}))
    assert set(found.set_aside) == {name}
    assert name not in found.applied(table(**{name: column})).features()
    assert inspect_table(table(**{name: column}), kept=[name]).set_aside == {}
    assert "--use" in found.notes(table())[0]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("weight", np.random.default_rng(1).normal(size=N)),
        ("turnover", np.random.default_rng(1).permutation(10 * N)[:N]),
        ("since", pd.date_range("2020-01-01", periods=N).strftime("%Y-%m-%d")),
        ("customer", [f"c{k // 2}" for k in range(N)]),
    ],
)
def test_amounts_dates_and_repeated_names_stay(name: str, column: Any) -> None:
    assert inspect_table(table(**{name: column})).set_aside == {}


def test_columns_that_tell_the_target_alone_are_named() -> None:
    paid = frame()["paid"]
    random = np.random.default_rng(2)
    found = inspect_table(
        table(
            reason=np.where(paid == "yes", "ok", "late"),
            late_by=np.where(paid == "yes", 0.0, 30.0) + random.normal(size=N),
            hint=np.where(paid == "yes", 1.0, 0.0) + random.normal(size=N),
        )
    )
    assert set(found.tells_target) == {"reason", "late_by"}
    assert any("'reason' alone tells the target 'paid' (AUC 1.000)" in note for note in found.notes(table()))


def test_the_auc_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    from fairlayer.data.inspection import _auc

    random = np.random.default_rng(3)
    labels, guess = (random.random(N) < 0.3).astype(float), random.integers(0, 9, N).astype(float)
    expected = metrics.roc_auc_score(labels, guess)
    assert _auc(guess, labels) == pytest.approx(max(expected, 1 - expected))


def test_a_regression_is_told_by_a_column_of_the_same_numbers() -> None:
    copied = Table("t", frame(twice=frame()["amount"] * 2 + 1), target="amount", positive=None, sensitive=())
    assert set(inspect_table(copied).tells_target) == {"twice"}


def test_codes_are_hinted_at_unless_said() -> None:
    coded = table(branch=np.arange(N) % 7, flag=np.arange(N) % 2, zip_code=np.arange(N) % 90)
    assert set(inspect_table(coded).codes) == {"branch", "zip_code"}
    said = Table(**{**coded.__dict__, "categorical": ("branch", "zip_code")})
    assert inspect_table(said).codes == ()


@pytest.mark.parametrize("name", ["lending"])
def test_known_tables_lose_nothing(name: str) -> None:
    known = read_data_set(name)
    found = inspect_table(known)
    assert found.set_aside == {}
    assert found.tells_target == {}


def test_all_faults_of_the_features_come_in_one_message() -> None:
    bad = frame(a=["1", "?"] * (N // 4) + ["3", "4"] * (N // 4), b=np.inf, c=[f"x{k}" for k in range(N)])
    with pytest.raises(SeveralFaultsError) as caught:
        Encoder.fit(bad, ["a", "b", "c", "amount"])
    assert len(caught.value.faults) == 3
    for said in ("3 faults were found", "--na '?'", "infinite", "--drop c"):
        assert said in str(caught.value)
    with pytest.raises(ColumnError, match="infinite"):
        Encoder.fit(bad, ["b", "amount"])


def test_all_missing_columns_come_in_one_message_with_the_near_names() -> None:
    with pytest.raises(SeveralFaultsError, match=r"(?s)'payed'.*did you mean 'paid'.*'Sex'.*did you mean 'sex'"):
        Table("t", frame(), target="payed", positive="yes", sensitive=("Sex",))


def test_missing_targets_can_be_left_out() -> None:
    gaps = table(paid=frame()["paid"].where(np.arange(N) > 9))
    with pytest.raises(TargetError, match="--missing drop"):
        gaps.labels()
    assert len(gaps.with_target().labels()) == N - 10


def test_intersections_of_columns_are_features() -> None:
    crossed = Table("t", frame(region=["n", None] * (N // 2)), target="paid", positive="yes", sensitive=("sex+region",))
    found = crossed.sensitive_features(["sex+region"])["sex+region"]
    assert set(found) == {"f & n", "m & n", None}
    assert crossed.features(drop_sensitive=True) == ("amount", "income")
