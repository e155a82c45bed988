"""What a path of limits costs beside one projection, in processor time, in turns in one process.

    python benchmarks/path.py [--rows 100000] [--limits 25] [--repeat 7]

`ratio` is the least time of the path over the least time of a projection at one limit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fairlayer as fl

RULES = {
    "one parity, 2 groups": (fl.DemographicParity("g", 0.02), 2),
    "one parity, 10 groups": (fl.DemographicParity("g", 0.02), 10),
    "equalized odds, 4 groups": (fl.EqualizedOdds("g", 0.02), 4),
}


def spent(work: Callable[[], object]) -> float:
    """Return the processor time of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--limits", type=int, default=25)
    parser.add_argument("--repeat", type=int, default=7)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    y, grid = rng.integers(0, 2, asked.rows), np.linspace(0.0, 0.2, asked.limits).tolist()
    print(f"{asked.rows} rows, {asked.limits} limits")
    print(f"{'constraint':<26}{'geometry':<12}{'one ms':>8}{'path ms':>9}{'ratio':>7}")
    for name, (rule, groups) in RULES.items():
        g = rng.integers(0, groups, asked.rows)
        z = np.clip(rng.beta(1.2, 1.5, asked.rows) + 0.2 * g / groups, 0.001, 0.999)
        for geometry in ("euclidean", "entropic", "likelihood"):
            how: dict[str, Any] = {"sensitive_features": {"g": g}, "y": y, "bounds": (0.0, 1.0), "geometry": geometry}

            def one(rule=rule, z=z, how=how) -> object:  # type: ignore[no-untyped-def]
                return fl.project(z, rule, **how).value

            def path(rule=rule, z=z, how=how) -> object:  # type: ignore[no-untyped-def]
                return fl.fairness_path(z, rule, grid, **how)

            turns = [(spent(one), spent(path)) for _ in range(asked.repeat)]
            single, whole = (min(times) for times in zip(*turns, strict=True))
            print(f"{name:<26}{geometry:<12}{1e3 * single:>8.2f}{1e3 * whole:>9.1f}{whole / single:>7.1f}", flush=True)


if __name__ == "__main__":
    main()
