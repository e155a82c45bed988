"""The Ray Data recipe on a local cluster gives the answer of one process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from tests.scoring.test_table import ODDS, columns, in_memory

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two workers on this machine."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


def dataset(given: dict[str, Any]) -> Any:
    import pyarrow as pa

    return ray.data.from_arrow([pa.table(given).slice(start, 1700) for start in (0, 1700, 3400)])


def test_equals_memory(cluster: Any) -> None:
    from fairlayer.integrations.ray import project_dataset

    given = columns()
    moved, table = project_dataset(dataset(given), ODDS, y="label", bounds=(0.0, 1.0))
    rows = moved.to_pandas().sort_values("id")
    np.testing.assert_allclose(rows["value"], in_memory(given), atol=1e-9)
    np.testing.assert_allclose(np.clip(rows["score"] + rows["shift"], 0.0, 1.0), rows["value"], atol=1e-12)
    assert table.samples == len(given["id"])
    assert table.sweeps <= 3


def test_float32_without_bounds_in_one_sweep(cluster: Any) -> None:
    from fairlayer.integrations.ray import project_dataset

    given = columns()
    given["score"] = given["score"].astype(np.float32)
    rules = [fl.DemographicParity(("sex", "age"), tolerance=0.02)]
    moved, table = project_dataset(dataset(given), rules)
    expected = fl.project(
        torch.tensor(given["score"]), rules, sensitive_features={"sex": given["sex"], "age": given["age"]}
    )
    np.testing.assert_allclose(moved.to_pandas().sort_values("id")["value"], expected.value.numpy(), atol=1e-6)
    assert table.sweeps == 1


def test_a_missing_column_is_named(cluster: Any) -> None:
    from fairlayer.integrations.ray import project_dataset

    with pytest.raises(fl.errors.DataError, match="no column"):
        project_dataset(dataset(columns()), [fl.DemographicParity("income", tolerance=0.0)])
