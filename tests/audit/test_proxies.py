"""What other columns tell about the group, against scikit-learn, SciPy and the definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fairlayer.audit import MetricError, proxies
from fairlayer.errors import ParameterError, ShapeError

pytest.importorskip("sklearn")
pandas = pytest.importorskip("pandas")


def population(n: int = 600) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    sex = rng.choice(["F", "M"], n)
    columns = {
        "copy": np.where(sex == "F", "woman", "man"),
        "height": rng.normal(170 + 8 * (sex == "M"), 7),
        "noise": rng.random(n),
        "odd": np.where(sex == "M", rng.choice([-1.0, 1.0], n), 0.0),  # uncorrelated, and tells everything
    }
    return columns, sex


def test_columns_are_ranked_by_what_they_tell() -> None:
    columns, sex = population()
    found = {proxy.column: proxy for proxy in proxies(columns, {"sex": sex}).columns}
    assert found["copy"].auc == pytest.approx(1.0)
    assert found["copy"].correlation == pytest.approx(1.0)
    assert found["odd"].auc == pytest.approx(1.0)
    assert found["odd"].correlation < 0.1
    assert (found["copy"].risk, found["odd"].risk, found["noise"].risk) == ("high", "high", "low")
    assert 0.4 < found["noise"].auc < 0.6
    assert all(proxy.auc_without == pytest.approx(1.0) for proxy in found.values())


def test_correlations_equal_those_of_others() -> None:
    association = pytest.importorskip("scipy.stats.contingency").association
    columns, sex = population()
    rng = np.random.default_rng(1)
    columns["job"] = np.where(rng.random(600) < 0.4, sex, rng.choice(["a", "b"], 600))
    found = {proxy.column: proxy for proxy in proxies(columns, {"sex": sex}).columns}
    pearson = np.corrcoef(columns["height"], sex == "M")[0, 1]
    assert found["height"].correlation == pytest.approx(abs(pearson), abs=1e-9)
    table = pandas.crosstab(columns["job"], sex).to_numpy()
    assert found["job"].correlation == pytest.approx(association(table, method="cramer"), abs=1e-9)


def test_the_mutual_information_of_categories_is_that_of_the_table() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    columns, sex = population()
    found = {proxy.column: proxy for proxy in proxies(columns, {"sex": sex}).columns}
    assert found["copy"].mutual_information == pytest.approx(metrics.mutual_info_score(sex, columns["copy"]), abs=1e-9)


def test_what_leaving_the_group_out_does_not_do_is_said() -> None:
    columns, sex = population()
    assert proxies(columns, {"sex": sex}).sentence().startswith("Leaving 'sex' out of the inputs does not hide it")
    nothing = proxies({"noise": columns["noise"]}, {"sex": sex})
    assert nothing.sentence().startswith("The other columns tell little about 'sex'")
    assert nothing.columns[0].auc_without == 0.5


def test_missing_and_constant_columns_and_unknown_groups_are_read() -> None:
    columns, sex = population(300)
    columns["height"][::7] = np.nan
    columns["constant"] = np.ones(300)
    columns["empty"] = np.full(300, np.nan)
    group = np.where(np.arange(300) % 10 == 0, None, sex)
    found = proxies(pandas.DataFrame(columns), {"sex": group})
    assert found.rows == 270
    told = {proxy.column: proxy for proxy in found.columns}
    assert told["constant"].auc == pytest.approx(0.5)
    assert told["constant"].correlation == 0.0
    assert told["empty"].auc == pytest.approx(0.5)


def test_what_cannot_be_told_is_an_error() -> None:
    columns, sex = population(30)
    with pytest.raises(ParameterError, match="without 'sex' among them"):
        proxies({**columns, "sex": sex}, {"sex": sex})
    with pytest.raises(ParameterError, match="one sensitive feature, but 2"):
        proxies(columns, {"sex": sex, "race": sex})
    with pytest.raises(ShapeError, match=r"30 as 'sex' has, but have \{'short': 2\}"):
        proxies({"short": [1, 2]}, {"sex": sex})
    with pytest.raises(MetricError, match="each with 3 rows or more, but there are"):
        proxies({"noise": np.arange(30.0)}, {"sex": ["F"] * 29 + ["M"]})
    with pytest.raises(ShapeError, match="a frame or a dict"):
        proxies(np.zeros((30, 2)), {"sex": sex})


@pytest.mark.data
def test_adult_tells_the_sex(data_folder: Path) -> None:
    """`relationship` holds Husband and Wife."""
    frame = pandas.read_csv(data_folder / "adult.csv.gz", keep_default_na=False, na_values=[""]).iloc[:3000]
    found = proxies(frame[["relationship", "education_num", "hours_per_week"]], {"sex": frame["sex"]})
    assert found.columns[0].column == "relationship"
    assert found.columns[0].risk == "high"
    assert found.auc > 0.8
