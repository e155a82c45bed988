"""On a device: one range asks the host nothing, everything else one small table for each pass.

A device that counts (`far_device`) stands for the real one where there is none; fake tensors of CUDA, which have no
numbers, show that no shape and no branch depends on one; the tests marked `gpu` let CUDA itself raise at any wait.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

import fairlayer as fl
from fairlayer.errors import (
    CategoryError,
    ChangedBatchError,
    EmptyGroupError,
    NonFiniteScoresError,
    ProbabilityError,
    ShapeError,
    SolverError,
)
from fairlayer.geometry import Entropic, Euclidean, Likelihood
from fairlayer.passes.lanes import Lanes
from fairlayer.projection import device_range
from fairlayer.projection.device import UnreadOnDevice
from fairlayer.projection.device_range import STEPS, DeviceBatch, adjoint, solve_range

PROGRAM = Path(__file__).with_name("far_device.py")
BOXES: dict[str, dict[str, Any]] = {
    "box": {"bounds": (0.0, 1.0)},
    "one side": {"bounds": (0.0, None)},
    "line": {"bounds": None},
    "inner box": {"bounds": (0.0, 1.0), "margin": 0.125},
    "entropic": {"geometry": "entropic"},
    "likelihood": {"geometry": "likelihood"},
    "logits": {"geometry": "entropic", "from_logits": True},
    "likelihood of logits": {"geometry": "likelihood", "from_logits": True},
}
IN = pytest.mark.parametrize("options", BOXES.values(), ids=BOXES)


def layer_of(options: dict[str, Any], groups: int = 3, tolerance: float = 0.01) -> fl.FairProjection:
    layer = fl.FairProjection([fl.DemographicParity("g", tolerance=tolerance)], **options)
    layer.fit_categories({"g": list(range(groups))})
    return layer


def batch_of(
    options: dict[str, Any], n: int = 300, groups: int = 3, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, groups, (n,), generator=random)
    codes[:groups] = torch.arange(groups)
    scores = torch.rand(n, dtype=torch.float64, generator=random) * 0.9 + 0.09 * codes / groups
    return (torch.logit(scores.clamp(0.001)) * 2 if options.get("from_logits") else scores.clamp(0.001)), codes


# --- traffic


@pytest.fixture(scope="module")
def traffic() -> dict[str, Any]:
    pytest.importorskip("torch.utils.backend_registration")
    from torch.utils import backend_registration

    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch has no devices made in Python")
    ran = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_one_range_asks_the_host_nothing(traffic: dict[str, Any]) -> None:
    mine = {name: each for name, each in traffic.items() if name.startswith("one range")}
    assert len(mine) == 2 * len(BOXES)
    for name, each in mine.items():
        assert each["forward"] == [], name
        assert each["backward"] == [], name
        assert each["holds"], name
        within = 1e-12 if "float64" in name else 1e-6
        assert each["value"] <= within, name
        assert each["gradient"] <= 10 * within, name


def test_everything_else_takes_one_small_table_for_each_pass(traffic: dict[str, Any]) -> None:
    others = {name: each for name, each in traffic.items() if not name.startswith("one range")}
    assert len(others) == 18
    for name, each in others.items():
        assert each["value"] <= 1e-12, name
        assert each["gradient"] <= 1e-11, name
        assert not [line for line in each["forward"] + each["backward"] if "asks" in line or "boolean" in line], name
        sizes = [(line.split()[0], int(line.split()[-1])) for line in each["forward"]]
        tables = [size for way, size in sizes if way == "from" and size < 600]
        sent = [size for way, size in sizes if way == "to" and size < 600]
        reads = [size for way, size in sizes if way == "read"]
        large = [size for _, size in sizes if size >= 600]
        # Beside a table per pass: K where all are free, and before the first pass the batch is read and looked at.
        curved_rows = name.split(",")[0] in {"label estimates", "covariance"} and not name.endswith("box")
        more = each["passes"] if curved_rows else 0  # the longest step along dense rows is a question of its own
        assert len(tables) <= each["passes"] + 1, name
        assert len(sent) <= each["passes"] - 1 + more, name
        assert len(reads) <= 6 + more, name
        assert len(large) <= 5, name
        assert len([line for line in each["backward"] if line.startswith(("from", "read"))]) <= 1, name


# --- fake tensors, which have no numbers to look at


@pytest.mark.parametrize("rule", [Euclidean(), Entropic(), Likelihood()], ids=repr)
@pytest.mark.parametrize("tolerance", [0.0, 0.01])
def test_fake_tensors_of_cuda_go_through(rule: Any, tolerance: float) -> None:
    with FakeTensorMode(), torch.no_grad():
        x = torch.empty(300, dtype=torch.float64, device="cuda")
        codes = torch.empty(300, dtype=torch.int64, device="cuda")
        batch = DeviceBatch.of(x, codes, 3, 0.0, 1.0, rule)
        found = solve_range(batch, tolerance)
        gradient = adjoint(batch, found.price, x, equal=tolerance == 0.0)
        assert {each.device.type for each in (*found, gradient)} == {"cuda"}
        assert (found.value.shape, gradient.shape) == (x.shape, x.shape)


def test_fake_tensors_of_cuda_would_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_range, "STEPS", 1)
    monkeypatch.setattr(device_range, "_limited", lambda batch, price, before: price * float(price.max()))
    with FakeTensorMode(), torch.no_grad():
        x = torch.empty(300, dtype=torch.float64, device="cuda")
        batch = DeviceBatch.of(x, torch.empty(300, dtype=torch.int64, device="cuda"), 3, 0.0, 1.0, Euclidean())
        with pytest.raises(RuntimeError):  # there is no number to read, and where torch has no CUDA no device to ask
            solve_range(batch, 0.01)


# --- numbers, on the host, where the same code runs


def both(layer: fl.FairProjection, scores: torch.Tensor, codes: torch.Tensor) -> tuple[Any, Any]:
    found = []
    weights = torch.linspace(-1, 2, len(scores), dtype=scores.dtype)
    for way in ("device", "general"):
        z = scores.clone().requires_grad_()
        if way == "device":
            assert layer.plan.on_device is not None
            answer = layer.plan.on_device(z, {"g": codes}, layer.vocabulary, {})
            assert answer is not None
            value, result = answer[0], answer[1].read()
        else:
            result = layer.plan.run(z, {"g": codes}, None, vocabulary=layer.vocabulary)
            value = result.value
        (gradient,) = torch.autograd.grad((value * weights).sum(), z)
        found.append((value.detach(), gradient, result))
    return found[0], found[1]


@IN
@given(
    n=st.integers(6, 400),
    groups=st.integers(2, 6),
    seed=st.integers(0, 2**32 - 1),
    tolerance=st.sampled_from([0.0, 1e-3, 0.02, 0.4]),
    unknown=st.booleans(),
)
@settings(max_examples=25)
def test_it_equals_the_general_way(  # noqa: PLR0917 - a problem
    options: Any, n: int, groups: int, seed: int, tolerance: float, unknown: bool
) -> None:
    layer = layer_of(options, groups, tolerance)
    scores, codes = batch_of(options, n, groups, seed)
    if unknown:
        codes[::5] = -1
        codes[codes == groups - 1] = 0  # a group without samples
    (value, gradient, result), (expected, slope, general) = both(layer, scores, codes)
    assert (value - expected).abs().max() <= 1e-12
    assert (gradient - slope).abs().max() <= 1e-9 * max(1.0, float(slope.abs().max()))
    assert result.certificate.holds
    assert result.status == general.status
    for name, price in general.multipliers.items():
        assert float(result.multipliers[name]) == pytest.approx(float(price), rel=1e-6, abs=1e-9)


@IN
def test_its_derivatives(options: Any) -> None:
    layer = layer_of(options)
    scores, codes = batch_of(options, 20)
    assert layer.plan.on_device is not None
    device = layer.plan.on_device

    def value(z: torch.Tensor) -> torch.Tensor:
        answer = device(z, {"g": codes}, layer.vocabulary, {})
        assert answer is not None
        return answer[0]

    z = scores.requires_grad_()
    assert torch.autograd.gradcheck(value, z)
    assert torch.autograd.gradgradcheck(value, z)


@pytest.mark.parametrize("cells", [1, 2, 7, 70_000])
def test_lanes_add_up(cells: int) -> None:
    codes = torch.randint(0, cells + 1, (5_000,))
    value = torch.rand(5_000, dtype=torch.float64)
    expected = torch.bincount(codes, weights=value, minlength=cells + 1)[:cells]
    assert torch.allclose(Lanes.of(codes, cells).sums(value), expected, atol=1e-12)


# --- what nobody can refuse in time


def refused(options: dict[str, Any], scores: torch.Tensor, codes: torch.Tensor, **settings: Any) -> UnreadOnDevice:
    layer = layer_of({**options, **settings})
    assert layer.plan.on_device is not None
    answer = layer.plan.on_device(scores, {"g": codes}, layer.vocabulary, {})
    assert answer is not None
    assert answer[0].isnan().all()
    return answer[1]


def test_a_batch_that_cannot_be_projected_is_nan_and_its_result_says_why() -> None:
    scores, codes = batch_of({}, 60)
    third, far, bad = codes.clone(), scores.clone(), scores.clone()
    third[5], far[4], bad[3] = 3, 1.5, float("nan")
    with pytest.raises(CategoryError):
        refused(BOXES["box"], scores, third).read()
    with pytest.raises(CategoryError):
        refused(BOXES["box"], scores, torch.where(third == 3, -2, third)).read()
    with pytest.raises(NonFiniteScoresError):
        refused(BOXES["box"], bad, codes).read()
    with pytest.raises(ProbabilityError):
        refused(BOXES["entropic"], far, codes).read()
    with pytest.raises(EmptyGroupError):
        refused(BOXES["box"], scores, codes.clamp(max=1), on_empty="raise").read()


def test_steps_that_do_not_end_are_nan_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_range, "STEPS", 1)
    scores, codes = batch_of(BOXES["logits"], 60)
    with pytest.raises(SolverError, match=f"{STEPS} steps"):
        refused(BOXES["logits"], scores, codes).read()


def test_a_result_that_is_read_too_late() -> None:
    layer = layer_of(BOXES["box"])
    scores, codes = batch_of({}, 60)
    assert layer.plan.on_device is not None
    answer = layer.plan.on_device(scores, {"g": codes}, layer.vocabulary, {})
    assert answer is not None
    scores[0] = 0.5
    with pytest.raises(ChangedBatchError, match="changed in place"):
        answer[1].read()


def test_what_it_leaves_to_the_general_way() -> None:
    layer = layer_of(BOXES["box"])
    scores, codes = batch_of({}, 60)
    device, words = layer.plan.on_device, layer.vocabulary
    assert device is not None
    learning = fl.FairProjection([fl.DemographicParity("g", 0.01)]).vocabulary
    named = layer.vocabulary.with_categories("g", ("a", "b", "c"))
    for given_scores, features, known in [
        (scores, {"g": codes.tolist()}, words),
        (scores, {"g": codes.double()}, words),
        (scores, {"g": codes[:-1]}, words),
        (scores, {"g": codes, "h": codes}, words),
        (scores, None, words),
        (scores[:0], {"g": codes[:0]}, words),
        (scores, {"g": codes}, learning),
        (scores, {"g": codes}, named),
    ]:
        assert device(given_scores, features, known, {}) is None
    with pytest.raises(ShapeError, match=r"^y "):
        device(scores, {"g": codes}, words, {"y": codes[:3]})
    assert fl.FairProjection([fl.DemographicParity(("g", "h"), 0.1)]).plan.on_device is None
    assert fl.FairProjection([fl.EqualizedOdds("g", 0.1)]).plan.on_device is None
    assert fl.FairProjection([fl.DemographicParity("g", 0.1)], bounds="simplex").plan.on_device is None


# --- CUDA itself


@pytest.mark.gpu
@IN
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cuda_waits_for_nothing(options: Any, dtype: torch.dtype) -> None:
    layer = layer_of(options)
    scores, codes = batch_of(options)
    host = scores.to(dtype).requires_grad_()
    expected = layer(host, sensitive_features={"g": codes})
    expected.square().sum().backward()
    z, there = scores.to(dtype).cuda().requires_grad_(), codes.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        value = layer(z, sensitive_features={"g": there})
        value.square().sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    within = 1e-12 if dtype == torch.float64 else 1e-6
    assert (value.detach().cpu() - expected.detach()).abs().max() <= within
    assert z.grad is not None
    assert host.grad is not None
    assert (z.grad.cpu() - host.grad).abs().max() <= 10 * within
    assert layer.last is not None
    assert layer.last.certificate.holds


@pytest.mark.gpu
def test_cuda_graphs_record_it() -> None:
    layer = layer_of(BOXES["entropic"])
    scores, codes = batch_of(BOXES["entropic"])
    z, there = scores.cuda(), codes.cuda()
    expected = layer(z, sensitive_features={"g": there}).clone()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        layer(z, sensitive_features={"g": there})
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = layer(z, sensitive_features={"g": there})
    graph.replay()
    assert torch.allclose(value, expected, atol=1e-12)
