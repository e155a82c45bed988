"""What a path of limits costs beside one projection, in processor time, in turns in one process.

    python benchmarks/path.py [--rows 10000 100000 1000000] [--limits 25] [--repeat 7]

`ratio` is the least time of the path over the least time of a projection at one limit, and `saved` how many times as
long as the path a projection at each of its limits takes, all with the compiled sweeps where these are installed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from machine import describe, header, limit_threads

limit_threads(1)  # before the libraries load

import numpy as np  # noqa: E402
import torch  # noqa: E402

import fairlayer as fl  # noqa: E402

Rules = Callable[[float], list[Any]]  # at a limit
RULES: dict[str, tuple[Rules, int]] = {
    "one parity, 2 groups": (lambda limit: [fl.DemographicParity("g", limit)], 2),
    "one parity, 10 groups": (lambda limit: [fl.DemographicParity("g", limit)], 10),
    "equalized odds, 4 groups": (lambda limit: [fl.EqualizedOdds("g", limit)], 4),
    "two parities, 2 and 3": (lambda limit: [fl.DemographicParity(name, limit) for name in ("g", "h")], 2),
}


def spent(work: Callable[[], object]) -> float:
    """Return the processor time of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measured(rules: Rules, groups: int, geometry: str, rows: int, asked: argparse.Namespace) -> tuple[float, ...]:
    """Return the least times of one projection, of a path, and of a projection at each of its limits."""
    rng = np.random.default_rng(0)
    y, grid = rng.integers(0, 2, rows), np.linspace(0.0, 0.2, asked.limits).tolist()
    features = {"g": rng.integers(0, groups, rows), "h": rng.integers(0, 3, rows)}
    z = np.clip(rng.beta(1.2, 1.5, rows) + 0.2 * features["g"] / groups, 0.001, 0.999)
    how: dict[str, Any] = {"sensitive_features": features, "y": y, "bounds": (0.0, 1.0), "geometry": geometry}
    turns = [
        (
            spent(lambda: fl.project(z, rules(0.02), **how).value),
            spent(lambda: fl.fairness_path(z, rules(0.02), grid, **how)),
            spent(lambda: [fl.project(z, rules(limit), **how).value for limit in grid]),
        )
        for _ in range(asked.repeat)
    ]
    return tuple(min(times) for times in zip(*turns, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--limits", type=int, default=25)
    parser.add_argument("--repeat", type=int, default=7)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    facts = describe(1, ("fairlayer", "torch", "numpy", "numba"))
    print(header(f"A path of {asked.limits} limits over one projection, float64", facts))
    for rows in asked.rows:
        print(f"\n{f'{rows:,} rows':<26}{'geometry':<12}{'one ms':>8}{'path ms':>9}{'ratio':>7}{'saved':>7}")
        for name, (rules, groups) in RULES.items():
            for geometry in ("euclidean", "entropic", "likelihood"):
                one, path, each = measured(rules, groups, geometry, rows, asked)
                row = f"{name:<26}{geometry:<12}{1e3 * one:>8.2f}{1e3 * path:>9.1f}{path / one:>7.1f}"
                print(f"{row}{each / path:>7.1f}", flush=True)


if __name__ == "__main__":
    main()
