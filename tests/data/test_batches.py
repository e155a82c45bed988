"""Every row once per epoch, every stratum in every batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlayer.data import StratifiedBatchSampler, consecutive_batches
from fairlayer.data.batches import joint_codes
from fairlayer.data.errors import ColumnError


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.integers(1, 50), st.integers(0, 3))
def test_each_row_once_and_each_stratum_spread_evenly(codes: list[int], batch_size: int, seed: int) -> None:
    batches = list(StratifiedBatchSampler(codes, batch_size, seed=seed))
    assert sorted(row for batch in batches for row in batch) == list(range(len(codes)))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= min(batch_size, len(codes))
    for code in set(codes):
        counts = [sum(codes[row] == code for row in batch) for batch in batches]
        assert max(counts) - min(counts) <= 1


def test_epochs_differ_and_seeds_repeat() -> None:
    first, second = (StratifiedBatchSampler([0, 1] * 20, 10, seed=1) for _ in range(2))
    epoch = list(first)
    assert epoch == list(second)
    assert epoch != list(first)


def test_thin_strata_are_counted() -> None:
    assert StratifiedBatchSampler([0] * 99 + [1], 10).thin_strata == 1


def test_an_empty_batch_size_is_refused() -> None:
    with pytest.raises(ColumnError, match="batch_size=0"):
        StratifiedBatchSampler([0, 1], 0)


@given(st.integers(1, 500), st.integers(1, 200))
def test_consecutive_batches_cover_all_rows_and_none_is_small(n: int, batch_size: int) -> None:
    parts = consecutive_batches(n, batch_size)
    assert [row for part in parts for row in range(n)[part]] == list(range(n))
    assert all(part.stop - part.start >= min(n, batch_size) for part in parts)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 3)), min_size=1, max_size=40))
def test_joint_codes_are_equal_exactly_for_equal_rows(rows: list[tuple[str | None, int]]) -> None:
    columns = [np.array([row[k] for row in rows], dtype=object) for k in range(2)]
    codes = joint_codes(columns)
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            assert (codes[i] == codes[j]) == (a == b)
