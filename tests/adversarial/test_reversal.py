"""The reversed gradient is -strength times the gradient, exactly, in every mode of differentiation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

from fairlayer.adversarial import GradientReversal, gradient_reversal


def smooth(x: Tensor) -> Tensor:
    return (x.sin() * x.exp()).sum()


@given(strength=st.floats(0, 1e6), dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_reverses_exactly(strength: float, dtype: torch.dtype) -> None:
    x = torch.randn(5, 3, dtype=dtype, requires_grad=True)
    upstream = torch.randn(5, 3, dtype=dtype)
    y = gradient_reversal(x, strength)
    assert torch.equal(y, x)
    y.backward(upstream)
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert torch.equal(x.grad, -strength * upstream)


@pytest.mark.parametrize("strength", [0.7, torch.tensor(0.7, dtype=torch.float64)])
def test_second_derivatives(strength: Tensor | float) -> None:
    x = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert gradgradcheck(lambda x: gradient_reversal(x, strength), (x,))
    (first,) = torch.autograd.grad(smooth(gradient_reversal(x, strength)), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    truth = torch.autograd.functional.hessian(smooth, x.detach()).diagonal()
    assert torch.allclose(second, 0.7**2 * truth)


@pytest.mark.parametrize("strength", [2.0, torch.tensor(2.0)])
def test_forward_mode_and_transforms(strength: Tensor | float) -> None:
    x = torch.randn(6, dtype=torch.float64)

    def layer(x: Tensor) -> Tensor:
        return gradient_reversal(x, strength)

    value, tangent = jvp(layer, (x,), (torch.ones_like(x),))
    assert torch.equal(value, x)
    assert torch.equal(tangent, torch.full_like(x, -2.0))
    assert torch.equal(jacfwd(layer)(x), -2.0 * torch.eye(6, dtype=x.dtype))
    assert torch.equal(jacrev(layer)(x), jacfwd(layer)(x))
    rows = x.reshape(3, 2)
    assert torch.equal(vmap(grad(lambda row: smooth(layer(row))))(rows), -2.0 * vmap(grad(smooth))(rows))
    assert torch.isfinite(hessian(lambda x: smooth(layer(x)))(x)).all()


def test_module_keeps_its_strength_in_the_state() -> None:
    layer = GradientReversal(0.25)
    layer.set_strength(0.5)
    other = GradientReversal()
    other.load_state_dict(layer.state_dict())
    assert float(other.strength) == 0.5
    assert list(other.parameters()) == []


def test_a_graph_keeps_the_strength_it_was_built_with() -> None:
    layer = GradientReversal(1.0)
    x = torch.ones(2, requires_grad=True)
    y = layer(x).sum()
    layer.set_strength(100.0)
    y.backward()
    assert x.grad is not None
    assert x.grad.tolist() == [-1.0, -1.0]


def test_runs_compiled() -> None:
    x = torch.randn(4, requires_grad=True)
    layer = torch.compile(GradientReversal(3.0), backend="aot_eager", fullgraph=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [-3.0] * 4
