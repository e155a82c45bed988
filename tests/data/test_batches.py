"""Every row once per epoch, every stratum in every batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from fairlayer.data import StratifiedBatchSampler, consecutive_batches, read_data_set
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


CODES = st.lists(st.integers(0, 4), min_size=1, max_size=150)


@given(CODES, st.integers(1, 30), st.integers(1, 5), st.integers(0, 3))
def test_replicas_share_the_rows(codes: list[int], batch_size: int, replicas: int, epoch: int) -> None:
    if len(codes) < replicas:
        with pytest.raises(ColumnError, match="cannot be shared"):
            StratifiedBatchSampler(codes, batch_size, num_replicas=replicas, rank=0)
        return
    samplers = [StratifiedBatchSampler(codes, batch_size, num_replicas=replicas, rank=r) for r in range(replicas)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    shares = [list(sampler) for sampler in samplers]
    assert len({len(share) for share in shares} | {len(sampler) for sampler in samplers}) == 1
    batches = [batch for share in shares for batch in share]
    assert sorted(row for batch in batches for row in batch) == list(range(len(codes)))
    assert all(batches)
    for code in set(codes):
        counts = [sum(codes[row] == code for row in batch) for batch in batches]
        assert max(counts) - min(counts) <= 1


def test_an_epoch_is_named_by_its_number() -> None:
    first, second = (StratifiedBatchSampler([0, 1] * 20, 10, seed=1) for _ in range(2))
    first.set_epoch(3)
    epoch = list(first)
    assert epoch == list(first)
    list(second)  # where a sampler has been does not matter
    second.set_epoch(2)
    assert list(second) != epoch
    second.set_epoch(3)
    assert list(second) == epoch


def test_replicas_without_set_epoch_deal_from_the_same_deck() -> None:
    samplers = [StratifiedBatchSampler(range(12), 2, num_replicas=3, rank=r) for r in range(3)]
    epochs = [[row for s in samplers for batch in s for row in batch] for _ in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(12))] * 2
    assert epochs[0] != epochs[1]


@given(st.integers(0, 6), st.booleans())
def test_a_resumed_epoch_goes_on_where_it_stood(taken: int, named: bool) -> None:
    sampler = StratifiedBatchSampler([0, 1, 2] * 12, 6, seed=2)
    list(sampler)
    if named:
        sampler.set_epoch(7)
    under_way = iter(sampler)
    before = [next(under_way) for _ in range(taken)]
    state = json.loads(json.dumps(sampler.state_dict()))
    rest, following = list(under_way), list(sampler)
    other = StratifiedBatchSampler([0, 1, 2] * 12, 6, seed=2)
    other.load_state_dict(state)
    assert other.state_dict() == state
    if taken < 6:
        assert list(other) == rest
        assert len(before) + len(rest) == 6
    assert list(other) == following


def test_an_abandoned_epoch_is_not_resumed() -> None:
    sampler = StratifiedBatchSampler([0, 1] * 20, 10)
    next(iter(sampler))
    assert sorted(row for batch in sampler for row in batch) == list(range(40))


def test_a_tiny_stratum_is_in_as_many_batches_as_it_has_rows() -> None:
    sampler = StratifiedBatchSampler([0] * 98 + [1] * 2, 10)
    assert sorted(sum(row >= 98 for row in batch) for batch in sampler) == [0] * 8 + [1, 1]


@pytest.mark.slow  # importing Lightning takes most of ten seconds
def test_where_lightning_looks_for_set_epoch() -> None:
    sampler = StratifiedBatchSampler([0, 1] * 20, 10)
    loader = DataLoader(TensorDataset(torch.arange(40)), batch_sampler=sampler)
    pytest.importorskip("lightning.fabric.utilities.data")._set_sampler_epoch(loader, 4)
    assert sampler.epoch == 4
    assert [batch[0].tolist() for batch in loader] == list(sampler)


@pytest.mark.data
def test_batches_of_adult(data_folder: Path) -> None:
    table = read_data_set("adult", data_folder)
    label, groups = table.labels(), table.sensitive_features(["sex", "race"])
    codes = joint_codes([groups["sex"], groups["race"], label])
    shares = [StratifiedBatchSampler(codes, 1024, num_replicas=2, rank=rank) for rank in (0, 1)]
    batches = [batch for share in shares for batch in share]
    assert sorted(row for batch in batches for row in batch) == list(range(len(label)))
    counts = np.array([np.bincount(codes[batch], minlength=codes.max() + 1) for batch in batches])
    assert (counts.max(axis=0) - counts.min(axis=0) <= 1).all()
    assert shares[0].thin_strata == (np.bincount(codes) < len(batches)).sum() > 0


@pytest.mark.parametrize(("replicas", "rank"), [(2, 2), (2, -1), (None, 1), (0, 0)])
def test_ranks_are_checked(replicas: int | None, rank: int) -> None:
    with pytest.raises(ColumnError, match=f"rank={rank} of"):
        StratifiedBatchSampler(range(9), 2, num_replicas=replicas, rank=rank)


def test_strata_are_checked() -> None:
    for wrong in ([], [[0, 1], [1, 0]]):
        with pytest.raises(ColumnError, match="one code per row"):
            StratifiedBatchSampler(wrong, 2)


def test_thin_strata_are_counted() -> None:
    assert StratifiedBatchSampler([0] * 99 + [1], 10).thin_strata == 1


@pytest.mark.parametrize("strata", [[0.0, np.nan, 1.0, np.nan], ["a", None, "b", None], np.array(["a", "b"])[[0, 1]]])
def test_rows_of_a_missing_stratum_are_dealt_too(strata: Any) -> None:
    batches = StratifiedBatchSampler(strata, 2)
    assert sorted(row for batch in batches for row in batch) == list(range(len(strata)))
    assert len(batches.rows_of) == len({str(each) for each in strata})


@pytest.mark.parametrize("size", [0, 2.5])
def test_a_batch_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(ColumnError, match=f"batch_size={size}"):
        StratifiedBatchSampler([0, 1], size)


def test_columns_of_any_kind_are_joined() -> None:
    words, numbers = ["a", "b", None, "a"], [0, 1, 0, 0]
    expected = joint_codes([np.array(words, dtype=object), np.array(numbers)])
    for other in (torch.tensor(numbers), pd.Series(numbers, index=[4, 5, 6, 7]), numbers):
        assert joint_codes([words, other]).tolist() == expected.tolist()
    for wrong in ([], [words, numbers[:3]], [np.zeros((2, 2))]):
        with pytest.raises(ColumnError, match=r"columns \(n,\) of the same rows"):
            joint_codes(wrong)


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
