"""Models without their layer: copies that leave the model alone, need no group, and can be exported."""

from __future__ import annotations

import copy
import io
import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import fairlayer as fl
from fairlayer import errors
from fairlayer.distillation import AmortisedModel, AmortisedShifts, NoFixedShiftError, remaining_gap

X = torch.linspace(-1, 1, 40 * 3).reshape(40, 3).sin()
X[:, 0] += torch.arange(40) % 2.0  # the second group has more of it
SEX = ["F", "M"] * 20
FEATURES = {"sex": SEX}
LABELS = torch.tensor([0.0, 1.0, 1.0, 0.0] * 10)
PARITY = fl.DemographicParity("sex", tolerance=0.01)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        return 0.3 * self.layers(x) + x[:, :1]


class Exportable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Subclass(fl.FairModel):
    def __init__(self) -> None:
        super().__init__(constraints=[PARITY], bounds=(0.0, 1.0))
        self.left, self.right = nn.Linear(3, 1), nn.Linear(3, 1)

    def scores(self, left: Tensor, *, right: Tensor) -> Any:
        return SimpleNamespace(logits=self.left(left) + self.helper(right))

    def helper(self, right: Tensor) -> Tensor:
        return self.right(right)


def model_of(net: nn.Module | None = None, rules: Any = (PARITY,), **more: Any) -> fl.FairModel:
    torch.manual_seed(1)
    return fl.FairModel(net or Net(), list(rules), **{"bounds": (0.0, 1.0), **more})


def state_of(model: fl.FairModel) -> dict[str, Any]:
    return copy.deepcopy(model.state_dict())


# --- without a layer


def test_it_emits_the_raw_scores_cut_off_at_the_inner_bounds() -> None:
    model = model_of(margin=0.1)
    plain = model.without_layer()
    raw = model.eval().raw_scores(X)
    assert (raw < 0).any()
    assert (raw > 1).any()
    assert torch.equal(plain(X), raw.clamp(0.1, 0.9))
    assert torch.equal(model_of(bounds=None).without_layer()(X), raw)
    assert torch.equal(model_of(bounds=(None, 1.0)).without_layer()(X), raw.clamp(max=1.0))


def test_it_leaves_the_model_alone() -> None:
    """Not its mode, not its weights, not its running statistics, not its stream."""
    model = model_of().train()
    model(X, sensitive_features=FEATURES)
    model.backbone.layers[3].eval()  # type: ignore[union-attr]
    before, modes = state_of(model), [module.training for module in model.modules()]
    plain = model.without_layer()
    assert not any(module.training for module in plain.modules())
    plain.train()(X).sum().backward()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.zero_()
    assert [module.training for module in model.modules()] == modes
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items() if isinstance(value, Tensor))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_its_state_is_the_backbones_own() -> None:
    plain = model_of().without_layer()
    assert all(name.startswith("scores.layers.") for name in plain.state_dict())
    again = model_of().without_layer()
    file = io.BytesIO()
    torch.save(plain.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(again(X), plain(X))
    assert torch.equal(pickle.loads(pickle.dumps(plain))(X), plain(X))


def test_a_subclass_keeps_its_own_scores() -> None:
    model = Subclass()
    plain = model.without_layer()
    expected = model.raw_scores(X, right=X + 1).clamp(0, 1)
    assert torch.equal(plain(X, right=X + 1), expected)
    with torch.no_grad():
        model.left.weight.zero_()
    assert torch.equal(plain(X, right=X + 1), expected)
    again = pickle.loads(pickle.dumps(plain))
    assert torch.equal(again(X, right=X + 1), expected)
    assert model.projection is not None


def test_a_model_without_backbone_says_so() -> None:
    with pytest.raises(errors.OutputError, match="has no backbone"):
        fl.FairModel(constraints=[PARITY]).without_layer()(X)


def test_bounds_of_single_samples_cannot_be_kept() -> None:
    with pytest.raises(errors.InvalidBoundsError, match="same for all samples"):
        model_of(bounds=(torch.zeros(40), None)).without_layer()


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_it_exports_and_traces() -> None:
    plain = model_of(Exportable()).without_layer()
    program = torch.export.export(plain, (X,), dynamic_shapes={"args": ({0: Dim("n")},)})
    traced = torch.jit.trace(plain, (X,))
    for size in (2, 7):
        assert torch.equal(program.module()(X[:size]), plain(X[:size]))
        assert torch.equal(traced(X[:size]), plain(X[:size]))


# --- with fixed shifts


def test_the_amortised_model_is_the_layered_one_on_the_data_it_was_fitted_to() -> None:
    model = model_of().double()
    x = X.double()
    fixed = model.amortised([(x[:15], {"sex": SEX[:15]}), {"x": x[15:], "sensitive_features": {"sex": SEX[15:]}}])
    with pytest.raises(errors.MissingSensitiveFeatureError, match=r"cells=model\.encode"):
        fixed(x)
    expected = model.eval()(x, sensitive_features=FEATURES)
    emitted = fixed(x, cells=fixed.encode(FEATURES))
    torch.testing.assert_close(emitted, expected, rtol=0, atol=1e-9)
    assert (emitted - model.raw_scores(x).clamp(0, 1)).abs().max() > 0.05  # there was something to do


def test_amortising_leaves_the_model_alone() -> None:
    model = model_of().train()
    before = state_of(model)
    model.amortised([(X, FEATURES)])
    after = model.state_dict()
    assert model.training
    assert model.backbone is not None
    assert model.backbone.training
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_scores_stand_in_for_labels_as_in_the_model() -> None:
    rules = [fl.EqualizedOdds("sex", 0.01)]
    model = model_of(Exportable(), rules).double().eval()
    x = X.double()
    fixed = model.amortised([(x, LABELS, FEATURES)])
    expected = model(x, sensitive_features=FEATURES)
    torch.testing.assert_close(fixed(x, cells=fixed.encode(FEATURES)), expected, rtol=0, atol=1e-9)
    given = fixed(x, cells=fixed.encode(FEATURES), label_probabilities=LABELS.double())
    assert not torch.equal(given, expected) or torch.equal(expected, model.raw_scores(x))


def test_columns_of_x_and_labels_for_limits() -> None:
    model = model_of(Exportable(), protected_attr_idx=0, tolerance=0.001, rules=[]).eval()
    x = torch.cat([torch.arange(40)[:, None] % 2.0, X[:, 1:]], dim=1)
    fixed = model.amortised([{"x": x}])
    expected = model(x)
    torch.testing.assert_close(fixed(x, cells=fixed.encode({"x[0]": x[:, 0]})), expected, rtol=0, atol=1e-6)
    residual = model_of(Exportable(), [fl.MeanResidualParity("sex", 0.01)])
    shifts = residual.amortised([(X, LABELS, FEATURES)]).shifts
    assert not shifts.by_label


def test_an_empty_loader_is_an_error() -> None:
    with pytest.raises(errors.EmptyBatchError, match="no batch"):
        model_of().amortised([])


class Proxy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        share = torch.sigmoid(8 * x[:, 0])
        return torch.stack([share, 1 - share], dim=1)


def test_a_proxy_needs_no_group_at_inference_and_keeps_its_own_means() -> None:
    """What holds on the data of the fit: the means weighted by the proxy's probabilities."""
    model = model_of(Exportable()).double()
    x = X.double()
    proxy = Proxy().train()
    fixed = model.amortised([(x, FEATURES)], proxy=proxy)
    assert proxy.training
    p, y = proxy(x).numpy(), fixed(x).detach().numpy()[:, 0]
    means = (p * y[:, None]).sum(0) / p.sum(0)
    assert abs(means[0] - means[1]) <= 0.01 + 1e-9
    assert torch.equal(fixed(x, cells=None), fixed(x))
    program = torch.export.export(fixed, (x,), dynamic_shapes={"args": ({0: Dim("n")},)})
    assert torch.equal(program.module()(x[:4]), fixed(x[:4]))
    with pytest.raises(NoFixedShiftError, match="one sensitive feature"):
        model_of(rules=[PARITY, fl.DemographicParity("race", 0.1)]).amortised([(X, FEATURES)], proxy=proxy)


def test_the_amortised_model_exports_and_comes_back_from_its_state() -> None:
    model = model_of(Exportable())
    fixed = model.amortised([(X, FEATURES)])
    cells = fixed.encode(FEATURES)
    n = Dim("n")
    program = torch.export.export(fixed, (X,), {"cells": cells}, dynamic_shapes={"args": ({0: n},), "cells": {0: n}})
    assert torch.equal(program.module()(X[:3], cells=cells[:3]), fixed(X[:3], cells=cells[:3]))
    file = io.BytesIO()
    torch.save(fixed.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    again = AmortisedModel(Exportable(), AmortisedShifts.from_state_dict(state, "shifts."))
    again.load_state_dict(state)
    assert torch.equal(again(X, cells=again.encode(FEATURES)), fixed(X, cells=cells))


@pytest.mark.parametrize("rules", [[PARITY], [fl.EqualizedOdds("sex", 0.01)]])
@pytest.mark.parametrize("kind", ["plain", "by cell", "by proxy"])
@pytest.mark.filterwarnings("ignore:.*")  # of the exporter about itself
def test_plain_modules_run_in_onnx(kind: str, rules: list[Any]) -> None:
    """Batches of any size, one sample included."""
    for library in ("onnx", "onnxscript"):
        pytest.importorskip(library)
    onnxruntime = pytest.importorskip("onnxruntime")
    model = model_of(Exportable(), rules)
    inputs = {"x": X}
    if kind == "plain":
        module: nn.Module = model.without_layer()
    else:
        module = model.amortised([(X, FEATURES)], proxy=Proxy() if kind == "by proxy" else None)
    if kind == "by cell":
        inputs["cells"] = module.encode(FEATURES)
    named = {name: tensor for name, tensor in inputs.items() if name != "x"}
    shapes = {"args": ({0: Dim.DYNAMIC},), **{name: {0: Dim.DYNAMIC} for name in named}}
    program = torch.onnx.export(module, (X,), kwargs=named, dynamic_shapes=shapes, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for size in (1, 7, 40):
        given = zip(session.get_inputs(), inputs.values(), strict=True)
        [found] = session.run(None, {each.name: tensor[:size].numpy() for each, tensor in given})
        expected = module(X[:size], **{name: tensor[:size] for name, tensor in named.items()})
        torch.testing.assert_close(torch.from_numpy(found), expected.detach(), rtol=0, atol=1e-6)


def test_shifts_by_label_export_with_a_batch_of_any_size() -> None:
    fixed = model_of(Exportable(), [fl.EqualizedOdds("sex", 0.01)]).amortised([(X, FEATURES)])
    cells = fixed.encode(FEATURES)
    shapes = {"args": ({0: Dim.DYNAMIC},), "cells": {0: Dim.DYNAMIC}, "label_probabilities": {0: Dim.DYNAMIC}}
    program = torch.export.export(fixed, (X,), {"cells": cells, "label_probabilities": LABELS}, dynamic_shapes=shapes)
    part = {"cells": cells[:5], "label_probabilities": LABELS[:5]}
    assert torch.equal(program.module()(X[:5], **part), fixed(X[:5], **part))


# --- the gap that remains


def by_hand(values: np.ndarray, groups: np.ndarray) -> float:
    means = [values[groups == group].mean() for group in sorted(set(groups) - {None})]
    return float(max(means) - min(means))


def test_the_remaining_gap_is_that_of_the_pooled_predictions() -> None:
    model = model_of(Exportable())
    plain = model.without_layer()
    sex = np.array(SEX, dtype=object)
    sex[3] = None
    loader = [(X[:7], {"sex": sex[:7]}), (X[7:], {"sex": sex[7:]})]
    [found] = remaining_gap(plain, loader, model.constraints)
    batches = [plain(x) for x, _ in loader]  # single precision rounds otherwise in a batch of another size
    predictions = torch.cat(batches).detach().double().numpy()[:, 0]
    assert found.scores == pytest.approx(by_hand(predictions, sex), abs=1e-12)
    assert found.violation == pytest.approx(max(0.0, by_hand(predictions, sex) - 0.01), abs=1e-12)
    assert found.decisions == pytest.approx(by_hand(predictions >= 0.5, sex))
    assert found.counts == {"sex=F": 20.0, "sex=M": 19.0}
    [regression] = remaining_gap(plain, loader, model.constraints, threshold=None)
    assert regression.decisions is None


def test_remaining_gaps_of_label_constraints_and_caps() -> None:
    values = torch.tensor([0.9, 0.1, 0.8, 0.4])[:, None]
    batch = (values, torch.tensor([1.0, 0, 1, 1]), {"sex": ["F", "F", "M", "M"]})
    rules = [fl.EqualOpportunity("sex", 0.1), fl.MinimumRate("sex", 0.55), fl.BoundedGroupLoss("sex", 0.3)]
    opportunity, floor, cap = remaining_gap(nn.Identity(), [batch], rules)
    assert opportunity.scores == pytest.approx(0.3)  # 0.9 against (0.8 + 0.4) / 2
    assert opportunity.violation == pytest.approx(0.2)
    assert opportunity.counts == {"sex=F, y=0": 1, "sex=F, y=1": 1, "sex=M, y=0": 0, "sex=M, y=1": 2}
    assert floor.violation == pytest.approx(0.05)  # F has 0.5
    assert cap.violation == pytest.approx(0.1)  # M loses (0.2 + 0.6) / 2
    assert cap.scores == pytest.approx(0.4)
    with pytest.raises(errors.MissingLabelsError):
        remaining_gap(nn.Identity(), [(values, batch[2])], rules)


def test_nothing_to_compare_is_none_and_nothing_at_all_is_an_error() -> None:
    [found] = remaining_gap(nn.Identity(), [(torch.ones(3, 1), {"sex": ["F"] * 3})], [PARITY])
    assert (found.scores, found.violation, found.decisions) == (None, 0.0, None)
    with pytest.raises(errors.EmptyBatchError, match="no batch"):
        remaining_gap(nn.Identity(), [], [PARITY])


def test_the_worst_column_counts() -> None:
    values = torch.tensor([[0.5, 0.9], [0.5, 0.1]])
    [found] = remaining_gap(nn.Identity(), [(values, {"sex": ["F", "M"]})], [PARITY])
    assert found.scores == pytest.approx(0.8)
    assert found.decisions == 1.0
