"""torch.compile and torch.export see one operator; what they cannot see is said by name."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fairlayer as fl
from fairlayer.errors import BackendError, ShapeError, TracingError

SEX = torch.arange(64) % 2


class Batchwise(nn.Module):
    """A model whose features are plain arguments, as exporters want them."""

    def __init__(self, model: fl.FairModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor, s: Any) -> torch.Tensor:
        return self.model(x, sensitive_features={"s": s})


def _model(**options: Any) -> fl.FairModel:
    torch.manual_seed(0)
    layers = [nn.Linear(3, 1)] if options.get("from_logits") else [nn.Linear(3, 1), nn.Sigmoid()]
    model = fl.FairModel(nn.Sequential(*layers), [fl.DemographicParity("s", 0.02)], **options)
    model.fit_categories({"s": SEX})
    return model


OPTIONS = [{"bounds": (0.0, 1.0)}, {"geometry": "entropic", "from_logits": True}, {"geometry": "likelihood"}]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_full_graph_for_ragged_batches(options: dict[str, Any]) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = _model(**options)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for n in (64, 65, 70, 33, 128):
        x, sex = torch.randn(n, 3), torch.arange(n) % 2
        found = []
        for each in (compiled, model):
            value = each(x, sensitive_features={"s": sex})
            (gradient,) = torch.autograd.grad(value.pow(2).sum(), model.backbone[0].weight)
            found.append((value, gradient))
        torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-5)
    assert model.last_projection is not None
    assert model.last_projection.certificate.holds
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2


def test_a_compiled_layer_follows_its_tolerance_and_its_copies_are_their_own() -> None:
    torch._dynamo.reset()
    model = _model(bounds=(0.0, 1.0))
    compiled, x = torch.compile(model, fullgraph=True, backend="aot_eager"), torch.randn(64, 3) * 4
    for tolerance in (0.0, 0.3):
        model.constraints[0].tolerance = tolerance
        value = compiled(x, sensitive_features={"s": SEX})
        torch.testing.assert_close(value, model(x, sensitive_features={"s": SEX}))
    twin = copy.deepcopy(model)
    twin.constraints[0].tolerance = 0.0
    gaps = []
    for each in (model, twin):
        value = torch.compile(each, fullgraph=True, backend="aot_eager")(x, sensitive_features={"s": SEX})
        gaps.append(abs(float((value[SEX == 0].mean() - value[SEX == 1].mean()).detach())))
    assert gaps[1] < 1e-6
    assert gaps[0] > 0.01


def test_a_graph_break_serves_what_is_no_tensor() -> None:
    torch._dynamo.reset()
    model = _model(bounds=(0.0, 1.0))
    x, words = torch.randn(64, 3), [0, 1] * 32
    value = torch.compile(model, backend="aot_eager")(x, sensitive_features={"s": words})
    torch.testing.assert_close(value, model(x, sensitive_features={"s": words}))


@pytest.mark.parametrize("options", OPTIONS)
def test_an_exported_program_runs_in_another_process(options: dict[str, Any], tmp_path: Path) -> None:
    model = _model(**options).eval()
    x = torch.randn(64, 3)
    rows = torch.export.Dim("rows", min=2)
    program = torch.export.export(Batchwise(model), (x, SEX), dynamic_shapes={"x": {0: rows}, "s": {0: rows}})
    torch.export.save(program, tmp_path / "program.pt2")
    expected = [model(x[:n], sensitive_features={"s": SEX[:n]}).detach() for n in (64, 20)]
    torch.save((x, SEX, expected), tmp_path / "data.pt")
    script = (
        "import torch, fairlayer\n"
        f"x, sex, expected = torch.load({str(tmp_path / 'data.pt')!r})\n"
        f"program = torch.export.load({str(tmp_path / 'program.pt2')!r}).module()\n"
        "print(max(float((program(x[:len(e)], sex[:len(e)]) - e).abs().max()) for e in expected))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) <= 1e-6


def test_what_cannot_be_exported_is_said() -> None:
    model, x = _model(bounds=(0.0, 1.0)).eval(), torch.randn(64, 3)
    with pytest.raises(TracingError, match=r"takes tensors, but a dict with 's': list .*amortised.*without_layer"):
        torch.export.export(Batchwise(model), (x, [0, 1] * 32), strict=False)
    fresh = fl.FairModel(nn.Linear(3, 1), [fl.DemographicParity("s", 0.02)]).eval()
    with pytest.raises(TracingError, match="fit_categories"):
        torch.export.export(Batchwise(fresh), (x, SEX), strict=False)

    class Mine(fl.DemographicParity):
        pass

    own = fl.FairModel(nn.Linear(3, 1), [Mine("s", 0.02)]).eval()
    own.fit_categories({"s": SEX})
    with pytest.raises(TracingError, match="cannot be written as text"):
        torch.export.export(Batchwise(own), (x, SEX), strict=False)


@pytest.mark.parametrize("given", [["f", "m"] * 32, np.array(["f", "m"] * 32)], ids=["list", "array"])
def test_one_graph_that_cannot_be_says_so(given: Any) -> None:
    model = fl.FairModel(nn.Linear(3, 1), [fl.DemographicParity("s", 0.02)]).eval()
    model.fit_categories({"s": ["f", "m"]})
    x = torch.randn(64, 3)
    torch._dynamo.reset()
    # An array of text is refused by torch before anything of ours runs.
    ours = r"fairlayer: this call cannot .* tensors, .*amortised"
    said = ours if isinstance(given, list) else "numpy.ndarray to Tensor"
    with pytest.raises(torch._dynamo.exc.Unsupported, match=said):
        torch.compile(model, fullgraph=True)(x, sensitive_features={"s": given})
    torch._dynamo.reset()
    found = torch.compile(model, backend="eager")(x, sensitive_features={"s": given})
    assert torch.allclose(found, model(x, sensitive_features={"s": given}))


def test_a_program_without_its_layer_names_the_reason() -> None:
    with pytest.raises(TracingError, match="not in this process"):
        torch.ops.fairlayer.project(torch.rand(4), [torch.tensor([0, 1, 0, 1])], None, None, None, "layer 0")


def test_tensors_without_numbers() -> None:
    model = _model(bounds=(0.0, 1.0))
    shape = model.projection(torch.rand(64, device="meta"), sensitive_features={"s": SEX})
    assert shape.is_meta
    assert shape.shape == (64,)
    with pytest.raises(BackendError, match="holds no numbers"):
        fl.project(torch.rand(64, device="meta"), model.constraints, sensitive_features={"s": SEX})
    with torch._subclasses.FakeTensorMode():
        assert model.projection(torch.rand(64), sensitive_features={"s": torch.zeros(64)}).shape == (64,)
    with pytest.raises(ShapeError, match="to_dense"):
        fl.project(torch.rand(64).to_sparse(), model.constraints, sensitive_features={"s": SEX})


def test_transforms_take_groups_that_are_columns_of_x_or_made_inside() -> None:
    torch.manual_seed(0)
    x = torch.cat([torch.randint(0, 2, (64, 1)).float(), torch.randn(64, 3)], 1)
    net = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid())
    model = fl.FairModel(net, protected_attr_idx=0, tolerance=0.02, bounds=(0.0, 1.0))
    model(x).pow(2).mean().backward()
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def loss(given: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(model, given, (x,)).pow(2).mean()

    found = torch.func.grad(loss)(weights)
    torch.testing.assert_close(found["backbone.0.weight"], net[0].weight.grad)

    def inside(scores: torch.Tensor) -> torch.Tensor:
        groups = (scores > scores.median()).long()
        result = fl.project(scores, [fl.DemographicParity("s", 0.1)], sensitive_features={"s": groups})
        return result.value.pow(2).sum()

    scores = torch.rand(40, dtype=torch.float64)
    plain = scores.clone().requires_grad_()
    inside(plain).backward()
    torch.testing.assert_close(torch.func.grad(inside)(scores), plain.grad)
    several = torch.rand(3, 40, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(inside)(several), torch.stack([inside(each) for each in several]))


def test_the_operator_keeps_its_promises() -> None:
    model = _model(bounds=(0.0, 1.0))
    scores = torch.rand(32, dtype=torch.float64, requires_grad=True)
    inputs = (scores, [SEX[:32]], None, None, None, model.projection.handle)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(torch.ops.fairlayer.project, inputs, test_utils=tests)


def test_a_learnable_tolerance_keeps_its_gradient_in_a_compiled_model() -> None:
    torch._dynamo.reset()
    limit = torch.tensor(0.1, requires_grad=True)
    layer = fl.FairProjection([fl.DemographicParity("s", limit)])
    layer.fit_categories({"s": SEX})
    scores = torch.rand(64) + SEX
    (expected,) = torch.autograd.grad(layer(scores, sensitive_features={"s": SEX}).pow(2).sum(), limit)
    compiled = torch.compile(layer, backend="aot_eager")
    (found,) = torch.autograd.grad(compiled(scores, sensitive_features={"s": SEX}).pow(2).sum(), limit)
    torch.testing.assert_close(found, expected)


def test_a_backward_leaves_the_latest_result_alone() -> None:
    torch._dynamo.reset()
    model = _model(bounds=(0.0, 1.0))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    first = compiled(torch.randn(64, 3), sensitive_features={"s": SEX})
    second = compiled(torch.randn(64, 3), sensitive_features={"s": SEX})
    first.sum().backward()
    assert model.last_projection is not None
    torch.testing.assert_close(model.last_projection.value, second.detach())


def _two_attributes() -> tuple[fl.FairProjection, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    features = {"s": torch.randint(0, 3, (96,)), "t": torch.randint(0, 4, (96,))}
    layer = fl.FairProjection([fl.DemographicParity("s", 0.02), fl.DemographicParity("t", 0.03)], bounds=(0.0, 1.0))
    layer.fit_categories(features)
    return layer, features


@pytest.mark.parametrize("columns", [1, 2])
def test_a_backward_belongs_to_the_limits_of_its_forward_and_solves_nothing(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch._dynamo.reset()
    layer, features = _two_attributes()
    scores = (torch.rand(96, columns, dtype=torch.float64) + 0.2 * features["s"][:, None]).requires_grad_()
    (expected,) = torch.autograd.grad(layer(scores, sensitive_features=features).pow(2).sum(), scores)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    value = compiled(scores, sensitive_features=features)
    for constraint in layer.constraints:
        constraint.tolerance = 0.5

    def solve_again(*inputs: Any, **options: Any) -> Any:
        raise AssertionError("a backward must not solve")

    monkeypatch.setattr("fairlayer.projection.exact.solve", solve_again)
    (found,) = torch.autograd.grad(value.pow(2).sum(), scores)
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-12)


def test_a_solution_with_more_faces_than_the_state_holds_keeps_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    monkeypatch.setattr("fairlayer.projection.traced._STATE", 8)
    layer, features = _two_attributes()
    scores = (torch.rand(96, dtype=torch.float64) + 0.2 * features["s"]).requires_grad_()
    (expected,) = torch.autograd.grad(layer(scores, sensitive_features=features).pow(2).sum(), scores)
    value = torch.ops.fairlayer.project(scores, list(features.values()), None, None, None, layer.handle)[0]
    layer.constraints[0].tolerance = 0.5
    (found,) = torch.autograd.grad(value.pow(2).sum(), scores)
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-12)


def test_a_widened_batch_goes_backward_as_it_went_forward() -> None:
    torch._dynamo.reset()
    layer = fl.FairProjection([fl.MinimumRate("s", floor=0.8)], bounds=(0.0, 0.6), on_infeasible="relax")
    layer.fit_categories({"s": SEX})
    scores = torch.rand(64, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(layer(scores, sensitive_features={"s": SEX}).pow(2).sum(), scores)
    assert layer.last is not None
    assert layer.last.widening > 0.1
    value = torch.compile(layer, fullgraph=True, backend="aot_eager")(scores, sensitive_features={"s": SEX})
    (found,) = torch.autograd.grad(value.pow(2).sum(), scores)
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-12)


def test_a_strict_export_holds_the_layer_as_text(tmp_path: Path) -> None:
    torch._dynamo.reset()
    model, x = _model(bounds=(0.0, 1.0)).eval(), torch.randn(64, 3)
    program = torch.export.export(Batchwise(model), (x, SEX), strict=True)
    expected = model(x, sensitive_features={"s": SEX}).detach()
    torch.export.save(program, tmp_path / "program.pt2")
    model.constraints[0].tolerance = 0.5
    loaded = torch.export.load(tmp_path / "program.pt2").module()
    torch.testing.assert_close(loaded(x, SEX), expected)
    fresh = fl.FairModel(nn.Linear(3, 1), [fl.DemographicParity("s", 0.02)]).eval()
    with pytest.raises(Exception, match="fit_categories"):
        torch.export.export(Batchwise(fresh), (x, SEX), strict=True)


@pytest.mark.parametrize("policy", ["present", "anytime"])
def test_a_compiled_model_answers_a_stream_as_the_plain_one_does(policy: str) -> None:
    torch._dynamo.reset()
    model = _model(bounds=(0.0, 1.0), policy=policy).eval()
    model.reset_inference_state()
    plain = copy.deepcopy(model)
    compiled = torch.compile(model, backend="eager")
    for n in (1, 7, 32, 1, 300):
        x, features = torch.randn(n, 3), {"s": torch.arange(n) % 2}
        found = compiled(x, sensitive_features=features, inference=True)
        torch.testing.assert_close(found, plain(x, sensitive_features=features, inference=True))
    assert str(model.inference_state.report()) == str(plain.inference_state.report())
