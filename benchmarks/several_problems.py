"""Several problems at once beside a Python loop over `project`, in one run.

    python benchmarks/several_problems.py [--problems 256] [--samples 64] [--repeat 5]

Times are of a forward and backward pass, the best of the repeats; `ratio` is the loop over the common call.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

import fairlayer as fl

RULES = {
    "one parity, 2 groups": ([fl.DemographicParity("a", 0.02)], {"a": 2}),
    "one parity, 4 groups": ([fl.DemographicParity("a", 0.02)], {"a": 4}),
    "two parities": ([fl.DemographicParity("a", 0.02), fl.DemographicParity("b", 0.02)], {"a": 2, "b": 3}),
    "equalized odds": ([fl.EqualizedOdds("a", 0.05)], {"a": 2}),
}


def best(work: Callable[[], object], repeat: int) -> float:
    """Return the least time of a call."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=256)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=5)
    asked = parser.parse_args()
    b, n = asked.problems, asked.samples
    rng = np.random.default_rng(0)
    scores = torch.tensor(rng.random((b, n)), requires_grad=True)
    y = torch.tensor(rng.integers(0, 2, (b, n)), dtype=torch.float64)
    print(f"{b} problems of {n} samples, float64")
    print(f"{'constraints':<22}{'geometry':<12}{'at once ms':>11}{'loop ms':>9}{'ratio':>7}{'one by one':>12}")
    for name, (rules, sizes) in RULES.items():
        features = {key: torch.tensor(rng.integers(0, k, (b, n))) for key, k in sizes.items()}
        for geometry in ("euclidean", "entropic"):
            how = {"bounds": (0.0, 1.0), "geometry": geometry, "on_infeasible": "relax"}
            alone: list[int] = []

            def at_once(rules=rules, features=features, how=how, alone=alone) -> None:  # type: ignore[no-untyped-def]
                found = fl.project_many(scores, rules, sensitive_features=features, y=y, **how)
                alone[:] = sorted(found.alone)
                found.value.square().sum().backward()

            def loop(rules=rules, features=features, how=how) -> None:  # type: ignore[no-untyped-def]
                for i in range(b):
                    columns = {key: column[i] for key, column in features.items()}
                    value = fl.project(scores[i], rules, sensitive_features=columns, y=y[i], **how).value
                    value.square().sum().backward()

            ours, theirs = best(at_once, asked.repeat), best(loop, 1)
            times = f"{1e3 * ours:>11.1f}{1e3 * theirs:>9.0f}{theirs / ours:>7.1f}"
            print(f"{name:<22}{geometry:<12}{times}{len(alone):>12}")


if __name__ == "__main__":
    main()
