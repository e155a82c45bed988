"""Constraints on residuals in a loop of one's own: the raw scores stay meaningful, and evaluation needs no labels."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fairlayer as fl
from fairlayer.errors import BackendError, FairlayerWarning, ParameterError

N = 2000


def rows(seed: int = 0, n: int = N) -> tuple[Tensor, Tensor, np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    sex = torch.randint(0, 2, (n,), generator=generator)
    x = torch.randn(n, 3, generator=generator)
    return x, x[:, 0] + 0.5 * sex + torch.randn(n, generator=generator), np.where(sex.numpy() == 0, "F", "M")


def trained(model: nn.Module, *, scale: float = 1.0, binary: bool = False, steps: int = 200) -> nn.Module:
    """A loop as anyone writes it."""
    x, y, sex = rows()
    y = (y > 0.5).float() if binary else y
    loss_of = nn.functional.binary_cross_entropy if binary else nn.functional.mse_loss
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        i = torch.randint(0, N, (128,), generator=generator)
        given = {"sensitive_features": {"sex": sex[i.numpy()]}, "y": y[i]} if isinstance(model, fl.FairModel) else {}
        loss = scale * loss_of(model(x[i], **given), y[i])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def net(binary: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    last = [nn.Sigmoid()] if binary else []
    return nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0), *last)


@torch.no_grad()
def error_of(model: nn.Module, binary: bool = False) -> float:
    x, y, sex = rows(7)
    y = (y > 0.5).float() if binary else y
    scores = model(x, sensitive_features={"sex": sex}) if isinstance(model, fl.FairModel) else model(x)
    loss = nn.functional.binary_cross_entropy if binary else nn.functional.mse_loss
    return float(loss(scores, y))


@pytest.mark.parametrize("scale", [1.0, 512.0])
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("constraint", [fl.MeanResidualParity("sex", 0.02), fl.GroupCalibration("sex", 0.02, bins=5)])
def test_a_loop_of_ones_own_is_not_worse_than_plain(constraint: fl.Constraint, binary: bool, scale: float) -> None:
    if isinstance(constraint, fl.GroupCalibration) and not binary:
        pytest.skip("bins of probabilities")
    options: dict[str, Any] = {"geometry": "entropic"} if binary else {}
    plain = error_of(trained(net(binary), binary=binary), binary)
    model = trained(fl.FairModel(net(binary), constraint, **options), binary=binary, scale=scale)
    assert isinstance(model, fl.FairModel)
    assert error_of(model, binary) < plain * 1.02
    assert error_of(model.without_layer(), binary) < plain * 1.03


def test_without_the_anchor_the_raw_scores_drift() -> None:
    plain = error_of(trained(net()))
    free = trained(fl.FairModel(net(), fl.MeanResidualParity("sex", 0.02), anchor=0))
    held = trained(fl.FairModel(net(), fl.MeanResidualParity("sex", 0.02)))
    assert error_of(free.without_layer()) > 1.05 * plain  # type: ignore[operator]
    assert error_of(held.without_layer()) < 1.03 * plain  # type: ignore[operator]


def test_the_pull_is_that_of_adding_the_loss_of_the_raw_scores() -> None:
    """For a mean squared error r is 2/n, so the pull in the free direction is that of `+ mse(raw, y)`."""
    y, sex = torch.tensor([1.0, 2.0, 3.0, 4.0]), {"sex": ["F", "F", "M", "M"]}
    constraint = fl.MeanResidualParity("sex", 0.0)

    def gradient(anchor: float, *, explicit: bool) -> Tensor:
        raw = torch.tensor([0.0, 1.0, 5.0, 7.0], requires_grad=True)
        layer = fl.FairProjection(constraint, anchor=anchor)
        loss = nn.functional.mse_loss(layer(raw, sensitive_features=sex, y=y), y)
        loss = loss + nn.functional.mse_loss(raw, y) if explicit else loss
        [found] = torch.autograd.grad(loss, raw)
        return found

    for group in (slice(0, 2), slice(2, 4)):
        by_anchor, by_loss = gradient(1.0, explicit=False)[group], gradient(0.0, explicit=True)[group]
        torch.testing.assert_close(by_anchor.mean(), by_loss.mean())  # along the direction that the layer frees
        torch.testing.assert_close(gradient(0.0, explicit=False)[group].mean(), torch.tensor(0.0))


def test_a_batch_within_the_tolerance_has_the_gradient_without_anchor() -> None:
    y, sex = torch.tensor([1.0, 2.0, 3.0, 4.0]), {"sex": ["F", "F", "M", "M"]}
    raw = torch.tensor([1.1, 1.9, 3.2, 3.9], requires_grad=True)
    layer = fl.FairProjection(fl.MeanResidualParity("sex", 0.5))
    found = torch.autograd.grad(nn.functional.mse_loss(layer(raw, sensitive_features=sex, y=y), y), raw)
    expected = torch.autograd.grad(nn.functional.mse_loss(raw, y), raw)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 2)])
def test_gradcheck_holds_at_anchor_0(shape: tuple[int, ...]) -> None:
    sex, y = {"sex": ["F", "F", "M", "M"]}, torch.rand(4)
    layer = fl.FairProjection(fl.MeanResidualParity("sex", 0.02), anchor=0)
    raw = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: layer(z, sensitive_features=sex, y=y), raw)


def test_second_order_counts_the_slope_as_a_constant() -> None:
    y, sex = torch.tensor([1.0, 3.0, 3.0, 4.0]), {"sex": ["F", "F", "M", "M"]}
    raw = torch.tensor([0.0, 1.0, 5.0, 7.0], requires_grad=True)
    layer = fl.FairProjection(fl.MeanResidualParity("sex", 0.0))
    loss = nn.functional.mse_loss(layer(raw, sensitive_features=sex, y=y), y)
    [first] = torch.autograd.grad(loss, raw, create_graph=True)
    [second] = torch.autograd.grad(first.square().sum(), raw)
    assert torch.isfinite(second).all()
    assert second.abs().sum() > 0


def test_transforms_are_refused_by_name_and_compile_is_the_same() -> None:
    y, sex = torch.tensor([1.0, 3.0, 3.0, 4.0]), {"sex": ["F", "F", "M", "M"]}
    raw = torch.tensor([0.0, 1.0, 5.0, 7.0])
    layer = fl.FairProjection(fl.MeanResidualParity("sex", 0.0))

    def loss(z: Tensor) -> Tensor:
        return nn.functional.mse_loss(layer(z, sensitive_features=sex, y=y), y)

    with pytest.raises(BackendError, match=r"anchor=1.*anchor=0"):
        torch.func.grad(loss)(raw)
    with pytest.raises(BackendError, match="anchor=0"):
        torch.func.jvp(loss, (raw,), (raw,))
    free = fl.FairProjection(fl.MeanResidualParity("sex", 0.0), anchor=0)
    exact = torch.func.grad(lambda z: nn.functional.mse_loss(free(z, sensitive_features=sex, y=y), y))(raw)
    assert torch.isfinite(exact).all()
    layer.eval()
    assert torch.isfinite(torch.func.grad(loss)(raw)).all()
    layer.train()
    eager, compiled = raw.clone().requires_grad_(), raw.clone().requires_grad_()
    loss(eager).backward()
    torch.compile(loss, backend="eager")(compiled).backward()
    torch.testing.assert_close(compiled.grad, eager.grad)


@pytest.mark.parametrize("anchor", [-1.0, float("inf"), "much", True])
def test_a_senseless_anchor_is_refused(anchor: Any) -> None:
    with pytest.raises(ParameterError, match="anchor must be"):
        fl.FairProjection(fl.MeanResidualParity("sex", 0.1), anchor=anchor)


def test_running_shifts_are_weighed_means_of_what_was_moved() -> None:
    layer = fl.FairProjection(fl.MeanResidualParity("sex", 0.0))
    first = torch.tensor([0.0, 0.0, 0.0]), ["F", "F", "M"], torch.tensor([1.0, 1.0, 3.0])
    second = torch.tensor([0.0, 0.0]), ["F", "M"], torch.tensor([4.0, 0.0])
    for scores, sex, y in (first, second):
        layer(scores, sensitive_features={"sex": sex}, y=y)
    layer.eval()
    found = layer(torch.zeros(3), sensitive_features={"sex": ["F", "M", None]})
    f = (0.98 * 2.0 + 4.0) / (0.98 * 2 + 1), (0.98 * 3.0 + 0.0) / (0.98 + 1)
    mean = (0.98 * 5.0 + 4.0) / (0.98 * 3 + 2)
    assert found.tolist() == pytest.approx([*f, mean])
    assert layer.last is not None
    assert layer.last.status == "running shift"
    assert "running shifts" in repr(layer.last)


def test_running_shifts_travel_with_the_weights_and_hold_on_new_rows() -> None:
    model = trained(fl.FairModel(net(), fl.MeanResidualParity("sex", 0.02)))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    again = fl.FairModel(net(), fl.MeanResidualParity("sex", 0.02)).eval()
    again.load_state_dict(torch.load(file, weights_only=True))
    x, y, sex = rows(7)
    with torch.no_grad():
        expected = model(x, sensitive_features={"sex": sex})
        assert torch.equal(again(x, sensitive_features={"sex": sex}), expected)
        assert torch.equal(copy.deepcopy(model)(x, sensitive_features={"sex": sex}), expected)
    residuals = (y - expected).numpy()
    assert max(abs(residuals[sex == g].mean()) for g in "FM") < 0.02 + 2 * (1 / 900 + 1 / 3200) ** 0.5 * 2
    fixed = model.amortised([(x, {"sex": sex})])  # a loader without labels: the running shifts stand in
    moved = fixed(x, cells=fixed.encode({"sex": sex})) - model.raw_scores(x)  # type: ignore[operator]
    assert abs(float((moved - (expected - model.raw_scores(x))).detach().mean())) <= 0.02 + 1e-6  # type: ignore[operator]


def test_log_odds_are_what_is_shifted_in_the_entropic_geometry() -> None:
    layer = fl.FairProjection(fl.MeanResidualParity("sex", 0.0), geometry="entropic")
    scores, y = torch.tensor([0.3, 0.6, 0.2, 0.9]), torch.tensor([1.0, 1.0, 0.0, 1.0])
    sex = {"sex": ["F", "F", "M", "M"]}
    emitted = layer(scores, sensitive_features=sex, y=torch.tensor([0.5, 0.7, 0.1, 0.8]))
    layer.eval()
    torch.testing.assert_close(layer(scores, sensitive_features=sex), emitted)
    from_logits = fl.FairProjection(fl.MeanResidualParity("sex", 0.0), geometry="entropic", from_logits=True)
    from_logits(torch.logit(scores), sensitive_features=sex, y=torch.tensor([0.5, 0.7, 0.1, 0.8]))
    torch.testing.assert_close(from_logits.eval()(torch.logit(scores), sensitive_features=sex), emitted)
    assert y.shape == scores.shape


def test_where_nothing_was_learnt_a_warning_says_that_nothing_is_moved() -> None:
    model = fl.FairModel(net(), fl.MeanResidualParity("sex", 0.02)).eval()
    x, _, sex = rows(1, 50)
    with pytest.warns(FairlayerWarning, match=r"MeanResidualParity\('sex'\) reads labels.*not moved"):
        scores = model(x, sensitive_features={"sex": sex})
    torch.testing.assert_close(scores, model.raw_scores(x))


def test_the_function_has_no_anchor() -> None:
    y, sex = torch.tensor([1.0, 2.0, 3.0, 5.0]), {"sex": ["F", "F", "M", "M"]}
    raw = torch.tensor([0.0, 1.0, 5.0, 7.0], dtype=torch.float64, requires_grad=True)
    constraint = fl.MeanResidualParity("sex", 0.0)
    assert torch.autograd.gradcheck(lambda z: fl.project(z, constraint, sensitive_features=sex, y=y).value, raw)
