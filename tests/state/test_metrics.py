"""Metrics of torchmetrics half-way through an epoch, through every way in which people save and load them."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

import fairlayer as fl
from fairlayer import errors
from fairlayer.integrations.torchmetrics import ConstraintExcess, EqualizedOddsDifference, ScoreGap
from tests.state.test_checkpoints import (
    through_accelerate,
    through_dcp,
    through_deepcopy,
    through_pickle,
    through_safetensors_file,
    through_torch,
)

SCORES, LABELS = torch.tensor([0.2, 0.4, 0.9, 0.7, 0.6, 0.1]), torch.tensor([0, 1, 1, 0, 1, 0])
SEX = ["F", "F", "M", "M", "F", "M"]
PARITY = fl.DemographicParity("sex", tolerance=0.1)
METRICS: dict[str, Callable[[], Any]] = {
    "score gap": lambda: ScoreGap(["F", "M"]),
    "odds": lambda: EqualizedOddsDifference(["F", "M"], agg="mean", threshold=0.3),
    "excess": lambda: ConstraintExcess(PARITY, categories={"sex": ["F", "M"]}),
}
WAYS = [through_torch, through_safetensors_file, through_dcp, through_accelerate, through_deepcopy, through_pickle]


def fresh(name: str) -> Any:
    metric = METRICS[name]()
    metric.persistent(True)
    return metric


def half_way(name: str) -> Any:
    metric = fresh(name)
    for part in (slice(0, 3), slice(3, 4)):
        metric.update(SCORES[part], LABELS[part], SEX[part])
    return metric


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_kept(name: str, way: Callable[[nn.Module, nn.Module, Path], Any], tmp_path: Path) -> None:
    old, new = half_way(name), fresh(name)
    if way is through_dcp and name == "excess":
        new = half_way(name)  # as many rows, which torch.distributed.checkpoint asks for; other ones
        new.scores = [torch.zeros_like(part) for part in new.scores]
    loaded = way(old, new, tmp_path)
    for metric in (old, loaded):
        metric.update(SCORES[4:], LABELS[4:], SEX[4:])
    assert loaded.compute() == old.compute()
    assert not math.isnan(old.compute())
    assert fresh(name).state_dict().keys() == old.state_dict().keys()


def test_another_number_of_rows_is_loud_in_a_distributed_checkpoint(tmp_path: Path) -> None:
    from torch.distributed import checkpoint

    with pytest.raises((ValueError, checkpoint.CheckpointException), match="Size mismatch"):
        through_dcp(half_way("excess"), fresh("excess"), tmp_path)


@pytest.mark.parametrize("name", METRICS)
def test_a_state_dict_holds_tensors_only(name: str) -> None:
    assert not METRICS[name]().state_dict()  # torchmetrics keeps nothing unless it is asked to
    for prefix in ("", "inner."):
        saved = half_way(name).state_dict(prefix=prefix)
        assert saved
        assert all(type(value) is Tensor for value in saved.values())
        assert all(key.startswith(prefix) for key in saved)
    holder = nn.ModuleDict({"a": half_way(name)})
    again = nn.ModuleDict({"a": fresh(name)})
    again.load_state_dict(holder.state_dict())
    assert again["a"].compute() == half_way(name).compute()  # type: ignore[operator]


def change(state: dict[str, Any], key: str, to: Callable[[Tensor], Any]) -> dict[str, Any]:
    return {**state, key: to(state[key])}


@pytest.mark.parametrize(
    ("name", "bad", "said"),
    [
        ("score gap", lambda s: {k: v for k, v in s.items() if k != "table"}, r"lacks \['table'\]"),
        ("score gap", lambda s: change(s, "table", lambda t: t[:1]), r"'table' of shape \(1, 3, 3\) instead of \(2, "),
        ("score gap", lambda s: change(s, "table", lambda t: t * math.nan), "NaN or infinity in 'table'"),
        ("score gap", lambda s: change(s, "unfit", lambda t: t.tolist()), "holds list as 'unfit'"),
        ("score gap", lambda s: change(s, "about", lambda t: t + 1), "about other groups"),
        ("score gap", lambda s: change(s, "about", lambda t: t[:3]), "about other groups"),
        ("excess", lambda s: change(s, "weights", lambda t: t[:2]), r"columns of different shapes \[\(2,\), \(4,\)\]"),
        ("excess", lambda s: change(s, "scores", lambda t: t * math.nan), "NaN or infinity in 'scores'"),
        ("excess", lambda s: change(s, "scores", lambda t: [t]), "holds list as 'scores'"),
        ("excess", lambda s: {k: v for k, v in s.items() if k != "feature_0"}, r"lacks \['feature_0'\]"),
    ],
)
def test_a_bad_state_is_refused_and_changes_nothing(name: str, bad: Callable[[Any], Any], said: str) -> None:
    metric, before = half_way(name), half_way(name).compute()
    saved = dict(fresh(name).state_dict()) if name == "score gap" else dict(half_way(name).state_dict())
    for strict in (True, False):
        with pytest.raises(errors.CheckpointError, match=f"{said}.*leave its entries out and count again"):
            metric.load_state_dict(bad(saved), strict=strict)
        assert metric.compute() == before


@pytest.mark.parametrize(
    "other",
    [
        lambda: ScoreGap(["M", "F"]),
        lambda: ScoreGap(["F", "M", "X"]),
        lambda: ScoreGap(2),
        lambda: ScoreGap(["F", "M"], threshold=0.3),
        lambda: ScoreGap({"sex": ["F", "M"], "old": 2}),
    ],
)
def test_the_state_of_another_metric_is_refused(other: Callable[[], Any]) -> None:
    metric = other()
    with pytest.raises(errors.CheckpointError, match="about other groups, another constraint or another threshold"):
        metric.load_state_dict(half_way("score gap").state_dict())
    assert not metric.table.any()


def test_a_collection_keeps_its_metrics() -> None:
    def collection() -> Any:
        found = MetricCollection({"gap": ScoreGap(["F", "M"]), "odds": EqualizedOddsDifference(["F", "M"])})
        found.persistent(True)
        return found

    old, new = collection(), collection()
    old.update(SCORES, LABELS, SEX)
    new.load_state_dict(old.state_dict())
    assert new.compute() == old.compute()
    assert pickle.loads(pickle.dumps(old)).compute() == copy.deepcopy(old).compute() == old.compute()
