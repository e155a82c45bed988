"""The layer over processes: every kind of derivative, columns, half precision, categories, and what stays local."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

import fairlayer as fl
from fairlayer.groups import Vocabulary
from tests.distributed.conftest import FoundBy
from tests.distributed.processes import Found

RNG = np.random.default_rng(11)
SCORES = torch.tensor(RNG.random((24, 2)))
WEIGHTS = torch.tensor(RNG.normal(size=(24, 2)))
SEX = RNG.choice(["M", "F", "X"], 24, p=[0.5, 0.4, 0.1])
AGE = RNG.normal(size=24)
SHARES = (slice(0, 7), slice(7, 24))
ALL = slice(None)

World = dict[str, Any]  # {} for one process, or the process group


def features(share: slice) -> dict[str, Any]:
    return {"sex": SEX[share], "age": AGE[share]}


def project(scores: Tensor, share: slice, world: World, tolerance: Any = 0.05, **more: Any) -> fl.Projection:
    rules = [fl.DemographicParity("sex", tolerance), fl.CovarianceBound("age", 0.01)]
    return fl.project(scores, rules, sensitive_features=features(share), **more, **world)


def numbers_that_learn(share: slice, world: World) -> Found:
    """A tolerance and a bound take gradients: the processes' shares of them add up."""
    scores = SCORES[share, 0].clone().requires_grad_()
    tolerance = torch.tensor(0.02, dtype=torch.float64, requires_grad=True)
    upper = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    value = project(scores, share, world, tolerance, bounds=(0.1, upper)).value
    (value**2 * WEIGHTS[share, 0]).sum().backward()
    return {"each": scores.grad, "sum": torch.stack([tolerance.grad, upper.grad])}


def second_derivative(share: slice, world: World) -> Found:
    """The gradient of the gradient's squares."""
    scores = SCORES[share, 0].clone().requires_grad_()
    value = project(scores, share, world, bounds=(0.2, 0.9)).value
    (first,) = torch.autograd.grad((value**3 * WEIGHTS[share, 0]).sum(), scores, create_graph=True)
    (first**2).sum().backward()
    return {"each": scores.grad}


def forward_mode(share: slice, world: World) -> Found:
    """The change of the projection with the scores."""
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(SCORES[share, 0].clone(), WEIGHTS[share, 0])
        value = project(dual, share, world, bounds=(0.2, 0.9)).value
        return {"each": forward_ad.unpack_dual(value).tangent}


def two_columns(share: slice, world: World) -> Found:
    scores = SCORES[share].clone().requires_grad_()
    value = project(scores, share, world, bounds=(0.0, 1.0)).value
    (value * WEIGHTS[share]).sum().backward()
    return {"each": torch.cat([value.detach(), scores.grad], dim=1)}


def half_precision(share: slice, world: World) -> Found:
    scores = SCORES[share, :1].bfloat16().requires_grad_()
    result = project(scores, share, world, bounds=(0.0, 1.0))
    (result.value * WEIGHTS[share, :1]).sum().backward()
    assert result.certificate.holds
    assert scores.grad is not None
    assert scores.grad.dtype == torch.bfloat16
    return {"each": result.value.detach()}


def bounds_per_sample(share: slice, world: World) -> Found:
    low = 0.3 * torch.rand(24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return {"each": project(SCORES[share, 0], share, world, bounds=(low[share], 0.9)).value}


def relaxed(share: slice, world: World) -> Found:
    rules = [fl.MinimumRate("sex", floor=1.2)]
    group = {"sex": SEX[share]}
    result = fl.project(
        SCORES[share, 0], rules, sensitive_features=group, bounds=(0.0, 1.0), on_infeasible="relax", **world
    )
    assert result.status == "relaxed"
    return {"each": result.value}


def weighted(share: slice, world: World) -> Found:
    """Rows that count more than others, or not at all; the first process has one group alone."""
    sex = np.sort(SEX)[share]
    weights = 0.5 + torch.rand(24, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weights[-1] = 0.0
    given: dict[str, Any] = {"sensitive_features": {"sex": sex}, "sample_weight": weights[share], **world}
    scores = SCORES[share, 0].clone().requires_grad_()
    value = fl.project(scores, [fl.MinimumRate("sex", floor=0.6)], bounds=(0.0, 0.9), **given).value
    (value * WEIGHTS[share, 0]).sum().backward()
    clash = [fl.MinimumRate("sex", floor=0.95), fl.DemographicParity("sex", 0.0)]
    widened = fl.project(SCORES[share, 0], clash, bounds=(0.0, 0.9), on_infeasible="relax", **given)
    assert widened.status == "relaxed"
    assert scores.grad is not None
    return {"each": torch.stack([value.detach(), scores.grad, widened.value], dim=1)}


def many_cells(share: slice, world: World) -> Found:
    """More statistics than one message holds."""
    rng = np.random.default_rng(2)
    codes = {"a": rng.integers(0, 90, 3000), "b": rng.integers(0, 3, 3000)}
    scores = torch.tensor(rng.random(3000))
    part = slice(share.start * 125, share.stop * 125) if world else share
    mine = scores[part].clone().requires_grad_()
    rules = [fl.DemographicParity("a", 0.02), fl.DemographicParity(("a", "b"), 0.1)]
    here = {name: column[part] for name, column in codes.items()}
    value = fl.project(mine, rules, sensitive_features=here, bounds=(0.0, 1.0), **world).value
    (value * value.detach().cos()).sum().backward()
    return {"each": torch.stack([value.detach(), mine.grad], dim=1)}


SAME = [
    numbers_that_learn,
    second_derivative,
    forward_mode,
    two_columns,
    half_precision,
    bounds_per_sample,
    relaxed,
    weighted,
    many_cells,
]


def categories(rank: int, processes: int) -> Found:
    """What a layer has learnt after two batches, and after `fit_categories`, on ranks that saw different groups."""
    layer = fl.FairProjection([fl.DemographicParity("sex", 0.0)], process_group="world")
    for words in (["F", "M"], ["X", "A"]):
        layer(torch.tensor([0.1, 0.4]), sensitive_features={"sex": [words[rank]] * 2})
    fitted = fl.FairProjection([fl.DemographicParity("sex", 0.0)], process_group="world")
    fitted.fit_categories({"sex": [5, 3] if rank == 0 else [4]})
    return {"learnt": layer.vocabulary, "fitted": fitted.vocabulary}


def own_affairs(rank: int, processes: int) -> Found:
    """Reading the result, and inference, wait for nobody: only rank 0 does any of it."""
    model = fl.FairModel(nn.Identity(), [fl.DemographicParity("sex", 0.0)], b_tau=4, process_group="world")
    model(torch.tensor([0.1, 0.4]), sensitive_features={"sex": ["F", "M"]})
    found: Found = {}
    if rank == 0:
        last = model.last_projection
        assert last is not None
        found["read"] = (last.certificate.holds, last.status, last.counts, last.shift.tolist(), last.active)
        big = model(
            torch.tensor([0.0, 0.0, 1.0, 1.0]), sensitive_features={"sex": ["F", "F", "M", "M"]}, inference=True
        )
        found["big"] = big.tolist()
        found["one"] = model(torch.tensor([0.5]), sensitive_features={"sex": ["F"]}, inference=True).tolist()
    return found


def watched(layer: fl.FairProjection, share: slice) -> dict[str, float]:
    """What the callback for Lightning would log of a layer."""
    pytest.importorskip("lightning")
    from fairlayer.integrations.lightning.layers import LayerWatch, layer_numbers

    watch = LayerWatch(layer, certified=True)
    layer(SCORES[share, 0], sensitive_features={"sex": SEX[share]})
    return layer_numbers(watch.parts())


def logged(rank: int, processes: int) -> Found:
    return watched(fl.FairProjection([fl.DemographicParity("sex", 0.0)], process_group="world"), SHARES[rank])


def on_rank(case: Any, rank: int, processes: int) -> Found:
    return case(SHARES[rank], {"process_group": "world"})


JOBS = {
    2: {
        **{case.__name__: partial(on_rank, case) for case in SAME},
        "categories": categories,
        "own affairs": own_affairs,
        "logged": logged,
    }
}


@pytest.fixture(scope="module")
def found(found_by: FoundBy) -> list[Found]:
    """What two ranks found."""
    return found_by(__name__, 2)


@pytest.mark.parametrize("case", SAME, ids=lambda case: case.__name__)
def test_equals_one_process(case: Any, found: list[Found]) -> None:
    expected = case(ALL, {})
    shares = [share[case.__name__] for share in found]
    for name, value in expected.items():
        parts = [share[name] for share in shares]
        together = sum(parts) if name == "sum" else torch.cat(parts)
        torch.testing.assert_close(together, value, atol=1e-9, rtol=0)
        assert float(value.abs().max()) > 1e-3


def test_what_is_logged_of_a_layer_is_that_of_the_whole_batch(found: list[Found]) -> None:
    expected = watched(fl.FairProjection([fl.DemographicParity("sex", 0.0)]), ALL)
    assert expected["multiplier/demographic_parity_sex"] > 0
    for share in found:
        assert share["logged"] == pytest.approx(expected, abs=1e-9)


def test_categories_are_those_of_all_ranks(found: list[Found]) -> None:
    for share in found:
        assert share["categories"]["learnt"] == Vocabulary({"sex": ("F", "M", "A", "X")}, open=True)
        assert share["categories"]["fitted"] == Vocabulary({"sex": (3, 4, 5)}, open=False)


def test_reading_and_inference_need_no_other_rank(found: list[Found]) -> None:
    own = found[0]["own affairs"]
    holds, status, counts, shift, _ = own["read"]
    assert (holds, status, counts) == (True, "projected", {"sex=F": 2, "sex=M": 2})
    assert shift == pytest.approx([0.15, -0.15], abs=1e-6)
    assert own["big"] == pytest.approx([0.5] * 4)
    assert len(own["one"]) == 1
