"""The lean way gives what the general way gives, and leaves to it whatever it cannot do."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import fairlayer as fl
from fairlayer.errors import ChangedBatchError
from fairlayer.fused import switch
from fairlayer.projection import lean as lean_module

pytest.importorskip("numba", reason="compiled sweeps need numba, the extra 'fused'")

BOXES = [
    {"bounds": (0.0, 1.0)},
    {"bounds": None},
    {"bounds": (-0.5, 1.5), "margin": 0.125},
    {"geometry": "entropic"},
    {"geometry": "likelihood"},
    {"geometry": "entropic", "from_logits": True},
]
NAMES = ["box", "line", "inner box", "entropic", "likelihood", "logits"]


@pytest.fixture(autouse=True)
def _compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(switch.SWITCH, "1")
    if switch.loaded() is None:
        monkeypatch.setattr(switch, "_batches", switch._Library(switch.Sweeps))


def _layer(options: dict[str, Any], tolerance: Any = 0.02) -> fl.FairProjection:
    layer = fl.FairProjection([fl.DemographicParity("sex", tolerance=tolerance)], **options)
    layer.fit_categories({"sex": [0, 1]})
    layer.plan.once._calls = 4  # the next call is none of those that are looked at closely
    return layer


def _batch(options: dict[str, Any], n: int, seed: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2, n)
    codes[:2] = 0, 1
    scores = np.clip(rng.beta(0.7, 0.9, n) * 0.98 + 0.01 - 0.2 * codes * rng.random(n), 1e-3, 1 - 1e-3)
    if options.get("from_logits"):
        scores = np.log(scores / (1 - scores)) * 3
    elif "geometry" not in options:
        scores = scores * 1.8 - 0.4
    return torch.tensor(scores, dtype=dtype), torch.tensor(codes)


def _both(layer: fl.FairProjection, scores: torch.Tensor, codes: torch.Tensor) -> tuple[Any, Any]:
    """The lean answer and the general one, each with the gradient of the same loss."""
    found = []
    weights = torch.linspace(-1, 2, scores.numel(), dtype=scores.dtype).reshape(scores.shape)
    for way in ("lean", "general"):
        z = scores.clone().requires_grad_()
        if way == "lean":
            answer = layer.plan.lean(z, {"sex": codes}, layer.vocabulary)
            assert answer is not None
            value, result = answer[0], answer[1].read()
        else:
            result = layer.plan.run(z, {"sex": codes}, None, vocabulary=layer.vocabulary)
            value = result.value
        (gradient,) = torch.autograd.grad((value * weights).sum(), z)
        found.append((value.detach(), gradient, result))
    return found[0], found[1]


@pytest.mark.parametrize("options", BOXES, ids=NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(n=st.integers(2, 200), seed=st.integers(0, 2**32 - 1), tolerance=st.sampled_from([0.0, 1e-3, 0.02, 0.4]))
def test_it_equals_the_general_way(options: Any, dtype: torch.dtype, n: int, seed: int, tolerance: float) -> None:
    layer = _layer(options, tolerance)
    scores, codes = _batch(options, n, seed, dtype)
    free = layer.plan.run(scores, {"sex": codes}, None, vocabulary=layer.vocabulary).clipped < 1.0
    if not free:
        return
    layer.plan.once._calls = 4
    (value, gradient, result), (expected, slope, general) = _both(layer, scores, codes)
    within = 1e-12 if dtype == torch.float64 else 1e-6
    assert (value - expected).abs().max() <= within
    assert (gradient - slope).abs().max() <= 1e3 * within * max(1.0, float(slope.abs().max()))
    assert result.certificate.holds
    assert result.status == general.status
    assert result.clipped == general.clipped
    for name, price in general.multipliers.items():
        assert float(result.multipliers[name]) == pytest.approx(float(price), rel=1e-6, abs=1e-9)
    np.testing.assert_allclose(result.shift.numpy(), general.shift.numpy(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("options", BOXES, ids=NAMES)
def test_its_derivatives(options: Any) -> None:
    layer = _layer(options)
    scores, codes = _batch(options, 14, 3, torch.float64)

    def value(z: torch.Tensor) -> torch.Tensor:
        layer.plan.once._calls = 4
        answer = layer.plan.lean(z, {"sex": codes}, layer.vocabulary)
        assert answer is not None
        return answer[0]

    z = scores.requires_grad_()
    assert torch.autograd.gradcheck(value, z)
    assert torch.autograd.gradgradcheck(value, z)


def test_equal_means_at_tolerance_zero_are_held_together() -> None:
    layer = _layer(BOXES[0], 0.0)
    scores, codes = torch.tensor([0.2, 0.6, 0.3, 0.5], dtype=torch.float64), torch.tensor([0, 0, 1, 1])
    (_, gradient, _), (_, slope, _) = _both(layer, scores, codes)
    assert torch.allclose(gradient, slope, atol=1e-12)
    assert float(gradient[:2].mean()) == pytest.approx(float(gradient[2:].mean()))


def test_a_column_of_scores_and_a_bare_column_of_codes() -> None:
    layer = _layer(BOXES[0])
    scores, codes = _batch(BOXES[0], 30, 1, torch.float32)
    tall = layer(scores[:, None], sensitive_features={"sex": codes})
    layer.plan.once._calls = 4
    bare = layer(scores, sensitive_features=codes)
    assert isinstance(layer._last, lean_module.Unread)
    assert tall.shape == (30, 1)
    assert torch.equal(tall[:, 0], bare)
    assert layer.last is not None
    assert layer.last.certificate.holds


def test_the_result_keeps_no_graph_and_is_read_once() -> None:
    layer = _layer(BOXES[0])
    scores, codes = _batch(BOXES[0], 30, 1, torch.float32)
    value = layer(scores.requires_grad_(), sensitive_features={"sex": codes})
    assert value.requires_grad
    assert layer.last is layer.last
    assert not layer.last.value.requires_grad
    assert torch.equal(layer.last.value, value)


@pytest.mark.parametrize("changed", ["scores", "codes"])
def test_a_batch_that_was_changed_has_no_result(changed: str) -> None:
    layer = _layer(BOXES[0])
    scores, codes = _batch(BOXES[0], 30, 1, torch.float32)
    layer(scores, sensitive_features={"sex": codes})
    {"scores": scores, "codes": codes}[changed][:4] = 0
    with pytest.raises(ChangedBatchError, match="changed in place"):
        _ = layer.last
    layer(scores, sensitive_features={"sex": codes})
    assert layer.last is not None


@pytest.mark.parametrize("changed", ["scores", "codes"])
def test_a_batch_that_was_changed_has_no_gradient(changed: str) -> None:
    layer = _layer(BOXES[0])
    scores, codes = _batch(BOXES[0], 30, 1, torch.float32)
    given = scores.requires_grad_() * 1.0
    value = layer(given, sensitive_features={"sex": codes})
    with torch.no_grad():
        {"scores": given, "codes": codes}[changed][:4] = 0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.sum().backward()


def test_what_it_leaves_to_the_general_way() -> None:
    layer = _layer(BOXES[0])
    scores, codes = _batch(BOXES[0], 30, 1, torch.float32)
    lean, words = layer.plan.lean, layer.vocabulary
    assert lean is not None
    unknown, third, alone = codes.clone(), codes.clone(), torch.zeros_like(codes)
    unknown[3], third[3] = -1, 2
    bad = scores.clone()
    bad[2] = float("nan")
    far = torch.full_like(scores, 9.0)
    for given_scores, features in [
        (scores, {"sex": unknown}),
        (scores, {"sex": third}),
        (scores, {"sex": alone}),
        (scores, {"sex": codes.tolist()}),
        (scores, {"sex": codes.int()}),
        (scores, {"sex": codes, "race": codes}),
        (scores, {"race": codes}),
        (scores, {"sex": codes[:-1]}),
        (scores, None),
        (scores.half(), {"sex": codes}),
        (scores[:0], {"sex": codes[:0]}),
        (scores.expand(2, 30).T, {"sex": codes}),
        (bad, {"sex": codes}),
        (far, {"sex": codes}),
    ]:
        layer.plan.once._calls = 4
        assert lean(given_scores, features, words) is None
        assert layer.plan.once._calls == 4
    layer.plan.once._calls = 3
    assert lean(scores, {"sex": codes}, words) is None  # the fourth call is looked at closely
    layer.plan.once._calls = 4
    assert lean(scores, {"sex": codes}, words) is not None


@pytest.mark.parametrize("end", [0.0, 1.0, -0.1])
@pytest.mark.parametrize("geometry", ["entropic", "likelihood"])
def test_scores_at_the_ends_are_moved_and_counted(geometry: str, end: float) -> None:
    layer = _layer({"geometry": geometry})
    scores, codes = _batch({"geometry": geometry}, 30, 1, torch.float32)
    scores[5] = end
    assert layer.plan.lean(scores, {"sex": codes}, layer.vocabulary) is None


def test_transforms_and_tangents_go_the_general_way() -> None:
    layer = _layer(BOXES[3])
    scores, codes = _batch(BOXES[3], 12, 1, torch.float64)

    def total(z: torch.Tensor) -> torch.Tensor:
        return (layer(z, sensitive_features={"sex": codes}) ** 2).sum()

    reverse = torch.func.grad(total)(scores)
    _, tangent = torch.func.jvp(total, (scores,), (torch.ones_like(scores),))
    assert tangent == pytest.approx(float(reverse.sum()), rel=1e-9)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(scores, torch.ones_like(scores))
        pushed = torch.autograd.forward_ad.unpack_dual(total(dual)).tangent
    assert pushed == pytest.approx(float(tangent), rel=1e-9)


def test_a_tolerance_that_changes_counts_at_once_and_a_tensor_keeps_its_gradient() -> None:
    layer = _layer(BOXES[0], 0.4)
    scores, codes = _batch(BOXES[0], 30, 1, torch.float64)
    layer.constraints[0].tolerance = 0.0
    value = layer(scores, sensitive_features={"sex": codes})
    assert value[codes == 0].mean() == pytest.approx(float(value[codes == 1].mean()), abs=1e-12)
    layer.plan.once._calls = 4
    limit = torch.tensor(0.01, dtype=torch.float64, requires_grad=True)
    layer.constraints[0].tolerance = limit
    layer(scores, sensitive_features={"sex": codes}).pow(2).sum().backward()
    assert limit.grad is not None


def test_a_subclass_with_statements_of_its_own_has_no_lean_way() -> None:
    class Halved(fl.DemographicParity):
        def statements(self, batch: Any) -> Any:
            return super().statements(batch)

    assert fl.FairProjection([Halved("sex", 0.1)]).plan.lean is None
    assert fl.FairProjection([fl.DemographicParity(("sex", "race"), 0.1)]).plan.lean is None
    assert fl.FairProjection([fl.DemographicParity("sex", 0.1)], bounds=(0.0, None)).plan.lean is None


@pytest.mark.parametrize("options", BOXES, ids=NAMES)
def test_a_batch_that_meets_its_limits_is_copied(options: Any) -> None:
    layer = _layer(options, 0.9)
    scores, codes = _batch(options, 30, 1, torch.float64)
    if options.get("bounds") is not None:
        scores = scores.clamp(0.2, 0.8)
    (value, gradient, result), (expected, slope, _) = _both(layer, scores, codes)
    torch.testing.assert_close(value, expected, rtol=0.0, atol=1e-12)
    torch.testing.assert_close(gradient, slope, rtol=0.0, atol=1e-12)
    assert result.certificate.holds
    assert result.passes == 1
    layer.plan.once._calls = 4
    z = scores.clone().requires_grad_()
    value = layer(z, sensitive_features={"sex": codes})
    copied = value.grad_fn.name() == "CloneBackward0"
    assert copied == (not options.get("from_logits"))  # of logits the predictions are their sigmoid
    value.mul(2.0).sum().backward()
    with torch.no_grad():
        value.zero_()
    assert torch.equal(z, scores)


@pytest.mark.parametrize("held", ["by a bound", "by equal means"])
def test_a_batch_that_is_held_is_no_copy(held: str) -> None:
    layer = _layer(BOXES[0], 0.0 if held == "by equal means" else 0.9)
    codes = torch.tensor([0, 0, 1, 1])
    scores = torch.tensor(
        [0.2, 0.6, 0.3, 0.5] if held == "by equal means" else [0.2, 0.3, 0.5, 1.2], dtype=torch.float64
    )
    (_, gradient, _), (_, slope, _) = _both(layer, scores, codes)
    torch.testing.assert_close(gradient, slope)
    assert (gradient - torch.linspace(-1, 2, 4, dtype=torch.float64)).abs().max() > 0.1


def test_tensors_of_inference_mode_go_the_general_way_outside_of_it() -> None:
    layer = _layer(BOXES[0])
    scores, codes = _batch(BOXES[0], 30, 1, torch.float64)
    expected = layer(scores, sensitive_features={"sex": codes})
    with torch.inference_mode():
        made, groups = scores.clone(), codes.clone()
    for values, features in ((made, codes), (scores, groups)):
        layer.plan.once._calls = 4
        assert layer.plan.lean(values, {"sex": features}, layer.vocabulary) is None
        torch.testing.assert_close(layer(values, sensitive_features={"sex": features}), expected)


def test_a_layer_with_a_lean_way_is_copied_and_stored() -> None:
    layer = _layer(BOXES[0])
    scores, codes = _batch(BOXES[0], 30, 1, torch.float32)
    value = layer(scores, sensitive_features={"sex": codes})
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin.last is None
        assert torch.equal(twin(scores, sensitive_features={"sex": codes}), value)


def test_inference_mode_and_checkpointing() -> None:
    layer = _layer(BOXES[0])
    scores, codes = _batch(BOXES[0], 30, 1, torch.float32)
    value = layer(scores, sensitive_features={"sex": codes})
    with torch.inference_mode():
        assert torch.allclose(layer(scores * 1.0, sensitive_features={"sex": codes}), value, atol=1e-7)
    from torch.utils.checkpoint import checkpoint

    z = scores.clone().requires_grad_()
    layer.plan.once._calls = 8
    checkpoint(lambda x: layer(x, sensitive_features={"sex": codes}), z, use_reentrant=False).pow(2).sum().backward()
    other = scores.clone().requires_grad_()
    layer(other, sensitive_features={"sex": codes}).pow(2).sum().backward()
    assert torch.allclose(z.grad, other.grad, atol=1e-6)


SWITCHED = """
import sys, warnings, torch
{before}
import fairlayer as fl
assert not any(n.split(".")[0] in ("numba", "llvmlite") and sys.modules[n] for n in sys.modules)
layer = fl.FairProjection([fl.DemographicParity("sex", tolerance=0.0)], bounds=(0.0, 1.0))
codes = torch.arange(40) % 2
scores = torch.linspace(0.1, 0.9, 40, dtype=torch.float64) - 0.05 * codes
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    for _ in range(40):
        value = layer(scores, sensitive_features={{"sex": codes}})
gap = float(value[codes == 0].mean() - value[codes == 1].mean())
assert abs(gap) < 1e-12, gap
from fairlayer.fused import loaded
print(loaded() is not None, len(told), [str(each.message)[:30] for each in told])
"""


@pytest.mark.parametrize(
    ("environment", "before", "expected"),
    [
        ("", "", "True 0"),
        ("1", "", "True 0"),
        ("0", "", "False 0"),
        ("1", "sys.modules['numba'] = None", "False"),
        ("1", "import fairlayer.fused.switch as s; s.importlib.util.find_spec = lambda name: None", "False 0"),
    ],
)
def test_the_switch(environment: str, before: str, expected: str) -> None:
    """Never imported with the package; loaded after some work or at once; done without where it is off or broken."""
    import os

    settings = {**os.environ, switch.SWITCH: environment}
    script = SWITCHED.format(before=before)
    ran = subprocess.run([sys.executable, "-c", script], env=settings, capture_output=True, text=True, check=False)
    assert ran.stdout.startswith(expected), ran.stdout + ran.stderr


def test_a_broken_numba_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "_batches", switch._Library(switch.Sweeps))
    monkeypatch.setattr(switch.importlib, "import_module", _broken)
    with pytest.warns(fl.errors.FairlayerWarning, match="plain sweeps serve instead"):
        assert switch.kernels(10) is None
    assert switch.kernels(10) is None


def _broken(name: str) -> None:
    raise ImportError("no such symbol")


def test_the_switch_names_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "_batches", switch._Library(switch.Sweeps))
    monkeypatch.setenv(switch.SWITCH, "yes")
    with pytest.raises(fl.errors.ParameterError, match="FAIRLAYER_FUSED must be 0"):
        switch.kernels(10)


def test_the_result_of_a_column_of_scores_has_a_certificate() -> None:
    layer = _layer(BOXES[0])
    scores, codes = _batch(BOXES[0], 30, 1, torch.float32)
    layer(scores[:, None], sensitive_features={"sex": codes})
    assert isinstance(layer._last, lean_module.Unread)
    assert layer.last is not None
    assert layer.last.certificate.holds
    assert layer.last.value.shape == (30, 1)


def test_checkpointing_runs_the_same_way_twice() -> None:
    from torch.utils.checkpoint import checkpoint

    layer = _layer(BOXES[0])
    codes = torch.arange(12) % 2
    weight = torch.ones(1, requires_grad=True)
    for _ in range(12):
        x = torch.rand(12)
        checkpoint(
            lambda t: layer(torch.sigmoid(t * weight), sensitive_features={"sex": codes}), x, use_reentrant=False
        ).pow(2).sum().backward()


def test_tensors_that_hooks_unpack_in_another_layout() -> None:
    layer = _layer({"bounds": None}, 0.0)
    codes = torch.arange(8) % 2
    scores = torch.rand(8, dtype=torch.float64, requires_grad=True)
    upstream = torch.arange(8, dtype=torch.float64)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: torch.stack([t, t], -1), lambda t: t[..., 0]):
        value = layer(scores, sensitive_features={"sex": codes})
    (gradient,) = torch.autograd.grad(value, scores, upstream)
    expected = upstream.clone()
    expected -= torch.where(codes == 0, -0.5, 0.5)  # the two means, 3 and 4, are held together
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("score", [float("inf"), -float("inf"), 1e150])
@pytest.mark.parametrize("options", BOXES[3:], ids=NAMES[3:])
def test_infinite_scores_are_refused(options: Any, score: float) -> None:
    layer = _layer(options)
    scores, codes = _batch(options, 30, 1, torch.float64)
    scores[3] = score
    with pytest.raises(fl.FairlayerError):
        layer(scores, sensitive_features={"sex": codes})


def test_an_upstream_that_is_a_negative_view() -> None:
    layer = _layer({"bounds": None}, 0.4)
    codes = torch.arange(8) % 2
    scores = torch.full((8,), 0.5, requires_grad=True)
    value = layer(scores, sensitive_features={"sex": codes})
    value.backward(torch._neg_view(torch.ones(8)))
    assert torch.equal(scores.grad, -torch.ones(8))


def test_a_tolerance_that_changes_before_the_result_is_read() -> None:
    layer = _layer(BOXES[0], 0.1)
    scores, codes = _batch(BOXES[0], 30, 1, torch.float64)
    value = layer(scores.requires_grad_(), sensitive_features={"sex": codes})
    layer.constraints[0].tolerance = 0.0
    assert layer.last is not None
    assert layer.last.certificate.holds
    (gradient,) = torch.autograd.grad(value.pow(3).sum(), scores, create_graph=True)
    layer.constraints[0].tolerance = 0.1
    again = layer.plan.run(scores, {"sex": codes}, None, vocabulary=layer.vocabulary).value
    (expected,) = torch.autograd.grad(again.pow(3).sum(), scores)
    torch.testing.assert_close(gradient, expected)


def test_groups_that_change_after_a_general_call_change_no_gradient() -> None:
    layer = fl.FairProjection([fl.DemographicParity("g", 0.0)])
    layer.fit_categories({"g": [0, 1, 2]})
    codes = torch.arange(9) % 3
    scores = torch.rand(9, dtype=torch.float64, requires_grad=True)
    value, weights = layer(scores, sensitive_features={"g": codes}), torch.arange(9.0, dtype=torch.float64)
    (expected,) = torch.autograd.grad((value * weights).sum(), scores, retain_graph=True)
    codes.zero_()
    (gradient,) = torch.autograd.grad((value * weights).sum(), scores)
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("shape", [(), (8, 1, 1)])
def test_scores_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    layer = _layer(BOXES[0])
    with pytest.raises(fl.errors.ShapeError):
        layer(torch.full(shape, 0.5), sensitive_features={"sex": torch.arange(max(1, *shape, 1)) % 2})


class _Allocations(TorchDispatchMode):
    """Which operations made a tensor of their own, and which only looked at one."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {each.untyped_storage().data_ptr() for each in args if isinstance(each, torch.Tensor)}
        if isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() not in given:
            self.made.append(str(func))
        return out


@pytest.mark.parametrize("options", BOXES, ids=NAMES)
def test_a_call_takes_few_calls_and_makes_one_tensor(options: Any) -> None:
    layer = _layer(options)
    scores, codes = _batch(options, 256, 1, torch.float32)
    features = {"sex": codes}
    for _ in range(4):
        layer(scores, sensitive_features=features)
    entered: list[str] = []

    def profile(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_globals.get("__name__", "").startswith("fairlayer"):
            entered.append(frame.f_code.co_name)

    sys.setprofile(profile)
    try:
        value = layer(scores, sensitive_features=features)
    finally:
        sys.setprofile(None)
    assert isinstance(layer._last, lean_module.Unread)
    assert 2 <= len(entered) <= 12, entered
    with _Allocations() as allocations:
        layer(scores, sensitive_features=features)
    assert len(allocations.made) == 1, allocations.made  # the value itself
    assert value.shape == scores.shape
