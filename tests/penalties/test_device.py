"""The same values on a GPU as on the host, with state on either."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import fairlayer as fl
from fairlayer.penalties import HSIC, MMD, AugmentedLagrangian, Excess, Penalty, fairret_penalty

pytestmark = pytest.mark.gpu

CONSTRAINTS = [fl.EqualizedOdds("a", 0.01), fl.CovarianceBound("s", 0.0), fl.MinimumRate("p", 0.6)]


def modules() -> list[Any]:
    penalties = [Penalty(CONSTRAINTS, norm) for norm in ("squared", "abs", "hinge", "logsumexp")]
    lagrangian = AugmentedLagrangian(CONSTRAINTS)
    return [*penalties, Penalty(CONSTRAINTS, threshold=0.5), Excess(CONSTRAINTS), lagrangian]


def on(device: str, module: Any, **arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    scores = torch.linspace(0.05, 0.95, 40).to(device).requires_grad_()
    moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    out = module(scores, **moved).square().sum()
    out.backward()
    assert scores.grad is not None
    assert scores.grad.device.type == out.device.type == device
    return out.detach().cpu(), scores.grad.cpu()


@pytest.mark.parametrize("move", [False, True])
def test_a_gpu_gives_what_the_host_gives(move: bool) -> None:
    features = {"a": torch.arange(40) % 3, "s": torch.randn(40), "p": torch.rand(40, 2).softmax(dim=1)}
    y = torch.arange(40) % 2
    pairs = list(zip(modules(), modules(), strict=True))
    pairs += [(m, m) for m in (HSIC("a"), HSIC("a", estimator="unbiased"), MMD("a"), MMD("a", given_label=True))]
    for here, given in pairs:
        there = given.cuda() if move else given
        for _ in range(2):
            expected = on("cpu", here, sensitive_features=features, y=y)
            there_features = {name: column.cuda() for name, column in features.items()}
            found = on("cuda", there, sensitive_features=there_features, y=y)
            for mine, theirs in zip(found, expected, strict=True):
                assert torch.allclose(mine, theirs, atol=1e-6)
            if isinstance(here, AugmentedLagrangian):
                here.update()
                there.update()
                assert there.multipliers.device.type == ("cuda" if move else "cpu")


def test_fairret_on_a_gpu() -> None:
    statistics = pytest.importorskip("fairret.statistic")
    module = fairret_penalty(statistics.FScore(), "a")
    y, features = torch.arange(40) % 2, {"a": torch.arange(40) % 3}
    expected, _ = on("cpu", module, sensitive_features=features, y=y)
    assert torch.allclose(on("cuda", module, sensitive_features=features, y=y)[0], expected)
