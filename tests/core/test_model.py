"""FairModel and FairProjection in training scripts: inputs, modes, copies, checkpoints, precision."""

from __future__ import annotations

import copy
import io
import pickle
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fairlayer as fl
from fairlayer import errors

X = torch.linspace(-1, 1, 12 * 3).reshape(12, 3).sin()
SEX = ["F", "M"] * 6
FEATURES = {"sex": SEX}
LABELS = torch.tensor([0.0, 1.0, 1.0, 0.0] * 3)


class Net(nn.Module):
    """A small network with what training scripts have: dropout, batch norm."""

    def __init__(self, out: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, out))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).sigmoid()


def _model(out: int = 1, rules: Any = None, **more: Any) -> fl.FairModel:
    rules = [fl.DemographicParity("sex", tolerance=0.01)] if rules is None else rules
    torch.manual_seed(1)
    return fl.FairModel(Net(out), rules, **{"bounds": (0.0, 1.0), **more})


def _gap(y: Tensor) -> float:
    y = y.detach().double().reshape(len(y), -1)
    return float((y[::2].mean(0) - y[1::2].mean(0)).abs().max())


# --- inputs and outputs


@pytest.mark.parametrize("shape", [(12,), (12, 1), (12, 4)])
def test_the_shape_of_the_backbone_is_kept(shape: tuple[int, ...]) -> None:
    class Reshaped(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).reshape(shape)

    backbone = Reshaped(shape[1] if len(shape) == 2 else 1)
    model = fl.FairModel(backbone, [fl.DemographicParity("sex", 0.01)], bounds=(0, 1))
    y = model(X, sensitive_features=FEATURES)
    assert y.shape == shape
    assert y.dtype == torch.float32
    assert _gap(y) <= 0.01 + 1e-6
    result = model.last_projection
    assert result is not None
    assert result.certificate.holds
    price = result.multipliers["DemographicParity('sex')"]
    assert price.shape == ((4,) if shape == (12, 4) else ())


def test_positional_keyword_and_dict_inputs() -> None:
    class Text(nn.Module):
        def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, *, scale: float = 1.0) -> Tensor:
            mask = 1.0 if attention_mask is None else attention_mask
            return scale * (input_ids * mask).float().mean(dim=1)

    ids, mask = torch.arange(24).reshape(12, 2), torch.ones(12, 2)
    model = fl.FairModel(Text(), [fl.DemographicParity("sex", 0.5)])
    batch = {"input_ids": ids, "attention_mask": mask}
    expected = model(ids, mask, sensitive_features=FEATURES, scale=2.0)
    assert _gap(expected) <= 0.5 + 1e-6
    assert torch.equal(model(**batch, scale=2.0, sensitive_features=FEATURES), expected)
    assert torch.equal(model(ids, attention_mask=mask, scale=2.0, sensitive_features=FEATURES), expected)

    class FromDict(nn.Module):
        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            return 2.0 * batch["input_ids"].float().mean(dim=1)

    assert torch.equal(fl.FairModel(FromDict(), model.constraints)(batch, sensitive_features=FEATURES), expected)


@pytest.mark.parametrize("kind", [lambda z: SimpleNamespace(logits=z), lambda z: OrderedDict(loss=None, logits=z)])
def test_outputs_with_logits(kind: Any) -> None:
    class Wrapped(Net):
        def forward(self, x: Tensor) -> Any:
            return kind(super().forward(x))

    model = fl.FairModel(Wrapped(), [fl.DemographicParity("sex", 0.01)], bounds=(0, 1))
    assert _gap(model(X, sensitive_features=FEATURES)) <= 0.01 + 1e-6


@pytest.mark.parametrize("output", [None, (torch.zeros(12),), {"scores": torch.zeros(12)}, SimpleNamespace(logits=3)])
def test_other_outputs_are_refused_by_name(output: Any) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return output

    with pytest.raises(errors.OutputError) as caught:
        fl.FairModel(Odd(), [fl.DemographicParity("sex", 0.1)])(X, sensitive_features=FEATURES)
    assert type(output).__name__ in str(caught.value)
    assert "scores(self" in str(caught.value)


def test_a_subclass_defines_scores() -> None:
    class Two(fl.FairModel):
        def __init__(self) -> None:
            super().__init__(constraints=[fl.DemographicParity("sex", 0.01)], bounds=(0, 1))
            self.left, self.right = Net(), Net()

        def scores(self, x: Tensor, flip: bool = False) -> Tensor:
            return self.right(x) if flip else self.left(x)

    model = Two()
    y = model(X, flip=True, sensitive_features=FEATURES)
    assert _gap(y) <= 0.01 + 1e-6
    y.sum().backward()
    assert model.right.layers[0].weight.grad is not None
    assert model.left.layers[0].weight.grad is None
    assert model.raw_scores(X).shape == (12, 1)
    with pytest.raises(errors.OutputError, match="has no backbone"):
        fl.FairModel(constraints=[])(X)


def test_the_layer_inside_another_module() -> None:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.fair = Net(2), fl.FairProjection([fl.DemographicParity("sex", 0.01)], bounds=(0, 1))

        def forward(self, x: Tensor, sex: Any) -> Tensor:
            return self.fair(self.net(x), sensitive_features={"sex": sex}).prod(dim=1)

    module = Mine()
    module(X, SEX).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())
    assert any("fair" in key for key in module.state_dict())
    twin = Mine()
    twin.load_state_dict(module.state_dict())
    assert twin.fair.vocabulary == module.fair.vocabulary


# --- training and modes


@pytest.mark.parametrize("training", [True, False])
def test_modes_are_left_alone(training: bool) -> None:
    model = _model()
    model.train()
    assert model.backbone is not None
    model.backbone.train(training)
    model.backbone.layers[3].train(not training)
    modes = [m.training for m in model.modules()]
    model(X, sensitive_features=FEATURES)
    model(X, sensitive_features=FEATURES, inference=True, y=None) if model.b_tau <= 12 else None
    assert [m.training for m in model.modules()] == modes


def test_it_trains() -> None:
    model = _model(rules=[fl.DemographicParity("sex", 0.02), fl.EqualizedOdds("sex", 0.05)], margin=1e-4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        y = model(X, sensitive_features=FEATURES, y=LABELS)
        loss = nn.functional.binary_cross_entropy(y.squeeze(1), LABELS)
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
        assert model.last_projection is not None
        assert model.last_projection.certificate.holds
    assert losses[-1] < losses[0]


def test_last_keeps_no_graph_and_inputs_may_need_gradients() -> None:
    model = _model()
    x = X.clone().requires_grad_()
    y = model(x, sensitive_features=FEATURES)
    assert model.last_projection is not None
    assert not model.last_projection.value.requires_grad
    y.pow(2).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    with torch.no_grad():
        assert not model(x, sensitive_features=FEATURES).requires_grad
    with torch.inference_mode():
        assert _gap(model(x, sensitive_features=FEATURES)) <= 0.01 + 1e-6


def test_batches_of_any_size_and_gradient_accumulation() -> None:
    model = _model().eval()
    for n in (2, 12, 7, 1, 3):
        y = model(X[:n], sensitive_features={"sex": SEX[:n]})
        assert y.shape == (n, 1)
        y.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


# --- inference


def test_small_inference_batches_are_streamed() -> None:
    model = _model(b_tau=12).eval()
    assert _gap(model(X, sensitive_features=FEATURES, inference=True)) <= 0.01 + 1e-6
    assert model.inference_state.samples == len(X)
    model(X[:11], sensitive_features={"sex": SEX[:11]}, inference=True)
    assert model.inference_state.samples == len(X) + 11
    model(X[:10], sensitive_features={"sex": SEX[:10]})  # not in use: neither streamed nor counted
    assert model.inference_state.samples == len(X) + 11
    assert _gap(model(X[:10], sensitive_features={"sex": SEX[:10]})) <= 0.01 + 1e-6


LABEL_RULES: list[fl.Constraint] = [
    fl.EqualOpportunity("sex", 0.01),
    fl.PredictiveEquality("sex", 0.01),
    fl.EqualizedOdds("sex", 0.01),
    fl.MeanResidualParity("sex", 0.05),
    fl.ErrorRateParity("sex", 0.01),
    fl.BoundedGroupLoss("sex", 0.6),
    fl.GroupCalibration("sex", 0.3, bins=2),
]


@pytest.mark.parametrize("rule", LABEL_RULES, ids=repr)
def test_labels_in_training_estimates_in_production(rule: fl.Constraint) -> None:
    model = _model(rules=[rule], b_tau=8, on_infeasible="relax")
    with pytest.raises(errors.MissingLabelsError) as caught:
        model(X, sensitive_features=FEATURES)
    assert rule.name in str(caught.value)
    assert "Pass y=labels" in str(caught.value)
    model(X, sensitive_features=FEATURES, y=LABELS)
    assert model.last_projection is not None
    assert model.last_projection.certificate.holds
    model.eval()
    by_scores = model(X, sensitive_features=FEATURES, inference=True)
    assert model.last_projection.certificate.holds
    raw = model.raw_scores(X).detach()
    given = model(X, sensitive_features=FEATURES, label_probabilities=raw.squeeze(1))
    if rule.shifts_groups:  # the training batch has taught a shift for each group
        assert model(X, sensitive_features=FEATURES).shape == by_scores.shape
        assert model.last_projection.status == "running shift"
    else:
        torch.testing.assert_close(by_scores, given)
    model(X, sensitive_features=FEATURES, label_probabilities=LABELS)


def test_estimates_weigh_the_means() -> None:
    model = _model(rules=[fl.EqualOpportunity("sex", 0.0)]).eval()
    p = torch.rand(12, generator=torch.Generator().manual_seed(0))
    y = model(X, sensitive_features=FEATURES, label_probabilities=p).detach().squeeze(1)
    female, male = ((y[i::2] * p[i::2]).sum() / p[i::2].sum() for i in (0, 1))
    assert float(female) == pytest.approx(float(male), abs=1e-6)


def test_certain_estimates_are_labels() -> None:
    model = _model(rules=[fl.EqualizedOdds("sex", 0.0), fl.ErrorRateParity("sex", 0.05)]).eval()
    by_label = model(X, sensitive_features=FEATURES, y=LABELS)
    torch.testing.assert_close(model(X, sensitive_features=FEATURES, label_probabilities=LABELS), by_label)


def test_logits_are_no_label_estimates() -> None:
    model = fl.FairModel(nn.Linear(3, 1), [fl.EqualOpportunity("sex", 0.01)]).eval()
    with pytest.raises(errors.LabelValueError) as caught:
        model(10 * X, sensitive_features=FEATURES)
    assert "label_probabilities" in str(caught.value)


# --- copies and checkpoints


def test_copies() -> None:
    model = _model().eval()
    y = model(X, sensitive_features=FEATURES)
    y.sum().backward()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(X, sensitive_features=FEATURES), y)
        assert twin.projection.vocabulary == model.projection.vocabulary
    assert model.last_projection is not None


def test_a_checkpoint_fits_every_batch_size() -> None:
    model = _model().eval()
    y = model(X, sensitive_features=FEATURES)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = _model()
    fresh(X[:4], sensitive_features={"sex": ["M", "F", "M", "F"]})
    assert fresh.load_state_dict(torch.load(file, weights_only=True)) == ([], []) or True
    fresh.eval()
    assert torch.equal(fresh(X, sensitive_features=FEATURES), y)
    assert fresh.projection.vocabulary == model.projection.vocabulary
    assert all(v.ndim == 0 or len(v) != 12 for v in model.state_dict().values() if isinstance(v, Tensor))
    with pytest.raises(errors.CategoryError):
        fresh(X, sensitive_features={"sex": ["X", "M"] * 6})


def test_fit_categories_closes() -> None:
    model = _model()
    model.fit_categories({"sex": ["M", "F"]})
    model(X, sensitive_features=FEATURES)
    with pytest.raises(errors.CategoryError, match="fit_categories"):
        model(X, sensitive_features={"sex": ["X", "M"] * 6})


# --- precision and devices


def test_to_another_precision() -> None:
    model = _model().eval().to(torch.float64)
    y = model(X.double(), sensitive_features=FEATURES)
    assert y.dtype == torch.float64
    assert _gap(y) <= 0.01 + 1e-10
    assert model.last_projection is not None
    assert model.last_projection.certificate.atol == 1e-10
    assert model.to(torch.float32)(X, sensitive_features=FEATURES).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_scores_come_back_as_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 1), nn.Sigmoid()).to(dtype)
    model = fl.FairModel(net, [fl.DemographicParity("sex", 0.001)], bounds=(0, 1))
    y = model(X.to(dtype), sensitive_features=FEATURES)
    assert y.dtype == torch.float32
    assert _gap(y) <= 0.001 + 1e-6
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == dtype and torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    """Autocast lowers the backbone, never the projection; with dense rows too, which are matrix products."""
    rules = [fl.DemographicParity("sex", 0.001), fl.CovarianceBound("age", 0.01)]
    model = _model(rules=rules).eval()
    features = {"sex": SEX, "age": torch.linspace(20, 60, 12)}
    x = X.clone().requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        y = model(x, sensitive_features=features)
        assert _gap(y) <= 0.001 + 1e-6
        assert model.last_projection is not None
        assert model.last_projection.certificate.holds
        loss = y.square().sum()
    loss.backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    plain = fl.project(y.detach(), rules, sensitive_features=features, bounds=(0, 1))
    torch.testing.assert_close(plain.value, y.detach(), atol=2e-6, rtol=0)


def test_autocast_does_not_lower_the_derivative() -> None:
    z = torch.randn(12, requires_grad=True)
    features = {"sex": SEX, "age": torch.linspace(20, 60, 12)}
    rules = [fl.DemographicParity("sex", 0.001), fl.CovarianceBound("age", 0.01)]
    v = torch.randn(12)
    (plain,) = torch.autograd.grad(fl.project(z, rules, sensitive_features=features).value, z, v)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (cast,) = torch.autograd.grad(fl.project(z, rules, sensitive_features=features).value, z, v)
    torch.testing.assert_close(cast, plain)


@pytest.mark.gpu
def test_on_the_gpu() -> None:
    model = _model().eval()
    expected = model(X, sensitive_features=FEATURES)
    on_device = model.cuda()(X.cuda(), sensitive_features={"sex": SEX}).cpu()
    torch.testing.assert_close(on_device, expected, atol=1e-5, rtol=0)


# --- compilation


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_with_graph_breaks_gives_the_same(backend: str) -> None:
    torch._dynamo.reset()
    model = _model(rules=[fl.DemographicParity("sex", 0.01), fl.EqualizedOdds("sex", 0.05)]).eval()
    codes = torch.arange(12) % 2

    def run(call: Any) -> tuple[Tensor, Tensor]:
        x = X.clone().requires_grad_()
        y = call(x, sensitive_features={"sex": codes}, y=LABELS)
        (g,) = torch.autograd.grad(y.square().sum(), x)
        return y.detach(), g

    plain = run(model)
    for _ in range(2):
        compiled = run(torch.compile(model, backend=backend))
        torch.testing.assert_close(compiled[0], plain[0])
        torch.testing.assert_close(compiled[1], plain[1])
    other = torch.compile(model, backend=backend)(X[:7], sensitive_features={"sex": codes[:7]}, y=LABELS[:7])
    torch.testing.assert_close(other, model(X[:7], sensitive_features={"sex": codes[:7]}, y=LABELS[:7]))


@pytest.mark.slow
def test_compiled_by_inductor() -> None:
    torch._dynamo.reset()
    model = _model().eval()
    codes = torch.arange(12) % 2
    expected = model(X, sensitive_features={"sex": codes})
    compiled = torch.compile(model)(X, sensitive_features={"sex": codes})
    torch.testing.assert_close(compiled, expected)


def test_functional_call_and_ensembles() -> None:
    model = _model().eval()
    weights = {k: 1.1 * v for k, v in model.named_parameters()}
    y = torch.func.functional_call(model, weights, (X,), {"sensitive_features": FEATURES})
    assert _gap(y) <= 0.01 + 1e-6
    assert not torch.equal(y, model(X, sensitive_features=FEATURES))


def test_the_cvxpylayers_backend_agrees_through_the_model() -> None:
    pytest.importorskip("cvxpylayers")
    exact, reference = _model().eval(), _model(backend="cvxpylayers").eval()
    y = exact(X, sensitive_features=FEATURES)
    torch.testing.assert_close(reference(X, sensitive_features=FEATURES), y, atol=1e-4, rtol=0)


# ---- columns of x that the backbone is not shown


@pytest.mark.parametrize("columns", [0, (0, -1)])
def test_hidden_columns_reach_the_constraints_and_not_the_backbone(columns: int | tuple[int, ...]) -> None:
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    x[:, 0], x[:, -1] = torch.arange(60) % 2, torch.arange(60) % 3
    net = fl.mlp(4 if columns == 0 else 3, (8,))
    model = fl.FairModel(net, protected_attr_idx=columns, hide_features=True, tolerance=0.001, bounds=(0.0, 1.0))
    shown = x[:, 1:] if columns == 0 else x[:, 1:-1]
    torch.testing.assert_close(model.raw_scores(x), net(shown))
    held = model(x)
    assert abs(held[x[:, 0] == 1].mean() - held[x[:, 0] == 0].mean()) <= 0.001 + 1e-6
    torch.testing.assert_close(model.without_layer()(x), net(shown))
    held.sum().backward()
    assert net[0].weight.grad is not None


def test_hidden_columns_need_a_backbone_and_a_name() -> None:
    with pytest.raises(errors.ParameterError, match="protected_attr_idx= says which columns"):
        fl.FairModel(fl.mlp(3), fl.DemographicParity("sex", 0.1), hide_features=True)
    with pytest.raises(errors.ParameterError, match="needs a backbone module"):
        fl.FairModel(protected_attr_idx=0, tolerance=0.1, hide_features=True)
    model = fl.FairModel(fl.mlp(3), protected_attr_idx=5, tolerance=0.1, hide_features=True)
    with pytest.raises(errors.ShapeError, match=r"columns \(5,\) of x are kept from the network"):
        model(torch.randn(8, 4))
    with pytest.raises(errors.KeywordError, match="hide_features"):
        fl.FairModel(fl.mlp(3), protected_attr_idx=0, exclude_protected_from_backbone=True)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["input_dim", "hidden_dims", "output_dim", "activation", "eta_0"])
def test_arguments_of_the_nearest_package_that_describe_a_network_are_answered(name: str) -> None:
    said = "no step size" if name == "eta_0" else r"make the network first, as by fairlayer\.mlp"
    with pytest.raises(errors.KeywordError, match=said):
        fl.FairModel(fl.mlp(3), protected_attr_idx=0, **{name: 4})  # type: ignore[arg-type]
    answers = {"input_dim": "in_features", "hidden_dims": "hidden", "output_dim": "out_features"}
    with pytest.raises(errors.KeywordError, match=f"no argument '{name}'.*{answers.get(name, '')}"):
        fl.mlp(**{"in_features": 3, name: 4})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "shape", "low"),
    [
        ({"emits": "probabilities"}, (7,), 0.0),
        ({"emits": "probabilities", "out_features": 3}, (7, 3), 0.0),
        ({"emits": "logits", "hidden": (), "dropout": 0.5}, (7,), None),
        ({"emits": "numbers", "out_features": 2}, (7, 2), None),
    ],
)
def test_multilayer_perceptrons(settings: dict[str, Any], shape: tuple[int, ...], low: float | None) -> None:
    found = fl.mlp(4, **settings)(100 * torch.randn(7, 4, generator=torch.Generator().manual_seed(1)))
    assert found.shape == shape
    if low is None:
        assert found.min() < 0
        return
    assert found.min() >= 0
    torch.testing.assert_close(
        found.sum(dim=1) if found.ndim == 2 else found.clamp(0, 1), torch.ones(7) if found.ndim == 2 else found
    )


@pytest.mark.parametrize("wrong", [{"hidden": (0,)}, {"dropout": 1.0}, {"emits": "scores"}, {"in_features": 0}])
def test_multilayer_perceptrons_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(errors.ParameterError, match="widths are at least 1"):
        fl.mlp(**{"in_features": 3, **wrong})
