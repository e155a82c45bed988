"""An adversary inside activation checkpointing, which runs forwards again in the backward pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fairlayer.adversarial import Adversary, CaptureError


class Net(nn.Module):
    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Linear(3, 8), nn.ReLU())
        self.outer = nn.Linear(8, 1)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        if self.reentrant is None:
            return self.outer(self.inner(x))
        return self.outer(checkpoint(self.inner, x, use_reentrant=self.reentrant))


def batch() -> tuple[Tensor, dict[str, Tensor]]:
    return torch.randn(32, 3, generator=torch.Generator().manual_seed(1), requires_grad=True), {
        "sex": torch.arange(32) % 2
    }


def opposed(reentrant: bool | None, at: str = "inner") -> tuple[Net, Adversary]:
    net, (x, sex) = Net(reentrant), batch()
    torch.manual_seed(2)
    return net, Adversary(net, on="sex", sensitive_features=sex, example=x.detach(), at=at)


def gradient(reentrant: bool | None, at: str = "inner") -> Tensor:
    net, adversary = opposed(reentrant, at)
    x, sex = batch()
    (net(x).square().mean() + adversary.loss(sex)).backward()
    assert net.inner[0].weight.grad is not None
    return net.inner[0].weight.grad


def test_the_model_learns_the_same_with_and_without_checkpointing() -> None:
    torch.testing.assert_close(gradient(False), gradient(None))
    torch.testing.assert_close(gradient(True, at="outer"), gradient(None, at="outer"))


def test_the_reentrant_kind_is_refused_where_no_gradient_would_come() -> None:
    with pytest.raises(CaptureError, match="use_reentrant=False"):
        gradient(True)


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_was_run_again_cannot_be_read(reentrant: bool) -> None:
    net, adversary = opposed(reentrant)
    x, sex = batch()
    loss = net(x).square().mean()
    with torch.no_grad():
        adversary.loss(sex)  # a look, from which nothing is to learn
    loss.backward()
    with pytest.raises(CaptureError, match="was already read"):
        adversary.loss(sex)


def test_heads_alone_may_learn_from_a_forward_without_graph() -> None:
    net, adversary = opposed(None)
    x, sex = batch()
    with torch.no_grad():
        net(x)
    adversary.loss(sex).backward()
    assert all(part.grad is not None for part in adversary.parameters())
