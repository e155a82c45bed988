"""What fails on one process fails on all of them, by name, and the group stays in step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer.collective import RanksDifferError, RemoteError
from tests.distributed.conftest import FoundBy
from tests.distributed.processes import Found

SEX = fl.DemographicParity("sex", tolerance=0.0)
EQUAL = fl.EqualOpportunity("sex", tolerance=0.0)


def _break_on_two(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if (labels == 2).any():
        raise ZeroDivisionError("no loss for 2")
    return labels, 1.0 - labels


def project(scores: Any, constraints: Any = (SEX,), **more: Any) -> fl.Projection:
    given = torch.tensor(scores, dtype=torch.float64) if isinstance(scores, list) else scores
    more.setdefault("sensitive_features", {"sex": ["F", "M", "F"][: len(given)]})
    return fl.project(given, list(constraints), process_group="world", **more)


# Each is called with the rank; rank 1 is the one that is given something else.
FAILURES: dict[str, tuple[Callable[[int], Any], type[Exception], str]] = {
    "NaN": (
        lambda rank: project([0.1, 0.2, float("nan") if rank == 1 else 0.3]),
        fl.errors.NonFiniteScoresError,
        "1 of 3 scores are NaN",
    ),
    "a label": (
        lambda rank: project([0.1, 0.2], [EQUAL], y=[1, 2 * rank]),
        fl.errors.LabelValueError,
        "needs labels 0 or 1",
    ),
    "shapes": (
        lambda rank: project([0.1, 0.2], sensitive_features={"sex": ["F"] * (2 + rank)}),
        fl.errors.ShapeError,
        "there are 2 scores",
    ),
    "a missing feature": (
        lambda rank: project([0.1, 0.2], sensitive_features={"sex" if rank == 0 else "gender": ["F", "M"]}),
        fl.errors.MissingSensitiveFeatureError,
        "needs the sensitive feature 'sex'",
    ),
    "an unseen category": (
        lambda rank: project(
            [0.1, 0.2],
            sensitive_features={"sex": ["F", "MX"[rank % 2]]},
            vocabulary=fl.groups.Vocabulary({"sex": ("F", "M")}, open=False),
        ),
        fl.errors.CategoryError,
        "categories ['X']",
    ),
    "code of the user": (
        lambda rank: project([0.1, 0.2], [fl.BoundedGroupLoss("sex", 0.9, loss=_break_on_two)], y=[1, 2 * rank]),
        RemoteError,
        "ZeroDivisionError: no loss for 2",
    ),
    "labels on some": (
        lambda rank: project([0.1, 0.2], [EQUAL], y=[1, 0] if rank else None, label_probabilities=[0.5, 0.5]),
        RanksDifferError,
        "must agree on the y",
    ),
    "other constraints": (
        lambda rank: project([0.1, 0.2], [SEX, EQUAL][: 1 + rank], y=[1, 0]),
        RanksDifferError,
        "must agree on the constraints",
    ),
    "other tolerances": (
        lambda rank: project([0.1, 0.2 + rank], [fl.DemographicParity("sex", tolerance=0.01 * rank)]),
        RanksDifferError,
        "not working on the same batch",
    ),
    "other bounds": (
        lambda rank: project([0.1, 0.2], bounds=(0.0, 1.0 + rank)),
        RanksDifferError,
        "must agree on the bounds",
    ),
    "float32 and float64": (
        lambda rank: project(torch.tensor([0.1, 0.2], dtype=[torch.float64, torch.float32][rank])),
        RanksDifferError,
        "precision of the scores",
    ),
    "columns": (
        lambda rank: project(torch.zeros(2, 1 + rank, dtype=torch.float64)),
        RanksDifferError,
        "columns of scores",
    ),
    "nothing anywhere": (
        lambda rank: project([], sensitive_features={"sex": []}),
        fl.errors.EmptyBatchError,
        "none of the 2 processes",
    ),
    "an absent group": (
        lambda rank: project(
            [0.1, 0.2],
            sensitive_features={"sex": ["F", "F"]},
            vocabulary=fl.groups.Vocabulary({"sex": ("F", "M")}, open=False),
            on_empty="raise",
        ),
        fl.errors.EmptyGroupError,
        "(counts: sex=F 4, sex=M 0)",
    ),
    "nothing feasible": (
        lambda rank: project([0.1, 0.2], [fl.MinimumRate("sex", floor=2.0)], bounds=(0.0, 1.0)),
        fl.errors.InfeasibleConstraintsError,
        "MinimumRate('sex')",
    ),
}
EVERYWHERE = {"nothing anywhere", "an absent group", "nothing feasible", "labels on some", "other constraints"}
EVERYWHERE |= {"other tolerances", "other bounds", "float32 and float64", "columns"}


def between(rank: int, processes: int) -> Found:
    """Rank 1 fails after the forward, goes on to the next batch, and so meets the backward of rank 0."""
    told, words = [], fl.groups.Vocabulary({"sex": ("F", "M")}, open=False)
    scores = torch.tensor([0.1, 0.5 + rank], dtype=torch.float64, requires_grad=True)
    value = project(scores, vocabulary=words).value
    for step in (lambda: (value**2).sum().backward(), lambda: project([0.1, 0.2], vocabulary=words)):
        try:
            if rank == 0 or told:
                step()
            else:
                raise ZeroDivisionError("the loss")
        except Exception as error:
            told.append((type(error), str(error)))
        if rank == 0:
            break
    return {"told": told, "after": project([0.0, 1.0 + rank]).value.tolist()}


def fail(name: str, rank: int, processes: int) -> Found:
    """What was raised, and whether the next projection works again."""
    raised: Exception | None = None
    try:
        FAILURES[name][0](rank)
    except Exception as error:
        raised = error
    after = project([0.0, 1.0 + rank]).value
    return {"kind": type(raised), "text": str(raised), "after": after.tolist()}


JOBS = {2: {**{name: partial(fail, name) for name in FAILURES}, "between": between}}


@pytest.fixture(scope="module")
def found(found_by: FoundBy) -> list[Found]:
    """What both ranks met."""
    return found_by(__name__, 2)


@pytest.mark.parametrize("name", FAILURES)
def test_all_ranks_raise_it_and_go_on(name: str, found: list[Found]) -> None:
    _, kind, text = FAILURES[name]
    for rank, share in enumerate(found):
        own = name == "code of the user" and rank == 1
        assert share[name]["kind"] is (ZeroDivisionError if own else kind)
        assert (text.partition(": ")[2] if own else text) in share[name]["text"]
        assert ("on rank 1 of 2: " in share[name]["text"]) is (rank == 0 and name not in EVERYWHERE)
        assert share[name]["after"] == [0.75, 0.25 + rank]  # group means 0 and 1.5 meet in the middle


def test_an_error_between_forward_and_backward_is_met_by_name(found: list[Found]) -> None:
    assert [[kind for kind, _ in share["between"]["told"]] for share in found] == [
        [RanksDifferError],
        [ZeroDivisionError, RanksDifferError],
    ]
    assert "rank 0 has come to 'statistics'" in found[0]["between"]["told"][0][1]
    for rank, share in enumerate(found):
        assert "an error of one rank in between" in share["between"]["told"][-1][1]
        assert share["between"]["after"] == [0.75, 0.25 + rank]


class TestOneProcess:
    def test_without_torch_distributed(self) -> None:
        with pytest.raises(RanksDifferError, match="init_process_group"):
            project([0.1, 0.2])

    def test_something_else_than_a_group(self) -> None:
        with pytest.raises(RanksDifferError, match='must be None, "world", or a torch'):
            fl.FairProjection([SEX], process_group=2)

    def test_the_reference_backend_sees_one_process(self) -> None:
        with pytest.raises(fl.errors.BackendError, match='use backend="exact"'):
            fl.FairProjection([SEX], process_group="world", backend="cvxpylayers")

    def test_a_model_of_the_world_is_copied_and_saved(self, tmp_path: Path) -> None:
        import copy

        layer = copy.deepcopy(fl.FairProjection([SEX], process_group="world"))
        torch.save(layer, tmp_path / "layer.pt")
        loaded = torch.load(tmp_path / "layer.pt", weights_only=False)
        assert repr(loaded.options.ranks) == "'world'"
