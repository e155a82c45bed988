"""Several problems at once beside a Python loop over `project`, in one run.

    python benchmarks/several_problems.py [--problems 8 64 256] [--samples 256 1000 4096] [--repeat 3]

Times are of a forward and backward pass, the best of the repeats; `ratio` is the loop over the common call. The loop is
timed over up to --looped problems, and its time is scaled to all of them. `apart` is the largest difference between the
values of both, and `MiB` what the common call adds to the peak of the process's memory.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import fairlayer as fl

RULES = {
    "one parity, 2 groups": ([fl.DemographicParity("a", 0.02)], {"a": 2}),
    "one parity, 4 groups": ([fl.DemographicParity("a", 0.02)], {"a": 4}),
    "two parities": ([fl.DemographicParity("a", 0.02), fl.DemographicParity("b", 0.02)], {"a": 2, "b": 3}),
    "equalized odds": ([fl.EqualizedOdds("a", 0.05)], {"a": 2}),
    "one parity, 20 groups": ([fl.DemographicParity("a", 0.1)], {"a": 20}),
    "two parities, 20 groups": ([fl.DemographicParity("a", 0.1), fl.DemographicParity("b", 0.05)], {"a": 20, "b": 10}),
}


def best(work: Callable[[], object], repeat: int) -> float:
    """Return the least time of a call."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def peak() -> float:
    """Return the peak of this process's memory in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(name: str, geometry: str, shape: tuple[int, int], looped: int, repeat: int) -> str:
    """Return the line of one set of constraints."""
    (b, n), (rules, sizes) = shape, RULES[name]
    rng = np.random.default_rng(0)
    scores = torch.tensor(rng.random((b, n)), requires_grad=True)
    y = torch.tensor(rng.integers(0, 2, (b, n)), dtype=torch.float64)
    features = {key: torch.tensor(rng.integers(0, k, (b, n))) for key, k in sizes.items()}
    how: dict[str, Any] = {"bounds": (0.0, 1.0), "geometry": geometry, "on_infeasible": "relax"}
    found: list[fl.ManyProjections] = []

    def at_once() -> None:
        found[:] = [fl.project_many(scores, rules, sensitive_features=features, y=y, **how)]
        found[0].value.square().sum().backward()

    rows = min(b, looped)
    values: list[torch.Tensor] = []

    def loop() -> None:
        values.clear()
        for i in range(rows):
            columns = {key: column[i] for key, column in features.items()}
            value = fl.project(scores[i], rules, sensitive_features=columns, y=y[i], **how).value
            value.square().sum().backward()
            values.append(value.detach())

    before = peak()
    at_once()
    grown = peak() - before
    ours, theirs = best(at_once, repeat), best(loop, 1) * b / rows
    apart = float((torch.stack(values) - found[0].value[:rows].detach()).abs().max())
    times = f"{1e3 * ours:>11.1f}{1e3 * theirs:>9.0f}{theirs / ours:>7.1f}"
    return f"{name:<25}{geometry:<11}{b:>4}{n:>6}{times}{len(found[0].alone):>12}{apart:>9.0e}{grown:>7.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, nargs="+", default=[8, 64, 256])
    parser.add_argument("--samples", type=int, nargs="+", default=[256, 1000, 4096])
    parser.add_argument("--looped", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=3)
    asked = parser.parse_args()
    head = f"{'constraints':<25}{'geometry':<11}{'b':>4}{'n':>6}{'at once ms':>11}{'loop ms':>9}{'ratio':>7}"
    print(f"{head}{'one by one':>12}{'apart':>9}{'MiB':>7}")
    for b, n, name, geometry in itertools.product(asked.problems, asked.samples, RULES, ("euclidean", "entropic")):
        print(measured(name, geometry, (b, n), asked.looped, asked.repeat), flush=True)


if __name__ == "__main__":
    main()
