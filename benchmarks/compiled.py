"""Time the compiled sweeps against what they stand beside: an empty autograd.Function, a copy, the bare network.

    python benchmarks/compiled.py [--quick]

One parity between two groups, given as a dict with an int64 tensor, on one thread. Each row is a ratio of best times of
this run: the two sides take turns, in blocks short enough to fall between what else the machine does.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from machine import describe, header, limit_threads

limit_threads(1)
os.environ.setdefault("FAIRLAYER_FUSED", "1")

import torch  # noqa: E402 - after the number of threads is set
from torch import nn  # noqa: E402

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


def calls(rounds: int) -> None:
    """Print the whole call at n = 256, and the same at a million in copies."""
    for dtype in (torch.float32, torch.float64):
        for name, options in (("euclidean", {"bounds": (0.0, 1.0)}), ("entropic", {"geometry": "entropic"})):
            layer, scores, features = layer_and_batch(256, dtype, options)
            ours = step_of(layer, scores, sensitive_features=features)
            for _ in range(70):
                ours()
            mine, empty = best(ours, step_of(Empty.apply, scores), 30, rounds)
            print(f"n = 256, {dtype}, {name:<10} over an empty Function {mine / empty:8.2f}   ({mine * 1e6:.1f} us)")
    times = {}
    for name, options in (("euclidean", {"bounds": (0.0, 1.0)}), ("entropic", {"geometry": "entropic"})):
        layer, scores, features = layer_and_batch(1_000_000, torch.float32, options)
        ours, ready = step_of(layer, scores, sensitive_features=features), torch.empty(1_000_000)
        for _ in range(9):
            ours()
        mine, copy = best(ours, lambda s=scores, r=ready: r.copy_(s.detach()), 2, max(8, rounds // 4))
        times[name] = mine
        print(f"n = 1e6, float32, {name:<10} in copies into a ready buffer {mine / copy:8.1f}   ({mine * 1e3:.2f} ms)")
    print(f"n = 1e6, float32, entropic over euclidean {times['entropic'] / times['euclidean']:28.2f}")


def training(rounds: int) -> None:
    """Print a training step of a small network, batch 256, over the bare one."""

    def network() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid())

    x, y, sex = torch.randn(256, 30), torch.randint(0, 2, (256, 1)).float(), torch.arange(256) % 2
    model = fl.FairModel(network(), [fl.DemographicParity("sex", tolerance=0.02)], bounds=(0.0, 1.0), margin=1e-3)
    for optimiser in (torch.optim.SGD, torch.optim.Adam):
        steps = []
        for net, given in ((model, {"sensitive_features": {"sex": sex}}), (network(), {})):
            updates: Any = optimiser(net.parameters(), lr=1e-3)

            def step(net: Any = net, given: Any = given, updates: Any = updates) -> None:
                updates.zero_grad()
                nn.functional.binary_cross_entropy(net(x, **given), y).backward()
                updates.step()

            steps.append(step)
        for _ in range(40):
            steps[0]()
        ours, plain = best(steps[0], steps[1], 10, rounds)
        print(f"training step, MLP 30-64-32-1, batch 256, {optimiser.__name__:<5} over plain {ours / plain:13.3f}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds")
    rounds = 30 if parser.parse_args(argv).quick else 200
    torch.set_num_threads(1)
    print(header("Compiled sweeps", describe(1, ["fairlayer", "torch", "numpy", "numba"])), end="\n\n")
    calls(rounds)
    training(rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
