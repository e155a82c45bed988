"""LipschitzFairness beside cvxpy and Clarabel built afresh, in one run.

    python benchmarks/individual.py [--rows 1000 3000 10000] [--neighbours 10]

The pairs are given to both, so that the search for neighbours is not timed. Times are of one processor, the better of
two. `alone` are the pairs by themselves, `ours` and `cvxpy` the pairs with a parity between groups that differ in the
columns, so that it binds. Ratios are this package's time over that of `Problem.solve`, which includes its translation:
below 1 is faster.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from machine import describe, header, limit_threads

limit_threads(1)  # before the libraries load

import cvxpy as cp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

import fairlayer as fl  # noqa: E402
from fairlayer.constraints.lipschitz import nearest  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 3000])
    parser.add_argument("--neighbours", type=int, default=10)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(header("Alike people, with a parity", describe(1, ("fairlayer", "torch", "numpy", "scipy", "clarabel"))))
    times = f"{'alone s':>9}{'ours s':>9}{'cvxpy s':>9}{'ratio':>8}"
    print(f"\n{'rows':>7}{'columns':>9}{'pairs':>9}{'hold':>7}{times}{'off':>10}")
    for n in asked.rows:
        for columns in (1, 2, 5):
            compare(n, columns, asked.neighbours)


def spent(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the processor time of the better of two calls, and what the last one returns."""
    times = []
    for _ in range(2):
        start = time.process_time()
        found = work()
        times.append(time.process_time() - start)
    return min(times), found


def compare(n: int, columns: int, neighbours: int) -> None:
    """Print one row: half of the raw pairs are further apart than the constant allows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, columns))
    z = 1 / (1 + np.exp(-(x[:, 0] + 0.5 * rng.normal(size=n))))
    near, sex = nearest(x, neighbours, standardise=False), (rng.random(n) < 1 / (1 + np.exp(-x[:, 0]))).astype(int)
    constant = float(np.median(np.abs(z[near.first] - z[near.second]) / near.distance))
    pairs = fl.LipschitzFairness(constant=constant, pairs=tuple(near))

    def projected(*more: Any) -> fl.Projection:
        return fl.project(torch.tensor(z), [pairs, *more], sensitive_features={"sex": sex}, bounds=(0.0, 1.0))

    alone, _ = spent(projected)
    ours, result = spent(lambda: projected(fl.DemographicParity("sex", 0.01)))
    y = cp.Variable(n)
    gap = ((sex == 0) / (sex == 0).sum() - (sex == 1) / (sex == 1).sum()) @ y
    limits = [cp.abs(y[near.first] - y[near.second]) <= constant * near.distance, cp.abs(gap) <= 0.01, y >= 0, y <= 1]
    theirs, _ = spent(lambda: cp.Problem(cp.Minimize(cp.sum_squares(y - z)), limits).solve(solver=cp.CLARABEL))
    off = float(np.abs(result.value.numpy() - y.value).max())
    assert result.certificate.holds
    row = f"{n:>7}{columns:>9}{len(near.first):>9}{len(result.active):>7}"
    print(f"{row}{alone:>9.2f}{ours:>9.2f}{theirs:>9.2f}{ours / theirs:>8.2f}{off:>10.1e}")


if __name__ == "__main__":
    main()
