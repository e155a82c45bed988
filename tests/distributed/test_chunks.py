"""A table whose chunks lie with several processes is projected as one table; streams of replicas add up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fairlayer as fl
from fairlayer.collective import RanksDifferError
from fairlayer.scoring import project_chunks
from tests.distributed.conftest import FoundBy
from tests.distributed.processes import Found, Job

N = 4_000
RNG = np.random.default_rng(8)
SEX = np.array(["M", "F", "X"], dtype=object)[np.sort(RNG.integers(0, 3, N))]  # sorted: ranks lack groups
SCORES = np.clip(RNG.normal(0.5, 0.4, N) + 0.1 * (SEX == "F"), 0.0, 1.0)
LABELS = (RNG.random(N) < SCORES).astype(float)
RULES = [fl.EqualOpportunity("sex", tolerance=0.0), fl.GroupCalibration("sex", tolerance=0.2, bins=3)]
ENDS = {2: [1_000], 4: [0, 1_500, 1_700]}  # of four processes, one has nothing


def part(rank: int, processes: int) -> slice:
    ends = [0, *ENDS[processes], N]
    return slice(ends[rank], ends[rank + 1])


def chunks_of(rows: slice) -> Iterator[Any]:
    for start in range(rows.start, rows.stop, 300):
        piece = slice(start, min(start + 300, rows.stop))
        yield SCORES[piece], {"sex": SEX[piece]}, LABELS[piece]


def a_table(rank: int, processes: int) -> Found:
    rows = part(rank, processes)
    table = project_chunks(lambda: chunks_of(rows), RULES, bounds=(0.0, 1.0), process_group="world")
    values = [*table.values(), np.zeros(0)]
    return {"values": np.concatenate(values), "shift": table.shift, "counts": table.counts, "broken": table.violation}


def a_bad_chunk(rank: int, processes: int) -> Found:
    def chunks() -> Iterator[Any]:
        yield from chunks_of(slice(0, 300))
        if rank == 1:
            yield [float("nan")], {"sex": ["F"]}, [1.0]

    try:
        project_chunks(chunks, RULES, process_group="world")
    except fl.errors.FairlayerError as error:
        return {"kind": type(error), "text": str(error)}
    return {}


def other_columns(rank: int, processes: int) -> Found:
    def chunks() -> Iterator[Any]:
        yield SCORES[:300].astype([np.float32, np.float64][rank % 2]), {"sex": SEX[:300]}, LABELS[:300]

    try:
        project_chunks(chunks, RULES, process_group="world")
    except RanksDifferError as error:
        return {"text": str(error)}
    return {}


def a_stream(rank: int, processes: int) -> Found:
    """Each replica streams its part; after the sync, all have seen everything."""
    model = fl.FairModel(nn.Identity(), [fl.DemographicParity("sex", tolerance=0.02)], bounds=(0.0, 1.0))
    model.fit_categories({"sex": ["F", "M", "X"]})
    rows = part(rank, processes)
    order = np.random.default_rng(0).permutation(N)[rows][:200]
    emitted = [
        float(model(torch.tensor([SCORES[i]]), sensitive_features={"sex": [SEX[i]]}, inference=True)) for i in order
    ]
    model.inference_state.sync()
    state = model.inference_state
    sums = {cell: [0.0, 0.0] for cell in ("F", "M", "X")}
    for i, value in zip(order, emitted, strict=True):
        sums[SEX[i]][0] += 1.0
        sums[SEX[i]][1] += value
    return {"own": sums, "samples": state.samples, "pooled": pooled(state)}


def pooled(state: fl.InferenceState) -> dict[str, list[float]]:
    """Count and mean of all emitted values, by group."""
    cells = state.state_dict()["machine"]["history"]
    words = ["F", "M", "X"]
    counts, emitted = cells["sums"][0], cells["sums"][1]
    return {words[int(row[0])]: [float(counts[j]), float(emitted[j])] for j, row in enumerate(cells["cells"])}


THEIRS: dict[str, Job] = {job.__name__: job for job in (a_table, a_bad_chunk, other_columns, a_stream)}
JOBS = {2: THEIRS, 4: THEIRS}


@pytest.fixture(scope="module", params=[2, 4])
def found(request: pytest.FixtureRequest, found_by: FoundBy) -> list[Found]:
    """What each rank found."""
    return found_by(__name__, request.param)


def test_equals_memory(found: list[Found]) -> None:
    features = {"sex": SEX}
    expected = fl.project(torch.tensor(SCORES), RULES, sensitive_features=features, y=LABELS, bounds=(0.0, 1.0))
    together = np.concatenate([share["a_table"]["values"] for share in found])
    np.testing.assert_allclose(together, expected.value.numpy(), atol=1e-9)
    for share in found:
        assert share["a_table"]["counts"] == expected.counts
        assert share["a_table"]["shift"] == found[0]["a_table"]["shift"]
        assert share["a_table"]["broken"] <= 1e-9


def test_a_bad_chunk_stops_all(found: list[Found]) -> None:
    for share in found:
        assert share["a_bad_chunk"]["kind"] is fl.errors.NonFiniteScoresError
        assert "chunk 1: 1 of 1 are NaN" in share["a_bad_chunk"]["text"]


def test_columns_of_another_kind_are_named(found: list[Found]) -> None:
    for share in found:
        assert "columns of the same kind" in share["other_columns"]["text"]


def test_streams_of_replicas_add_up(found: list[Found]) -> None:
    own = [share["a_stream"]["own"] for share in found]
    for share in found:
        for cell, (count, emitted) in share["a_stream"]["pooled"].items():
            assert count == sum(sums[cell][0] for sums in own)
            assert emitted == pytest.approx(sum(sums[cell][1] for sums in own), abs=1e-9)
        assert share["a_stream"]["samples"] == sum(sums[0] for each in own for sums in each.values())
