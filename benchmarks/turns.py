"""Two sides measured in turns, on one thread: what the table of ratios times, and how.

Importing it sets one thread and loads the compiled sweeps. The sides take turns in blocks short enough to fall between
what else the machine does, and each keeps its best time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from machine import limit_threads

limit_threads(1)
os.environ.setdefault("FAIRLAYER_FUSED", "1")

import torch  # noqa: E402 - after the number of threads is set

import fairlayer as fl  # noqa: E402


class Empty(torch.autograd.Function):
    """What no layer can do without: one node of the graph and one copy."""

    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor) -> torch.Tensor:
        return scores.clone()

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return upstream


def best(first: Callable[[], Any], second: Callable[[], Any], block: int, rounds: int) -> tuple[float, float]:
    """Return the best time of each, in seconds per call, measured in turns."""
    found = [float("inf"), float("inf")]
    for _ in range(rounds):
        for side, call in enumerate((first, second)):
            start = time.perf_counter()
            for _ in range(block):
                call()
            found[side] = min(found[side], (time.perf_counter() - start) / block)
    return found[0], found[1]


def layer_and_batch(n: int, dtype: torch.dtype, options: dict[str, Any]) -> tuple[Any, torch.Tensor, Any]:
    """Return a layer that has met its groups, scores that break its limit, and the features."""
    generator = torch.Generator().manual_seed(0)
    sex = (torch.rand(n, generator=generator) < 0.4).long()
    scores = (torch.rand(n, dtype=dtype, generator=generator) * 0.9 + 0.05) * (1.0 - 0.2 * sex)
    layer = fl.FairProjection([fl.DemographicParity("sex", tolerance=0.02)], **options)
    return layer, scores.to(dtype).requires_grad_(), {"sex": sex}


def step_of(layer: Callable[..., torch.Tensor], scores: torch.Tensor, **given: Any) -> Callable[[], None]:
    """Return one forward and backward."""

    def step() -> None:
        scores.grad = None
        layer(scores, **given).sum().backward()

    return step
